"""The submit loop: body built → intent recorded → token taken → POST. A POST has a task of its own on the wire."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from batchfox.core.dispatch import Fleet
from batchfox.core.event import SubmitEvent, Unsendable
from batchfox.core.lifecycle import Life
from batchfox.core.paces import Paces
from batchfox.crew import Clock, Crew, wait_for
from batchfox.ledger import Ledger
from batchfox.limiter import Limiter
from batchfox.preparing import Preparer, Preparing
from batchfox.recorder import Recorder
from batchfox.sharing import Share
from batchfox.streaming import Streams

LARGE_BODY = 1 << 20
# The longest wait for a token before the world is looked at again.
LOOK_EVERY_S = 0.5


class Submitter(Protocol):
    """The API's submits."""

    async def submit(self, body: bytes, *, is_sync: bool) -> SubmitEvent: ...
    async def is_there(self) -> bool: ...


class Builder(Preparer, Protocol):
    """Makes a request's body right before it is sent: media in place, final rules checked. None: that takes time, and
    is done in the two steps of `Preparer`."""

    def build(self, life: Life) -> bytes | Unsendable | None: ...


class Bodies:
    """Bytes of the bodies that are built and whose POST has no reply yet. Most rows are smaller than what they become
    by their media, and how large that is shows only when it is done: the last one says what to expect of the next."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._expected = 1
        self._unweighed = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def room(self) -> int:
        """How many more may be built, as far as can be told; one where there is none."""
        left = self._most - self._held - self._unweighed * self._expected
        return max(left // self._expected, 0 if self._held or self._unweighed else 1)

    def expect(self) -> None:
        """One is being made whose size is not known yet."""
        self._unweighed += 1

    def forget(self) -> None:
        """Its size is known now, or it is given up."""
        self._unweighed -= 1

    async def hold(self, size: int) -> None:
        """Adds `size` once there is room for it, in turn; a single one always has."""
        if self._waiting or not self._fits(size):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn  # whoever drops bytes adds ours
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.drop(size)
                else:
                    self._waiting.remove((size, turn))
                    self.drop(0)  # whoever waited behind it may have room
                raise
        else:
            self.add(size)

    def _fits(self, size: int) -> bool:
        return self._held == 0 or self._held + size <= self._most

    def add(self, size: int) -> None:
        self._held += size
        self._expected = max(size, 1)

    def drop(self, size: int) -> None:
        self._held -= size
        while self._waiting and (self._waiting[0][1].cancelled() or self._fits(self._waiting[0][0])):
            next_size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.add(next_size)
                turn.set_result(None)


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
        share: Share,
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
        self._share = share
        self._was_open = True
        self._large: set[bytes] = set()
        self._bodies = Bodies(fleet.orders.bytes_in_flight)
        self._sync_s = 0.0
        self._is_held_back = False
        self.wake = asyncio.Event()
        self._preparing = Preparing(fleet, crew, preparer=builder, held=self._bodies, clock=clock, wake=self.wake)

    def are_slow(self) -> bool:
        """Is a POST on the wire that needs its time: a large body, or one that waits for its answer?"""
        sending = self._fleet.sending()
        return bool(self._large & sending) or any(self._fleet.lives[key].is_sync for key in sending)

    @property
    def preparing(self) -> int:
        """Rows whose media are being read or uploaded."""
        return self._preparing.rows

    @property
    def sync_s(self) -> float:
        """How long it took lately until an intent was on the disk."""
        return self._sync_s

    def note_reply(self) -> None:
        """A POST has its reply, which may be what rows wait for: few are let onto the wire at first, and one where
        nobody seems to be there."""
        if self._is_held_back:
            self.wake.set()

    @property
    def is_key_short(self) -> bool:
        """Do other runs of the key have what its rate lets pass?"""
        return self._share.is_short

    def leave(self) -> None:
        """The run leaves: rows whose media are still being read or uploaded are not sent."""
        self._preparing.leave()

    async def run(self) -> None:
        fleet = self._fleet
        while True:
            self.wake.clear()
            self._follow(fleet.gate.pace)
            wait_s = await self._limiter.ready_in_s() or await self._share.ready_in_s()
            now = self._clock.now()
            if wait_s > 0.0:
                await asyncio.sleep(min(wait_s, LOOK_EVERY_S))
            elif ready := self._preparing.take(self._ahead()):
                await self._send_built(ready)
            elif (room := self._bodies.room()) == 0:
                await wait_for(self.wake, LOOK_EVERY_S)
            elif chosen := fleet.submits(now, self._clock.unix(), min(self._ahead(), room)):
                await self._send_all(chosen)
            elif fleet.asks_freely(now):
                is_there = await self._sender.is_there()
                fleet.gate.breaker.hear(self._clock.now(), is_there=is_there)
                fleet.health.note_question(self._clock.now(), is_there=is_there)
            else:
                self._crew.check_limits()
                due = fleet.next_submit_at(now)
                self._is_held_back = fleet.has_waiting and fleet.in_flight < fleet.orders.in_flight
                await wait_for(self.wake, None if due is None else max(due - now, 0.001))
                self._is_held_back = False

    def _follow(self, pace: Paces) -> None:
        """The limiter goes at the pace; after a time in which everybody waited, without a burst."""
        is_open = pace.is_open(self._clock.now())
        if is_open and not self._was_open:
            self._limiter.calm()
        self._was_open = is_open
        if pace.per_minute != self._limiter.per_minute:
            self._limiter.change(pace.per_minute)

    async def _send_all(self, chosen: list[Life]) -> None:
        bodies: list[tuple[Life, bytes]] = []
        for life in chosen:
            if self._bodies.room() == 0:
                self._fleet.unsend(life, self._clock.now())
                continue
            body = self._builder.build(life)
            if body is None:
                self._preparing.begin(life)
                continue
            if isinstance(body, Unsendable):
                self._crew.receive(life, body)
                continue
            self._bodies.add(len(body))
            bodies.append((life, body))
        if bodies:
            await self._send_built(bodies)

    async def _send_built(self, bodies: list[tuple[Life, bytes]]) -> None:
        """Rows whose bodies are built and held: intents recorded, tokens taken, POSTed."""
        fleet = self._fleet
        for life, body in bodies:
            if len(body) > LARGE_BODY:
                self._large.add(life.key)
            self._ledger.record(life)
        began_at = self._clock.now()
        await self._recorder.durable()
        self._sync_s = (self._sync_s + self._clock.now() - began_at) / 2.0
        tokens = 0
        for left, (life, body) in zip(range(len(bodies), 0, -1), bodies, strict=True):
            if tokens == 0 and fleet.may_leave(life, self._clock.now()):
                tokens = await self._take(life, left)
            if tokens and fleet.may_leave(life, now := self._clock.now()):
                tokens -= 1
                fleet.sent(life.key, now)
                self._crew.spawn(self._submit(life, body))
            else:
                self._forget(life, body)
                fleet.unsend(life, self._clock.now())
                self._ledger.record(life)
        self._crew.check_done()

    def _ahead(self) -> int:
        """How many rows may be recorded now."""
        return max(min(self._limiter.ahead(self._sync_s), self._share.room), 1)

    async def _take(self, life: Life, most: int) -> int:
        """Returns when submits may leave, and how many, by this run's own rate and by that of its key; 0 where the run
        came to an end meanwhile."""
        while self._fleet.may_leave(life, self._clock.now()):
            if (wait_s := await self._share.ready_in_s()) > 0.0:
                await asyncio.sleep(min(wait_s, LOOK_EVERY_S))
            elif tokens := self._share.take(await self._limiter.take(min(most, self._share.room))):
                return tokens
        return 0

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
