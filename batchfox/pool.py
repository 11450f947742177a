"""The only loop: performs what the fleet decides, within the limits, and tells it what came of it.

One TaskGroup of named loops: feed, submit, poll, record, file, show. A request has a task of its own only while it is
on the wire. It ends when the fleet is done; the first stop request ends feeding and waits for the POSTs on the wire,
the second leaves at once. Both lose nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from batchfox.checkpoint import Again, Done, encode
from batchfox.core.dispatch import Fleet
from batchfox.core.event import Event, PollEvent, SubmitEvent, Unsendable
from batchfox.core.lifecycle import Life, State
from batchfox.core.outcome import Outcome
from batchfox.core.prepare import Invalid, outcome_of
from batchfox.feed import Feed
from batchfox.limiter import Limiter
from batchfox.recorder import Recorder

POLLS_ON_THE_WIRE = 100
BYTES_PER_PART = 64 << 20
PART_AGE_S = 15 * 60.0
SHOW_EVERY_S = 0.5
BEAT_EVERY_S = 1.0
STOP_S = 5.0
STOP_LONG_S = 30.0
LARGE_BODY = 1 << 20


class Sender(Protocol):
    """The API, as far as the pool needs it."""

    async def submit(self, body: bytes, *, is_sync: bool) -> SubmitEvent: ...
    async def poll(self, task_id: str, *, sync_upstream: bool) -> PollEvent: ...


class Builder(Protocol):
    """Makes a request's body right before it is sent: media in place, final rules checked."""

    async def build(self, life: Life) -> bytes | Unsendable: ...


class Filer(Protocol):
    """Files recorded outcomes as a part."""

    async def file(self) -> list[bytes]: ...


class Observer(Protocol):
    """Sees what happens. It may be slow or fail; the run goes on."""

    def settled(self, outcome: Outcome) -> None: ...
    def show(self) -> None: ...


class Clock(Protocol):
    """`now` for intervals, `unix` for the record."""

    def now(self) -> float: ...
    def unix(self) -> float: ...


class Tally(msgspec.Struct):
    """What this run settled."""

    by_status: Counter[str] = msgspec.field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    twice: int = 0


class Pool:
    """One run's loops and the state between them."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        sender: Sender,
        builder: Builder,
        recorder: Recorder,
        filer: Filer,
        observer: Observer,
        clock: Clock,
        rows_per_part: int,
        first_slot: int,
        unfiled: dict[bytes, Done],
        time_limit_s: float | None,
        polls_per_minute: float | None,
        idle_limit_s: float = 86_400.0,
    ) -> None:
        self.fleet = fleet
        self._sender = sender
        self._builder = builder
        self._recorder = recorder
        self._filer = filer
        self._observer = observer
        self._clock = clock
        self._rows_per_part = rows_per_part
        self._slots = itertools.count(first_slot)
        self.unfiled = unfiled
        self._unfiled_bytes = 0
        self._first_unfiled_at: float | None = clock.now() if unfiled else None
        self._filed: list[bytes] = []
        self._old_parts: dict[bytes, int | None] = {}
        self._large: set[bytes] = set()
        self.tally = Tally()
        self._started_at = clock.now()
        self._time_limit_s = time_limit_s
        self._idle_limit_s = idle_limit_s
        self._polls_limiter = Limiter(polls_per_minute) if polls_per_minute else None
        self._limiter = Limiter(fleet.pace.per_minute)
        self._polling = 0
        self._wake_submit = asyncio.Event()
        self._wake_poll = asyncio.Event()
        self._wake_file = asyncio.Event()
        self._done = asyncio.Event()
        self._feed: Feed | None = None
        self._stop_deadline: asyncio.TimerHandle | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None

    # What the feed tells.

    def begin(self, life: Life, again: Again | None) -> None:
        """A new row, or one that gets fresh attempts."""
        if again is not None:
            life.submits, life.unresolved = again.submits, again.unresolved
            life.maybe_billed_twice = again.maybe_billed_twice
            self._old_parts[life.key] = again.part
        self.fleet.offer(life)
        self._wake_submit.set()

    def adopt(self, life: Life, old_part: int | None) -> None:
        """A row that an earlier execution left, as the checkpoint has it."""
        if old_part is not None:
            self._old_parts[life.key] = old_part
        outcome = self.fleet.adopt(life, self._clock.now(), self._clock.unix())
        if outcome is not None:
            self._record_outcome(life, outcome)
        else:
            self._record_life(life)

    def settle_invalid(self, invalid: Invalid, again: Again | None) -> None:
        """A row that is never sent: its outcome is recorded at once."""
        orders = self.fleet.orders
        outcome = outcome_of(invalid, unix_s=self._clock.unix(), run_id=orders.run_id, run_date=orders.run_date)
        row = invalid.row
        life = Life(key=row.key, index=row.index, id=row.id, kept=invalid.kept, slot=next(self._slots))
        old_part = None if again is None else again.part
        self._recorder.group.add_row(life, encode(invalid.kept), old_part, outcome)
        self._recorder.touch()
        self._settled(row.key, outcome, 400)

    def record_block(self, block: int, rows: int, digest: bytes) -> None:
        self._recorder.group.blocks[block] = (rows, digest)

    def forget_filed(self) -> None:
        """No look-up among the finished keys is under way: keys filed meanwhile will be found there."""
        for key in self._filed:
            self.unfiled.pop(key, None)
        self._filed.clear()

    # The run.

    async def run(self, feed: Feed) -> None:
        """Runs to the fleet's end. Raises the first error of a loop, the cause kept."""
        self._feed = feed
        async with asyncio.TaskGroup() as group:
            self._group = group
            loops = [
                group.create_task(loop, name=name)
                for name, loop in (
                    ("feed", self._feed_loop(feed)),
                    ("submit", self._submit_loop()),
                    ("poll", self._poll_loop()),
                    ("file", self._file_loop()),
                    ("show", self._show_loop()),
                )
            ]
            record = group.create_task(self._recorder.run(), name="record")
            await self._done.wait()
            for task in (*loops, *self._requests):
                task.cancel()
            await asyncio.gather(*loops, *self._requests, return_exceptions=True)
            self._recorder.close()
            await record
        if self._stop_deadline is not None:
            self._stop_deadline.cancel()

    async def file_rest(self) -> None:
        """Files what is recorded and not filed yet, as the last part of this run."""
        while self.unfiled:
            keys = await self._filer.file()
            if not keys:
                return
            for key in keys:
                self.unfiled.pop(key, None)

    def request_stop(self) -> None:
        """First call: stop feeding, wait for the POSTs on the wire, leave. Second call: leave at once."""
        if self.fleet.stopped == "signal":
            self._done.set()
            return
        self.fleet.stop("signal")
        sending = self.fleet.sending()
        is_long = bool(self._large & sending) or any(self.fleet.lives[key].is_sync for key in sending)
        loop = asyncio.get_running_loop()
        self._stop_deadline = loop.call_later(STOP_LONG_S if is_long else STOP_S, self._done.set)
        self._check_done()

    def _check_done(self) -> None:
        feed_is_over = self._feed is not None and self._feed.fed.is_over
        if feed_is_over and self.fleet.stopped is None:
            self._abandon_orphans()
        if self.fleet.is_done(is_input_over=feed_is_over):
            self._done.set()
        if self.fleet.stopped is not None and self._feed is not None:
            self._feed.has_room.set()

    def _abandon_orphans(self) -> None:
        if self._feed is None or self._feed.fed.is_limited:
            return
        for life in self.fleet.orphans():
            outcome = self.fleet.abandon(life, self._clock.unix())
            if outcome is None:
                self._recorder.group.forgotten.append((life.slot,))
                self._recorder.touch()
            else:
                self._record_outcome(life, outcome)

    async def _feed_loop(self, feed: Feed) -> None:
        await feed.run()
        self._check_done()
        self._wake_submit.set()

    async def _submit_loop(self) -> None:
        fleet = self.fleet
        while True:
            self._wake_submit.clear()
            if fleet.pace.per_minute != self._limiter.per_minute:
                self._limiter = Limiter(fleet.pace.per_minute)
            wait_s: float | None = await self._limiter.ready_in_s()
            now = self._clock.now()
            chosen = fleet.submits(now, self._clock.unix(), self._limiter.ahead()) if wait_s == 0.0 else []
            if chosen:
                await self._send_all(chosen)
                continue
            self._check_limits(now)
            if not wait_s:
                due = fleet.next_submit_at(now)
                wait_s = None if due is None else max(due - now, 0.001)
                await self._sleep(self._wake_submit, wait_s)
            else:
                await asyncio.sleep(wait_s)

    async def _send_all(self, chosen: list[Life]) -> None:
        """Intent recorded → token → POST, for a few rows at once."""
        group = self._recorder.group
        bodies: list[tuple[Life, bytes]] = []
        for life in chosen:
            body = await self._builder.build(life)
            if isinstance(body, Unsendable):
                self._receive(life, body)
                continue
            if len(body) > LARGE_BODY:
                self._large.add(life.key)
            bodies.append((life, body))
        group = self._recorder.group
        for life, _ in bodies:
            if life.slot:
                group.add_record(life)
            else:
                life.slot = next(self._slots)
                group.add_row(life, encode(life.kept), self._old_parts.pop(life.key, None))
        await self._recorder.durable()
        for life, body in bodies:
            if self._may_send():
                await self._limiter.take()
            if self._may_send():
                self.fleet.sent(life.key, self._clock.now())
                self._spawn(self._submit(life, body))
            else:
                self.fleet.unsend(life, self._clock.now())
                self._record_life(life)
        self._check_done()

    def _may_send(self) -> bool:
        return self.fleet.stopped is None and self.fleet.pace.is_open(self._clock.now())

    def _spawn(self, request: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        task = self._group.create_task(request)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _submit(self, life: Life, body: bytes) -> None:
        event = await self._sender.submit(body, is_sync=life.is_sync)
        self._large.discard(life.key)
        self._receive(life, event)

    async def _poll_loop(self) -> None:
        fleet = self.fleet
        while True:
            self._wake_poll.clear()
            now = self._clock.now()
            for life in fleet.polls(now, POLLS_ON_THE_WIRE - self._polling):
                if self._polls_limiter is not None:
                    await self._polls_limiter.take()
                self._polling += 1
                self._spawn(self._poll(life))
            due = fleet.next_poll_at() if self._polling < POLLS_ON_THE_WIRE else None
            await self._sleep(self._wake_poll, None if due is None else max(due - now, 0.001))

    async def _poll(self, life: Life) -> None:
        assert life.task_id is not None
        try:
            event = await self._sender.poll(life.task_id, sync_upstream=self.fleet.asks_upstream(life))
        finally:
            self._polling -= 1
        self._receive(life, event)

    def _receive(self, life: Life, event: Event) -> None:
        """Every reply comes through here: the fleet decides, the recorder remembers, whoever waits is woken."""
        before = life.state
        outcome = self.fleet.receive(life.key, event, self._clock.now(), self._clock.unix())
        if outcome is not None:
            self._record_outcome(life, outcome)
        elif life.state is not before:
            self._record_life(life)
        if life.state is State.RUNNING:
            self._wake_poll.set()
        else:
            self._wake_submit.set()
            if self._polling >= POLLS_ON_THE_WIRE - 1:
                self._wake_poll.set()
            if self._feed is not None and self.fleet.room():
                self._feed.has_room.set()
        self._check_done()

    def _record_life(self, life: Life) -> None:
        self._recorder.group.add_record(life)
        self._recorder.touch()

    def _record_outcome(self, life: Life, outcome: Outcome) -> None:
        if life.slot:
            size = self._recorder.group.add_outcome(life.slot, outcome)
        else:
            life.slot = next(self._slots)
            self._recorder.group.add_row(life, encode(life.kept), self._old_parts.pop(life.key, None), outcome)
            size = 400
        self._recorder.touch()
        self._settled(life.key, outcome, size)

    def _settled(self, key: bytes, outcome: Outcome, size: int) -> None:
        self.unfiled[key] = Done(status=outcome.status, row_index=outcome.row_index)
        self._unfiled_bytes += size
        if self._first_unfiled_at is None:
            self._first_unfiled_at = self._clock.now()
        tally = self.tally
        tally.by_status[outcome.status] += 1
        tally.twice += outcome.maybe_billed_twice
        if outcome.answer is not None:
            tally.prompt_tokens += outcome.answer.prompt_tokens or 0
            tally.completion_tokens += outcome.answer.completion_tokens or 0
        self._observer.settled(outcome)
        if len(self.unfiled) >= self._rows_per_part or self._unfiled_bytes >= BYTES_PER_PART:
            self._wake_file.set()

    async def _file_loop(self) -> None:
        while True:
            wait_s = PART_AGE_S
            if self._first_unfiled_at is not None:
                wait_s = max(self._first_unfiled_at + PART_AGE_S - self._clock.now(), 0.0)
            await self._sleep(self._wake_file, wait_s)
            self._wake_file.clear()
            is_old = self._first_unfiled_at is not None and (self._clock.now() - self._first_unfiled_at >= PART_AGE_S)
            if self._is_part_full() or is_old:
                await self._recorder.durable()
                self._unfiled_bytes = 0
                self._filed += await self._filer.file()
                self._first_unfiled_at = self._clock.now() if len(self.unfiled) > len(self._filed) else None

    def _is_part_full(self) -> bool:
        rows = len(self.unfiled) - len(self._filed)
        return rows >= self._rows_per_part or self._unfiled_bytes >= BYTES_PER_PART

    async def _show_loop(self) -> None:
        beat_at = 0.0
        while True:
            self._observer.show()
            now = self._clock.now()
            if now - beat_at >= BEAT_EVERY_S:
                beat_at = now
                self._check_limits(now)
                self.beat()
            await asyncio.sleep(SHOW_EVERY_S)

    def beat(self) -> None:
        """Puts the run's figures on record, for `status` and for the next run."""
        self._recorder.group.progress = self.stamp()
        self._recorder.touch()

    def stamp(self) -> tuple[float, bytes, str]:
        """The figures as each group of records carries them: what a resume goes on counting from."""
        return self._clock.unix(), msgspec.json.encode(self.progress()), self.fleet.orders.run_id

    def progress(self) -> dict[str, Any]:
        """This run's figures."""
        tally, fed = self.tally, self._feed.fed if self._feed else None
        return self.fleet.snapshot() | {
            "by_status": dict(tally.by_status),
            "prompt_tokens": tally.prompt_tokens,
            "completion_tokens": tally.completion_tokens,
            "maybe_billed_twice": tally.twice,
            "elapsed_s": self._clock.now() - self._started_at,
            "fed": msgspec.to_builtins(fed) if fed is not None else {},
            "stopped": self.fleet.stopped,
        }

    def _check_limits(self, now: float) -> None:
        """Time and budget: stop submitting, finish what is in flight."""
        fleet = self.fleet
        if fleet.stopped is not None:
            return
        opened_at = fleet.breaker.opened_at
        is_late = self._time_limit_s is not None and now - self._started_at >= self._time_limit_s
        if is_late or (opened_at is not None and now - opened_at >= self._idle_limit_s):
            fleet.stop("time")
        elif fleet.is_budget_binding and fleet.in_flight == 0:
            fleet.stop("credits")
        self._check_done()

    async def _sleep(self, wake: asyncio.Event, wait_s: float | None) -> None:
        """Until woken, or `wait_s` have passed."""
        if wait_s is None:
            await wake.wait()
            return
        timer = asyncio.get_running_loop().call_later(wait_s, wake.set)
        try:
            await wake.wait()
        finally:
            timer.cancel()
