"""The breaker: when it opens, who is let through meanwhile, and what closes it."""

from __future__ import annotations

from batchfox.core.breaker import FIRST_PROBE_S, MOST_PROBE_S, TRIP, Breaker


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


def test_while_it_is_open_one_submit_at_a_time_may_try() -> None:
    breaker = tripped()
    probe_at = 10.0 + FIRST_PROBE_S
    assert not breaker.allows(probe_at - 0.001, on_the_wire=0)
    assert breaker.allows(probe_at, on_the_wire=0)
    assert not breaker.allows(probe_at, on_the_wire=1)


def test_probes_grow_rarer_up_to_a_limit() -> None:
    breaker, now, waits = tripped(), 10.0, []
    for _ in range(2000):  # more than a day of them: a power of two must not run over
        waits.append(breaker.probe_at - now)
        now = breaker.probe_at
        breaker.fail(now)
    assert [round(wait) for wait in waits[:8]] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert max(waits) <= MOST_PROBE_S + 1e-6


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
