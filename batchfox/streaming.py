"""Streamed rows: the POST, then the stream of its task, heard to its end in the same coroutine.

With `sync` the POST's reply is the stream itself. A task's id counts from the moment that the stream names it: from
then on the row is RUNNING and on record, and whatever breaks, it is polled and never POSTed again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from batchfox.core.chunks import Ear
from batchfox.core.completion import read_answer
from batchfox.core.dispatch import Fleet
from batchfox.core.event import Accepted, Answer, Answered, ApiError, Doubted, Streamed, StreamEnd, SubmitEvent
from batchfox.core.lifecycle import Life
from batchfox.core.timing import retry_delay_s
from batchfox.crew import Crew

if TYPE_CHECKING:
    from batchfox.api import Listener

NOT_OFFERED = ApiError(code="no_stream", type="connection", message="the API offered no stream of this task")
LEFT = ApiError(code="interrupted", type="connection", message="the run ended while the stream was open")
CUT = ApiError(code="stream_broken", type="connection", message="the stream ended before it had told all")

# A stream that is refused for the moment is asked for so often in all; then its task is polled.
OPENINGS = 3

_Reply = TypeVar("_Reply", bound=SubmitEvent | StreamEnd)


class Streamer(Protocol):
    """The API's streams. `hide`: the text without the key."""

    async def submit(self, body: bytes, *, is_sync: bool) -> SubmitEvent: ...
    async def submit_streamed(self, body: bytes, listener: Listener) -> SubmitEvent | StreamEnd: ...
    async def listen(self, path: str, listener: Listener) -> StreamEnd: ...
    def hide(self, text: str) -> str: ...


class Streams:
    """Hears streams. `note`: told of each that is over."""

    def __init__(self, fleet: Fleet, crew: Crew, *, sender: Streamer, note: Callable[[Life, Streamed], None]) -> None:
        self._fleet = fleet
        self._crew = crew
        self._sender = sender
        self._note = note
        self._most_held = fleet.orders.bytes_in_flight
        self._held = 0
        self._open = 0

    async def submit(self, life: Life, body: bytes, posted: Callable[[], None]) -> None:
        """POSTs the row, and hears what its task streams. `posted`: called once the body is not needed any more."""
        if life.is_sync:
            event = await self._submit_sync(life, body, posted)
        else:
            event = await self._sender.submit(body, is_sync=False)
            posted()
        if event is None:
            return
        self._crew.receive(life, event)
        if isinstance(event, Accepted) and self._fleet.is_streaming(life, event.task_id):
            line = _Line(self, life, event.task_id)
            if event.stream is None:
                self.end(line, NOT_OFFERED)
            else:
                await self._follow(line, self._listen(line, event.stream))

    async def _listen(self, line: _Line, path: str) -> StreamEnd:
        """Hears the stream at `path`. One that did not even begin has told nothing yet: it is asked for again."""
        for times in range(1, OPENINGS):
            end = await self._sender.listen(path, line)
            if not end.may_open_again:
                return end
            await asyncio.sleep(retry_delay_s(times, random.random(), end.retry_after_s))
            if not self.goes_on(line):
                return end
        return await self._sender.listen(path, line)

    async def _submit_sync(self, life: Life, body: bytes, posted: Callable[[], None]) -> SubmitEvent | None:
        """The event of a POST that is answered by its stream; None where the stream named the task meanwhile."""
        line = _Line(self, life, None, posted)
        reply = await self._follow(line, self._sender.submit_streamed(body, line))
        line.note_posted()
        if not isinstance(reply, StreamEnd):
            return reply
        if line.task_id is not None:
            return None
        if (answer := self._answer(line.ear)) is not None:
            return Answered(answer=answer, http_status=reply.http_status)
        return Doubted(error=self._why(line.ear, reply.error), http_status=reply.http_status)

    async def _follow(self, line: _Line, hearing: Awaitable[_Reply]) -> _Reply:
        """Hears a line to its end. Where the run leaves in the middle, what was heard is kept all the same."""
        self._open += 1
        try:
            reply = await hearing
        except asyncio.CancelledError:
            self.end(line, LEFT)
            raise
        finally:
            self._open -= 1
            self._held -= line.weight
        if isinstance(reply, StreamEnd):
            self.end(line, reply.error)
        return reply

    def weigh(self, line: _Line) -> None:
        """All streams together hold no more than what may be in flight: past that, one that holds more than its share
        is heard no further, unless only it knows of a task."""
        self._held += line.ear.fold.held - line.weight
        line.weight = line.ear.fold.held
        share = self._most_held / max(self._open, 1)
        if self._held > self._most_held and line.weight > share and line.task_id is not None:
            line.ear.give_up(f"all streams together told more than {self._most_held:,} characters")

    def goes_on(self, line: _Line) -> bool:
        """Is the stream worth hearing on? The first time that it names its task, the task is the row's."""
        named = line.ear.fold.task_id
        if line.task_id is None:
            if named is None:
                return True
            line.task_id = named
            self._crew.receive(line.life, Accepted(task_id=named))
        return self._fleet.is_streaming(line.life, line.task_id)

    def end(self, line: _Line, error: ApiError | None) -> None:
        """A stream is over. Nothing happens where its row is, or where no task was named."""
        life = line.life
        if line.task_id is None or not self._fleet.is_streaming(life, line.task_id):
            return
        answer = self._answer(line.ear)
        why = None if answer is not None else self._why(line.ear, error)
        event = Streamed(reasoning=self._sender.hide(line.ear.fold.reasoning), answer=answer, error=why)
        self._note(life, event)
        self._crew.receive(life, event)

    def _answer(self, ear: Ear) -> Answer | None:
        """What was heard, where it is all."""
        told = ear.fold.completion() if ear.fold.is_whole else None
        return None if told is None else read_answer(self._sender.hide(told.decode()).encode(), ear.fold.charge)

    def _why(self, ear: Ear, error: ApiError | None) -> ApiError:
        """Why it was not all: the stream's own word goes before the connection's."""
        found = ear.fold.error or error or CUT
        return msgspec.structs.replace(found, message=self._sender.hide(found.message or ""))


class _Line:
    """One stream being heard. `task_id`: the task's, None as long as nobody has named it."""

    def __init__(self, streams: Streams, life: Life, task_id: str | None, posted: Callable[[], None] | None = None):
        self._streams = streams
        self.life = life
        self.task_id = task_id
        self.ear = Ear()
        self.weight = 0
        self._posted = posted

    def hear(self, chunk: bytes) -> bool:
        """What came next; True once it has heard enough."""
        self.note_posted()
        self.ear.hear(chunk)
        is_wanted = self._streams.goes_on(self)
        self._streams.weigh(self)
        return not is_wanted or self.ear.fold.is_over

    def close(self) -> None:
        """The end came."""
        self.ear.close()
        self._streams.goes_on(self)

    def note_posted(self) -> None:
        """The API has the body."""
        if self._posted is not None:
            self._posted()
            self._posted = None
