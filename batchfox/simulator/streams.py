"""Server-sent events of a streamed task: named events, paced by the task's own clock, replayed on every connection."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from batchfox.simulator import answers, tasks
from batchfox.simulator.answers import Brief
from batchfox.simulator.refusal import RefusalError
from batchfox.simulator.scribe import Scribe, Style
from batchfox.simulator.tasks import Task
from batchfox.simulator.wire import drop
from batchfox.simulator.world import World

_WORDS_A_CHUNK = 3


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that ended. `is_whole`: the client was sent `done`."""

    response: web.StreamResponse
    is_whole: bool


class Streams:
    """`GET /v1/llm/generations/{id}/stream`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def get(self, request: web.Request) -> web.StreamResponse:
        """The events of a task that was submitted with `stream=true`, from the first one on."""
        self._world.book.stream_opened()
        task = self._world.find_task(request.match_info["id"], self._world.now())
        if not task.has_stream:
            raise RefusalError(404, "not_found", f"Task {task.id} has no stream", code="not_found")
        if self._world.is_struck("stream_refused", *task.key, task.streams + 1):
            task.streams += 1
            raise RefusalError(503, "service_unavailable", "Streams are unavailable", code="service_unavailable")
        return (await tell(self._world, request, task)).response


async def tell(world: World, request: web.Request, task: Task) -> Told:
    """Tells the task's events as its clock allows, with the faults drawn for this connection."""
    task.streams += 1
    world.touch(task)
    words = (*task.key, task.streams)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    scribe = Scribe(response, _style(world, words), words)
    if world.is_struck("stream_task", *words):
        await scribe.event("task", tasks.submitted(task))
    said = chunks(task.brief, is_thinking=_is_thinking(world, task.brief))
    for index, chunk in enumerate(said):
        if index == len(said) // 2:
            if task.fate in ("stuck", "task_failed", "task_rejected"):
                return await _fail(world, request, scribe, response, task)
            if (told := await _break(world, request, scribe, response, words)) is not None:
                return told
        due = task.created + task.latency_s * (index + 1) / len(said)
        if not await world.nap(due - world.now()):
            return Told(response=drop_after(request, response), is_whole=False)
        await scribe.chunk(chunk)
    await scribe.done(len(said))
    return Told(response=response, is_whole=True)


def _style(world: World, words: tuple[str | int, ...]) -> Style:
    names = Style.__struct_fields__
    return Style(**{name: world.is_struck(f"stream_{name}", *words) for name in names})


async def _break(
    world: World, request: web.Request, scribe: Scribe, response: web.StreamResponse, words: tuple[str | int, ...]
) -> Told | None:
    """What may go wrong half-way; None where the stream goes on all the same."""
    if world.is_struck("stream_cut", *words):
        return Told(response=drop_after(request, response), is_whole=False)
    if world.is_struck("stream_end", *words):
        return Told(response=response, is_whole=False)
    if world.is_struck("stream_hang", *words):
        await world.stopping.wait()
        return Told(response=drop_after(request, response), is_whole=False)
    if world.is_struck("stream_error", *words):
        await scribe.event("error", {"message": "The upstream closed the stream"})
        return Told(response=response, is_whole=False)
    if world.is_struck("stream_scrap", *words):
        await scribe.scrap(b'{"choices": [{"del')
    if world.is_struck("stream_slow", *words):
        await world.nap(world.settings.slow_s)
    return None


async def _fail(world: World, request: web.Request, scribe: Scribe, response: web.StreamResponse, task: Task) -> Told:
    """The end of a task that has no good one: an error when it fails, silence for one that is stuck."""
    if not await world.nap(task.finish_at - world.now()):
        return Told(response=drop_after(request, response), is_whole=False)
    await scribe.event("error", tasks.failure(task))
    return Told(response=response, is_whole=False)


def drop_after(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Closes the connection after what was written, without the end of the body."""
    drop(request)
    return response


def _is_thinking(world: World, brief: Brief) -> bool:
    """A thinking model thinks unless it is told not to, another one only where it is told to."""
    model = world.catalogue.find(brief.model)
    return bool(model and model.is_thinking) if brief.reasoning is None else brief.reasoning


def chunks(brief: Brief, *, is_thinking: bool) -> list[dict[str, Any]]:
    """All `chat.completion.chunk`s: the role, the reasoning where there is some, the text, the end with the usage."""
    deltas: list[dict[str, str]] = [{"role": "assistant"}]
    if is_thinking:
        deltas += [{"reasoning_content": piece} for piece in _pieces(answers.reasoning(brief))]
    deltas += [{"content": piece} for piece in _pieces(answers.content(brief))]
    said = [_chunk(brief, delta, None) for delta in deltas]
    return [*said, _chunk(brief, {}, answers.finish_reason(brief)) | {"usage": answers.usage(brief)}]


def _chunk(brief: Brief, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{brief.digest[:24]}",
        "object": "chat.completion.chunk",
        "created": answers.created(brief),
        "model": brief.model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }


def _pieces(text: str) -> list[str]:
    """The text cut after every few words; joined they are the text again."""
    words = text.split(" ")
    groups = [words[start : start + _WORDS_A_CHUNK] for start in range(0, len(words), _WORDS_A_CHUNK)]
    return [" ".join(group) + (" " if index < len(groups) - 1 else "") for index, group in enumerate(groups)]
