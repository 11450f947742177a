"""A small world for the fleet: the API and the hands, on a clock that jumps from event to event.

`Api` keeps its own book of what was POSTed and made, so that a test compares the fleet's account with the truth.
`World` does what `pool.py` does, without waiting: it feeds, submits within a leaky bucket, polls, delivers replies, and
asserts at every step what must hold at every step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from random import Random
from typing import Literal, NamedTuple

import msgspec

from batchfox.core.breaker import Breaker
from batchfox.core.bucket import Drip
from batchfox.core.budget import Budget
from batchfox.core.dispatch import Fleet
from batchfox.core.event import (
    Accepted,
    Answer,
    Answered,
    ApiError,
    Deferred,
    Doubted,
    PollEvent,
    Running,
    SubmitEvent,
    TaskFailed,
    Unreached,
)
from batchfox.core.gate import Doubts, Gate
from batchfox.core.lifecycle import Life, Policy, State
from batchfox.core.outcome import Outcome
from batchfox.core.paces import Paces
from batchfox.core.row import key_of_position
from batchfox.core.settle import Orders
from batchfox.core.timing import Timing
from batchfox.core.watch import Watch

UNIX_S = 1_700_000_000.0
OOPS = ApiError(code="oops", message="it went wrong")
NO_HOST = Unreached(error=OOPS)
BUSY = Deferred(error=OOPS, scope="service", http_status=503)
UNSERVED = Deferred(error=ApiError(code="no_compatible_channel"), scope="row", http_status=422)
LOST = Doubted(error=OOPS)
FAILED = TaskFailed(error=OOPS, transient=True)
FAILED_FOR_GOOD = TaskFailed(error=OOPS, transient=False)


def throttled(wait_s: float | None = None) -> Deferred:
    return Deferred(error=OOPS, scope="rate", http_status=429, retry_after_s=wait_s)


def life(index: int, *, group: str = "g", listed: float = 0.0, size: int = 0, model: str | None = None) -> Life:
    """A row that is ready to be sent."""
    return Life(
        key=key_of_position(index),
        index=index,
        id=str(index),
        kept={"n": index},
        request={"n": index},
        group=group,
        listed=listed,
        size=size,
        model=model,
    )


def answered(index: int, charge: float | None = None) -> Answered:
    return Answered(answer=Answer(completion=f'{{"n":{index}}}', text=str(index), credits=charge))


def make_fleet(
    *,
    policy: Policy | None = None,
    in_flight: int = 200,
    bytes_in_flight: int = 1 << 30,
    per_minute: float | None = None,
    credits_limit: float | None = None,
    in_doubt_limit: int | None = None,
    first_s: float | None = None,
    task_timeout_s: float = 3600.0,
    seed: int = 0,
) -> Fleet:
    draw = Random(seed).random
    return Fleet(
        Orders(
            policy=policy or Policy(),
            in_flight=in_flight,
            bytes_in_flight=bytes_in_flight,
            run_id="run",
            run_date="2026-01-01",
        ),
        gate=Gate(
            pace=Paces(per_minute), breaker=Breaker(), budget=Budget(credits_limit), doubts=Doubts(in_doubt_limit)
        ),
        watch=Watch(Timing(first_s, draw), task_timeout_s, draw),
        draw=draw,
    )


class Task(msgspec.Struct, gc=False):
    """What the API made of a POST."""

    index: int
    done_at: float
    end: PollEvent


class Api:
    """An API that behaves. Tests override `on_submit`, `on_poll`, `latency_s` or `end_of` to make it misbehave."""

    def __init__(self, seed: int = 1, *, median_s: float = 4.0, sigma: float = 0.5, reply_s: float = 0.05) -> None:
        self.random = Random(seed)
        self.median_s, self.sigma, self.reply_s = median_s, sigma, reply_s
        self.posts: Counter[int] = Counter()  # by row: POSTs that arrived
        self.made: Counter[int] = Counter()  # by row: tasks made
        self.failed: Counter[int] = Counter()  # by row: tasks that ended as failed
        self.post_times: list[float] = []
        self.tasks: dict[str, Task] = {}
        self.reserved: float | None = None
        self.charge: float | None = None
        self._serial = 0

    def latency_s(self, row: Life) -> float:
        return self.median_s * math.exp(self.random.gauss(0.0, self.sigma))

    def end_of(self, row: Life, nth: int) -> PollEvent:
        """How the `nth` task of a row ends."""
        return answered(row.index, self.charge)

    def make_task(self, row: Life, now: float) -> Accepted:
        self.made[row.index] += 1
        self._serial += 1
        task_id = f"task-{self._serial}"
        end = self.end_of(row, self.made[row.index])
        self.failed[row.index] += isinstance(end, TaskFailed)
        self.tasks[task_id] = Task(index=row.index, done_at=now + self.latency_s(row), end=end)
        return Accepted(task_id=task_id, reserved=self.reserved)

    def on_submit(self, row: Life, now: float) -> SubmitEvent:
        return self.make_task(row, now)

    def is_there(self, now: float) -> bool:
        """The answer to the free question."""
        return True

    def on_poll(self, row: Life, now: float) -> PollEvent:
        assert row.task_id is not None
        task = self.tasks[row.task_id]
        assert task.index == row.index, "a task is asked about in the name of another row"
        return task.end if now >= task.done_at else Running()

    def submit(self, row: Life, now: float) -> tuple[float, SubmitEvent]:
        self.posts[row.index] += 1
        self.post_times.append(now)
        return now + self.reply_s, self.on_submit(row, now)

    def poll(self, row: Life, now: float) -> tuple[float, PollEvent]:
        return now + self.reply_s, self.on_poll(row, now)


class Deed(NamedTuple):
    """What was done when, for comparing two runs."""

    at: float
    what: str
    row: int


class World:
    """One run of a fleet against an API."""

    def __init__(
        self,
        fleet: Fleet,
        api: Api,
        rows: Iterable[Life],
        *,
        time_s: float = 86_400.0,
        polls_on_the_wire: int = 1000,
        tick_s: float = 0.001,
        most_turns: int = 1_000_000,
        keeps_deeds: bool = False,
    ) -> None:
        self.fleet, self.api = fleet, api
        self.now = 0.0
        self.outcomes: dict[int, Outcome] = {}
        self.ended_at: dict[int, float] = {}
        self.first_sent_at: dict[int, float] = {}
        self.deeds: list[Deed] = []
        self.turns = 0
        self.questions = 0
        self.most_in_flight = 0
        self.most_lives = 0
        self._rows: Iterator[Life] = iter(rows)
        self._is_over = False
        self._time_s = time_s
        self._polls_free = polls_on_the_wire
        self._tick_s = tick_s
        self._most_turns = most_turns
        self._keeps_deeds = keeps_deeds
        self._replies: list[tuple[float, int, Life, SubmitEvent | PollEvent, bool]] = []
        self._serial = 0
        self._live: dict[int, Literal["posted", "watched", "polled"]] = {}
        self._drip = Drip()
        self._drip_per_minute = 0.0

    @property
    def unix_s(self) -> float:
        return UNIX_S + self.now

    def run(self, until: float = math.inf) -> World:
        """Runs to the fleet's end, or to the moment `until`."""
        while not self.fleet.is_done(is_input_over=self._is_over):
            self.turns += 1
            assert self.turns <= self._most_turns, "the fleet asks to be looked at without end"
            has_acted = self._feed() + self._submit() + self._poll() + self._deliver()
            self._check_limits()
            if has_acted:
                continue
            following = self._next_moment()
            if following is None or following > until:
                assert following is not None or self.fleet.is_done(is_input_over=self._is_over), "nothing wakes it"
                return self
            # The pool sleeps a millisecond at least, and so does this clock.
            self.now = max(following, self.now + self._tick_s)
        return self

    def _next_moment(self) -> float | None:
        fleet = self.fleet
        moments = [self._replies[0][0]] if self._replies else []
        if (due := fleet.next_submit_at(self.now)) is not None:
            moments.append(max(due, self._drip.ready_at(self.now)))
        if self._polls_free and (due := fleet.next_poll_at()) is not None:
            moments.append(due)
        return min(moments, default=None)

    def _feed(self) -> int:
        fed = 0
        while not self._is_over and self.fleet.room() > 0:
            row = next(self._rows, None)
            if row is None:
                self._is_over = True
                break
            self.fleet.offer(row)
            fed += 1
        self.most_lives = max(self.most_lives, len(self.fleet.lives))
        return fed

    def _submit(self) -> int:
        fleet = self.fleet
        pace = fleet.gate.pace
        if pace.per_minute != self._drip_per_minute:
            self._drip_per_minute = pace.per_minute
            self._drip.resize(pace.per_minute, self.now)
        if not pace.is_open(self.now):
            self._drip.calm(self.now)
        if self._drip.ready_at(self.now) > self.now:
            return 0
        tokens = int(self._drip.room + 1e-9)
        if fleet.asks_freely(self.now):
            self.questions += 1
            fleet.gate.breaker.hear(self.now, is_there=self.api.is_there(self.now))
        chosen = fleet.submits(self.now, self.unix_s, tokens)
        for row in chosen:
            self._drip.take(self.now)
            assert fleet.stopped is None, "a submit after the stop"
            assert fleet.may_leave(row, self.now), "a submit during its model's cool-down"
            assert row.index not in self._live, "a second live attempt of one row"
            assert row.index not in self.outcomes, "a submit of a row that has ended"
            self._live[row.index] = "posted"
            self.first_sent_at.setdefault(row.index, self.now)
            fleet.sent(row.key, self.now)
            self._note("submit", row)
            at, event = self.api.submit(row, self.now)
            self._reply(at, row, event, is_submit=True)
        if chosen:
            self.most_in_flight = max(self.most_in_flight, fleet.in_flight)
            assert fleet.in_flight <= fleet.orders.in_flight
            budget = fleet.gate.budget
            if budget.limit is not None:
                assert budget.spent + budget.reserved + budget.standing <= budget.limit + 1e-6
        return len(chosen)

    def _poll(self) -> int:
        chosen = self.fleet.polls(self.now, self._polls_free)
        for row in chosen:
            assert self._live[row.index] == "watched", "a poll of a task that is not running, or already being asked"
            self._live[row.index] = "polled"
            self._polls_free -= 1
            self._note("poll", row)
            at, event = self.api.poll(row, self.now)
            self._reply(at, row, event, is_submit=False)
        return len(chosen)

    def _reply(self, at: float, row: Life, event: SubmitEvent | PollEvent, *, is_submit: bool) -> None:
        self._serial += 1
        heappush(self._replies, (at, self._serial, row, event, is_submit))

    def _deliver(self) -> int:
        delivered = 0
        while self._replies and self._replies[0][0] <= self.now:
            _, _, row, event, is_submit = heappop(self._replies)
            delivered += 1
            self._polls_free += not is_submit
            outcome = self.fleet.receive(row.key, event, self.now, self.unix_s)
            self._note(type(event).__name__, row)
            if row.state is State.RUNNING:
                self._live[row.index] = "watched"
            else:
                del self._live[row.index]
            assert (outcome is not None) == (row.state is State.SETTLED)
            if outcome is not None:
                assert row.index not in self.outcomes, "a row that ended twice"
                self.outcomes[row.index] = outcome
                self.ended_at[row.index] = self.now
        return delivered

    def _check_limits(self) -> None:
        """As the pool does: the time limit, and a budget that nothing will ever free again."""
        fleet = self.fleet
        if fleet.stopped is None and self.now >= self._time_s:
            fleet.stop("time")
        elif fleet.stopped is None and fleet.gate.is_budget_binding and fleet.in_flight == 0:
            fleet.stop("credits")

    def _note(self, what: str, row: Life) -> None:
        if self._keeps_deeds:
            self.deeds.append(Deed(self.now, what, row.index))

    def statuses(self) -> Counter[str]:
        return Counter(outcome.status for outcome in self.outcomes.values())

    def check_accounts(self, rows: int) -> None:
        """Every row ended once, with its own answer, and the columns about money agree with the API's book."""
        assert sorted(self.outcomes) == list(range(rows))
        for index, outcome in self.outcomes.items():
            assert outcome.row_id == str(index)
            assert outcome.row_index == index
            if outcome.status == "completed":
                assert outcome.answer is not None
                assert outcome.answer.text == str(index), "another row's answer"
            assert self.api.made[index] <= outcome.submits <= self.api.posts[index]
            if self.api.made[index] - self.api.failed[index] > 1:
                assert outcome.maybe_billed_twice, "paid twice and not flagged"
