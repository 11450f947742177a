"""The poll loop: asks about each task when it is due. A poll never waits for a submit."""

from __future__ import annotations

import asyncio
from typing import Protocol

from batchfox.core.dispatch import Fleet
from batchfox.core.event import PollEvent
from batchfox.core.lifecycle import Life
from batchfox.crew import Clock, Crew, wait_for
from batchfox.limiter import Limiter

POLLS_ON_THE_WIRE = 100


class Poller(Protocol):
    """The API's polls."""

    async def poll(self, task_id: str, *, sync_upstream: bool) -> PollEvent: ...


class Polls:
    """The loop, and how many polls are on the wire."""

    def __init__(self, fleet: Fleet, crew: Crew, *, sender: Poller, clock: Clock, per_minute: float | None) -> None:
        self._fleet = fleet
        self._crew = crew
        self._sender = sender
        self._clock = clock
        self._limiter = Limiter(per_minute) if per_minute else None
        self._on_the_wire = 0
        self.wake = asyncio.Event()

    def is_nearly_full(self) -> bool:
        """Was the number of polls on the wire, until a moment ago, what held the next one back?"""
        return self._on_the_wire >= POLLS_ON_THE_WIRE - 1

    async def run(self) -> None:
        fleet = self._fleet
        while True:
            self.wake.clear()
            now = self._clock.now()
            for life in fleet.polls(now, self._room()):
                await self._take_turn()
                fleet.watch.sent(life, self._clock.now())
                self._crew.spawn(self._poll(life))
            due = fleet.next_poll_at() if self._on_the_wire < POLLS_ON_THE_WIRE else None
            await wait_for(self.wake, None if due is None else max(due - now, 0.001))

    def _room(self) -> int:
        """How many may be begun now. Under a limit few: what is due is chosen when its turn comes, not long before."""
        room = POLLS_ON_THE_WIRE - self._on_the_wire
        return room if self._limiter is None else min(room, self._limiter.ahead())

    async def _take_turn(self) -> None:
        if self._limiter is not None:
            await self._limiter.take()
        self._on_the_wire += 1

    async def _poll(self, life: Life) -> None:
        self._crew.receive(life, await self._ask(life, sync_upstream=self._fleet.watch.asks_upstream(life)))

    async def _ask(self, life: Life, *, sync_upstream: bool) -> PollEvent:
        assert life.task_id is not None
        try:
            return await self._sender.poll(life.task_id, sync_upstream=sync_upstream)
        finally:
            self._on_the_wire -= 1

    async def ask_freely(self, life: Life, *, sync_upstream: bool) -> PollEvent:
        """One poll of a task that is not watched."""
        await self._take_turn()
        self._fleet.watch.polls += 1
        try:
            return await self._ask(life, sync_upstream=sync_upstream)
        finally:
            if self.is_nearly_full():
                self.wake.set()
