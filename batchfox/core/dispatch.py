"""The fleet: every row between the input and its outcome, and what is to be done next with which of them.

The hands ask (`room`, `submits`, `polls`, `next_due`), do what they are told, and tell what came of it (`receive`).
Nothing here waits, and nothing knows what time it is unless told. Times are the run's clock in seconds, except
`unix_s`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from batchfox.core.event import (
    Accepted,
    Answer,
    Answered,
    ApiError,
    Deferred,
    Doubted,
    Event,
    Halted,
    Refused,
    Streamed,
)
from batchfox.core.gate import Gate, held
from batchfox.core.health import Health
from batchfox.core.lifecycle import (
    CALM,
    Life,
    Overdue,
    Sent,
    State,
    Surroundings,
    Withheld,
    advance,
    may_be_sent_again,
)
from batchfox.core.outcome import Outcome, Status
from batchfox.core.queue import Queue
from batchfox.core.settle import Orders, outcome_of
from batchfox.core.timing import retry_delay_s
from batchfox.core.watch import Watch

StopCause = Literal[
    "key",
    "gateway",
    "balance",
    "credits",
    "time",
    "window",
    "idle",
    "pause",
    "guard",
    "ctl",
    "signal",
    "input",
    "machine",
]
# These end the watching too: what is in flight is for the next run.
_LEAVING: tuple[StopCause, ...] = ("key", "gateway", "ctl", "signal", "machine")
LOOKAHEAD = 256
LEAST_WAITING = 1000
INTERRUPTED = Doubted(
    error=ApiError(code="interrupted", type="connection", message="the run ended while this POST was on the wire")
)

# One task cannot answer two rows: whose it is, and whether another was made, nobody knows.
TAKEN = Doubted(error=ApiError(code="task_id_taken", message="the API gave a task id that another row in flight has"))
GONE = ApiError(code="row_gone", message="the run ended before this row was sent again, and the input no longer has it")
NOT_AGAIN = ApiError(
    code="not_sent_again", message="the run ended before this row was sent again, and [retry] now says that it is not"
)


class Fleet:
    """All live rows. One instance a run."""

    def __init__(self, orders: Orders, *, gate: Gate, watch: Watch, draw: Callable[[], float]) -> None:
        self.orders = orders
        self.gate = gate
        self.watch = watch
        self.health = Health()
        self._draw = draw
        self.lives: dict[bytes, Life] = {}
        self._unshown: dict[bytes, Life] = {}  # known from the checkpoint, and not yet met in the input
        self._queue = Queue(self.lives, gate.pace.opens_at)
        self._sending: dict[bytes, float] = {}
        self._running = 0
        self.bytes_held = 0
        self._tasks: set[str] = set()
        self._refused: dict[bytes, ApiError] = {}
        self.stopped: StopCause | None = None
        self.stop_error: ApiError | None = None
        # Since when nothing is submitted because somebody said so.
        self.paused_at: float | None = None
        self.submits_sent = 0
        self.last_sent_at: float | None = None
        self.submits_billed = 0
        self.submits_before = 0
        self.events: Counter[str] = Counter()

    # What stands.

    @property
    def in_flight(self) -> int:
        """Tasks submitted and not yet settled, the POSTs on the wire among them."""
        return len(self._sending) + self._running

    @property
    def on_the_wire(self) -> int:
        """POSTs sent whose reply is not in."""
        return len(self._sending)

    @property
    def submits_counted(self) -> int:
        """The run's POSTs that were or may have been billed. One that no connection came about for is none of them."""
        return self.submits_before + self.submits_billed

    def sending(self) -> set[bytes]:
        """Keys of the rows whose POST is on the wire."""
        return set(self._sending)

    @property
    def waiting(self) -> int:
        return len(self.lives) - self.in_flight

    @property
    def _may_submit(self) -> bool:
        return self.stopped is None and self.paused_at is None

    def pause(self, now: float) -> None:
        """Nothing more is submitted until `resume`; tasks are asked about all the same."""
        self.paused_at = now

    def resume(self, now: float) -> None:
        """Submits go on. A pause is nobody's fault: it wears down no row's patience, and no outage lasted meanwhile."""
        assert self.paused_at is not None
        paused_s, self.paused_at = now - self.paused_at, None
        for life in self.lives.values():
            if life.deferred_at is not None:
                life.deferred_at += paused_s
        if self.gate.idle_since is not None:
            self.gate.idle_since += paused_s

    def limit_in_flight(self, most: int) -> None:
        """So many tasks at most from now on; those that are more are not given up."""
        self.orders = msgspec.structs.replace(self.orders, in_flight=most)

    @property
    def has_waiting(self) -> bool:
        """Is a row to be submitted, now or later?"""
        return bool(self._queue)

    @property
    def may_give_up(self) -> bool:
        """May tasks be given up? Not where they are left to the next run."""
        return self.stopped not in _LEAVING

    def room(self) -> int:
        """How many more rows the fleet takes now, one at a time: none once it is stopped, or while the requests that it
        holds are as large as may be."""
        orders = self.orders
        if self.stopped is not None or self.bytes_held >= orders.bytes_in_flight:
            return 0
        ahead = min(orders.in_flight, LOOKAHEAD) - self._queue.new
        most = 2 * orders.in_flight + max(LEAST_WAITING, orders.in_flight)
        return max(min(ahead, most - len(self.lives)), 0)

    def is_done(self, *, is_input_over: bool) -> bool:
        """Nothing is left to do: all rows ended (orphans aside), or the run was stopped and nothing is in flight."""
        if self.stopped is not None:
            return self.in_flight == 0 or (self.stopped in _LEAVING and not self._sending)
        return is_input_over and self.in_flight == 0 and not self._queue

    # Rows come in.

    def offer(self, life: Life) -> None:
        """Takes a new row, rendered and checked, ready to be sent."""
        assert life.key not in self.lives, life.id
        self.lives[life.key] = life
        self.bytes_held += life.size
        self._queue.add(life)

    def adopt(self, life: Life, now: float, unix_s: float) -> Outcome | None:
        """Takes a row that an earlier run left: RUNNING with its task id, or WAITING for another attempt; one that
        was SENDING when the run died is in doubt. Returns its outcome where that ends it."""
        assert life.key not in self.lives, life.id
        self.lives[life.key] = self._unshown[life.key] = life
        if life.state is State.SENDING:
            self.gate.budget.reserve(held(life))
            self.gate.budget.let_stand(held(life))
            move = advance(life, INTERRUPTED, self.orders.policy, self._around(life, INTERRUPTED), now)
            self.gate.doubts.count(life, self.orders.policy)
            self.submits_before += 1
            if move.state is State.SETTLED:
                outcome = outcome_of(life, self.orders, "in_doubt", None, unix_s)
                self._forget(life)
                return outcome
            return None
        if life.state is State.RUNNING:
            self._begin_running(life)
            self.watch.take_up(life, now, unix_s)
            self.gate.budget.reserve(held(life))
        elif not may_be_sent_again(life, self.orders.policy):
            return self.abandon(life, unix_s, NOT_AGAIN)
        return None

    def meet(self, life: Life, now: float) -> None:
        """The input showed a row that is known from the checkpoint: it can be sent again from now on."""
        known = self.lives[life.key]
        if self._unshown.pop(life.key, None) is None:
            return
        known.request, known.group = life.request, life.group
        known.is_sync, known.is_streamed = life.is_sync, life.is_streamed
        known.listed, known.size, known.tokens = life.listed, life.size, life.tokens
        self.bytes_held += life.size
        known.request_hash = known.request_hash or life.request_hash
        known.model = known.model or life.model
        if known.request_hash != life.request_hash:
            known.renewal = life
        if known.state is State.WAITING:
            self._queue.add_again(life.key, now)

    def refuse(self, life: Life, error: ApiError, unix_s: float) -> Outcome | None:
        """The input shows a row that is known from the checkpoint, and it may not be sent any more. A running task is
        asked about all the same; None, too, where nothing was ever paid for the row."""
        if life.state is State.WAITING:
            return self.abandon(life, unix_s, error)
        self._refused[life.key] = error
        return None

    def orphans(self) -> list[Life]:
        """Rows from the checkpoint that wait for another attempt but that the input did not show."""
        return [life for life in self._unshown.values() if life.state is State.WAITING]

    def abandon(self, life: Life, unix_s: float, why: ApiError = GONE) -> Outcome | None:
        """Ends a row without another POST: in doubt, if something may have been paid for it; else, where none was ever
        paid for, it leaves no trace."""
        self._forget(life)
        if life.unresolved == 0 and life.submits == 0:
            return None
        life.error = self._refused.pop(life.key, why)
        status: Status = "in_doubt" if life.unresolved else "failed"
        return outcome_of(life, self.orders, status, None, unix_s)

    # What to do next.

    def submits(self, now: float, unix_s: float, most: int) -> list[Life]:
        """At most `most` rows that are to be POSTed now, each SENDING from here on."""
        chosen: list[Life] = []
        if not self._may_submit:
            return chosen
        width = self.gate.width(now, len(self._sending))
        most = min(most, self.orders.in_flight - self.in_flight)
        most = most if width is None else min(most, width)
        while len(chosen) < most:
            life = self._queue.take_probe(now) if self.gate.breaker.is_open else self._queue.take(now)
            if life is None:
                break
            if not self.gate.admit(life, now):
                self._queue.put_back(life)
                break
            if life.renewal is not None:
                _renew(life, life.renewal)
            self.gate.pace.take(life.model, now)
            advance(life, Sent(unix_s=unix_s), self.orders.policy, CALM, now)
            self._sending[life.key] = now
            chosen.append(life)
        return chosen

    @property
    def cools_until(self) -> float:
        """Until then every model that rows wait for is held back after a 429."""
        pace = self.gate.pace
        return min((pace.of(model).resumes_at for model in self._queue.models()), default=pace.resumes_at)

    def asks_freely(self, now: float) -> bool:
        """Is a free question to be asked now, before a submit is risked as a probe? The reply goes to the gate."""
        is_wanted = bool(self._queue) and self._may_submit
        return is_wanted and self.gate.pace.is_open(now) and self.gate.breaker.asks(now, len(self._sending))

    def may_leave(self, life: Life, now: float) -> bool:
        """May the POST of a row that `submits` chose leave now?"""
        return self._may_submit and self.gate.pace.of(life.model).is_open(now)

    def sent(self, key: bytes, now: float) -> None:
        """The POST of a row leaves now (its token is taken)."""
        self._sending[key] = self.last_sent_at = now
        self.gate.tokens.leave(key, now)
        self.submits_sent += 1

    def unsend(self, life: Life, now: float) -> None:
        """A row that `submits` chose was not POSTed after all (the run is stopping, or a cool-down began)."""
        del self._sending[life.key]
        self.gate.give_back(life)
        advance(life, Withheld(), self.orders.policy, CALM, now)
        self._queue.add_again(life.key, now)

    def polls(self, now: float, most: int) -> list[Life]:
        """At most `most` rows whose task is to be asked about now."""
        if self.stopped in _LEAVING:
            return []
        return [self.lives[key] for key in self.watch.take_due(now, most)]

    def next_poll_at(self) -> float | None:
        """When the next poll is due; None: no task is being watched."""
        return None if self.stopped in _LEAVING else self.watch.next_at()

    def next_submit_at(self, now: float) -> float | None:
        """When the next submit may leave, as far as time decides it; None: only an event can bring one about."""
        if not self._may_submit or self.in_flight >= self.orders.in_flight:
            return None
        if self.gate.breaker.is_open and self._sending:
            return None
        if self.gate.is_budget_binding and self.in_flight:
            return None
        due = self._queue.next_due(now)
        return None if due is None else max(due, self.gate.opens_at(now, len(self._sending)))

    def is_streaming(self, life: Life, task_id: str) -> bool:
        """Does this row still wait for that task, so that its stream is worth hearing?"""
        is_live = self.lives.get(life.key) is life and life.state is State.RUNNING
        return is_live and life.task_id == task_id

    # What came of it.

    def receive(self, key: bytes, event: Event, now: float, unix_s: float) -> Outcome | None:
        """A reply (or its absence) came in. Returns the row's outcome where it has ended; the row is then gone."""
        life = self.lives[key]
        sent_at = self._sending.get(key)
        if isinstance(event, Accepted) and event.task_id in self._tasks:
            event = TAKEN
        around = self._around(life, event) if isinstance(event, (Doubted, Deferred)) else CALM
        move = advance(life, event, self.orders.policy, around, now)
        self.events[type(event).__name__] += 1
        if sent_at is not None:
            del self._sending[key]
            self._note_submit(life, event, sent_at, now)
        elif isinstance(event, Streamed):
            self.watch.hear(life, now)
        else:
            life.polls += 1
            life.polls_here += 1
            self.watch.note(life, event, now)
            self.health.note_poll(event, now)
        if isinstance(event, Halted):
            self.stop(event.cause, event.error)
        match move.state:
            case State.RUNNING:
                if sent_at is not None:
                    self._begin_running(life)
                elif not isinstance(event, Streamed) and self.watch.is_overdue(life, now):
                    move = advance(life, Overdue(), self.orders.policy, CALM, now)
            case State.WAITING:
                self._queue_again(life, event, now)
            case _:
                pass
        if move.state is State.SETTLED:
            status = move.status or "failed"
            return self._settle(life, event, status, move.answer, unix_s, was_running=sent_at is None)
        if move.state is State.WAITING and sent_at is None:
            self._end_running(life)
            self.gate.note_end(life, event, was_running=True, charged=None)
        return None

    def give_up(self, life: Life, event: Overdue, now: float, unix_s: float) -> Outcome:
        """Ends a row whose task runs and is not being asked about: timed out, unless its stream had told its answer."""
        move = advance(life, event, self.orders.policy, CALM, now)
        return self._settle(life, None, move.status or "failed", move.answer, unix_s, was_running=True)

    def _begin_running(self, life: Life) -> None:
        self._running += 1
        self._tasks.add(life.task_id or "")

    def _end_running(self, life: Life) -> None:
        self._running -= 1
        self._tasks.discard(life.task_id or "")

    def _queue_again(self, life: Life, event: Event, now: float) -> None:
        """A 429's wait is shared by all rows of the model; any other trouble is waited out by the row itself."""
        asked_s = event.retry_after_s if isinstance(event, Deferred) else None
        is_everybodys = isinstance(event, Halted) or (isinstance(event, Deferred) and event.scope == "rate")
        if is_everybodys:
            delay_s = self.gate.pace.own_wait_s(life.model, now, asked_s)
        else:
            delay_s = retry_delay_s(life.deferrals, self._draw(), asked_s)
        if life.request is not None:
            self._queue.add_again(life.key, now + delay_s)

    def _note_submit(self, life: Life, event: Event, sent_at: float, now: float) -> None:
        self.gate.note_submit(life, event, sent_at, now, self.orders.policy, is_alone=not self._sending)
        if isinstance(event, (Accepted, Answered, Refused)) or self.gate.is_news(sent_at):
            self.health.note_submit(event, now)
        if isinstance(event, Doubted) and self.gate.breaker.is_open:
            self.gate.breaker.spare(now, *self._attempts_left())
        self.submits_billed += isinstance(event, (Accepted, Answered, Doubted))
        if life.state is State.RUNNING:
            self.watch.begin(life, now)

    def _attempts_left(self) -> tuple[int, int]:
        """Billed submits that the rows at hand may still cost, and how many rows these are. Looked at only while nobody
        seems to be there."""
        policy = self.orders.policy
        waiting = [life for life in self.lives.values() if life.state is State.WAITING]
        return sum(1 if policy.in_doubt == "hold" else policy.attempts - life.attempts for life in waiting), len(
            waiting
        )

    def _settle(
        self,
        life: Life,
        event: Event | None,
        status: Status,
        answer: Answer | None,
        unix_s: float,
        *,
        was_running: bool,
    ) -> Outcome:
        if was_running:
            self._end_running(life)
        if answer is not None and not isinstance(event, Answered):
            event = Answered(answer=answer)  # its stream had told it
        outcome = outcome_of(life, self.orders, status, answer, unix_s)
        self.gate.note_end(life, event, was_running=was_running, charged=outcome.credits)
        self._forget(life)
        return outcome

    def _forget(self, life: Life) -> None:
        self.watch.end(life)
        self._queue.drop(life.key)
        self.bytes_held -= life.size
        del self.lives[life.key]
        self._unshown.pop(life.key, None)

    def _around(self, life: Life, event: Event) -> Surroundings:
        """Rows that nobody serves get in the way of others once they fill the fleet: their patience runs then too."""
        deferred_at = life.deferred_at
        is_in_the_way = isinstance(event, Deferred) and event.scope == "row" and self.room() == 0
        got_through = deferred_at is not None and self.gate.got_through_at >= deferred_at
        return Surroundings(
            may_resubmit_doubt=self.gate.doubts.may_resubmit(self.submits_counted),
            others_get_through=got_through or is_in_the_way,
        )

    def stop(self, cause: StopCause, error: ApiError | None = None) -> None:
        """No further submits. The first cause stays, except that a refused key or a signal, which also end the
        watching, replace those that do not, and a signal any other."""
        if self.stopped is None or cause == "signal" or (cause in _LEAVING and self.stopped not in _LEAVING):
            self.stopped, self.stop_error = cause, error

    def snapshot(self) -> dict[str, Any]:
        """Figures for display and logs."""
        return {
            "in_flight": self.in_flight,
            "on_the_wire": self.on_the_wire,
            "waiting": self.waiting,
            "submits": self.submits_counted,
            "polls": self.watch.polls,
            "throttles": self.gate.pace.throttles,
            "polls_throttled": self.watch.throttles,
            "in_doubt_resubmitted": self.gate.doubts.resubmitted,
            "in_doubt_held": self.gate.doubts.held,
            "credits_spent": self.gate.budget.spent,
            "credits_reserved": self.gate.budget.reserved,
            "credits_standing": self.gate.budget.standing,
            "per_minute": self.gate.pace.per_minute,
        }


def _renew(life: Life, now_read: Life) -> None:
    """What is asked from now on is what the input says now; its columns and its hash belong to the answer."""
    life.kept, life.media = now_read.kept, now_read.media
    life.request_hash, life.model = now_read.request_hash, now_read.model
    life.renewal, life.is_kept_new, life.unfetched_at = None, True, None
