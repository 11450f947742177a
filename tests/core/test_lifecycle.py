"""A row's fate: the transition table, entry by entry, and each rule of the contract as a short story."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchfox.core.event import (
    Accepted,
    Answer,
    Answered,
    ApiError,
    Deferred,
    Doubted,
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
from batchfox.core.lifecycle import (
    EXPIRED,
    NO_RESULTS,
    ODD_FOR_S,
    ODD_REPLIES,
    PARTIAL,
    POLLS_AFTER_STREAM,
    TABLE,
    AnyEvent,
    IllegalEventError,
    Life,
    Move,
    Overdue,
    Policy,
    Sent,
    State,
    Surroundings,
    Withheld,
    advance,
)

OOPS = ApiError(code="oops", type="server_error", message="it went wrong")
SENT = Sent(unix_s=1000.0)
ACCEPTED = Accepted(task_id="task-1", reserved=2.0)
ANSWERED = Answered(answer=Answer(completion="{}", text="hi"))
REFUSED = Refused(error=OOPS, http_status=422)
LATER = Deferred(error=OOPS, scope="row", http_status=422)
THROTTLED = Deferred(error=OOPS, scope="rate", http_status=429, retry_after_s=3.0)
BUSY = Deferred(error=OOPS, scope="service", http_status=503)
UNREACHED = Unreached(error=OOPS)
DOUBTED = Doubted(error=OOPS, http_status=502)
UNSENDABLE = Unsendable(error=OOPS)
HALTED = Halted(cause="key", error=OOPS, http_status=401)
RUNNING = Running(progress=40.0)
FAILED = TaskFailed(error=OOPS, transient=True)
FAILED_FOR_GOOD = TaskFailed(error=OOPS, transient=False)
MISSING = Missing(error=OOPS)
UNHEARD = Unheard(error=OOPS, http_status=502)
EMPTY = Unheard(error=OOPS, http_status=200, without_results=True)
TOLD = Streamed(reasoning="because", answer=Answer(completion="{}", text="hi", reasoning="because"))
BROKEN = Streamed(reasoning="beca", error=OOPS)

EVENTS: list[AnyEvent] = [
    *(SENT, ACCEPTED, ANSWERED, REFUSED, LATER, THROTTLED, BUSY, UNREACHED, DOUBTED, UNSENDABLE, HALTED),
    *(RUNNING, FAILED, FAILED_FOR_GOOD, MISSING, UNHEARD, EMPTY, TOLD, BROKEN, Withheld(), Overdue()),
]

# The table once more, by hand: what may follow each event in each state. Whoever changes one must change the other.
W, S, R, END = State.WAITING, State.SENDING, State.RUNNING, State.SETTLED
EXPECTED: dict[State, dict[type, set[State]]] = {
    W: {Sent: {S}},
    S: {
        Accepted: {R},
        Answered: {END},
        Refused: {W, END},
        Unsendable: {END},
        Deferred: {W, END},
        Withheld: {W},
        Unreached: {W},
        Halted: {W},
        Doubted: {W, END},
    },
    R: {
        Running: {R, END},
        Streamed: {R},
        Unheard: {R, END},
        Missing: {R, END},
        Halted: {R},
        Answered: {END},
        TaskFailed: {W, END},
        Overdue: {END},
    },
    END: {},
}


def new_life(state: State = W) -> Life:
    row = Life(key=b"k" * 16, index=7, id="seven", kept={"a": 1}, request={"prompt": "p"}, state=state)
    if state in (R, END):
        row.submits = row.attempts = row.unresolved = 1
        row.task_id = "task-0"
    return row


def go(
    row: Life,
    *events: AnyEvent,
    policy: Policy | None = None,
    now: float = 0.0,
    may_resubmit: bool = True,
    others: bool = True,
) -> Move:
    """Applies the events one after another and returns the last move."""
    around = Surroundings(may_resubmit_doubt=may_resubmit, others_get_through=others)
    moves = [advance(row, event, policy or Policy(), around, now) for event in events]
    return moves[-1]


# The table.


def test_the_table_says_what_may_follow_what() -> None:
    found = {state: {event: set(to) for event, to in row.items()} for state, row in TABLE.items()}
    assert found == EXPECTED


def test_the_events_of_this_file_are_all_there_are() -> None:
    assert {type(event) for event in EVENTS} == {event for row in TABLE.values() for event in row}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
def test_a_legal_event_goes_where_it_may_and_an_illegal_one_changes_nothing(state: State, event: AnyEvent) -> None:
    row = new_life(state)
    before = copy.deepcopy(row)
    allowed = EXPECTED[state].get(type(event))
    if allowed is None:
        with pytest.raises(IllegalEventError, match=type(event).__name__):
            go(row, event)
        assert row == before
    else:
        move = go(row, event)
        assert move.state in allowed
        assert row.state is move.state


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
def test_a_move_to_the_end_and_only_that_one_carries_a_status(state: State) -> None:
    for event in EVENTS:
        if type(event) in EXPECTED[state]:
            move = go(new_life(state), event)
            assert (move.status is not None) == (move.state is END)


def test_an_illegal_event_is_told_with_the_state_and_the_row() -> None:
    with pytest.raises(IllegalEventError, match=r"Answered in WAITING, row seven"):
        go(new_life(), ANSWERED)


# The plain way.


def test_a_row_goes_from_waiting_over_sending_and_running_to_its_answer() -> None:
    row = new_life()
    go(row, SENT, now=1.0)
    assert (row.state, row.submitted_at, row.submits) == (S, 1000.0, 0)
    go(row, ACCEPTED, now=2.0)
    assert (row.state, row.task_id, row.reserved, row.submits, row.born) == (R, "task-1", 2.0, 1, 2.0)
    go(row, RUNNING, now=5.0)
    assert row.found_running_at == 5.0
    move = go(row, ANSWERED, now=6.0)
    assert move == Move(state=END, status="completed", answer=ANSWERED.answer)
    assert (row.submits, row.attempts, row.maybe_billed_twice, row.error, row.http_status) == (1, 1, False, None, 200)


def test_a_synchronous_answer_ends_the_row_and_counts_as_one_billed_post() -> None:
    row = new_life()
    assert go(row, SENT, ANSWERED).status == "completed"
    assert (row.submits, row.attempts, row.maybe_billed_twice) == (1, 1, False)


def test_a_refused_row_ends_as_failed_with_the_reason_and_without_a_billed_post() -> None:
    row = new_life()
    assert go(row, SENT, REFUSED).status == "failed"
    assert (row.error, row.http_status, row.submits, row.maybe_billed_twice) == (OOPS, 422, 0, False)


def test_a_row_whose_post_was_withheld_is_as_if_it_had_not_been_chosen() -> None:
    row = new_life()
    assert go(row, SENT, Withheld()).state is W
    assert (row.submits, row.attempts, row.unresolved, row.deferrals) == (0, 0, 0, 0)
    assert go(row, SENT, ACCEPTED, ANSWERED).status == "completed"
    assert (row.submits, row.maybe_billed_twice) == (1, False)


def test_a_row_that_cannot_be_built_ends_as_what_its_posts_have_come_to() -> None:
    fresh = new_life()
    assert go(fresh, SENT, UNSENDABLE).status == "invalid"
    assert (fresh.submits, fresh.error) == (0, OOPS)
    failed = new_life()
    assert go(failed, SENT, ACCEPTED, FAILED, SENT, UNSENDABLE).status == "failed"
    in_doubt = new_life()
    assert go(in_doubt, SENT, DOUBTED, SENT, UNSENDABLE).status == "in_doubt", (
        "what it paid for is as unknown as before"
    )
    assert failed.submits == in_doubt.submits == 1


def test_what_stops_the_run_leaves_the_row_for_the_next_one() -> None:
    row = new_life()
    assert go(row, SENT, HALTED).state is W
    assert (row.submits, row.unresolved) == (0, 0)
    assert go(row, SENT, ACCEPTED, HALTED).state is R
    assert row.task_id == "task-1"


# What counts as a billed POST.


@pytest.mark.parametrize("event", [LATER, THROTTLED, BUSY, UNREACHED, HALTED, Withheld()], ids=repr)
def test_a_post_that_made_no_task_costs_no_attempt(event: AnyEvent) -> None:
    row = new_life()
    for _ in range(20):
        assert go(row, SENT, event, policy=Policy(attempts=1)).state is W
    assert (row.submits, row.attempts, row.unresolved, row.maybe_billed_twice) == (0, 0, 0, False)


def test_a_second_post_after_a_refused_one_is_not_flagged() -> None:
    row = new_life()
    go(row, SENT, BUSY, SENT, ACCEPTED, ANSWERED)
    assert (row.submits, row.maybe_billed_twice) == (1, False)


def test_a_second_post_after_a_failed_task_is_not_flagged() -> None:
    row = new_life()
    go(row, SENT, ACCEPTED, FAILED, SENT, ACCEPTED, ANSWERED)
    assert (row.submits, row.maybe_billed_twice) == (2, False)


@pytest.mark.parametrize("second", [ACCEPTED, ANSWERED, REFUSED, LATER, THROTTLED, HALTED, DOUBTED], ids=repr)
def test_a_second_post_after_one_in_doubt_is_flagged_whatever_comes_of_it(second: AnyEvent) -> None:
    row = new_life()
    go(row, SENT, DOUBTED)
    assert not row.maybe_billed_twice, "one POST cannot be billed twice"
    go(row, SENT)
    assert not row.maybe_billed_twice, "not sent yet, as far as anybody knows"
    go(row, second)
    assert row.maybe_billed_twice


@pytest.mark.parametrize("second", [Withheld(), UNREACHED, UNSENDABLE], ids=repr)
def test_a_post_that_never_left_is_no_second_post(second: AnyEvent) -> None:
    row = new_life()
    go(row, SENT, DOUBTED, SENT, second)
    assert (row.submits, row.maybe_billed_twice) == (1, False)


def test_a_row_in_doubt_whose_second_task_failed_is_flagged_and_stays_unresolved() -> None:
    row = new_life()
    go(row, SENT, DOUBTED, SENT, ACCEPTED, FAILED)
    assert (row.submits, row.unresolved, row.maybe_billed_twice) == (2, 1, True)


# Attempts.


@pytest.mark.parametrize("attempts", [1, 2, 4])
@pytest.mark.parametrize("trouble", [[ACCEPTED, FAILED], [DOUBTED]], ids=["failed", "in_doubt"])
def test_a_row_costs_as_many_billed_posts_as_attempts_says_and_no_more(attempts: int, trouble: list[AnyEvent]) -> None:
    row, policy = new_life(), Policy(attempts=attempts)
    for nth in range(1, attempts + 1):
        move = go(row, SENT, *trouble, policy=policy)
        assert move.state is (END if nth == attempts else W)
    assert move.status == ("failed" if len(trouble) == 2 else "in_doubt")
    assert row.submits == row.attempts == attempts


def test_attempts_counts_failed_tasks_and_doubts_together() -> None:
    row, policy = new_life(), Policy(attempts=3)
    assert go(row, SENT, DOUBTED, SENT, ACCEPTED, FAILED, policy=policy).state is W
    assert go(row, SENT, DOUBTED, policy=policy).status == "in_doubt"


@pytest.mark.parametrize(
    ("failed", "event", "pays_again"),
    [
        ("never", FAILED, False),
        ("never", FAILED_FOR_GOOD, False),
        ("transient", FAILED, True),
        ("transient", FAILED_FOR_GOOD, False),
        ("always", FAILED, True),
        ("always", FAILED_FOR_GOOD, True),
    ],
)
def test_which_failed_tasks_are_paid_for_again(failed: Any, event: TaskFailed, pays_again: bool) -> None:
    row = new_life()
    move = go(row, SENT, ACCEPTED, event, policy=Policy(failed=failed))
    assert (move.state, move.status) == ((W, None) if pays_again else (END, "failed"))
    assert (row.error, row.http_status, row.unresolved) == (OOPS, 200, 0)


# In doubt.


def test_a_row_in_doubt_is_sent_again_when_the_job_says_resubmit() -> None:
    row = new_life()
    assert go(row, SENT, DOUBTED).state is W
    assert (row.submits, row.unresolved) == (1, 1)


def test_a_row_in_doubt_is_held_when_the_job_says_hold() -> None:
    row = new_life()
    assert go(row, SENT, DOUBTED, policy=Policy(in_doubt="hold")).status == "in_doubt"
    assert (row.submits, row.unresolved, row.maybe_billed_twice, row.error) == (1, 1, False, OOPS)
    assert row.http_status == 502


def test_a_row_in_doubt_is_held_once_the_runs_limit_is_reached() -> None:
    assert go(new_life(), SENT, DOUBTED, may_resubmit=False).status == "in_doubt"


def test_hold_is_no_word_about_failed_tasks() -> None:
    assert go(new_life(), SENT, ACCEPTED, FAILED, policy=Policy(in_doubt="hold")).state is W


# Patience.


@pytest.mark.parametrize("event", [LATER, THROTTLED, BUSY], ids=["row", "rate", "service"])
def test_a_row_that_is_put_off_while_others_get_through_runs_out_of_patience(event: AnyEvent) -> None:
    row, policy = new_life(), Policy(patience_s=100.0)
    for now in (0.0, 50.0, 99.0):
        assert go(row, SENT, event, policy=policy, now=now).state is W
    assert go(row, SENT, event, policy=policy, now=100.0).status == "failed"
    assert (row.error, row.submits) == (OOPS, 0)


def test_patience_does_not_run_while_nobody_gets_through() -> None:
    row, policy = new_life(), Policy(patience_s=100.0)
    for hour in range(48):
        assert go(row, SENT, BUSY, policy=policy, now=hour * 3600.0, others=False).state is W
    # It goes on from where it stood, not from the beginning of the outage.
    assert go(row, SENT, BUSY, policy=policy, now=47 * 3600.0 + 60.0).state is W
    assert go(row, SENT, BUSY, policy=policy, now=47 * 3600.0 + 100.0).status == "failed"


def test_the_first_deferral_never_ends_a_row_however_late_it_comes() -> None:
    assert go(new_life(), SENT, LATER, policy=Policy(patience_s=0.001), now=1e9).state is W


def test_a_row_that_was_taken_starts_with_new_patience() -> None:
    row, policy = new_life(), Policy(patience_s=100.0, failed="always")
    go(row, SENT, LATER, policy=policy, now=0.0)
    go(row, SENT, LATER, policy=policy, now=90.0)
    go(row, SENT, ACCEPTED, policy=policy, now=95.0)
    go(row, FAILED, policy=policy, now=100.0)
    assert go(row, SENT, LATER, policy=policy, now=200.0).state is W
    assert go(row, SENT, LATER, policy=policy, now=290.0).state is W


def test_no_connection_is_not_a_refusal_and_costs_no_patience() -> None:
    row, policy = new_life(), Policy(patience_s=10.0)
    for now in range(0, 1000, 10):
        assert go(row, SENT, UNREACHED, policy=policy, now=float(now)).state is W


# Odd replies about a task.


@pytest.mark.parametrize(("event", "code"), [(MISSING, EXPIRED), (EMPTY, NO_RESULTS)], ids=["404", "no results"])
def test_an_odd_reply_passes_and_only_many_over_a_while_end_the_task(event: AnyEvent, code: str) -> None:
    row = new_life(R)
    for nth in range(ODD_REPLIES - 1):
        assert go(row, event, now=float(nth)).state is R
    assert go(row, event, now=ODD_FOR_S - 0.1).state is R, "often enough, but not long enough"
    move = go(row, event, now=ODD_FOR_S)
    assert move.status == "failed"
    assert row.error is not None
    assert (row.error.code, row.error.message, row.unresolved) == (code, "it went wrong", 1)


def test_odd_replies_over_a_long_while_need_to_be_many_too() -> None:
    row = new_life(R)
    for nth in range(ODD_REPLIES - 1):
        assert go(row, MISSING, now=nth * ODD_FOR_S).state is R
    assert go(row, MISSING, now=ODD_REPLIES * ODD_FOR_S).status == "failed"


def test_a_task_that_is_found_running_again_was_never_gone() -> None:
    row = new_life(R)
    for nth in range(ODD_REPLIES - 1):
        go(row, MISSING, now=float(nth))
    go(row, RUNNING, now=10.0)
    for nth in range(ODD_REPLIES - 1):
        assert go(row, MISSING, now=100.0 + 30 * nth).state is R


def test_a_lost_poll_between_two_404_is_neither_an_odd_reply_nor_the_end_of_their_row() -> None:
    row = new_life(R)
    for nth in range(ODD_REPLIES - 1):
        go(row, MISSING, UNHEARD, now=float(nth))
    assert row.odd_replies == ODD_REPLIES - 1
    assert go(row, MISSING, now=ODD_FOR_S).status == "failed"


def test_a_poll_that_was_not_heard_never_ends_a_row() -> None:
    row = new_life(R)
    for nth in range(1000):
        assert go(row, UNHEARD, now=nth * 60.0).state is R
    assert go(row, ANSWERED).status == "completed"
    assert row.error is None, "the trouble on the way is no part of a completed row"


def test_an_answer_after_odd_replies_is_a_completed_row() -> None:
    row = new_life(R)
    assert go(row, MISSING, EMPTY, ANSWERED).status == "completed"
    assert (row.error, row.http_status) == (None, 200)


def test_a_task_without_results_is_not_asked_upstream_again() -> None:
    row = new_life(R)
    go(row, EMPTY)
    assert row.shuns_upstream


def test_an_overdue_task_ends_as_timed_out_and_may_still_be_charged() -> None:
    row = new_life(R)
    row.watched_since = 100.0
    assert go(row, Overdue(), now=3700.0).status == "timed_out"
    assert row.error is not None
    assert row.error.code == "task_timeout"
    assert "3600 s" in (row.error.message or "")
    assert (row.unresolved, row.task_id) == (1, "task-0")


def test_a_new_attempt_forgets_the_task_and_the_reservation_of_the_last() -> None:
    row = new_life()
    go(row, SENT, ACCEPTED, FAILED, Sent(unix_s=2000.0))
    assert (row.task_id, row.reserved, row.submitted_at) == (None, None, 2000.0)


# Any sequence at all.

_times = st.floats(min_value=0.0, max_value=5000.0)
_steps = st.lists(st.tuples(st.integers(0, len(EVENTS) - 1), _times, st.booleans(), st.booleans()), max_size=60)
_policies = st.builds(
    Policy,
    attempts=st.integers(1, 5),
    failed=st.sampled_from(["never", "transient", "always"]),
    in_doubt=st.sampled_from(["resubmit", "hold"]),
    patience_s=st.floats(1.0, 10_000.0),
)


@settings(max_examples=400, deadline=None)
@given(policy=_policies, steps=_steps)
def test_any_sequence_that_the_table_allows_keeps_the_accounts_straight(
    policy: Policy, steps: list[tuple[int, float, bool, bool]]
) -> None:
    row, now = new_life(), 0.0
    billed = failed = left = 0
    is_flagged = False
    for choice, step_s, may_resubmit, others in steps:
        legal = [event for event in EVENTS if type(event) in EXPECTED[row.state]]
        if not legal:
            break
        event = legal[choice % len(legal)]
        now += step_s
        was = row.state
        # The naive account: what of earlier POSTs is neither refused nor ended in a failed task.
        if was is S and not isinstance(event, (Withheld, Unreached, Unsendable)):
            is_flagged = is_flagged or billed - failed > 0
            billed += isinstance(event, (Accepted, Answered, Doubted))
        failed += isinstance(event, TaskFailed)
        left += isinstance(event, Sent)
        assert not (isinstance(event, Sent) and row.attempts >= policy.attempts), "a POST beyond `attempts`"
        move = go(row, event, policy=policy, now=now, may_resubmit=may_resubmit, others=others)
        assert row.submits == row.attempts == billed <= policy.attempts
        assert row.unresolved == billed - failed >= 0
        assert row.maybe_billed_twice == is_flagged
        assert billed <= left
        assert (row.task_id is not None) >= (row.state is R)
        if move.status == "completed":
            assert row.error is None or row.error.code == PARTIAL
        elif move.status is not None:
            assert row.error is not None, "a row that did not complete says why"
        if policy.in_doubt == "hold" and isinstance(event, Doubted):
            assert row.state is END
    if row.state is END:
        before = copy.deepcopy(row)
        for event in EVENTS:
            with pytest.raises(IllegalEventError):
                go(row, event)
        assert msgspec.structs.asdict(row) == msgspec.structs.asdict(before)


# Streams.


def streamed_life() -> Life:
    row = new_life()
    row.is_streamed = True
    go(row, SENT, ACCEPTED)
    assert row.reasoning == ""
    return row


def test_a_whole_stream_gives_the_reasoning_and_the_tasks_own_reply_all_else() -> None:
    row = streamed_life()
    assert go(row, TOLD).state is R
    move = go(row, ANSWERED)
    assert move.answer == msgspec.structs.replace(ANSWERED.answer, reasoning="because")
    assert row.error is None


@pytest.mark.parametrize(
    ("event", "reasoning", "said"),
    [
        (
            BROKEN,
            "beca",
            "the stream broke after 4 characters of reasoning (it went wrong)",
        ),
        (None, None, "the stream broke after 0 characters of reasoning (the run ended)"),
    ],
)
def test_a_broken_stream_leaves_what_it_told_and_the_row_says_so(
    event: Streamed | None, reasoning: str | None, said: str
) -> None:
    row = streamed_life()
    move = go(row, *([event] if event else []), RUNNING, ANSWERED)
    assert move.status == "completed"
    assert move.answer == msgspec.structs.replace(ANSWERED.answer, reasoning=reasoning)
    assert row.error == ApiError(code=PARTIAL, type="stream", message=f"{said}; the answer itself is whole")


def test_reasoning_in_the_tasks_own_reply_goes_before_what_a_broken_stream_told() -> None:
    row = streamed_life()
    answer = Answer(completion="{}", text="hi", reasoning="because of all")
    assert go(row, BROKEN, Answered(answer=answer)).answer == answer
    assert row.error is None


@pytest.mark.parametrize("event", [RUNNING, UNHEARD, EMPTY, MISSING])
def test_what_was_told_as_a_whole_is_the_answer_where_polls_do_not_bring_the_tasks_own(event: AnyEvent) -> None:
    row = streamed_life()
    go(row, TOLD)
    for _ in range(POLLS_AFTER_STREAM - 1):
        assert go(row, event).state is R
        row.polls_here += 1
    assert go(row, event) == Move(state=END, status="completed", answer=TOLD.answer)
    assert (row.error, row.http_status) == (None, 200)


def test_a_task_that_is_overdue_after_its_stream_told_all_is_answered() -> None:
    row = streamed_life()
    assert go(row, TOLD, Overdue()).answer == TOLD.answer
    row = streamed_life()
    assert go(row, BROKEN, Overdue()).status == "timed_out"


def test_a_task_that_failed_has_failed_whatever_its_stream_told() -> None:
    row = streamed_life()
    assert go(row, TOLD, FAILED_FOR_GOOD).status == "failed"
    row = streamed_life()
    assert go(row, TOLD, FAILED).state is W
    go(row, SENT)
    assert (row.reasoning, row.told, row.is_told, row.stream_error) == (None, None, False, None)
