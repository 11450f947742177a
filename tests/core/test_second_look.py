"""Second looks: what a further poll makes of a row that was given up, and when enough was said of its task."""

from __future__ import annotations

from typing import Any

import pytest

from batchfox.core.budget import Budget
from batchfox.core.event import Answer, Answered, ApiError, Missing, PollEvent, Running, TaskFailed, Unheard
from batchfox.core.late import LOOKS_AT_STAKE, asks_upstream, has_no_answer, second_look
from batchfox.core.lifecycle import ODD_REPLIES, Life, Policy, State
from batchfox.core.settle import Orders

ORDERS = Orders(policy=Policy(), in_flight=1, bytes_in_flight=1, run_id="run", run_date="2026-01-31")
SILENT = Unheard(error=ApiError(message="HTTP 500"), http_status=500)
EMPTY = Unheard(error=ApiError(message="no results"), without_results=True)
GONE = Missing(error=ApiError(code="not_found"))


def given_up() -> Life:
    return Life(
        key=b"k", index=0, id="r0", kept={}, state=State.RUNNING, task_id="t", submits=1, unresolved=1, reserved=2.0
    )


def look(life: Life, event: PollEvent) -> Any:
    return second_look(life, event, ORDERS, Budget(None), 100.0, 1000.0)


def refreshes(*events: PollEvent) -> list[bool]:
    """Whether each look, and the one after the last of these replies, has the router refresh."""
    life, found = given_up(), []
    for event in events:
        found.append(asks_upstream(life))
        look(life, event)
    return [*found, asks_upstream(life)]


def enough(*events: PollEvent, was_refreshed: bool = True) -> list[bool]:
    life, found = given_up(), []
    for event in events:
        look(life, event)
        found.append(has_no_answer(life, event, was_refreshed=was_refreshed))
    return found


def test_an_answer_or_a_failure_ends_the_row() -> None:
    for event, status in (
        (Answered(answer=Answer(completion="{}")), "completed"),
        (TaskFailed(error=ApiError(message="overload"), transient=True), "failed"),
    ):
        life = given_up()
        assert look(life, event).status == status
        assert life.state is State.SETTLED


def test_a_task_that_runs_on_has_no_answer_yet_but_a_cache_may_be_behind() -> None:
    assert enough(Running()) == [True]
    assert enough(Running(), was_refreshed=False) == [False]


def test_silence_is_never_a_verdict() -> None:
    assert enough(*[SILENT] * 50) == [False] * 50


@pytest.mark.parametrize("event", [GONE, EMPTY])
def test_an_odd_reply_is_a_verdict_once_it_was_said_often(event: PollEvent) -> None:
    assert enough(*[event] * ODD_REPLIES) == [False] * (ODD_REPLIES - 1) + [True]
    assert ODD_REPLIES < LOOKS_AT_STAKE, "within what is asked, one look without a word among them"


def test_what_is_done_without_results_is_asked_about_without_a_refresh_next() -> None:
    assert refreshes(EMPTY) == [True, False]
    assert refreshes(EMPTY, EMPTY) == [True, False, True]


def test_where_a_refresh_may_be_what_fails_it_is_done_by_turns() -> None:
    assert refreshes(*[SILENT] * 5) == [True, True, False, True, False, True]
