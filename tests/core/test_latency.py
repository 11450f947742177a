"""What is seen of latencies: the cohort, and changes of the latency."""

from __future__ import annotations

import math
from random import Random

import pytest

from batchfox.core.latency import BINS, GRID, OBSERVATIONS, Interval, Sample, fit, interval, median_s, nearest
from batchfox.core.shift import LEAST, WINDOW, onset

MEDIAN_S = 20.0


def key(number: int) -> bytes:
    return number.to_bytes(4, "big")


def latency_s(random: Random, median: float = MEDIAN_S) -> float:
    return median * math.exp(random.gauss(0.0, 0.5))


def seen(ends_s: float, every_s: float = 3.0) -> Interval:
    """What polls at regular ages show of a task."""
    polls = math.ceil(ends_s / every_s)
    return interval((polls - 1) * every_s, polls * every_s)


def learned(median: float = MEDIAN_S, seed: int = 1) -> list[float]:
    random, sample = Random(seed), Sample()
    for _ in range(400):
        sample.end(None, seen(latency_s(random, median)))
    return fit(sample.counts())


@pytest.mark.parametrize("age_s", [0.0, 1e-9, 0.004, 0.02, 1.0, 20.0, 3333.0, 1e5, 1e9])
def test_an_age_is_taken_for_the_nearest_point(age_s: float) -> None:
    assert abs(GRID[nearest(age_s)] - age_s) == min(abs(edge - age_s) for edge in GRID)
    low, high = interval(age_s, age_s)
    assert 0 <= low < high <= BINS


# The cohort.


def test_of_tasks_submitted_together_those_that_run_count_too() -> None:
    # A burst of 64: when a quarter has ended, those that ended are the fast ones.
    random, sample = Random(3), Sample()
    ends = [latency_s(random) for _ in range(64)]
    now_s = sorted(ends)[16]
    for number, at in enumerate(ends):
        sample.begin(key(number))
        if at <= now_s:
            sample.end(key(number), seen(at))
        else:
            sample.stay(key(number), now_s)
    ended_alone = {pair: times for pair, times in sample.counts().items() if pair[1] < BINS}
    assert sum(sample.counts().values()) == 64
    assert median_s(fit(ended_alone)) < 0.75 * MEDIAN_S
    assert median_s(fit(sample.counts())) > 0.8 * MEDIAN_S


def test_a_task_that_was_not_asked_about_yet_tells_nothing() -> None:
    sample = Sample()
    sample.begin(key(1))
    assert not sample.counts()
    sample.stay(key(1), 5.0)
    assert sample.counts() == {(nearest(5.0), BINS): 1}
    sample.stay(key(2), 5.0)  # never begun
    assert len(sample.counts()) == 1


def test_a_task_that_was_given_up_was_slow_and_is_remembered_as_that() -> None:
    sample = Sample()
    for number in (1, 2):
        sample.begin(key(number))
    sample.stay(key(1), 3600.0)
    for number in (1, 2, 3):
        sample.give_up(key(number))
    assert sample.counts() == {(nearest(3600.0), BINS): 1}


def test_those_submitted_last_are_remembered_in_whatever_order_they_end() -> None:
    sample = Sample()
    for number in range(2 * OBSERVATIONS):
        sample.begin(key(number))
    sample.begin(slow := key(99_999_999))
    sample.stay(slow, 9.0)
    for number in reversed(range(2 * OBSERVATIONS)):
        sample.end(key(number), (number % 2, 2))
    assert len(sample.export()) == OBSERVATIONS
    sample.end(key(1_000_000), (50, 60))
    assert sample.export()[-1] == (50, 60)
    assert sum(sample.counts().values()) == OBSERVATIONS + 1
    for _ in range(OBSERVATIONS):
        sample.end(None, (70, 80))
    assert sample.counts() == {(70, 80): OBSERVATIONS}, "one that runs since before all of them tells nothing of them"


# A change.


def latest(ends_s: list[float], every_s: float = 3.0) -> list[tuple[int, Interval]]:
    """Tasks in the order of submission, as `Sample.latest` gives them."""
    return [(serial, seen(at, every_s)) for serial, at in enumerate(ends_s)][::-1][:WINDOW]


@pytest.mark.parametrize("seed", range(20))
def test_where_nothing_changed_none_is_found(seed: int) -> None:
    weights, random = learned(), Random(100 + seed)
    ends = [latency_s(random) for _ in range(1000)]
    assert all(onset(latest(ends[:upto]), weights) is None for upto in range(10, 1000, 20))


@pytest.mark.parametrize("factor", [0.17, 0.5, 2.0, 6.0])
def test_a_change_is_found_and_when_it_began(factor: float) -> None:
    weights, random = learned(), Random(7)
    ends = [latency_s(random) for _ in range(60)] + [latency_s(random, MEDIAN_S * factor) for _ in range(60)]
    found = next((since, upto) for upto in range(60, 121) if (since := onset(latest(ends[:upto]), weights)) is not None)
    assert found[0] == pytest.approx(60, abs=20)
    assert found[1] <= 60 + 40


def test_one_odd_task_is_no_change() -> None:
    weights, random = learned(), Random(8)
    ends = [latency_s(random) for _ in range(100)]
    for odd_s in (0.02, 20_000.0):
        for others in range(LEAST + 1):
            assert onset(latest([*ends, odd_s, *ends[:others]]), weights) is None


def test_what_was_before_a_change_is_forgotten() -> None:
    sample = Sample()
    sample.begin(slow := key(1))
    sample.stay(slow, 500.0)
    for _ in range(OBSERVATIONS):
        sample.end(None, (100, 120))
    sample.begin(new := key(2))
    sample.stay(new, 1.0)
    since = sample.latest(1)[0][0]
    sample.forget_before(since)
    assert sample.counts() == {(nearest(1.0), BINS): 1}
    sample.end(slow, (200, 210))
    assert (200, 210) in sample.export(), "an old task that ends is old, but known"
