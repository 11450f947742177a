"""Server-sent events: bytes in, events out, wherever the bytes were split.

Source: the WHATWG standard, "Interpreting an event stream": lines end in LF, CR or CRLF; comments and unknown fields
are passed over; `data` lines are joined by LF; an event without data is none. What is no UTF-8 becomes U+FFFD.
"""

from __future__ import annotations

import msgspec

# One event, at most. A ChatCompletion as a whole is far smaller.
MOST_BYTES = 2 << 20
_BOM = b"\xef\xbb\xbf"


class Message(msgspec.Struct, frozen=True, gc=False):
    """One event: its name ("" where it has none) and its data."""

    name: str
    data: str


class Parser:
    """One stream. Any bytes may come in, nothing is raised. `is_overflowed`: an event had no end within `most_bytes`,
    and what came after it is lost."""

    __slots__ = ("_data", "_held", "_is_after_cr", "_is_first", "_most_bytes", "_name", "_rest", "is_overflowed")

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._rest = bytearray()  # of a line that has not ended
        self._is_after_cr = False
        self._is_first = True
        self._name = b""
        self._data: list[bytes] = []
        self._held = 0
        self.is_overflowed = False

    def feed(self, chunk: bytes) -> list[Message]:
        """The events that end in `chunk`, in order."""
        found: list[Message] = []
        if not chunk or self.is_overflowed:
            return found
        if self._is_after_cr:  # the line ended already: this LF is the other half of its CRLF
            chunk = chunk.removeprefix(b"\n")
        self._is_after_cr = False
        for raw in chunk.splitlines(keepends=True):
            line = raw.rstrip(b"\r\n")
            if len(self._rest) + len(line) + self._held > self._most_bytes:
                self._give_up()
                return found
            if len(line) == len(raw):
                self._rest += raw
                return found
            if self._rest:
                line = bytes(self._rest + line)
                self._rest.clear()
            self._take(line, found)
        self._is_after_cr = chunk.endswith(b"\r")
        return found

    def finish(self) -> list[Message]:
        """The stream has ended: the event that only lacked its end, where there is one."""
        found: list[Message] = []
        if not self.is_overflowed:
            self._take(bytes(self._rest), found)
            self._take(b"", found)
        return found

    def _take(self, line: bytes, found: list[Message]) -> None:
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                data = b"\n".join(self._data).decode("utf-8", "replace")
                found.append(Message(self._name.decode("utf-8", "replace"), data))
            self._name, self._data, self._held = b"", [], 0
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._held += len(line)
        elif field == b"event":
            self._name = value.removeprefix(b" ")

    def _give_up(self) -> None:
        self.is_overflowed = True
        self._rest.clear()
        self._data.clear()
