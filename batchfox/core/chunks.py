"""A streamed answer: `chat.completion.chunk`s in, a ChatCompletion out. Any events may come in, nothing is raised.

Source: api.md "Stream". Events named `chunk`, or not named, are chunks; `done` or `[DONE]` is the end, `error` the bad
one; events of other names say nothing of the answer. A task's id may come with any of them.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from batchfox.core.completion import charge_of
from batchfox.core.event import ApiError
from batchfox.core.sse import Message, Parser
from batchfox.core.wire import error_of

# What one stream may tell: more is no answer, and thousands of streams are heard at once.
MOST_CHARACTERS = 4 << 20
MOST_CHOICES = 128
DONE = "[DONE]"
_CHUNK_NAMES = ("", "chunk", "message")
_TASK_OBJECT = "llm.generation.task"
# Of a delta, what grows piece by piece; of anything else the last word counts.
_GROWING = ("content", "reasoning_content", "refusal")
# Pieces are joined now and then: a short text takes several times its length.
_MOST_PIECES = 256


class _Text:
    """Text that comes in pieces."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        if len(self._pieces) > _MOST_PIECES:
            self._pieces = ["".join(self._pieces)]

    def whole(self) -> str:
        """UTF-8 can hold it: halves of a surrogate pair that came in two pieces are one letter, others are U+FFFD."""
        text = "".join(self._pieces)
        if text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text):
            return text
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _Choice:
    """One choice so far."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {"role": "assistant"}
        self.texts: dict[str, _Text] = {}
        self.calls: dict[int, tuple[dict[str, Any], _Text]] = {}
        self.finish_reason: str | None = None

    def told(self, index: int) -> dict[str, Any]:
        """As it stands in a ChatCompletion."""
        message = {**self.message, "content": None} | {name: text.whole() for name, text in self.texts.items()}
        if self.calls:
            message["tool_calls"] = [_told_call(*self.calls[at]) for at in sorted(self.calls)]
        return {"index": index, "message": message, "finish_reason": self.finish_reason}


def _told_call(call: dict[str, Any], arguments: _Text) -> dict[str, Any]:
    function = {name: call[name] for name in ("name",) if name in call} | {"arguments": arguments.whole()}
    return {name: call[name] for name in ("id", "type") if name in call} | {"function": function}


class Fold:
    """What one stream has told so far.

    `held`: characters of it, about. `task_id`: the task's, once the stream has named it. `is_over`: nothing more is to
    be expected. `error`: why it ended badly, as the stream itself says.
    """

    def __init__(self, most_characters: int = MOST_CHARACTERS) -> None:
        self._most = most_characters
        self.held = 0
        self._frame: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._chunks = 0
        self._is_done = False
        self._is_damaged = False
        self.task_id: str | None = None
        self.is_over = False
        self.error: ApiError | None = None

    @property
    def is_whole(self) -> bool:
        """Has all been told? So where the stream says that it is done, or why each choice ended."""
        if self.error is not None or self._is_damaged or 0 not in self._choices:
            return False
        return self._is_done or all(choice.finish_reason for choice in self._choices.values())

    @property
    def reasoning(self) -> str:
        """That of the first choice."""
        choice = self._choices.get(0)
        text = choice.texts.get("reasoning_content") if choice else None
        return text.whole() if text else ""

    @property
    def charge(self) -> float | None:
        """Credits, where the stream tells them."""
        return charge_of(self._frame.get("usage"), final=True)

    def completion(self) -> bytes | None:
        """The ChatCompletion as JSON, as far as it was told; None where nothing of it was."""
        if 0 not in self._choices:
            return None
        choices = [self._choices[index].told(index) for index in sorted(self._choices)]
        told = {**self._frame, "object": "chat.completion", "choices": choices}
        try:
            return msgspec.json.encode(told)
        except (UnicodeEncodeError, OverflowError, RecursionError):
            return json.dumps(told).encode()

    def take(self, message: Message) -> None:
        """The next event."""
        if self.is_over:
            return
        if message.data.strip() == DONE:
            self.is_over = self._is_done = True
            return
        value = _decode(message.data)
        if isinstance(value, dict):
            self._note_task(value)
        if message.name == "done":
            self._end(value)
        elif message.name == "error" or (message.name in _CHUNK_NAMES and _is_error(value)):
            inner = value.get("error") if isinstance(value, dict) else None
            self.break_off(error_of(inner or value or message.data, default_code="stream_error"))
        elif message.name in _CHUNK_NAMES:
            self._take_chunk(value, len(message.data))

    def break_off(self, error: ApiError) -> None:
        """The stream ends here, and not well."""
        self.error = error
        self.is_over = True

    def _end(self, value: Any) -> None:
        """`done`. Where more chunks were sent than came here, what was told is not all."""
        self.is_over = self._is_done = True
        total = value.get("total_chunks") if isinstance(value, dict) else None
        if isinstance(total, int) and total > self._chunks:
            said = f"the stream had {total} chunks, {self._chunks} of them came here"
            self.break_off(ApiError(code="stream_incomplete", type="connection", message=said))

    def _note_task(self, value: dict[str, Any]) -> None:
        if self.task_id is not None:
            return
        is_task = value.get("object") == _TASK_OBJECT
        for named, is_id in ((value.get("task_id"), True), (value.get("id"), is_task)):
            if isinstance(named, str) and named and (is_id or named.startswith("task-")) and _is_unicode(named):
                self.task_id = named
                return

    def _take_chunk(self, value: Any, size: int) -> None:
        if not isinstance(value, dict):
            self._is_damaged = True
            return
        choices = value.get("choices")
        if not isinstance(choices, list):
            return
        self._chunks += 1
        for name in ("id", "created", "model", "usage", "system_fingerprint", "service_tier"):
            if value.get(name) is not None:
                self._frame[name] = value[name]
        for choice in choices:
            self._take_choice(choice, size)

    def _take_choice(self, value: Any, size: int) -> None:
        index = value.get("index", 0) if isinstance(value, dict) else None
        if not isinstance(index, int) or not 0 <= index < MOST_CHOICES:
            self._is_damaged = True
            return
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
        if isinstance(value.get("finish_reason"), str):
            choice.finish_reason = value["finish_reason"]
        delta = value.get("delta")
        for name, piece in delta.items() if isinstance(delta, dict) else ():
            if isinstance(piece, str) and name in _GROWING:
                self._hold(len(piece))
                text = choice.texts.get(name)
                if text is None:
                    text = choice.texts[name] = _Text()
                text.add(piece)
            elif name == "tool_calls" and isinstance(piece, list):
                self._hold(size)
                for call in piece:
                    self._take_call(choice, call)
            elif piece is not None and choice.message.get(name) != piece:
                self._hold(size)
                choice.message[name] = piece

    def _take_call(self, choice: _Choice, value: Any) -> None:
        index = value.get("index", 0) if isinstance(value, dict) else None
        if not isinstance(index, int) or not 0 <= index < MOST_CHOICES:
            self._is_damaged = True
            return
        call, arguments = choice.calls.setdefault(index, ({}, _Text()))
        function = value.get("function")
        function = function if isinstance(function, dict) else {}
        for name, said in (("id", value.get("id")), ("type", value.get("type")), ("name", function.get("name"))):
            if isinstance(said, str):
                call[name] = said
        if isinstance(function.get("arguments"), str):
            arguments.add(function["arguments"])

    def _hold(self, size: int) -> None:
        self.held += size
        if self.held > self._most:
            said = f"the stream told more than {self._most:,} characters"
            self.break_off(ApiError(code="stream_too_long", type="connection", message=said))


class Ear:
    """Hears a stream: bytes in, what they tell in `fold`."""

    def __init__(self, *, most_bytes: int | None = None, most_characters: int = MOST_CHARACTERS) -> None:
        self._parser = Parser() if most_bytes is None else Parser(most_bytes)
        self.fold = Fold(most_characters)

    def give_up(self, why: str) -> None:
        """Hears no more of it: it tells too much."""
        if not self.fold.is_over:
            self.fold.break_off(ApiError(code="stream_too_long", type="connection", message=why))

    def hear(self, chunk: bytes) -> bool:
        """Takes the bytes that came next; True once it has heard enough."""
        self._take(self._parser.feed(chunk))
        if self._parser.is_overflowed:
            self.give_up("an event of the stream has no end")
        return self.fold.is_over

    def close(self) -> None:
        """The stream has come to its end."""
        self._take(self._parser.finish())

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            self.fold.take(message)


def _is_error(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.get("error")) and not value.get("choices")


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _decode(data: str) -> Any:
    """The JSON in `data`; None where it is none, which no event says in earnest."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        try:  # lone surrogates: half of a letter whose other half comes next
            return json.loads(data)
        except (ValueError, RecursionError):
            return None
