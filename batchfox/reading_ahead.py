"""The next lines of a file, taken in a thread while those before them are looked up.

SQLite lets go of the interpreter for each look-up, which for rows that are done takes longer than to read them. So
reading them beside it costs no time: of a run that is resumed at half a million rows, a third.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from batchfox.records import Record
from batchfox.skimming import Line, Reading


class Ahead:
    """A `Reading` whose lines can be made into records at any time, not only right after they were taken."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._asked = (1, 1)
        self._coming: Future[tuple[list[Line], list[bytes] | None]] | None = None
        self._keys: list[bytes] | None = None
        self._keyed: Sequence[Line] = ()
        self._taker = 0

    def take(self, most: int, most_bytes: int) -> list[Line]:
        """Lines that are there already are all given, whatever is asked for now."""
        self._asked = most, most_bytes
        if self._coming is None:
            return self._reading.take(most, most_bytes)
        coming, self._coming = self._coming, None
        self._keyed, self._keys = coming.result()
        return self._keyed

    def keys(self, lines: Sequence[Line]) -> list[bytes] | None:
        """Who asks for them looks them up: meanwhile the next lines are taken."""
        keys = self._keys if lines is self._keyed else self._reading.keys(lines)
        self._coming = self._thread.submit(self._take)
        return keys

    def _take(self) -> tuple[list[Line], list[bytes] | None]:
        self._taker = threading.get_ident()
        lines = self._reading.take(*self._asked)
        return lines, self._reading.keys(lines)

    def raw(self, lines: Sequence[Line]) -> list[bytes] | None:
        return self._reading.raw(lines)

    def records(self, lines: Sequence[Line]) -> Iterator[Record]:
        return self._reading.records(lines)

    def close(self) -> None:
        """What is being read is waited for, but not by the thread that reads it, which may be the one to collect a pass
        that was given up: then the file is closed once nobody holds it."""
        is_own = threading.get_ident() == self._taker
        self._thread.shutdown(wait=not is_own)
        if not is_own:
            self._reading.close()
