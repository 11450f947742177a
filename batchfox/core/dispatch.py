"""The fleet: every row between the input and its outcome, and what is to be done next with which of them.

The hands ask (`room`, `submits`, `polls`, `next_due`), do what they are told, and tell what came of it (`receive`).
Nothing here waits, and nothing knows what time it is unless told. Times are the run's clock in seconds, except
`unix_s`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from batchfox.core.agenda import Agenda
from batchfox.core.breaker import Breaker
from batchfox.core.budget import Budget
from batchfox.core.event import (
    Accepted,
    Answer,
    Answered,
    ApiError,
    Deferred,
    Doubted,
    Event,
    Halted,
    Missing,
    Refused,
    Running,
    TaskFailed,
    Unheard,
    Unreached,
    Unsendable,
)
from batchfox.core.lifecycle import Life, Move, Overdue, Policy, Sent, State, Surroundings, advance
from batchfox.core.outcome import Outcome, Status
from batchfox.core.pace import Pace
from batchfox.core.timing import Timing, retry_delay_s

StopCause = Literal["key", "gateway", "balance", "credits", "time", "signal", "machine", "asked"]
# These end the watching too: what is in flight is for the next run.
_LEAVING: tuple[StopCause, ...] = ("key", "gateway", "signal")
LOOKAHEAD = 256
LEAST_WAITING = 1000
# `in_doubt_limit = "auto"`: this many resubmits, or this share of submits, whichever is more (contract.md).
INTERRUPTED = Doubted(
    error=ApiError(code="interrupted", type="connection", message="the run ended while this POST was on the wire")
)
AUTO_DOUBTS = 100
AUTO_DOUBT_SHARE = 0.01


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the job asks of the fleet."""

    policy: Policy
    in_flight: int
    in_doubt_limit: int | None
    task_timeout_s: float
    run_id: str
    run_date: str


class Fleet:
    """All live rows. One instance a run."""

    def __init__(
        self, orders: Orders, *, pace: Pace, timing: Timing, breaker: Breaker, budget: Budget, draw: Callable[[], float]
    ) -> None:
        self.orders = orders
        self.pace = pace
        self.timing = timing
        self.breaker = breaker
        self.budget = budget
        self._draw = draw
        self.lives: dict[bytes, Life] = {}
        self._ready: deque[Life] = deque()
        self._retries = Agenda()
        self._agenda = Agenda()
        self._sending: dict[bytes, float] = {}
        self._polling: set[bytes] = set()
        self._running = 0
        self._got_through_at = float("-inf")
        self._polls_resume_at = 0.0
        self._polls_throttled = 0
        self.stopped: StopCause | None = None
        self.stop_error: ApiError | None = None
        self.submits_sent = 0
        self.submits_before = 0
        self.polls_sent = 0
        self.doubts_resubmitted = 0
        self.doubts_held = 0
        self.events: Counter[str] = Counter()
        self.is_budget_binding = False

    # What stands.

    @property
    def in_flight(self) -> int:
        """Tasks submitted and not yet settled, the POSTs on the wire among them."""
        return len(self._sending) + self._running

    @property
    def on_the_wire(self) -> int:
        """POSTs sent whose reply is not in."""
        return len(self._sending)

    def sending(self) -> set[bytes]:
        """Keys of the rows whose POST is on the wire."""
        return set(self._sending)

    @property
    def waiting(self) -> int:
        return len(self.lives) - self.in_flight

    def room(self) -> int:
        """How many more rows the fleet takes now; 0 once it is stopped."""
        if self.stopped is not None:
            return 0
        orders = self.orders
        ahead = min(orders.in_flight, LOOKAHEAD) - len(self._ready)
        most = 2 * orders.in_flight + max(LEAST_WAITING, orders.in_flight)
        return max(min(ahead, most - len(self.lives)), 0)

    def is_done(self, *, is_input_over: bool) -> bool:
        """Nothing is left to do: all rows ended, or the run was stopped and what was in flight ended."""
        if self.stopped is not None:
            return self.in_flight == 0 or (self.stopped in _LEAVING and not self._sending)
        return is_input_over and not self.lives

    # Rows come in.

    def offer(self, life: Life) -> None:
        """Takes a new row, rendered and checked, ready to be sent."""
        assert life.key not in self.lives, life.id
        self.lives[life.key] = life
        self._ready.append(life)

    def adopt(self, life: Life, now: float, unix_s: float) -> Outcome | None:
        """Takes a row that an earlier run left: RUNNING with its task id, or WAITING for another attempt; one that
        was SENDING when the run died is in doubt. Returns its outcome where that ends it."""
        assert life.key not in self.lives, life.id
        self.lives[life.key] = life
        if life.state is State.SENDING:
            self.budget.standing += self._held(life)
            move = advance(life, INTERRUPTED, self.orders.policy, self._around(None), now)
            self._count_doubt(life)
            if move.state is State.SETTLED:
                outcome = self._outcome(life, "in_doubt", None, unix_s)
                self._forget(life)
                return outcome
            return None
        if life.state is State.RUNNING:
            self._running += 1
            age_s = max(unix_s - (life.submitted_at or unix_s), 0.0)
            life.born = life.found_running_at = now - age_s
            life.watched_since = now
            life.polls_here = 0
            self.budget.reserve(self._held(life))
            self._agenda.put(life.key, now)
        return None

    def meet(self, key: bytes, life: Life, now: float) -> None:
        """The input showed a row that is known from the checkpoint: it can be sent again from now on."""
        known = self.lives[key]
        if known.request is not None:
            return
        known.request, known.group, known.is_sync = life.request, life.group, life.is_sync
        known.request_hash = known.request_hash or life.request_hash
        known.model = known.model or life.model
        if known.state is State.WAITING:
            self._retries.put(key, now)

    def orphans(self) -> list[Life]:
        """Rows from the checkpoint that wait for another attempt but that the input did not show."""
        return [life for life in self.lives.values() if life.request is None and life.state is State.WAITING]

    def abandon(self, life: Life, unix_s: float) -> Outcome | None:
        """Ends an orphan: in doubt, if something may have been paid for it; else it leaves no trace."""
        self._forget(life)
        if life.unresolved == 0 and life.submits == 0:
            return None
        status: Status = "in_doubt" if life.unresolved else "failed"
        return self._outcome(life, status, None, unix_s)

    # What to do next.

    def submits(self, now: float, unix_s: float, most: int) -> list[Life]:
        """At most `most` rows that are to be POSTed now, each SENDING from here on."""
        chosen: list[Life] = []
        if self.stopped is not None or not self.pace.is_open(now):
            return chosen
        most = min(most, self.orders.in_flight - self.in_flight)
        if self.breaker.is_open:
            most = min(most, 1 if self.breaker.allows(now, len(self._sending)) else 0)
        around = self._around(None)
        while len(chosen) < most:
            life = self._next_ready(now)
            if life is None:
                break
            estimate = self.budget.estimate(life.group, life.listed)
            self.is_budget_binding = not self.budget.may_spend(estimate)
            if self.is_budget_binding:
                self._ready.appendleft(life)
                break
            self.budget.reserve(estimate)
            life.estimate = estimate
            advance(life, Sent(unix_s=unix_s), self.orders.policy, around, now)
            self._sending[life.key] = now
            chosen.append(life)
        return chosen

    def _next_ready(self, now: float) -> Life | None:
        due = self._retries.take_due(now, 1)
        if due:
            return self.lives[due[0]]
        return self._ready.popleft() if self._ready else None

    def sent(self, key: bytes, now: float) -> None:
        """The POST of a row leaves now (its token is taken)."""
        self._sending[key] = now
        self.submits_sent += 1

    def unsend(self, life: Life, now: float) -> None:
        """A row that `submits` chose was not POSTed after all (the run is stopping)."""
        del self._sending[life.key]
        self.budget.release(life.estimate)
        life.state = State.WAITING
        self._retries.put(life.key, now)

    def polls(self, now: float, most: int) -> list[Life]:
        """At most `most` rows whose task is to be asked about now."""
        if now < self._polls_resume_at or self.stopped in _LEAVING:
            return []
        keys = self._agenda.take_due(now, most)
        self._polling.update(keys)
        self.polls_sent += len(keys)
        return [self.lives[key] for key in keys]

    def asks_upstream(self, life: Life) -> bool:
        """Should this poll have the router refresh from upstream? Now and then, once a task is late; never again
        after that brought `completed` without results (api.md)."""
        return not life.shuns_upstream and life.polls_here >= 3 and life.polls_here % 3 == 0

    def next_poll_at(self) -> float | None:
        """When the next poll is due; None: no task is being watched."""
        if self.stopped in _LEAVING or (due := self._agenda.next_due()) is None:
            return None
        return max(due, self._polls_resume_at)

    def next_submit_at(self, now: float) -> float | None:
        """When the next submit may leave, as far as time decides it; None: only an event can bring one about."""
        if self.stopped is not None or self.in_flight >= self.orders.in_flight:
            return None
        if self.breaker.is_open and self._sending:
            return None
        if self.is_budget_binding and self.in_flight:
            return None
        due = now if self._ready else self._retries.next_due()
        if due is None:
            return None
        opens = max(now, self.pace.resumes_at)
        return max(due, opens, self.breaker.probe_at) if self.breaker.is_open else max(due, opens)

    # What came of it.

    def receive(self, key: bytes, event: Event, now: float, unix_s: float) -> Outcome | None:
        """A reply (or its absence) came in. Returns the row's outcome where it has ended; the row is then gone."""
        life = self.lives[key]
        sent_at = self._sending.get(key)
        move = advance(life, event, self.orders.policy, self._around(life), now)
        self.events[type(event).__name__] += 1
        if sent_at is not None:
            del self._sending[key]
            self._note_submit(life, event, sent_at, now)
        else:
            self._polling.discard(key)
            life.polls += 1
            life.polls_here += 1
            self._note_poll(life, event, move.state, now)
        match move.state:
            case State.RUNNING:
                if sent_at is not None:
                    self._running += 1
                elif now - life.watched_since >= self.orders.task_timeout_s:
                    move = advance(life, Overdue(), self.orders.policy, self._around(life), now)
            case State.WAITING:
                self._queue_again(life, event, now)
            case _:
                pass
        if move.state is State.SETTLED:
            return self._settle(life, event, move, unix_s, was_running=sent_at is None)
        if move.state is State.WAITING and sent_at is None:
            self._running -= 1
            self.budget.release(self._held(life))
        return None

    def _queue_again(self, life: Life, event: Event, now: float) -> None:
        """A 429 is everybody's and the shared cool-down has it; any other trouble is waited out by the row itself."""
        asked_s = event.retry_after_s if isinstance(event, Deferred) else None
        is_everybodys = isinstance(event, Halted) or (isinstance(event, Deferred) and event.scope == "rate")
        delay_s = 0.0 if is_everybodys else retry_delay_s(life.deferrals, self._draw(), asked_s)
        if life.request is not None:
            self._retries.put(life.key, now + delay_s)

    def _note_submit(self, life: Life, event: Event, sent_at: float, now: float) -> None:
        """What a submit's reply tells about pace, money, and whether the API is there at all."""
        budget = self.budget
        match event:
            case Accepted():
                self._got_through_at = now
                self.pace.accept(now)
                self.breaker.succeed()
                life.estimate = budget.learn(life.group, life.estimate, event.reserved)
                self._agenda.put(life.key, now + self.timing.first_poll_s(life.group))
            case Answered():
                self._got_through_at = now
                self.pace.accept(now)
                self.breaker.succeed()
            case Refused():
                self.breaker.succeed()
                budget.release(life.estimate)
            case Unsendable():
                budget.release(life.estimate)
            case Deferred():
                budget.release(life.estimate)
                if event.scope == "rate":
                    self.pace.throttle(now, sent_at, event.retry_after_s)
                if event.scope == "service":
                    self.breaker.fail(now)
                else:
                    self.breaker.succeed()
            case Unreached():
                budget.release(life.estimate)
                self.breaker.fail(now)
            case Doubted():
                self.breaker.fail(now)
                budget.let_stand(self._held(life))
                self._count_doubt(life)
            case Halted():
                budget.release(life.estimate)
                self.stop(event.cause, event.error)
            case _:
                raise AssertionError(event)

    def _count_doubt(self, life: Life) -> None:
        """Resubmits of rows in doubt are bounded in a run; past the limit rows are held."""
        policy = self.orders.policy
        if life.state is State.WAITING:
            self.doubts_resubmitted += 1
        elif policy.in_doubt == "resubmit" and life.attempts < policy.attempts:
            self.doubts_held += 1

    def _note_poll(self, life: Life, event: Event, state: State, now: float) -> None:
        """What a poll's reply tells about latencies, and when to ask next."""
        match event:
            case Answered() | TaskFailed():
                low_s, high_s = life.found_running_at - life.born, now - life.born
                self.timing.see(life.group, low_s, high_s, now)
                return
            case Running():
                wait_s = self.timing.next_poll_s(life.group, now - life.born)
            case Unheard(is_rate=True):
                self._polls_throttled += 1
                wait_s = retry_delay_s(life.unheard, self._draw(), event.retry_after_s)
                self._polls_resume_at = max(self._polls_resume_at, now + (event.retry_after_s or 1.0))
            case Unheard() | Missing():
                wait_s = retry_delay_s(life.unheard + life.odd_replies, self._draw())
            case Halted():
                wait_s = 1.0
                self.stop(event.cause, event.error)
            case _:
                raise AssertionError(event)
        if state is State.RUNNING:
            deadline = life.watched_since + self.orders.task_timeout_s
            self._agenda.put(life.key, max(min(now + wait_s, deadline), now))

    def _settle(self, life: Life, event: Event, move: Move, unix_s: float, *, was_running: bool) -> Outcome:
        status = move.status or "failed"
        if was_running:
            self._running -= 1
        outcome = self._outcome(life, status, move.answer, unix_s)
        held = self._held(life)
        if status == "completed":
            self.budget.charge(held, held if outcome.credits is None else outcome.credits)
        elif was_running and isinstance(event, TaskFailed):
            self.budget.release(held)
        elif was_running:
            self.budget.let_stand(held)
        self._forget(life)
        return outcome

    def _outcome(self, life: Life, status: Status, answer: Answer | None, unix_s: float) -> Outcome:
        charged = answer.credits if answer is not None else None
        is_charged = status == "completed" or life.unresolved > 0
        submitted_at = life.submitted_at if life.submits else None
        return Outcome(
            row_index=life.index,
            row_id=life.id,
            status=status,
            answer=answer,
            error=None if status == "completed" else life.error,
            model=life.model,
            task_id=life.task_id,
            credits=charged if charged is not None else life.reserved if is_charged else None,
            http_status=life.http_status,
            submits=life.submits,
            maybe_billed_twice=life.maybe_billed_twice,
            polls=life.polls,
            submitted_at=submitted_at,
            finished_at=unix_s,
            latency_s=None if submitted_at is None else max(unix_s - submitted_at, 0.0),
            request_hash=life.request_hash,
            media=life.media,
            run_id=self.orders.run_id,
            run_date=self.orders.run_date,
        )

    def _forget(self, life: Life) -> None:
        self._agenda.drop(life.key)
        self._retries.drop(life.key)
        del self.lives[life.key]

    def _held(self, life: Life) -> float:
        return life.reserved if life.reserved is not None else life.estimate

    def _around(self, life: Life | None) -> Surroundings:
        limit = self.orders.in_doubt_limit
        if limit is None:
            limit = max(AUTO_DOUBTS, int(AUTO_DOUBT_SHARE * (self.submits_before + self.submits_sent)))
        deferred_at = life.deferred_at if life is not None else None
        return Surroundings(
            may_resubmit_doubt=self.doubts_resubmitted < limit,
            others_get_through=deferred_at is not None and self._got_through_at >= deferred_at,
        )

    def stop(self, cause: StopCause, error: ApiError | None = None) -> None:
        """No further submits. The first cause stays; a refused key or a signal also ends the watching."""
        if self.stopped is None or (cause in _LEAVING and self.stopped != cause):
            self.stopped, self.stop_error = cause, error

    def snapshot(self) -> dict[str, Any]:
        """Figures for display and logs."""
        return {
            "in_flight": self.in_flight,
            "waiting": self.waiting,
            "submits": self.submits_before + self.submits_sent,
            "polls": self.polls_sent,
            "throttles": self.pace.throttles,
            "polls_throttled": self._polls_throttled,
            "in_doubt_resubmitted": self.doubts_resubmitted,
            "in_doubt_held": self.doubts_held,
            "credits_spent": self.budget.spent,
            "credits_reserved": self.budget.reserved,
            "credits_standing": self.budget.standing,
            "per_minute": self.pace.per_minute,
        }
