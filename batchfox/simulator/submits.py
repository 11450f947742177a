"""`POST /v1/llm/generations`: the one call that costs."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from batchfox.simulator import answers, tasks
from batchfox.simulator.answers import Brief
from batchfox.simulator.arrivals import URL, arrivals
from batchfox.simulator.checks import check, parse
from batchfox.simulator.draws import digest_of
from batchfox.simulator.faults import Fault
from batchfox.simulator.refusal import RefusalError, invalid
from batchfox.simulator.streams import tell
from batchfox.simulator.tasks import Fate, Task
from batchfox.simulator.wire import broken, drop, refuse, reply, send
from batchfox.simulator.world import World


class Submits:
    """Takes submits: checks, reserves, draws the fault, makes the task, answers, in this order."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def post(self, request: web.Request) -> web.StreamResponse:
        """One submit. Raises RefusalError where no task is made."""
        world = self._world
        world.admit_submit(world.now())
        asked, body_bytes = await self._read(request)
        check(asked, world.catalogue, body_bytes=body_bytes)
        world.admit_model(asked["model"], world.now())
        brief = answers.brief(asked, digest_of(asked), arrivals(asked, world.find_upload))
        reserved = world.reserve(brief, world.now())
        number = world.next_number(brief.digest)
        fault = world.strike("submit", brief.digest, number)
        if fault is not None and fault.name == "refuse_unfetched" and URL not in brief.media:
            fault = None
        fate = world.fate_of(brief, number)
        is_sync, has_stream = bool(asked.get("sync")), bool(asked.get("stream"))
        if fault is not None and not fault.is_task_made:
            return await self._refuse(request, fault, brief, number)
        if fate == "task_rejected" and is_sync and not has_stream:
            # A 422 tells the client that nothing was billed: then nothing is.
            world.note_refused(brief.digest, number)
            raise invalid("The request was rejected by the content policy")
        if fate == "media_unfetched" and is_sync and not has_stream:
            world.note_refused(brief.digest, number)
            raise invalid(tasks.UNFETCHED, "media_download_failed")
        task = world.open_task(brief, number, reserved, fate, fault, has_stream=has_stream)
        if fault is not None and fault.way != "slow":
            return await broken(world, request, fault, tasks.submitted(task))
        if fault is not None and not await world.nap(world.settings.slow_s):
            return drop(request)
        return await self._answer(request, task, is_sync=is_sync)

    async def _read(self, request: web.Request) -> tuple[dict[str, Any], int]:
        """The body as an object, and its size."""
        if request.content_type.startswith(("multipart/", "application/x-www-form-urlencoded")):
            raise invalid(f"body: expected application/json, found {request.content_type}", "unsupported_content_type")
        try:
            body = await request.read()
        except (ConnectionError, asyncio.CancelledError):
            self._world.book.submit_refused("incomplete")
            raise
        return parse(body), len(body)

    async def _refuse(self, request: web.Request, fault: Fault, brief: Brief, number: int) -> web.StreamResponse:
        is_answered = fault.way in ("error", "html", "redirect")
        self._world.book.submit_refused(str(fault.status) if is_answered else fault.way)
        self._world.note_refused(brief.digest, number)
        return await broken(self._world, request, fault, {})

    async def _answer(self, request: web.Request, task: Task, *, is_sync: bool) -> web.StreamResponse:
        world = self._world
        if is_sync and task.has_stream:
            response = await tell(world, request, task)
            task.is_answered = response.is_whole
            world.touch(task)
            return response.response
        if is_sync and not await world.nap(task.finish_at - world.now()):
            return drop(request)
        answer = _whole(task) if is_sync else reply(tasks.submitted(task))
        task.is_answered = await send(request, answer)
        world.touch(task)
        return answer


def _whole(task: Task) -> web.Response:
    """The answer to a synchronous submit once its task has ended."""
    fate: Fate = task.fate
    if fate == "task_failed":
        said = tasks.failure(task)
        return refuse(RefusalError(500, "server_error", said["message"], code=said["code"]))
    if fate == "expired":
        return refuse(RefusalError(504, "server_error", "The task was lost upstream"))
    return reply(answers.completion(task.brief))
