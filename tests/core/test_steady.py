"""Tasks that always take about the same time: the band they end in, and what it makes of the schedule."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.steady import LEAST, MOVED, NARROW, Steady, share_at
from batchfox.core.timing import Latency

IN_FLIGHT = 100


def seen(pairs: list[tuple[float, float]]) -> Steady:
    steady = Steady()
    for low_s, high_s in pairs:
        steady.see(low_s, high_s)
    return steady


AROUND = [(0.0, 1.01)] * LEAST + [(0.90 + nth / 100, 1.01) for nth in range(10)] * 3


def test_a_band_lies_between_the_last_age_found_running_and_the_first_found_done() -> None:
    band = seen(AROUND).band()
    assert band is not None
    assert [*band[0], *band[-1]] == pytest.approx([0.99, 0.0, 1.01, 1.0])
    assert [share_at(band, age) for age in (0.5, 1.0, 2.0)] == pytest.approx([0.0, 0.5, 1.0])


def test_too_few_tasks_or_tasks_that_spread_have_no_band() -> None:
    assert seen(AROUND[: LEAST - 1]).band() is None
    assert seen([(0.0, 1.01)] * LEAST).band() is None, "nothing was asked before"
    random = Random(1)
    ends = [random.uniform(1.0, 1.3 * NARROW) for _ in range(400)]
    assert seen([(at - 0.01, at) for at in ends]).band() is None


def test_a_few_that_were_found_done_early_do_not_stand_for_all() -> None:
    band = seen([*AROUND, (0.0, 0.991)]).band()
    assert band is not None
    assert share_at(band, 0.992) < 0.6


@pytest.mark.parametrize(("low_s", "high_s"), [(0.0, 0.4), (1.01, 1.2)])
def test_a_band_is_left_when_the_tasks_that_could_tell_all_tell_so(low_s: float, high_s: float) -> None:
    steady = seen(AROUND)
    band = steady.band()
    assert band is not None
    assert not steady.has_left(band)
    for _ in range(MOVED - 1):
        steady.see(low_s, high_s)
        steady.see(0.0, (band[0][0] + band[-1][0]) / 2)  # done within the band: it tells nothing
    assert not steady.has_left(band)
    steady.see(low_s, high_s)
    assert steady.has_left(band)


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(1e-6, 100.0)), max_size=200))
def test_any_observations_give_a_band_that_rises_or_none(pairs: list[tuple[float, float]]) -> None:
    band = seen([(low, low + width) for low, width in pairs]).band()
    if band is not None:
        assert (band[0][1], band[-1][1]) == (0.0, 1.0)
        assert band == sorted(band)
        assert [share for _, share in band] == sorted(share for _, share in band)


def polled(latency: Latency, tasks: int, takes_s: Callable[[int], float], now: float = 0.0) -> tuple[float, float]:
    """Polls and delay a task, `IN_FLIGHT` at a time, so that what is learned comes late. `now`: when they begin."""
    polls, delay_s, late, random = 0, 0.0, deque[tuple[float, float, float]](), Random(2)
    for nth in range(tasks):
        now += takes_s(nth) / IN_FLIGHT
        ends_s, low, age = takes_s(nth), 0.0, latency.first_age_s(random.random())
        while age < ends_s:
            low, age, polls = age, latency.next_age_s(age), polls + 1
        polls, delay_s = polls + 1, delay_s + age - ends_s
        late.append((now + age, low, age))
        while late[0][0] <= now:
            at, low, high = late.popleft()
            latency.see(low, high, at)
    return polls / tasks, delay_s / tasks


def test_tasks_that_take_the_same_time_are_asked_once_as_they_end() -> None:
    random, latency = Random(2), Latency()

    def takes_s(_: int) -> float:
        return 1.0 + 0.005 * random.random()

    polled(latency, 3000, takes_s)
    polls, delay_s = polled(latency, 3000, takes_s, 1e3)
    assert polls < 1.15
    assert delay_s < 0.015


@pytest.mark.parametrize("factor", [0.4, 1.2, 3.0])
def test_a_new_time_is_learned_soon(factor: float) -> None:
    latency = Latency()
    polled(latency, 3000, lambda _: 10.0)
    before, _ = polled(latency, 500, lambda _: 10.0, 1e4)
    polled(latency, 3000, lambda _: 10.0 * factor, 2e4)
    polls, delay_s = polled(latency, 2000, lambda _: 10.0 * factor, 3e4)
    assert before < 1.2
    assert polls < 1.2
    assert delay_s < 0.04 * 10.0 * factor
