"""The submit loop: body built → intent recorded → token taken → POST. A POST has a task of its own on the wire."""

from __future__ import annotations

import asyncio
from typing import Protocol

from batchfox.core.dispatch import Fleet
from batchfox.core.event import SubmitEvent, Unsendable
from batchfox.core.lifecycle import Life
from batchfox.core.paces import Paces
from batchfox.crew import Clock, Crew, wait_for
from batchfox.errors import MachineError
from batchfox.ledger import Ledger
from batchfox.limiter import Limiter
from batchfox.recorder import Recorder

LARGE_BODY = 1 << 20
# The longest wait for a token before the world is looked at again.
LOOK_EVERY_S = 0.5


class Submitter(Protocol):
    """The API's submits."""

    async def submit(self, body: bytes, *, is_sync: bool) -> SubmitEvent: ...
    async def is_there(self) -> bool: ...


class Builder(Protocol):
    """Makes a request's body right before it is sent: media in place, final rules checked. Raises `MachineError` where
    the machine cannot."""

    async def build(self, life: Life) -> bytes | Unsendable: ...


class Submits:
    """The loop, and which bodies on the wire are large."""

    def __init__(
        self,
        fleet: Fleet,
        crew: Crew,
        *,
        sender: Submitter,
        builder: Builder,
        recorder: Recorder,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self._crew = crew
        self._sender = sender
        self._builder = builder
        self._recorder = recorder
        self._ledger = ledger
        self._clock = clock
        self._limiter = Limiter(fleet.gate.pace.per_minute)
        self._was_open = True
        self._large: set[bytes] = set()
        self.wake = asyncio.Event()

    def are_slow(self) -> bool:
        """Is a POST on the wire that needs its time: a large body, or one that waits for its answer?"""
        sending = self._fleet.sending()
        return bool(self._large & sending) or any(self._fleet.lives[key].is_sync for key in sending)

    async def run(self) -> None:
        fleet = self._fleet
        while True:
            self.wake.clear()
            self._follow(fleet.gate.pace)
            wait_s = await self._limiter.ready_in_s()
            now = self._clock.now()
            if wait_s > 0.0:
                await asyncio.sleep(min(wait_s, LOOK_EVERY_S))
            elif chosen := fleet.submits(now, self._clock.unix(), self._limiter.ahead()):
                await self._send_all(chosen)
            elif fleet.asks_freely(now):
                is_there = await self._sender.is_there()
                fleet.gate.breaker.hear(self._clock.now(), is_there=is_there)
                fleet.health.note_question(self._clock.now(), is_there=is_there)
            else:
                self._crew.check_limits()
                due = fleet.next_submit_at(now)
                await wait_for(self.wake, None if due is None else max(due - now, 0.001))

    def _follow(self, pace: Paces) -> None:
        """The limiter goes at the pace; after a time in which everybody waited, without a burst."""
        is_open = pace.is_open(self._clock.now())
        if is_open and not self._was_open:
            self._limiter.calm()
        self._was_open = is_open
        if pace.per_minute != self._limiter.per_minute:
            self._limiter.change(pace.per_minute)

    async def _send_all(self, chosen: list[Life]) -> None:
        fleet = self._fleet
        bodies: list[tuple[Life, bytes]] = []
        for life in chosen:
            try:
                body = await self._builder.build(life)
            except MachineError as error:
                self._crew.stop_for_machine(error)
                fleet.unsend(life, self._clock.now())
                continue
            if isinstance(body, Unsendable):
                self._crew.receive(life, body)
                continue
            if len(body) > LARGE_BODY:
                self._large.add(life.key)
            bodies.append((life, body))
        for life, _ in bodies:
            self._ledger.record(life)
        await self._recorder.durable()
        for life, body in bodies:
            if fleet.may_leave(life, self._clock.now()):
                await self._limiter.take()
            if fleet.may_leave(life, self._clock.now()):
                fleet.sent(life.key, self._clock.now())
                self._crew.spawn(self._submit(life, body))
            else:
                self._large.discard(life.key)
                fleet.unsend(life, self._clock.now())
                self._ledger.record(life)
        self._crew.check_done()

    async def _submit(self, life: Life, body: bytes) -> None:
        event = await self._sender.submit(body, is_sync=life.is_sync)
        self._large.discard(life.key)
        self._crew.receive(life, event)
