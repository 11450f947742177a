"""Streamed rows in a fleet: when their tasks are asked about, what they hold of the budget, how they end."""

from __future__ import annotations

import pytest
from fleet_world import OOPS, UNIX_S, answered, life, make_fleet

from batchfox.core.dispatch import Fleet
from batchfox.core.event import Accepted, Answer, Running, Streamed, TaskFailed, Unheard
from batchfox.core.lifecycle import PARTIAL, Life, State

ALL = Streamed(reasoning="because", answer=Answer(completion="{}", text="0", reasoning="because"))
BROKEN = Streamed(reasoning="beca", error=OOPS)
UNHEARD = Unheard(error=OOPS, http_status=502)


def streamed(fleet: Fleet, index: int = 0, reserved: float | None = 5.0) -> Life:
    """A row whose task is accepted at 0 and streamed from then on."""
    row = life(index)
    row.is_streamed = True
    fleet.offer(row)
    assert fleet.submits(0.0, UNIX_S, 1) == [row]
    fleet.sent(row.key, 0.0)
    fleet.receive(row.key, Accepted(task_id=f"task-{index}", reserved=reserved), 0.0, UNIX_S)
    assert fleet.is_streaming(row, f"task-{index}")
    return row


def test_a_task_is_not_asked_about_while_its_stream_is_heard_and_at_once_when_it_has_told_all() -> None:
    fleet = make_fleet(first_s=1.0, task_timeout_s=100.0)
    row = streamed(fleet)
    assert fleet.polls(99.0, 10) == []
    assert fleet.next_poll_at() == 100.0
    assert fleet.receive(row.key, ALL, 20.0, UNIX_S + 20) is None
    assert fleet.next_poll_at() == 20.0
    assert fleet.polls(20.0, 10) == [row]
    outcome = fleet.receive(row.key, answered(0, charge=2.0), 20.1, UNIX_S + 20.1)
    assert outcome is not None
    assert outcome.answer is not None
    assert (outcome.answer.reasoning, outcome.answer.completion, outcome.credits) == ("because", '{"n":0}', 2.0)
    assert (outcome.error, outcome.polls) == (None, 1)
    budget = fleet.gate.budget
    assert (budget.spent, budget.reserved, budget.standing) == (2.0, 0.0, 0.0)
    assert not fleet.is_streaming(row, "task-0")


def test_a_broken_stream_is_followed_by_polls_until_the_task_ends() -> None:
    fleet = make_fleet(task_timeout_s=1000.0)
    row = streamed(fleet)
    fleet.receive(row.key, BROKEN, 3.0, UNIX_S + 3)
    due = fleet.next_poll_at()
    assert due is not None
    assert 3.0 < due < 100.0
    assert fleet.polls(due, 10) == [row]
    assert fleet.receive(row.key, Running(), due, UNIX_S + due) is None
    due = fleet.next_poll_at() or 0.0
    assert fleet.polls(due, 10) == [row]
    outcome = fleet.receive(row.key, answered(0), due, UNIX_S + due)
    assert outcome is not None
    assert outcome.answer is not None
    assert outcome.answer.reasoning == "beca"
    assert outcome.error is not None
    assert outcome.error.code == PARTIAL


@pytest.mark.parametrize("reply", [Running(), UNHEARD], ids=lambda reply: type(reply).__name__)
def test_a_whole_stream_is_the_answer_where_three_polls_bring_none_and_its_reservation_the_price(
    reply: Running | Unheard,
) -> None:
    fleet = make_fleet()
    row = streamed(fleet)
    fleet.receive(row.key, ALL, 20.0, UNIX_S + 20)
    outcome = None
    for polls in range(1, 4):
        due = fleet.next_poll_at()
        assert due is not None
        assert due < 30.0
        assert fleet.polls(due, 10) == [row]
        outcome = fleet.receive(row.key, reply, due, UNIX_S + due)
        assert (outcome is not None) == (polls == 3)
    assert outcome is not None
    assert (outcome.status, outcome.answer, outcome.credits, outcome.error) == ("completed", ALL.answer, 5.0, None)
    assert (fleet.gate.budget.spent, fleet.gate.budget.reserved, fleet.gate.budget.standing) == (5.0, 0.0, 0.0)
    assert fleet.in_flight == 0


def test_a_stream_that_ends_while_its_overdue_task_is_asked_about_brings_no_second_poll() -> None:
    fleet = make_fleet(task_timeout_s=100.0)
    row = streamed(fleet)
    assert fleet.polls(100.0, 10) == [row]
    assert fleet.receive(row.key, BROKEN, 100.1, UNIX_S + 100.1) is None
    assert fleet.polls(101.0, 10) == []
    outcome = fleet.receive(row.key, Running(), 101.0, UNIX_S + 101)
    assert outcome is not None
    assert outcome.status == "timed_out"
    assert outcome.answer is not None
    assert (outcome.answer.reasoning, outcome.record()[8]) == ("beca", None)
    assert fleet.next_poll_at() is None


def test_a_failed_task_is_sent_again_and_its_stream_begins_anew() -> None:
    fleet = make_fleet()
    row = streamed(fleet)
    fleet.receive(row.key, BROKEN, 1.0, UNIX_S + 1)
    due = fleet.next_poll_at() or 0.0
    fleet.polls(due, 10)
    fleet.receive(row.key, TaskFailed(error=OOPS, transient=True), due, UNIX_S + due)
    assert row.state is State.WAITING
    later = due + 60.0
    assert fleet.submits(later, UNIX_S + later, 1) == [row]
    assert row.reasoning is None


def test_a_row_that_an_earlier_execution_left_in_mid_stream_is_polled_and_its_reasoning_kept() -> None:
    fleet = make_fleet()
    row = life(0)
    row.state, row.task_id, row.submits, row.attempts, row.unresolved = State.RUNNING, "task-0", 1, 1, 1
    row.reasoning = "beca"
    assert fleet.adopt(row, 0.0, UNIX_S) is None
    assert fleet.polls(0.0, 10) == [row]
    outcome = fleet.receive(row.key, answered(0), 0.0, UNIX_S)
    assert outcome is not None
    assert outcome.answer is not None
    assert outcome.answer.reasoning == "beca"
    assert outcome.error is not None
    assert outcome.error.message is not None
    assert "the run ended" in outcome.error.message
