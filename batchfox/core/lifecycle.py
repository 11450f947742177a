"""A row's states, events and transition table. `advance` owns them: nothing else changes a `Life`'s state.

    WAITING ──Sent──▶ SENDING ──Accepted──▶ RUNNING ──Answered──▶ SETTLED
       ▲                 │ refused, held       │ failed, expired       ▲
       └─try later, doubt┘                     └───────────────────────┘

An event that the table does not list for a state raises `IllegalEventError` and changes nothing.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Literal, assert_never

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
    Missing,
    Refused,
    Running,
    Streamed,
    TaskFailed,
    Unheard,
    Unreached,
    Unsendable,
)
from batchfox.core.fallback import may_fall_back
from batchfox.core.outcome import Status

# A task is gone for good, or will never show its results, after this many odd replies in a row over at least so long
# (api.md: transient 404s, and `completed` without results, are seen and pass).
ODD_REPLIES = 5
ODD_FOR_S = 60.0
EXPIRED = "task_expired"
NO_RESULTS = "no_results"
# A completed row whose reasoning may lack its end: the error columns say so, and why.
PARTIAL = "reasoning_partial"
# What a stream told as a whole is the answer once so many polls have not brought the task's own.
POLLS_AFTER_STREAM = 3


class State(Enum):
    """Where a live row stands."""

    __hash__ = object.__hash__  # members are one of a kind; Enum's own is in Python, and asked for with every event

    WAITING = auto()
    SENDING = auto()
    RUNNING = auto()
    SETTLED = auto()


class Sent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The row is about to be POSTed: its intent goes on record now."""

    unix_s: float


class Withheld(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The row's POST was not sent after all (the run is stopping, or a cool-down began): as if `Sent` had not been."""


class Overdue(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The task was watched for `poll.task_timeout`, and polled at least once in this run; or, so long after the run's
    last submit, it is no longer waited for."""

    after_last_submit_s: float | None = None


AnyEvent = Event | Sent | Withheld | Overdue

_ = State
TABLE: dict[State, dict[type, frozenset[State]]] = {
    _.WAITING: {
        Sent: frozenset({_.SENDING}),
    },
    _.SENDING: {
        Accepted: frozenset({_.RUNNING}),
        Answered: frozenset({_.SETTLED}),
        Refused: frozenset({_.WAITING, _.SETTLED}),
        Unsendable: frozenset({_.SETTLED}),
        Deferred: frozenset({_.WAITING, _.SETTLED}),
        Withheld: frozenset({_.WAITING}),
        Unreached: frozenset({_.WAITING}),
        Halted: frozenset({_.WAITING}),
        Doubted: frozenset({_.WAITING, _.SETTLED}),
    },
    _.RUNNING: {
        Running: frozenset({_.RUNNING, _.SETTLED}),
        Unheard: frozenset({_.RUNNING, _.SETTLED}),
        Missing: frozenset({_.RUNNING, _.SETTLED}),
        Halted: frozenset({_.RUNNING}),
        Answered: frozenset({_.SETTLED}),
        Streamed: frozenset({_.RUNNING}),
        TaskFailed: frozenset({_.WAITING, _.SETTLED}),
        Overdue: frozenset({_.SETTLED}),
    },
    _.SETTLED: {},
}
del _


class IllegalEventError(AssertionError):
    """A bug: this event cannot happen in this state."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The job's `[retry]`, as far as one row's fate goes. Seconds. `falls_back`: a medium that the API could not fetch
    is fetched here."""

    attempts: int = 4
    failed: Literal["never", "transient", "always"] = "transient"
    in_doubt: Literal["resubmit", "hold"] = "resubmit"
    patience_s: float = 3600.0
    falls_back: bool = False


class Life(msgspec.Struct, kw_only=True, gc=False):
    """A live row and what became of it so far. Only `advance` and the fleet write to it.

    `unresolved` counts POSTs that were neither refused nor ended in a failed task: with one of those, another POST
    may pay twice. `submits` counts POSTs that were or may have been billed; `attempts` those of them that this run's
    `[retry] attempts` counts (a `--retry` begins a new count). `kept`: the input columns that travel to the output.
    `listed`: what the price list says one attempt may cost; `tokens`: what it may take of them, by rule of thumb.
    `slot`: its record in the checkpoint, 0 before it has one.
    `request` is None until the input has shown a row that is known from the checkpoint alone; `size`: its bytes.
    `born`: when its task was accepted, in the run's clock; `watched_since`: since when this run has known it;
    `poll_due`: when it is to be asked about next. `renewal`: the row as the input shows it now, where that asks
    something else than what was sent; sent again, it is that row. `is_kept_new`: the checkpoint has other columns.
    `is_streamed`: the request asks for a stream. `reasoning`: what the stream of its task has told of it; None where it
    has none. `is_told`: that stream told all, and `told` is what, as long as this execution lasts.
    `twin`: what its request shares with those of other rows, where these are to get its answer.
    `unfetched_at`: when the submit left (unix) whose media the API could not fetch; sent again, they are fetched here.
    """

    key: bytes
    index: int
    id: str
    kept: dict[str, Any]
    request: dict[str, Any] | None = None
    size: int = 0
    state: State = State.WAITING
    slot: int = 0
    renewal: Life | None = None
    is_kept_new: bool = False
    group: str = ""
    model: str | None = None
    request_hash: str | None = None
    twin: bytes | None = None
    media: list[str] = msgspec.field(default_factory=list)
    is_sync: bool = False
    is_streamed: bool = False

    submits: int = 0
    attempts: int = 0
    unresolved: int = 0
    maybe_billed_twice: bool = False
    listed: float = 0.0
    tokens: float = 0.0
    estimate: float = 0.0
    reserved: float | None = None

    task_id: str | None = None
    submitted_at: float | None = None
    born: float = 0.0
    watched_since: float = 0.0
    poll_due: float = 0.0
    polls: int = 0
    polls_here: int = 0
    found_running_at: float = 0.0
    unheard: int = 0
    odd_replies: int = 0
    odd_since: float = 0.0
    shuns_upstream: bool = False

    reasoning: str | None = None
    is_told: bool = False
    told: Answer | None = None
    stream_error: ApiError | None = None

    deferrals: int = 0
    deferred_at: float | None = None
    impatience_s: float = 0.0

    error: ApiError | None = None
    http_status: int | None = None
    unfetched_at: float | None = None


class Move(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where an event takes a row: its next state and, where that is SETTLED, with which status and answer."""

    state: State
    status: Status | None = None
    answer: Answer | None = None


WAIT = Move(state=State.WAITING)
SEND = Move(state=State.SENDING)
RUN = Move(state=State.RUNNING)


class Surroundings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a row's fate takes from the fleet: may one more row in doubt be sent again, do others get through."""

    may_resubmit_doubt: bool = True
    others_get_through: bool = True


# What a row's fate takes from the fleet where nothing is at stake.
CALM = Surroundings()


def advance(life: Life, event: AnyEvent, policy: Policy, around: Surroundings, now: float) -> Move:
    """Applies `event` to `life` and returns where it went. Raises `IllegalEventError`, changing nothing."""
    allowed = TABLE[life.state].get(type(event))
    if allowed is None:
        raise IllegalEventError(f"{type(event).__name__} in {life.state.name}, row {life.id}")
    was_running = life.state is State.RUNNING
    move = _decide(life, event, policy, around, now)
    if was_running and life.told is not None:
        move = _trust_stream(life, life.told, event, move)
    assert move.state in allowed, (life.state, event, move)
    life.state = move.state
    return move


def _decide(life: Life, event: AnyEvent, policy: Policy, around: Surroundings, now: float) -> Move:
    match event:
        case Sent():
            life.submitted_at = event.unix_s
            life.task_id = None
            _forget_stream(life)
            life.reserved = None
            return SEND
        case Withheld():
            return WAIT
        case Accepted():
            _count_post(life)
            _forget_trouble(life)
            life.task_id, life.reserved = event.task_id, event.reserved
            life.born = life.watched_since = life.found_running_at = now
            life.polls_here = 0
            life.reasoning = "" if life.is_streamed else None
            return RUN
        case Answered():
            if life.state is State.SENDING:
                _count_post(life)
            _forget_trouble(life)
            life.http_status = event.http_status
            return Move(state=State.SETTLED, status="completed", answer=_with_reasoning(life, event.answer))
        case Streamed():
            life.reasoning, life.told = event.reasoning, event.answer
            life.is_told, life.stream_error = event.answer is not None, event.error
            if life.is_told:
                life.found_running_at = now
            return RUN
        case Refused():
            _note_repeat(life)
            _note(life, event.error, event.http_status)
            if _falls_back(life, event.error, policy):
                return WAIT
            return Move(state=State.SETTLED, status="failed")
        case Unsendable():
            _note_unsendable(life, event.error)
            return Move(state=State.SETTLED, status=_status_unsent(life))
        case Deferred():
            if event.was_posted:
                _note_repeat(life)
            _note(life, event.error, event.http_status)
            return _defer(life, policy, around, now)
        case Unreached():
            _note(life, event.error, None)
            life.deferrals += 1
            return WAIT
        case Halted():
            if life.state is State.RUNNING:
                return RUN
            if event.was_posted:
                _note_repeat(life)
            return WAIT
        case Doubted():
            _count_post(life)
            _note(life, event.error, event.http_status)
            return _doubt(life, policy, around)
        case Running():
            life.odd_replies = life.unheard = 0
            life.found_running_at = now
            return RUN
        case Unheard():
            life.unheard += 1
            _note(life, event.error, event.http_status)
            return _find_odd(life, NO_RESULTS, now) if event.without_results else RUN
        case Missing():
            _note(life, event.error, 404)
            return _find_odd(life, EXPIRED, now)
        case TaskFailed():
            life.unresolved -= 1
            _note(life, event.error, event.http_status)
            may = policy.failed == "always" or (policy.failed == "transient" and event.transient)
            life.deferrals += 1
            is_paid_again = policy.failed != "never" and life.attempts < policy.attempts
            if is_paid_again and _falls_back(life, event.error, policy):
                return WAIT
            return WAIT if may and life.attempts < policy.attempts else Move(state=State.SETTLED, status="failed")
        case Overdue(after_last_submit_s=after_s):
            message = f"still unfinished after {now - life.watched_since:.0f} s of watching"
            life.error = ApiError(code="task_timeout", message=message)
            if after_s is not None:
                message += f", {after_s:.0f} s after the run's last submit ([limits] straggle)"
                life.error = ApiError(code="straggler", message=message)
            return Move(state=State.SETTLED, status="timed_out")
        case _:
            assert_never(event)


def _forget_stream(life: Life) -> None:
    life.reasoning = life.told = life.stream_error = None
    life.is_told = False


def _with_reasoning(life: Life, answer: Answer) -> Answer:
    """The task's answer with what only its stream told. Where that broke off, the row says so."""
    if life.reasoning is None or answer.reasoning is not None:
        return answer
    if not life.is_told:
        why = life.stream_error.message if life.stream_error else None
        got = f"{len(life.reasoning):,} characters of reasoning"
        message = f"the stream broke after {got} ({why or 'the run ended'}); the answer itself is whole"
        life.error = ApiError(code=PARTIAL, type="stream", message=message)
    return msgspec.structs.replace(answer, reasoning=life.reasoning or None)


def _trust_stream(life: Life, told: Answer, event: AnyEvent, move: Move) -> Move:
    """The whole answer is here, and the task's own, which says what it cost, is only waited for. It counts as failed
    where the API says so, not because nobody says anything."""
    if isinstance(event, (Answered, TaskFailed, Streamed, Halted)):
        return move
    if move.state is not State.SETTLED and life.polls_here + 1 < POLLS_AFTER_STREAM:
        return move
    _forget_trouble(life)
    life.http_status = 200
    return Move(state=State.SETTLED, status="completed", answer=told)


def _status_unsent(life: Life) -> Status:
    """Of a row that is not POSTed again, by what its POSTs until now may have paid for."""
    if life.unresolved:
        return "in_doubt"
    return "failed" if life.submits or life.unfetched_at is not None else "invalid"


def _falls_back(life: Life, error: ApiError, policy: Policy) -> bool:
    """Is the row sent again, once, with its media fetched here?"""
    is_first = policy.falls_back and life.unfetched_at is None and life.submitted_at is not None
    if not is_first or not may_fall_back(life.request, life.media, error):
        return False
    life.unfetched_at = life.submitted_at
    return True


def _note_unsendable(life: Life, error: ApiError) -> None:
    """Where the API could not fetch a medium, and this machine cannot either, both are told."""
    if life.unfetched_at is None or life.error is None or error.code != "media":
        _note(life, error, None)
        return
    message = f"{life.error.message}; {error.message}"
    life.error = ApiError(code=life.error.code, type=life.error.type, message=message)


def may_be_sent_again(life: Life, policy: Policy) -> bool:
    """May a row that an earlier execution left WAITING go on, as the job says now? A row that this job holds in doubt,
    or whose attempts are used up, may not; one that a person gave fresh attempts (`--retry`) has none counted yet."""
    is_held = policy.in_doubt == "hold" and life.unresolved > 0 and life.attempts > 0
    return not is_held and life.attempts < policy.attempts


def _note_repeat(life: Life) -> None:
    """The row was POSTed: again, although an earlier POST was neither refused nor ended in a failed task?"""
    life.maybe_billed_twice = life.maybe_billed_twice or life.unresolved > 0


def _count_post(life: Life) -> None:
    _note_repeat(life)
    life.submits += 1
    life.attempts += 1
    life.unresolved += 1


def _forget_trouble(life: Life) -> None:
    life.error = None
    life.http_status = None
    life.deferrals = 0
    life.deferred_at = None
    life.impatience_s = 0.0
    life.odd_replies = life.unheard = 0


def _note(life: Life, error: ApiError, http_status: int | None) -> None:
    life.error = error
    life.http_status = http_status


def _defer(life: Life, policy: Policy, around: Surroundings, now: float) -> Move:
    """Patience runs only while others get through: an outage is nobody's fault, a row nobody serves is the row's."""
    if life.deferred_at is not None and around.others_get_through:
        life.impatience_s += now - life.deferred_at
    life.deferred_at = now
    life.deferrals += 1
    if life.impatience_s >= policy.patience_s:
        return Move(state=State.SETTLED, status="failed")
    return WAIT


def _doubt(life: Life, policy: Policy, around: Surroundings) -> Move:
    may = policy.in_doubt == "resubmit" and around.may_resubmit_doubt and life.attempts < policy.attempts
    life.deferrals += 1
    return WAIT if may else Move(state=State.SETTLED, status="in_doubt")


def _find_odd(life: Life, code: str, now: float) -> Move:
    """A reply that should pass. When it does not, the task is over: its answer cannot be had any more."""
    if life.odd_replies == 0:
        life.odd_since = now
    life.odd_replies += 1
    life.shuns_upstream = True
    if life.odd_replies < ODD_REPLIES or now - life.odd_since < ODD_FOR_S:
        return RUN
    said = life.error.message if life.error else None
    life.error = ApiError(code=code, type="task_error", message=said)
    return Move(state=State.SETTLED, status="failed")
