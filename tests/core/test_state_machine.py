"""The fleet under any order of events: hands that are slow, early and late, replies of every kind, stops and kills.

Beside the fleet an account is kept that knows nothing of its code: what left, what may have been paid, when a row may
next be touched, what was on disk. Every deed is done by two fleets at once, which must not differ by a hair. At the end
the API behaves, and every row must end.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import msgspec
import pytest
from fleet_world import BUSY, FAILED, FAILED_FOR_GOOD, LOST, NO_HOST, OOPS, UNIX_S, UNSERVED, answered, life, throttled
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchfox.core.breaker import TRIP, Breaker
from batchfox.core.budget import Budget
from batchfox.core.dispatch import Fleet, StopCause
from batchfox.core.event import (
    Accepted,
    Answered,
    Deferred,
    Doubted,
    Event,
    Halted,
    Missing,
    PollEvent,
    Refused,
    Running,
    SubmitEvent,
    TaskFailed,
    Unheard,
    Unreached,
    Unsendable,
)
from batchfox.core.gate import Doubts, Gate
from batchfox.core.late import second_look
from batchfox.core.latency import SHORTEST_S
from batchfox.core.lifecycle import Life, Policy, State
from batchfox.core.outcome import Outcome
from batchfox.core.paces import Paces
from batchfox.core.settle import Orders
from batchfox.core.timing import RETRY_FIRST_S, Timing
from batchfox.core.watch import Watch
from batchfox.group import Record

LISTED = 3.0
TIMEOUT_S = 150.0
TICK = 1e-6
LEAVING = ("key", "gateway", "signal", "machine")

SUBMITS: dict[str, SubmitEvent] = {
    "lost": LOST,
    "500": Doubted(error=OOPS, http_status=500),
    "no host": NO_HOST,
    "busy": BUSY,
    "busy for long": Deferred(error=OOPS, scope="service", http_status=503, retry_after_s=90.0),
    "unserved": UNSERVED,
    "429": throttled(),
    "429 for 10 s": throttled(10.0),
    "refused": Refused(error=OOPS, http_status=422),
    "unsendable": Unsendable(error=OOPS),
    "key": Halted(cause="key", error=OOPS, http_status=401),
    "balance": Halted(cause="balance", error=OOPS, http_status=402),
    "gateway": Halted(cause="gateway", error=OOPS, http_status=403),
}
POLLS: dict[str, PollEvent] = {
    "running": Running(),
    "unheard": Unheard(error=OOPS, http_status=502),
    "throttled": Unheard(error=OOPS, http_status=429, is_rate=True),
    "throttled for 30 s": Unheard(error=OOPS, http_status=429, is_rate=True, retry_after_s=30.0),
    "empty": Unheard(error=OOPS, http_status=200, without_results=True),
    "404": Missing(error=OOPS),
    "failed": FAILED,
    "failed for good": FAILED_FOR_GOOD,
    "key": Halted(cause="key", error=OOPS, http_status=401),
    "gateway": Halted(cause="gateway", error=OOPS, http_status=403),
}
CARRIED = ("submits", "credits_spent", "credits_standing", "in_doubt_resubmitted")
_T = TypeVar("_T")


class Account(msgspec.Struct):
    """What is owed for a row and known of it, by the naive reading of the contract."""

    submits: int = 0
    unresolved: int = 0
    is_flagged: bool = False
    doubts: int = 0
    # What it may cost: of each attempt that is over, and of the present one.
    settled: float = 0.0
    present: float = 0.0


class Kept(msgspec.Struct):
    """What is on disk of a row."""

    account: Account
    state: State
    record: dict[str, Any]
    columns: dict[str, Any]
    outcome: Outcome | None = None


class Line(msgspec.Struct):
    """One entry on its way to the disk: a row's record, or its end without a trace; and the run's figures with it."""

    index: int
    kept: Kept | None
    figures: dict[str, float]


def is_taken(event: Event) -> bool:
    """Did somebody at the API decide about the submit?"""
    return not isinstance(event, (Unreached, Doubted)) and not (
        isinstance(event, Deferred) and event.scope == "service"
    )


class FleetMachine(RuleBasedStateMachine):
    """Two fleets, the hands and the disk around them, and the account."""

    most_rows = 14

    @initialize(
        policy=st.builds(
            Policy,
            attempts=st.integers(1, 3),
            failed=st.sampled_from(["never", "transient", "always"]),
            in_doubt=st.sampled_from(["resubmit", "resubmit", "hold"]),
            patience_s=st.sampled_from([30.0, 3600.0]),
        ),
        in_flight=st.integers(1, 5),
        credits_limit=st.sampled_from([None, None, 10.0, 25.0]),
        in_doubt_limit=st.sampled_from([0, 1, 3, 100]),
        first_s=st.sampled_from([None, 0.0, 7.0]),
        reserved=st.sampled_from([None, 1.0, LISTED]),
        charge=st.sampled_from([None, 0.5, 1.0]),
        seed=st.integers(0, 3),
    )
    def begin(
        self,
        policy: Policy,
        in_flight: int,
        credits_limit: float | None,
        in_doubt_limit: int,
        first_s: float | None,
        reserved: float | None,
        charge: float | None,
        seed: int,
    ) -> None:
        self.policy, self.credits_limit, self.in_doubt_limit = policy, credits_limit, in_doubt_limit
        self.orders = Orders(
            policy=policy, in_flight=in_flight, bytes_in_flight=1 << 30, run_id="run", run_date="2026-01-01"
        )
        self.first_s, self.reserved, self.charge, self.seed = first_s, reserved, charge, seed
        self.now = 0.0
        # The input: rows shown so far, and those that have left it since.
        self.shown = 0
        self.gone: set[int] = set()
        # What the API did, which no kill undoes: tasks that may have been made, how they ended, what was resubmitted.
        self.serial = 0
        self.tasks: dict[int, int] = {}
        self.fates: dict[str, PollEvent] = {}
        self.resubmitted: set[tuple[int, int]] = set()
        self.disk: dict[int, Kept] = {}
        self.figures: dict[str, float] = dict.fromkeys(CARRIED, 0.0)
        self.open_process()

    # The process: what a kill takes away.

    def open_process(self) -> None:
        self.unsynced: list[Line] = []
        self.fleets = [self.make_fleet() for _ in range(2)]
        self.accounts: dict[int, Account] = {}
        self.ended: dict[int, Outcome] = {}
        self.chosen: list[int] = []
        self.posted: list[int] = []
        self.polled: list[int] = []
        self.unmet: set[int] = set()
        self.dearest: float | None = None
        self.silent = 0
        self.doubted: set[int] = set()
        self.is_suspect = False
        self.is_there = False
        self.submits_from = 0.0
        self.polls_from = 0.0
        self.row_from: dict[int, float] = {}
        self.task_from: dict[int, float] = {}
        self.watched_since: dict[int, float] = {}

    def make_fleet(self) -> Fleet:
        draw = Random(self.seed).random
        before = self.figures
        fleet = Fleet(
            self.orders,
            gate=Gate(
                pace=Paces(None),
                breaker=Breaker(),
                budget=Budget(self.credits_limit, spent=before["credits_spent"], standing=before["credits_standing"]),
                doubts=Doubts(self.in_doubt_limit, resubmitted=int(before["in_doubt_resubmitted"])),
            ),
            watch=Watch(Timing(self.first_s, draw), TIMEOUT_S, draw),
            draw=draw,
        )
        fleet.submits_before = int(before["submits"])
        return fleet

    @property
    def fleet(self) -> Fleet:
        return self.fleets[0]

    @property
    def unix_s(self) -> float:
        return UNIX_S + self.now

    def do(self, deed: Callable[[Fleet], _T]) -> _T:
        """Both fleets do it, and say the same."""
        first, second = (deed(fleet) for fleet in self.fleets)
        assert first == second, "the same events gave two different answers"
        return first

    def life_of(self, index: int) -> Life:
        return self.fleet.lives[life(index).key]

    def record(self, index: int) -> None:
        """The row goes into the group that is synced next, with the figures as they stand."""
        row, outcome = self.fleet.lives.get(life(index).key), self.ended.get(index)
        kept = None
        if outcome is not None:
            kept = Kept(copy.copy(self.accounts[index]), State.SETTLED, {}, {}, outcome)
        elif row is not None:
            fields = {field.name: getattr(row, field.name) for field in msgspec.structs.fields(Record)}
            kept = Kept(copy.copy(self.accounts[index]), row.state, copy.deepcopy(fields), row.kept)
        snapshot = self.fleet.snapshot()
        self.unsynced.append(Line(index, kept, {name: snapshot[name] for name in CARRIED}))

    def write(self, lines: list[Line]) -> None:
        for line in lines:
            self.figures = line.figures
            if line.kept is None:
                self.disk.pop(line.index, None)
                continue
            before = self.disk.get(line.index)
            assert before is None or before.outcome is None or before.outcome.status == "timed_out", "ended twice"
            self.disk[line.index] = line.kept

    def sync(self) -> None:
        lines, self.unsynced = self.unsynced, []
        self.write(lines)

    # Time, input, question.

    @rule(step_s=st.sampled_from([0.0, 0.001, 0.6, 3.0, 11.0, 65.0, 400.0]))
    def wait(self, step_s: float) -> None:
        self.now += step_s

    @rule(most=st.integers(1, 6))
    def feed(self, most: int) -> None:
        for _ in range(most):
            if self.shown == self.most_rows or not self.do(lambda fleet: fleet.room()):
                return
            self.offer(self.shown)
            self.shown += 1

    def offer(self, index: int) -> None:
        self.accounts[index] = Account()
        for fleet in self.fleets:
            fleet.offer(life(index, listed=LISTED))

    @precondition(lambda self: self.unmet)
    @rule(which=st.integers(0, 20))
    def show_known_row(self, which: int) -> None:
        self.meet(sorted(self.unmet)[which % len(self.unmet)])

    def meet(self, index: int) -> None:
        self.unmet.discard(index)
        self.row_from.pop(index, None)  # reading up to here was wait enough
        if life(index).key in self.fleet.lives:
            for fleet in self.fleets:
                fleet.meet(life(index, listed=LISTED), self.now)

    @rule(is_there=st.booleans())
    def ask_freely(self, is_there: bool) -> None:
        if self.do(lambda fleet: fleet.asks_freely(self.now)):
            assert self.is_away, "a question although the API took something lately"
            for fleet in self.fleets:
                fleet.gate.breaker.hear(self.now, is_there=is_there)
            self.is_there = is_there

    # Submits.

    @rule(most=st.integers(1, 6))
    def choose(self, most: int) -> None:
        wire_before = len(self.chosen) + len(self.posted)
        rows = self.do(lambda fleet: fleet.submits(self.now, self.unix_s, most))
        assert len(rows) <= most
        for row in rows:
            index = row.index
            assert self.fleet.stopped is None, "a submit after the stop"
            assert index not in (*self.chosen, *self.posted, *self.polled), "a second live attempt"
            assert index not in self.ended, "a submit of a row that has ended"
            assert index not in self.unmet, "a submit of a row that the input has not shown"
            assert index not in self.watched_since, "a submit of a row whose task runs"
            assert self.now >= self.submits_from - TICK, "a submit during a cool-down"
            assert self.now >= self.row_from.get(index, 0.0) - TICK, "a row was sent again before its time"
            account = self.accounts[index]
            account.present = LISTED if self.dearest is None else self.dearest
            assert row.estimate == account.present
            self.chosen.append(index)
            self.record(index)
        if rows:
            assert len(self.chosen) + len(self.posted) + len(self.watched_since) <= self.orders.in_flight
            if self.is_away:
                assert self.is_there, "a submit although nobody said that the API is back"
                assert wire_before == 0
                assert len(rows) == 1
            if self.credits_limit is not None:
                assert self.exposure() <= self.credits_limit + TICK, "more may be spent than the limit"

    def exposure(self) -> float:
        """Credits that everything until now may come to."""
        return sum(account.settled + account.present for account in self.accounts.values())

    @precondition(lambda self: self.chosen)
    @rule(which=st.integers(0, 20))
    def post(self, which: int) -> None:
        """The POST leaves, its intent on disk; or does not, where the run was stopped or a cool-down began."""
        index = self.chosen.pop(which % len(self.chosen))
        self.sync()
        if self.fleet.stopped is not None or not self.fleet.gate.pace.is_open(self.now):
            for fleet in self.fleets:
                fleet.unsend(fleet.lives[life(index).key], self.now)
            self.accounts[index].present = 0.0
            self.record(index)
            return
        for fleet in self.fleets:
            fleet.sent(life(index).key, self.now)
        self.posted.append(index)
        account = self.accounts[index]
        if account.unresolved:
            self.resubmitted.add((index, account.doubts))
            assert len(self.resubmitted) <= self.in_doubt_limit, "more resubmits of rows in doubt than allowed"
            assert self.policy.in_doubt == "resubmit", "a row held in doubt was POSTed again"

    @precondition(lambda self: self.chosen)
    @rule(which=st.integers(0, 20))
    def cannot_be_built(self, which: int) -> None:
        self.told_of_submit(self.chosen.pop(which % len(self.chosen)), SUBMITS["unsendable"])

    @precondition(lambda self: self.posted)
    @rule(which=st.integers(0, 20), name=st.sampled_from(["accepted", "accepted", "answered", *SUBMITS]))
    def reply_to_submit(self, which: int, name: str) -> None:
        index = self.posted.pop(which % len(self.posted))
        if name == "unsendable":
            name = "refused"
        self.told_of_submit(index, self.submit_event(index, name))

    def submit_event(self, index: int, name: str) -> SubmitEvent:
        if name == "answered":
            return answered(index, self.charge)
        if name == "accepted":
            self.serial += 1
            return Accepted(task_id=f"task-{self.serial}-{index}", reserved=self.reserved)
        return SUBMITS[name]

    def told_of_submit(self, index: int, event: SubmitEvent) -> None:
        account = self.accounts[index]
        if not isinstance(event, (Unreached, Unsendable)):
            account.is_flagged = account.is_flagged or account.unresolved > 0
        if isinstance(event, (Accepted, Answered, Doubted)):
            account.submits += 1
            account.unresolved += 1
            account.doubts += isinstance(event, Doubted)
            self.tasks[index] = self.tasks.get(index, 0) + 1
            assert account.submits <= self.policy.attempts, "more billed POSTs than `attempts`"
        self.note_gate(index, event)
        if isinstance(event, Accepted):
            if event.reserved is not None:
                account.present = event.reserved
                self.dearest = max(self.dearest or 0.0, event.reserved)
            self.watched_since[index] = self.now
            first_s = SHORTEST_S if self.first_s is None else self.first_s
            self.task_from[index] = self.now + first_s
        elif isinstance(event, Answered):
            account.settled += account.present if self.charge is None else self.charge
            account.present = 0.0
        else:
            if isinstance(event, Doubted):
                account.settled += account.present
            account.present = 0.0
        self.receive(index, event)

    def note_gate(self, index: int, event: SubmitEvent) -> None:
        if not isinstance(event, (Unsendable, Halted)):
            self.note_silence(index, event)
            self.is_there = False
        wait_s = 0.5 * RETRY_FIRST_S
        if isinstance(event, Deferred):
            asked_s = event.retry_after_s
            if event.scope == "rate":
                self.submits_from = max(self.submits_from, self.now + (1.0 if asked_s is None else asked_s))
                wait_s = 0.0
            elif asked_s is not None:
                wait_s = asked_s
        self.row_from[index] = self.now + (0.0 if isinstance(event, Halted) else wait_s)

    def note_silence(self, index: int, event: SubmitEvent) -> None:
        """How many were not taken in a row, and is a row in doubt again among them?"""
        if is_taken(event):
            self.silent, self.is_suspect = 0, False
            self.doubted.clear()
            return
        self.silent += 1
        if isinstance(event, Doubted):
            is_alone = {*self.chosen, *self.posted} <= {index}
            is_decisive = self.policy.attempts == 2 and self.accounts[index].submits == 1 and is_alone
            self.is_suspect = self.is_suspect or index in self.doubted or is_decisive
            self.doubted.add(index)

    @property
    def is_away(self) -> bool:
        """Does nobody seem to be there?"""
        return self.silent >= TRIP or self.is_suspect

    # Polls.

    @rule(most=st.integers(1, 6))
    def poll(self, most: int) -> None:
        for row in self.do(lambda fleet: fleet.polls(self.now, most)):
            index = row.index
            assert self.fleet.stopped not in LEAVING, "a poll although the run leaves"
            assert index in self.watched_since
            assert index not in self.polled, "a second poll of a task that is being asked about"
            assert self.now >= self.polls_from - TICK, "a poll although polls were throttled"
            assert self.now >= self.task_from[index] - TICK, "a poll before its time"
            self.polled.append(index)

    @rule(most=st.integers(1, 6))
    def poll_too_early(self, most: int) -> None:
        due = self.do(lambda fleet: fleet.next_poll_at())
        if due is None:
            assert self.fleet.stopped in LEAVING or len(self.polled) == len(self.watched_since)
        elif due > self.now:
            early = max(self.now, due - 0.001)
            assert self.do(lambda fleet: fleet.polls(early, most)) == []

    @precondition(lambda self: self.polled)
    @rule(which=st.integers(0, 20), name=st.sampled_from(["answered", "answered", "running", *POLLS]))
    def reply_to_poll(self, which: int, name: str) -> None:
        index = self.polled.pop(which % len(self.polled))
        self.told_of_poll(index, self.poll_event(index, name))

    def poll_event(self, index: int, name: str) -> PollEvent:
        """A task that has ended goes on saying how, whoever forgot it."""
        task_id = self.life_of(index).task_id
        assert task_id is not None
        assert task_id.endswith(f"-{index}"), "a task is asked about in the name of another row"
        event = answered(index, self.charge) if name == "answered" else POLLS[name]
        if isinstance(event, (Answered, TaskFailed, Running)):
            event = self.fates.get(task_id, event)
        if isinstance(event, (Answered, TaskFailed)):
            self.tasks[index] -= isinstance(event, TaskFailed) and task_id not in self.fates
            self.fates[task_id] = event
        return event

    def told_of_poll(self, index: int, event: PollEvent) -> None:
        account = self.accounts[index]
        deadline = self.watched_since[index] + TIMEOUT_S
        wait_s = 0.5 * RETRY_FIRST_S
        if isinstance(event, Running):
            wait_s = SHORTEST_S
        elif isinstance(event, Halted):
            wait_s = 1.0
        elif isinstance(event, Unheard) and event.is_rate:
            self.polls_from = max(self.polls_from, self.now + (event.retry_after_s or 1.0))
        if isinstance(event, TaskFailed):
            account.unresolved -= 1
            account.present = 0.0
            self.row_from[index] = self.now + 0.5 * RETRY_FIRST_S
        elif isinstance(event, Answered):
            account.settled += account.present if self.charge is None else self.charge
            account.present = 0.0
        self.receive(index, event)
        row = self.fleet.lives.get(life(index).key)
        if row is not None and row.state is State.RUNNING:
            assert self.now < deadline, "a task is watched beyond its time-out"
            self.task_from[index] = min(self.now + wait_s, deadline)
            return
        del self.watched_since[index], self.task_from[index]
        if isinstance(event, (Running, Unheard, Missing)):
            account.settled += account.present
            account.present = 0.0
            if self.ended[index].status == "timed_out":
                assert self.now >= deadline, "a task was given up too soon"

    def receive(self, index: int, event: Event) -> None:
        key = life(index).key
        before = self.life_of(index).state
        outcome = self.do(lambda fleet: fleet.receive(key, event, self.now, self.unix_s))
        row = self.fleet.lives.get(key)
        assert (outcome is None) == (row is not None)
        if outcome is not None:
            self.end(index, outcome)
        elif row is not None and row.state is not before:
            self.record(index)

    def end(self, index: int, outcome: Outcome) -> None:
        assert index not in self.ended or self.ended[index].status == "timed_out", "a row that ended twice"
        self.ended[index] = outcome
        account = self.accounts[index]
        assert (outcome.row_index, outcome.row_id) == (index, str(index))
        assert (outcome.submits, outcome.maybe_billed_twice) == (account.submits, account.is_flagged)
        assert outcome.submits <= self.policy.attempts
        assert outcome.maybe_billed_twice or self.tasks.get(index, 0) <= 1, "paid twice and not flagged"
        if outcome.status == "completed":
            assert outcome.answer is not None
            assert outcome.answer.text == str(index), "another row's answer"
            assert outcome.error is None
        else:
            assert outcome.error is not None, "a row that did not complete says why"
        if outcome.status == "invalid":
            assert account.submits == 0, "what was POSTed is not invalid"
        self.record(index)

    # Stops, kills, resumes.

    @rule(cause=st.sampled_from(["balance", "credits", "time", "idle", "input", "key", "signal", "machine"]))
    def stop(self, cause: StopCause) -> None:
        for fleet in self.fleets:
            fleet.stop(cause)
        assert self.do(lambda fleet: fleet.room()) == 0
        assert self.do(lambda fleet: fleet.next_submit_at(self.now)) is None

    @rule(reached_disk=st.floats(0.0, 1.0), away_s=st.sampled_from([0.0, 5.0, 4000.0]), lost=st.integers(0, 60))
    def kill_and_resume(self, reached_disk: float, away_s: float, lost: int) -> None:
        """What was not synced is cut anywhere; a row may leave the input meanwhile. A task ran on."""
        self.write(self.unsynced[: round(reached_disk * len(self.unsynced))])
        for index in self.posted:  # it may have arrived
            self.tasks[index] = self.tasks.get(index, 0) + 1
        if lost < self.shown:
            self.gone.add(lost)
        self.now += away_s
        self.resume()

    def resume(self) -> None:
        self.open_process()
        for index, kept in sorted(self.disk.items()):
            self.accounts[index] = copy.copy(kept.account)
            if kept.outcome is not None:
                self.ended[index] = kept.outcome
        for index, kept in sorted(self.disk.items()):
            if kept.outcome is None:
                self.adopt(index, kept)
        for index in range(self.shown):
            if index not in self.disk and index not in self.gone:
                self.offer(index)  # never seen, as far as anybody can tell
            elif index not in self.gone and index not in self.ended:
                self.unmet.add(index)
        assert self.do(lambda fleet: fleet.in_flight) == len(self.watched_since)

    def adopt(self, index: int, kept: Kept) -> None:
        account = self.accounts[index]
        if kept.state is State.SENDING:
            account.is_flagged = account.is_flagged or account.unresolved > 0
            account.submits += 1
            account.unresolved += 1
            account.doubts += 1
            account.settled += account.present
            account.present = 0.0
        elif kept.state is State.RUNNING:
            self.watched_since[index] = self.task_from[index] = self.now

        def adopt(fleet: Fleet) -> Outcome | None:
            known = Life(key=life(index).key, kept=kept.columns, state=kept.state, **copy.deepcopy(kept.record))
            return fleet.adopt(known, self.now, self.unix_s)

        outcome = self.do(adopt)
        if outcome is not None:
            assert kept.state is not State.RUNNING, "a task whose id is known was given up"
            self.end(index, outcome)
        else:
            self.record(index)

    @precondition(lambda self: any(done.status == "timed_out" for done in self.ended.values()))
    @rule(which=st.integers(0, 20), name=st.sampled_from(["answered", *POLLS]))
    def look_at_a_late_task_again(self, which: int, name: str) -> None:
        """As a later run does, once for each."""
        late = sorted(index for index, done in self.ended.items() if done.status == "timed_out")
        index = late[which % len(late)]
        done = self.ended[index]
        assert done.task_id is not None, "it could not be asked about"
        event = self.fates.get(done.task_id) or (answered(index, self.charge) if name == "answered" else POLLS[name])
        account = self.accounts[index]

        def look(fleet: Fleet) -> Outcome | None:
            row = life(index)
            row.request, row.state, row.task_id, row.reserved = None, State.RUNNING, done.task_id, done.credits
            row.submits, row.unresolved, row.maybe_billed_twice = done.submits, 1, done.maybe_billed_twice
            return second_look(row, event, self.orders, fleet.gate.budget, self.now, self.unix_s)

        outcome = self.do(look)
        if isinstance(event, (Answered, TaskFailed)):
            assert outcome is not None
            if done.task_id not in self.fates:
                self.tasks[index] -= isinstance(event, TaskFailed)
                self.fates[done.task_id] = event
            if done.credits is not None:  # what stood for the row's last attempt is known now
                account.settled += (outcome.credits or 0.0) - done.credits
            account.unresolved -= isinstance(event, TaskFailed)
            assert outcome.status == ("completed" if isinstance(event, Answered) else "failed")
            self.end(index, outcome)
        else:
            assert outcome is None, "no news ended a row"

    # What must hold at every step.

    @invariant()
    def both_fleets_are_the_same(self) -> None:
        if not hasattr(self, "fleets"):
            return
        first, second = self.fleets
        assert first.lives == second.lives
        assert list(first.lives) == list(second.lives)
        assert first.snapshot() == second.snapshot()
        assert first.events == second.events
        assert (first.stopped, first.stop_error) == (second.stopped, second.stop_error)
        assert first.gate.pace.resumes_at == second.gate.pace.resumes_at
        assert vars(first.gate.breaker) == vars(second.gate.breaker)
        self.do(lambda fleet: fleet.next_poll_at())
        self.do(lambda fleet: fleet.next_submit_at(self.now))

    @invariant()
    def the_fleet_and_the_account_agree(self) -> None:
        if not hasattr(self, "fleets"):
            return
        fleet = self.fleet
        states = {row.index: row.state for row in fleet.lives.values()}
        assert sorted(self.chosen + self.posted) == sorted(n for n, at in states.items() if at is State.SENDING)
        assert sorted(self.watched_since) == sorted(n for n, at in states.items() if at is State.RUNNING)
        assert not states.keys() & self.ended.keys()
        assert states.keys() | self.ended.keys() == self.accounts.keys()
        assert fleet.on_the_wire == len(self.chosen) + len(self.posted)
        assert fleet.in_flight == fleet.on_the_wire + len(self.watched_since)
        for row in fleet.lives.values():
            account = self.accounts[row.index]
            assert (row.submits, row.unresolved, row.maybe_billed_twice) == (
                account.submits,
                account.unresolved,
                account.is_flagged,
            )
        budget = fleet.gate.budget
        assert abs(budget.spent + budget.standing + budget.reserved - self.exposure()) < 1e-6
        assert fleet.gate.doubts.resubmitted <= max(self.in_doubt_limit, 0)

    # The end.

    def teardown(self) -> None:
        if hasattr(self, "fleets") and sys.exc_info()[0] is None:
            self.finish()

    def finish(self) -> None:
        """The API behaves from now on: whatever has happened, every row ends, in a bounded number of steps."""
        if self.fleet.stopped is not None:
            self.kill_and_resume(reached_disk=1.0, away_s=1.0, lost=10**6)
        for _ in range(40 * self.most_rows):
            for index in sorted(self.unmet):
                self.meet(index)
            self.feed(6)
            while self.posted:
                self.reply_to_submit(0, "accepted")
            while self.polled:
                self.reply_to_poll(0, "answered")
            self.ask_freely(is_there=True)
            self.choose(6)
            while self.chosen:
                self.post(0)
            self.poll(6)
            self.abandon_orphans()
            self.the_fleet_and_the_account_agree()
            self.both_fleets_are_the_same()
            if self.posted or self.polled:
                continue
            if self.do(lambda fleet: fleet.is_done(is_input_over=self.shown == self.most_rows)):
                break
            if self.fleet.gate.is_budget_binding and not self.fleet.in_flight:
                self.stop("credits")
                break
            moments = [self.do(lambda fleet: fleet.next_submit_at(self.now)), self.do(lambda f: f.next_poll_at())]
            following = min((at for at in moments if at is not None), default=None)
            assert following is not None, "nothing wakes the fleet"
            self.now = max(following, self.now + 0.001)
        else:
            raise AssertionError("the run has no end")
        if self.fleet.stopped is None:
            assert not self.fleet.lives
            assert self.ended.keys() >= set(range(self.most_rows)) - self.gone
        self.sync()
        assert {index for index, kept in self.disk.items() if kept.outcome is not None} == self.ended.keys()

    def abandon_orphans(self) -> None:
        if self.shown < self.most_rows or self.unmet:
            return
        for orphan in list(self.fleet.orphans()):
            self.abandon(orphan.index)

    def abandon(self, index: int) -> None:
        assert index in self.gone
        outcome = self.do(lambda fleet: fleet.abandon(fleet.lives[life(index).key], self.unix_s))
        if outcome is not None:
            assert outcome.status == ("in_doubt" if self.accounts[index].unresolved else "failed")
            self.end(index, outcome)
        else:
            assert self.accounts.pop(index).submits == 0
            self.record(index)


FleetMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestFleet = FleetMachine.TestCase


# Long walks: what needs many rows in many places at once comes up by chance alone too seldom.

CALM = {"accepted": 20, "answered": 2}
MOODS: list[dict[str, int]] = [
    CALM,
    CALM | {"lost": 5, "500": 2, "no host": 1},
    CALM | {"busy": 3, "unserved": 5, "429": 1, "429 for 10 s": 1, "busy for long": 1},
    CALM | {"refused": 3, "lost": 1, "429": 1},
    {"lost": 2, "no host": 5, "busy": 2},
    {"unserved": 5, "429": 1, "accepted": 2},
    {"accepted": 3, "429": 2, "429 for 10 s": 1},
]
POLL_MOODS: list[dict[str, int]] = [
    {"answered": 10, "running": 10},
    {"answered": 5, "running": 10, "failed": 6, "failed for good": 1},
    {"answered": 2, "unheard": 4, "404": 8, "empty": 4, "running": 1},
    {"running": 10, "throttled": 2, "throttled for 30 s": 1, "answered": 2},
]
DEEDS = {"wait": 20, "feed": 8, "show": 6, "ask": 4, "choose": 12, "post": 25, "poll": 12, "early": 2, "late": 1}
DEEDS |= {"submitted": 25, "polled": 18, "cannot be built": 1}


def draw_one(random: Random, weights: dict[str, int]) -> str:
    return random.choices(list(weights), list(weights.values()))[0]


@pytest.mark.parametrize("seed", range(60))
def test_a_long_walk_ends_every_row_and_breaks_nothing(seed: int) -> None:
    random = Random(seed)
    machine = FleetMachine()
    machine.most_rows = 80
    machine.begin(
        policy=Policy(
            attempts=random.randint(1, 4),
            failed=random.choice(["never", "transient", "always"]),
            in_doubt="hold" if random.random() < 0.2 else "resubmit",
            patience_s=random.choice([30.0, 3600.0]),
        ),
        in_flight=random.choice([1, 4, 12]),
        credits_limit=random.choice([None, None, 30.0, 100.0]),
        in_doubt_limit=random.choice([0, 2, 6, 1000]),
        first_s=random.choice([None, 0.0, 7.0]),
        reserved=random.choice([None, 1.0, LISTED]),
        charge=random.choice([None, 0.5, 1.0]),
        seed=seed,
    )
    walk(machine, random, 1500)
    machine.finish()


def walk(machine: FleetMachine, random: Random, steps: int) -> None:
    mood, poll_mood = CALM, POLL_MOODS[0]
    for step in range(steps):
        if step % 150 == 0:
            mood, poll_mood = random.choice(MOODS), random.choice(POLL_MOODS)
        if random.random() < (0.2 if machine.fleet.stopped else 0.003):
            machine.kill_and_resume(random.random(), random.choice([0.0, 5.0, 4000.0]), random.randrange(400))
        elif random.random() < 0.002:
            machine.stop(random.choice(["balance", "credits", "time", "idle", "input", "key", "signal", "machine"]))
        elif step and random.random() < 0.001:
            poll_mood = poll_mood | {"key": 1, "gateway": 1}
            mood = mood | {"key": 1, "balance": 1, "gateway": 1}
        take_a_step(machine, random, draw_one(random, DEEDS), mood, poll_mood)
        machine.both_fleets_are_the_same()
        machine.the_fleet_and_the_account_agree()


def take_a_step(
    machine: FleetMachine, random: Random, deed: str, mood: dict[str, int], poll_mood: dict[str, int]
) -> None:
    which, most = random.randrange(100), random.randint(1, 6)
    match deed:
        case "wait":
            machine.wait(random.choice([0.0, 0.001, 0.6, 0.6, 1.0, 3.0, 3.0, 11.0, 65.0 if which < 30 else 1.0]))
        case "feed":
            machine.feed(most)
        case "show" if machine.unmet:
            machine.show_known_row(which)
        case "ask":
            machine.ask_freely(is_there=which < 60)
        case "choose":
            machine.choose(most)
        case "post" if machine.chosen:
            machine.post(which)
        case "cannot be built" if machine.chosen:
            machine.cannot_be_built(which)
        case "submitted" if machine.posted:
            machine.reply_to_submit(which, draw_one(random, mood))
        case "poll":
            machine.poll(most)
        case "early":
            machine.poll_too_early(most)
        case "polled" if machine.polled:
            machine.reply_to_poll(which, draw_one(random, poll_mood))
        case "late" if any(done.status == "timed_out" for done in machine.ended.values()):
            machine.look_at_a_late_task_again(which, random.choice(["answered", "failed", "running", "404"]))
        case _:
            pass
