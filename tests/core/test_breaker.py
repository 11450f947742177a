"""The breaker: when it opens, who is let through meanwhile, and what closes it."""

from __future__ import annotations

import pytest

from batchfox.core.breaker import FIRST_PROBE_S, MOST_PROBE_S, MOST_RISK_S, TRIP, Breaker


def tripped(now: float = 10.0) -> Breaker:
    breaker = Breaker()
    for _ in range(TRIP):
        breaker.fail(now)
    return breaker


def test_it_opens_after_enough_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker()
    for _ in range(TRIP - 1):
        breaker.fail(10.0)
        assert not breaker.is_open
        assert breaker.allows(10.0, on_the_wire=50)
    breaker.fail(10.0)
    assert breaker.is_open
    assert breaker.opened_at == 10.0


def test_one_success_among_failures_keeps_it_closed() -> None:
    breaker = Breaker()
    for turn in range(100):
        breaker.fail(float(turn))
        if turn % (TRIP - 1) == 0:
            breaker.succeed()
    assert not breaker.is_open


def test_while_it_is_open_a_free_question_comes_first_and_then_one_submit_at_a_time() -> None:
    breaker = tripped()
    probe_at = 10.0 + FIRST_PROBE_S
    assert not breaker.asks(probe_at - 0.001, on_the_wire=0)
    assert not breaker.asks(probe_at, on_the_wire=1)
    assert breaker.asks(probe_at, on_the_wire=0)
    assert not breaker.allows(probe_at, on_the_wire=0), "not before the question is answered"
    breaker.hear(probe_at, is_there=True)
    assert not breaker.asks(probe_at, on_the_wire=0)
    assert breaker.allows(probe_at, on_the_wire=0)
    assert not breaker.allows(probe_at, on_the_wire=1)


def test_a_question_without_an_answer_puts_the_next_one_off_and_risks_no_submit() -> None:
    breaker = tripped()
    breaker.hear(11.0, is_there=False)
    assert not breaker.asks(12.9, on_the_wire=0)
    assert breaker.asks(13.0, on_the_wire=0)
    assert not breaker.allows(13.0, on_the_wire=0)


def test_every_failed_probe_has_the_question_asked_anew() -> None:
    breaker = tripped()
    breaker.hear(11.0, is_there=True)
    breaker.fail(11.5)
    assert not breaker.allows(breaker.probe_at, on_the_wire=0)
    assert breaker.asks(breaker.probe_at, on_the_wire=0)


def test_an_answer_that_comes_after_it_closed_changes_nothing() -> None:
    breaker = tripped()
    breaker.succeed()
    breaker.hear(11.0, is_there=False)
    assert breaker.allows(11.0, on_the_wire=5)


@pytest.mark.parametrize(("is_risky", "most_s"), [(False, MOST_PROBE_S), (True, MOST_RISK_S)])
def test_probes_grow_rarer_up_to_a_limit(is_risky: bool, most_s: float) -> None:
    """One that may be paid for costs a row an attempt, so it waits longer."""
    breaker, now, waits = tripped(), 10.0, []
    for _ in range(2000):  # more than a day of them: a power of two must not run over
        waits.append(breaker.probe_at - now)
        now = breaker.probe_at
        breaker.fail(now, b"row" if is_risky else None)
    assert [round(wait) for wait in waits[:6]] == [1, 2, 4, 8, 16, 32]
    assert max(waits) == pytest.approx(most_s)


def test_failures_that_were_on_the_wire_when_it_opened_do_not_delay_the_probe() -> None:
    breaker = tripped()
    for _ in range(50):
        breaker.fail(10.5)
    assert breaker.probe_at == 10.0 + FIRST_PROBE_S
    assert breaker.opened_at == 10.0


def test_the_first_success_closes_it_and_forgets() -> None:
    breaker = tripped()
    breaker.fail(11.0)
    breaker.fail(13.0)
    breaker.succeed()
    assert not breaker.is_open
    assert breaker.allows(0.0, on_the_wire=1000)
    for _ in range(TRIP):
        breaker.fail(100.0)
    assert breaker.probe_at == 100.0 + FIRST_PROBE_S


# Few rows.


def test_a_row_in_doubt_again_with_no_verdict_in_between_opens_it() -> None:
    breaker = Breaker()
    breaker.fail(10.0, b"a")
    breaker.fail(10.5, b"b")
    assert not breaker.is_open
    breaker.fail(11.0, b"a")
    assert breaker.is_open


def test_where_others_get_a_verdict_meanwhile_the_trouble_is_the_rows_own() -> None:
    breaker = Breaker()
    for turn in range(50):
        breaker.fail(float(turn), b"poison")
        assert not breaker.is_open
        breaker.succeed()


def test_what_cannot_be_in_doubt_twice_opens_it_at_once() -> None:
    breaker = Breaker()
    breaker.fail(10.0, b"a", is_decisive=True)
    assert breaker.is_open


def test_refusals_of_no_row_in_particular_are_not_one_rows_doubts() -> None:
    breaker = Breaker()
    for _ in range(TRIP - 1):
        breaker.fail(10.0)
    assert not breaker.is_open


def test_the_fewer_attempts_may_be_lost_before_a_rows_last_the_longer_the_next_one_waits() -> None:
    def wait_s(attempts: int, rows: int, failed_probes: int = 0) -> float:
        breaker, now = Breaker(), 10.0
        breaker.fail(now, b"a")
        breaker.fail(now, b"a")
        for _ in range(failed_probes):
            now = breaker.probe_at
            breaker.fail(now, b"a")
        breaker.spare(now, attempts, rows)
        return breaker.probe_at - now

    assert [round(wait_s(left, 1)) for left in (1, 2, 3, 4)] == [900, 150, 25, 4]
    assert [round(wait_s(left, left)) for left in (1, 3, TRIP - 1)] == [900, 900, 900], "each row's last"
    assert [round(wait_s(2, 1, failed)) for failed in (1, 6, 8, 30)] == [150, 150, 256, 600], "never less than as ever"
    assert wait_s(TRIP, 1) == wait_s(0, 0) == FIRST_PROBE_S, "with enough of them, as ever"


def test_nothing_is_spared_while_it_is_closed() -> None:
    breaker = Breaker()
    breaker.fail(10.0, b"a")
    breaker.spare(10.0, 3, 1)
    assert breaker.allows(10.0, on_the_wire=0)
