"""The only loop: performs what the fleet decides, within the limits, and tells it what came of it.

One TaskGroup of named loops: feed, submit, poll, record, file, show. A request has a task of its own only while it is
on the wire. It ends when the fleet is done; the first stop request ends feeding and waits for the POSTs on the wire,
the second leaves at once. Both lose nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

import msgspec

from batchfox.checkpoint import Again
from batchfox.core.binding import Scene
from batchfox.core.dispatch import Fleet, StopCause
from batchfox.core.drift import Bounds, Drifted, DriftWatch, Sums
from batchfox.core.event import Event, Halted, PollEvent, Streamed
from batchfox.core.late import second_look
from batchfox.core.lifecycle import Life, State
from batchfox.core.outcome import Outcome
from batchfox.core.prepare import Invalid
from batchfox.core.tail import Tail
from batchfox.crew import Clock
from batchfox.errors import BatchfoxError, MachineError, UserError
from batchfox.feed import Feed
from batchfox.figures import of_run
from batchfox.late import Late
from batchfox.ledger import Ledger
from batchfox.looking import LateTasks, SecondLooks
from batchfox.packing import Filer, Packing
from batchfox.polling import Poller, Polls
from batchfox.recorder import Recorder
from batchfox.sharing import Share
from batchfox.streaming import Streamer, Streams
from batchfox.submitting import Builder, Submits, Submitter
from batchfox.token_share import TokenShare

SHOW_EVERY_S = 0.5
BEAT_EVERY_S = 1.0
STOP_S = 5.0
STOP_LONG_S = 30.0


class Sender(Submitter, Poller, Streamer, Protocol):
    """The API, as far as a run needs it."""


class Observer(Protocol):
    """Sees the figures now and then. It may be slow or fail; the run goes on. `trouble`: a log that cannot be written,
    because the disk is full, ends it."""

    def show(self) -> None: ...
    def note_stream(self, life: Life, event: Streamed) -> None: ...
    def trouble(self) -> MachineError | None: ...


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """When a run stops submitting by itself. `until`: the end of the schedule's window (unix). `idle_s`: this long
    with an API that takes nothing at all, or paused. `straggle_s`: this long after the last submit it gives up the
    tasks that still run."""

    time_s: float | None = None
    until: float | None = None
    idle_s: float = 86_400.0
    polls_per_minute: float | None = None
    straggle_s: float | None = None


class Pool:
    """One run's loops and the state between them."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        sender: Sender,
        builder: Builder,
        recorder: Recorder,
        ledger: Ledger,
        filer: Filer,
        observer: Observer,
        clock: Clock,
        limits: Limits,
        before: Mapping[str, Any] | None = None,
        drift: DriftWatch | None = None,
        share: Share | None = None,
    ) -> None:
        """`before`: the run's figures as its earlier executions left them. `drift`: ends it where answers are off.
        `share`: its part of its key's rate; None: all of it."""
        self.fleet = fleet
        self.ledger = ledger
        self._recorder = recorder
        self._observer = observer
        self._clock = clock
        self._limits = limits
        self._before = before or {}
        self._started_at = clock.now()
        self.drift = drift or DriftWatch(Bounds(), 10, Sums())
        self.drifted: list[Drifted] = []
        self.tail = Tail(fleet, limits.straggle_s, self._started_at)
        self._submits = Submits(
            fleet,
            self,
            sender=sender,
            builder=builder,
            recorder=recorder,
            ledger=ledger,
            clock=clock,
            streams=Streams(fleet, self, sender=sender, note=observer.note_stream),
            share=share or Share(clock=clock),
        )
        self._polls = Polls(fleet, self, sender=sender, clock=clock, per_minute=limits.polls_per_minute)
        self.looks = SecondLooks(fleet, self)
        self._packing = Packing(self, filer=filer, recorder=recorder, unfiled=ledger.unfiled, clock=clock)
        self._done = asyncio.Event()
        self._leaves_at: float | None = None
        self.error: BatchfoxError | None = None
        # What a display shows beside the figures; on record with them.
        self.shown: dict[str, Any] | None = None
        self._feed: Feed | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._bug: BaseException | None = None
        # Rows that ended here before the input showed them: when it does, they look as if they had ended before.
        # By whether they completed.
        self._ended_unmet = {False: 0, True: 0}
        # Called once, before the first row is taken: what only rows need is loaded then.
        self.warm_up: Callable[[], None] | None = None
        # Called once a second: what this run has spent is told to the other runs of the key, and to people.
        self.each_beat: list[Callable[[], None]] = []
        # Its part of its key's tokens a minute, where it has a limit of them.
        self.token_share: TokenShare | None = None
        # Was it told that the run has passed `notify.spend`?
        self.is_spend_told = bool(self._before.get("spend_told"))
        recorder.failed = self.stop_for_machine

    # Rows come in, from the checkpoint and from the feed.

    def adopt(self, life: Life, old_part: int | None) -> None:
        """A row that an earlier execution left, as the checkpoint has it."""
        self.ledger.note_known(life, old_part)
        outcome = self.fleet.adopt(life, self._clock.now(), self._clock.unix())
        if outcome is not None:
            self._ended_unmet[outcome.status == "completed"] += 1
            self.ledger.record_outcome(life, outcome)
        else:
            self.ledger.record(life)

    def begin(self, life: Life, again: Again | None) -> None:
        """A new row, or one that gets fresh attempts."""
        if self.warm_up is not None:
            warm_up, self.warm_up = self.warm_up, None
            warm_up()
        if again is not None:
            self.ledger.note_retry(life, again)
        self.fleet.offer(life)
        self._submits.wake.set()

    def meet(self, life: Life) -> None:
        """The input showed a row that an earlier execution left: it can be sent again."""
        self.fleet.meet(life, self._clock.now())
        self._submits.wake.set()

    def refuse(self, invalid: Invalid) -> None:
        """The input shows a row that an earlier execution left, and it may not be sent any more."""
        life = self.fleet.lives[invalid.row.key]
        is_over = life.state is State.WAITING
        outcome = self.fleet.refuse(life, invalid.error, self._clock.unix())
        if is_over:
            self.ledger.record_refused(life, invalid, outcome)
            self._packing.look()

    def settle_invalid(self, invalid: Invalid, again: Again | None) -> None:
        """A row that is never sent."""
        self.ledger.record_invalid(invalid, again)
        self._packing.look()

    def record_copy(self, life: Life, again: Again | None, outcome: Outcome, saved: float) -> None:
        """A row that gets what another row with the same request got."""
        self.ledger.record_copy(life, again, outcome, saved)
        self._packing.look()

    # The run.

    async def run(self, feed: Feed, late: LateTasks) -> None:
        """Runs to the fleet's end. `late`: rows whose task was given up; they are asked about before the input is read.
        Raises the first error of a loop, the cause kept."""
        self._feed = feed
        async with asyncio.TaskGroup() as group:
            record = group.create_task(self._recorder.run(), name="record")
            loops = [
                group.create_task(loop, name=name)
                for name, loop in (
                    ("feed", self._feed_loop(feed, late)),
                    ("submit", self._submits.run()),
                    ("poll", self._polls.run()),
                    ("file", self._packing.run()),
                    ("show", self._show_loop()),
                )
            ]
            try:
                await self._done.wait()
            finally:
                tasks = (*loops, *self._requests)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if self._bug is not None:
                raise self._bug
            self._recorder.close()
            await record

    async def file_rest(self) -> None:
        """Files what is left, as the last parts of this run."""
        await self._packing.file_rest()

    async def file_row(self, key: bytes) -> None:
        """Files what is recorded until this row is filed, though the part be small. Raises `DiskFullError`, which ends
        the run too."""
        await self._packing.file_row(key)

    @property
    def is_over(self) -> bool:
        """Are the loops about to end?"""
        return self._done.is_set()

    def request_stop(self) -> None:
        """First call: stop feeding, wait for the POSTs on the wire, leave. Second call: leave at once."""
        if self.fleet.stopped in ("signal", "ctl"):
            self._done.set()
            return
        self.leave("signal")

    def limit_time(self, time_s: float | None) -> None:
        """Another `limits.time` from now on, counted from the beginning all the same."""
        self._limits = msgspec.structs.replace(self._limits, time_s=time_s)

    def look_again(self) -> None:
        """What may be sent has changed."""
        self.check_limits()
        self._submits.wake.set()
        if self._feed is not None and self.fleet.room():
            self._feed.has_room.set()

    def stop_for_machine(self, error: MachineError) -> None:
        """The machine cannot go on: record what is on the wire, and leave."""
        if self.error is None:
            self.error = error
            self.leave("machine")

    def leave(self, cause: StopCause) -> None:
        """Stops feeding, waits for the POSTs on the wire, leaves."""
        self.fleet.stop(cause)
        self._submits.leave()
        wait_s = STOP_LONG_S if self._submits.are_slow() else STOP_S
        self._leaves_at = self._clock.now() + wait_s
        asyncio.get_running_loop().call_later(wait_s, self._done.set)
        self.check_done()

    def check_done(self) -> None:
        feed = self._feed
        if feed is None:
            return
        if feed.fed.is_over and not feed.fed.is_limited and self.fleet.stopped is None:
            self._abandon_orphans()
        if self.fleet.is_done(is_input_over=feed.fed.is_over):
            self._done.set()
        elif self.fleet.stopped is not None:
            feed.has_room.set()

    def _abandon_orphans(self) -> None:
        for life in self.fleet.orphans():
            outcome = self.fleet.abandon(life, self._clock.unix())
            if outcome is None:
                self.ledger.forget(life)
            else:
                self.ledger.record_outcome(life, outcome)

    async def _feed_loop(self, feed: Feed, late: LateTasks) -> None:
        """An input that cannot be read on ends the feeding, not what is in flight: see `error`."""
        try:
            await self.looks.run(late)
            self.looks.is_over = True
            await feed.run()
        except UserError as error:
            self.error = error
            self.fleet.stop("input")
        self.check_done()

    def is_known(self, key: bytes) -> bool:
        """Is the row on its way, or has it a new outcome, so that what its part says of it is old?"""
        return key in self.fleet.lives or self.ledger.unfiled.get(key) is not None

    async def ask_freely(self, life: Life, *, sync_upstream: bool) -> PollEvent:
        """One poll of a task that was given up."""
        return await self._polls.ask_freely(life, sync_upstream=sync_upstream)

    def receive_late(self, late: Late, event: PollEvent) -> None:
        """What one more poll of a task that was given up has shown."""
        fleet, clock = self.fleet, self._clock
        outcome = second_look(late.life, event, fleet.orders, fleet.gate.budget, clock.now(), clock.unix())
        if outcome is not None:
            self.ledger.note_known(late.life, late.part)
            self._ended_unmet[outcome.status == "completed"] += 1
            self.ledger.record_outcome(late.life, outcome)
            self.looks.collected += 1
            self.looks.collected_credits += outcome.credits or 0.0
            self._packing.look()
        elif isinstance(event, Halted):
            fleet.stop(event.cause, event.error)
            self.check_done()

    def spawn(self, request: Coroutine[Any, Any, None]) -> None:
        """By hand, since every request passes here: a task group would keep and call back a second time."""
        task = asyncio.get_running_loop().create_task(request)
        self._requests.add(task)
        task.add_done_callback(self._end_request)

    def _end_request(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._bug is None:
            self._bug = error
            self._done.set()

    def receive(self, life: Life, event: Event) -> None:
        """Every reply comes through here: the fleet decides, the ledger remembers, whoever waits is woken."""
        before = life.state
        outcome = self.fleet.receive(life.key, event, self._clock.now(), self._clock.unix())
        if outcome is not None:
            self._ended_unmet[outcome.status == "completed"] += life.request is None
            self.ledger.record_outcome(life, outcome)
            self._packing.look()
            self._watch_answers(outcome)
        elif life.state is not before or isinstance(event, Streamed):
            self.ledger.record(life)
        if life.state is State.RUNNING or self._polls.is_nearly_full():
            self._polls.wake.set()
        if life.state is not State.RUNNING:
            self._submits.wake.set()
        elif before is State.SENDING:
            self._submits.note_reply()
        if self._feed is not None and not self._feed.has_room.is_set() and self.fleet.room():
            self._feed.has_room.set()  # a row that was sent leaves room for the next, long before it is settled
        if life.state is not State.RUNNING or self.fleet.stopped is not None:
            self.check_done()

    def _watch_answers(self, outcome: Outcome) -> None:
        """Stops submitting where answers are not what they were."""
        drifted = self.drift.see(outcome)
        if drifted and self.fleet.stopped is None:
            self.drifted = drifted
            self.fleet.stop("guard")

    # Figures, limits.

    async def _show_loop(self) -> None:
        beat_at = float("-inf")
        while True:
            self._observer.show()
            if (trouble := self._observer.trouble()) is not None:
                self.stop_for_machine(trouble)
            now = self._clock.now()
            if now - beat_at >= BEAT_EVERY_S:
                beat_at = now
                self.check_limits()
                for look in self.each_beat:
                    look()
                self._recorder.group.progress = self.stamp()
                self._recorder.touch()
            await asyncio.sleep(SHOW_EVERY_S)

    def stamp(self) -> tuple[float, bytes, str]:
        """The figures as each group of records carries them: what a resume goes on counting from."""
        return self._clock.unix(), msgspec.json.encode(self.progress()), self.fleet.orders.run_id

    def progress(self) -> dict[str, Any]:
        """The run's figures, and under `here` those of this execution; `by_status` and `fed` are this execution's."""
        tally = self.ledger.tally
        figures = self.fleet.snapshot() | {
            "tokens_of_minute": self.fleet.gate.tokens.taken(self._clock.now()),
            "by_status": dict(tally.by_status),
            "taken_back": dict(tally.taken_back),
            "prompt_tokens": tally.prompt_tokens,
            "completion_tokens": tally.completion_tokens,
            "maybe_billed_twice": tally.twice,
            "elapsed_s": self._clock.now() - self._started_at,
            "fed": self._fed(),
            "stopped": self.fleet.stopped,
            "paused_s": None if self.fleet.paused_at is None else self._clock.now() - self.fleet.paused_at,
            "leaves_in_s": None if self._leaves_at is None else max(self._leaves_at - self._clock.now(), 0.0),
            "outage": self.outage(),
            "shown": self.shown,
            "spend_told": self.is_spend_told,
            "drift": msgspec.to_builtins(self.drift.total),
            "tail": self.tail.figures(self._clock.now(), is_input_over=self._is_input_over),
        }
        return of_run(figures, self._before)

    def _fed(self) -> dict[str, Any]:
        fed = msgspec.to_builtins(self._feed.fed) if self._feed is not None else {}
        ended, completed = self._ended_unmet[False], self._ended_unmet[True]
        return fed | {
            "ended_before": max(fed.get("ended_before", 0) - ended, 0),
            "completed_before": max(fed.get("completed_before", 0) - completed, 0),
        }

    @property
    def _is_input_over(self) -> bool:
        return self._feed is not None and self._feed.fed.is_over

    @property
    def is_tail(self) -> bool:
        """Is nothing left to be submitted, and something running?"""
        return self.tail.has_begun(is_input_over=self._is_input_over)

    def scene(self) -> Scene:
        """What may bind the run now."""
        fleet, gate, now = self.fleet, self.fleet.gate, self._clock.now()
        return Scene(
            is_paused=fleet.paused_at is not None,
            is_away=self.outage() is not None,
            is_cooling=now < fleet.cools_until,
            is_money_short=gate.is_budget_binding,
            is_token_short=gate.tokens.opens_at > now,
            is_key_short=self._submits.is_key_short,
            is_held_full=fleet.bytes_held >= fleet.orders.bytes_in_flight,
            is_input_over=self._is_input_over or fleet.stopped is not None,
            is_limited_by_server=gate.pace.is_limited,
            has_limit=gate.pace.limit_per_minute is not None,
            in_flight=fleet.in_flight,
            in_flight_limit=fleet.orders.in_flight,
            queued=fleet.waiting,
            preparing=self._submits.preparing,
            sync_s=self._submits.sync_s,
            polls_late_s=0.0 if fleet.next_poll_at() is None else fleet.watch.behind_s(now),
        )

    def outage(self) -> dict[str, Any] | None:
        """The outage of the API that is in this run's way: of what, since when (unix), and what was said last."""
        fleet = self.fleet
        is_submitting = fleet.waiting > 0 or fleet.on_the_wire > 0
        trouble = fleet.health.outage(
            is_submitting=is_submitting,
            is_polling=fleet.in_flight > fleet.on_the_wire,
            is_held_back=fleet.gate.breaker.is_open,
        )
        if trouble is None:
            return None
        return {
            "what": trouble.what,
            "since": self._clock.unix() - (self._clock.now() - trouble.since),
            "tries": trouble.tries,
            "kind": trouble.kind,
            "message": trouble.error.message or "",
        }

    def check_limits(self) -> None:
        """Time and budget: stop submitting, finish what is in flight."""
        fleet, now = self.fleet, self._clock.now()
        for life, outcome in self.tail.give_up(now, self._clock.unix(), is_input_over=self._is_input_over):
            self.ledger.record_outcome(life, outcome)
            self._packing.look()
        if fleet.stopped is not None:
            self.check_done()
            return
        idle_since, time_s, paused_at = fleet.gate.idle_since, self._limits.time_s, fleet.paused_at
        if time_s is not None and now - self._started_at >= time_s:
            fleet.stop("time")
        elif self._limits.until is not None and self._clock.unix() >= self._limits.until:
            fleet.stop("window")
        elif paused_at is not None:
            if time_s is None and now - paused_at >= self._limits.idle_s:
                fleet.stop("pause")
        elif time_s is None and idle_since is not None and now - idle_since >= self._limits.idle_s:
            fleet.stop("idle")
        elif fleet.gate.is_budget_binding and fleet.in_flight == 0:
            fleet.stop("credits")
        self.check_done()
