"""When the API counts as away, and what people are told about it."""

from __future__ import annotations

import pytest
from fleet_world import BUSY, LOST, NO_HOST, UNSERVED, answered, throttled

from batchfox.core.event import Accepted, ApiError, Event, Halted, Missing, Refused, Running, Unheard, Unsendable
from batchfox.core.health import MOST_IN_A_ROW, Health, Trouble

OOPS = ApiError(code="oops", message="it went wrong")
UNHEARD = Unheard(error=OOPS, http_status=502)
STOPPED = Halted(cause="key", error=OOPS, http_status=401)


def after(*submits: tuple[float, Event], polls: tuple[tuple[float, Event], ...] = ()) -> Trouble | None:
    health = Health()
    for now, event in submits:
        health.note_submit(event, now)
    for now, event in polls:
        health.note_poll(event, now)
    return health.outage(is_submitting=True, is_polling=True)


@pytest.mark.parametrize("event", [NO_HOST, BUSY, LOST])
def test_many_submits_in_a_row_without_a_verdict_are_an_outage_at_once(event: Event) -> None:
    assert after(*[(0.1, event)] * (MOST_IN_A_ROW - 1)) is None
    found = after(*[(0.1, event)] * MOST_IN_A_ROW)
    assert found is not None
    assert (found.what, found.since, found.tries, found.error) == ("submits", 0.1, MOST_IN_A_ROW, OOPS)


def test_a_few_are_one_after_a_while() -> None:
    assert after((0.0, NO_HOST), (1.0, LOST), (9.0, NO_HOST)) is None
    found = after((0.0, NO_HOST), (1.0, LOST), (10.0, NO_HOST))
    assert found is not None
    assert (found.since, found.last_at, found.kind) == (0.0, 10.0, "oops")


def test_an_api_that_says_later_is_one_only_after_a_minute_of_nothing_else() -> None:
    burst = [(0.1, throttled())] * 50
    assert after(*burst, (30.0, throttled())) is None
    found = after(*burst, (60.2, UNSERVED))
    assert found is not None
    assert found.kind == "HTTP 422 no_compatible_channel"


@pytest.mark.parametrize("event", [Accepted(task_id="t"), answered(0), Refused(error=OOPS, http_status=400)])
def test_a_submit_that_is_taken_or_refused_ends_it(event: Event) -> None:
    assert after(*[(0.0, NO_HOST)] * 20, (1.0, event), *[(2.0, NO_HOST)] * 3) is None


@pytest.mark.parametrize("event", [STOPPED, Unsendable(error=OOPS)])
def test_what_says_nothing_of_the_apis_health_changes_nothing(event: Event) -> None:
    assert after(*[(0.0, NO_HOST)] * 20, (1.0, event)) is not None
    assert after(*[(0.0, event)] * 20) is None


def test_polls_have_an_outage_of_their_own() -> None:
    found = after((0.0, Accepted(task_id="t")), polls=((1.0, UNHEARD),) * MOST_IN_A_ROW)
    assert found is not None
    assert (found.what, found.kind) == ("polls", "HTTP 502 oops")
    for alive in (Running(), Missing(error=OOPS), Unheard(error=OOPS, without_results=True)):
        assert after(polls=(*(((1.0, UNHEARD),) * 20), (2.0, alive))) is None


def test_a_free_question_without_an_answer_is_one_more_try_in_an_outage() -> None:
    health = Health()
    health.note_question(0.0, is_there=False)
    assert health.outage(is_submitting=True, is_polling=True) is None
    for _ in range(MOST_IN_A_ROW):
        health.note_submit(NO_HOST, 1.0)
    health.note_question(5.0, is_there=False)
    health.note_question(6.0, is_there=True)
    found = health.outage(is_submitting=True, is_polling=True)
    assert found is not None
    assert (found.tries, found.last_at, found.error) == (MOST_IN_A_ROW + 1, 5.0, OOPS)


def test_an_outage_in_nobodys_way_is_not_told() -> None:
    health = Health()
    for _ in range(20):
        health.note_submit(NO_HOST, 0.0)
    assert health.outage(is_submitting=False, is_polling=True) is None


def test_what_the_breaker_holds_back_for_is_an_outage_however_few_the_tries() -> None:
    health = Health()
    health.note_submit(LOST, 1.0)
    assert health.outage(is_submitting=True, is_polling=False) is None
    found = health.outage(is_submitting=True, is_polling=False, is_held_back=True)
    assert found is not None
    assert (found.what, found.tries) == ("submits", 1)
    health.note_poll(UNHEARD, 1.0)
    assert health.outage(is_submitting=False, is_polling=True, is_held_back=True) is None, "polls are another matter"
