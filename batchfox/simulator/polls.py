"""`GET /v1/tasks/{id}`: free, repeatable, and now and then not what was hoped for."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from batchfox.simulator import tasks
from batchfox.simulator.draws import number_of
from batchfox.simulator.tasks import Task
from batchfox.simulator.wire import broken, reply
from batchfox.simulator.world import World

# The first polls of a task with an unknown status see it even where the task is done already.
_UNKNOWN_POLLS = 2


class Polls:
    """Answers polls by the clock."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def get(self, request: web.Request) -> web.StreamResponse:
        """One poll. Without `sync_upstream` the answer is `cache_lag_s` old."""
        world = self._world
        now = world.now()
        world.book.poll_arrived()
        world.admit_poll(now)
        task = world.find_task(request.match_info["id"], now)
        task.polls += 1
        world.touch(task)
        is_fresh = request.query.get("sync_upstream", "").lower() in ("true", "1")
        said = self._said(task, now, is_fresh=is_fresh)
        if fault := world.strike("poll", *task.key, task.polls):
            return await broken(world, request, fault, said)
        return reply(said)

    def _said(self, task: Task, now: float, *, is_fresh: bool) -> dict[str, Any]:
        world = self._world
        as_of = now if is_fresh else max(task.created, now - world.settings.cache_lag_s)
        said = tasks.polled(task, as_of)
        if world.is_struck("unknown_status", *task.key):
            if said["status"] in ("pending", "processing"):
                return tasks.unfinished(said, "queued" if said["status"] == "pending" else "moderating")
            if task.polls <= _UNKNOWN_POLLS:
                return tasks.unfinished(said, "moderating")
        if world.is_struck("legacy_results", *task.key):
            said = tasks.legacy(said)
        name = "null_results" if is_fresh else "null_results_cached"
        if said["results"] and world.is_struck(name, *task.key, task.polls):
            is_null = number_of(world.settings.seed, "null or empty", *task.key, task.polls) % 2
            said["results"] = None if is_null else []
        return said
