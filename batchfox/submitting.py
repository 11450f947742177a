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
from batchfox.streaming import Streams

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


class Bodies:
    """Bytes of the bodies that are built and whose POST has no reply yet. Most rows are smaller than what they become
    by their media, and how large that is shows only when it is done: the last one says what to expect of the next."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._expected = 1

    def room(self) -> int:
        """How many more may be built, as far as can be told; one where there is none."""
        left = self._most - self._held
        return max(left // self._expected, 0 if self._held else 1)

    def add(self, size: int) -> None:
        self._held += size
        self._expected = max(size, 1)

    def drop(self, size: int) -> None:
        self._held -= size


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
        streams: Streams,
    ) -> None:
        self._fleet = fleet
        self._crew = crew
        self._sender = sender
        self._builder = builder
        self._recorder = recorder
        self._ledger = ledger
        self._clock = clock
        self._streams = streams
        self._limiter = Limiter(fleet.gate.pace.per_minute)
        self._was_open = True
        self._large: set[bytes] = set()
        self._bodies = Bodies(fleet.orders.bytes_in_flight)
        self._sync_s = 0.0
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
            elif (room := self._bodies.room()) == 0:
                await wait_for(self.wake, LOOK_EVERY_S)
            elif chosen := fleet.submits(now, self._clock.unix(), min(self._limiter.ahead(self._sync_s), room)):
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
            if self._bodies.room() == 0:
                self._fleet.unsend(life, self._clock.now())
                continue
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
            self._bodies.add(len(body))
            bodies.append((life, body))
        for life, _ in bodies:
            self._ledger.record(life)
        began_at = self._clock.now()
        await self._recorder.durable()
        self._sync_s = (self._sync_s + self._clock.now() - began_at) / 2.0
        tokens = 0
        for left, (life, body) in zip(range(len(bodies), 0, -1), bodies, strict=True):
            if tokens == 0 and fleet.may_leave(life, self._clock.now()):
                tokens = await self._limiter.take(left)
            if tokens and fleet.may_leave(life, now := self._clock.now()):
                tokens -= 1
                fleet.sent(life.key, now)
                self._crew.spawn(self._submit(life, body))
            else:
                self._forget(life, body)
                fleet.unsend(life, self._clock.now())
                self._ledger.record(life)
        self._crew.check_done()

    async def _submit(self, life: Life, body: bytes) -> None:
        if life.is_streamed:
            await self._streams.submit(life, body, lambda: self._forget(life, body))
            return
        event = await self._sender.submit(body, is_sync=life.is_sync)
        self._forget(life, body)
        self._crew.receive(life, event)

    def _forget(self, life: Life, body: bytes) -> None:
        self._large.discard(life.key)
        was_full = self._bodies.room() == 0
        self._bodies.drop(len(body))
        if was_full:
            self.wake.set()
