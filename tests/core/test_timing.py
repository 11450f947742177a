"""When to poll: the learned schedule against the best there is for the true distribution, found by brute force."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import accumulate, pairwise
from random import Random
from statistics import NormalDist
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchfox.core.latency import BINS, GRID, OBSERVATIONS, RATIO, SHORTEST_S, Interval, fit, median_s
from batchfox.core.plan import POINTS, even, plan
from batchfox.core.timing import (
    COLD_S,
    LEARN_FROM,
    POLL_SHARE,
    RETRY_MOST_S,
    VERSION,
    Latency,
    Timing,
    poll_price_s,
    retry_delay_s,
)


class Law(NamedTuple):
    """A latency distribution that a test knows: a mixture of log-normals (share, median in seconds, sigma)."""

    parts: tuple[tuple[float, float, float], ...]

    def cdf(self, at_s: float) -> float:
        if at_s <= 0.0:
            return 0.0
        return sum(share * NormalDist(math.log(med), sigma).cdf(math.log(at_s)) for share, med, sigma in self.parts)

    def draw(self, random: Random) -> float:
        _, med, sigma = random.choices(self.parts, [share for share, _, _ in self.parts])[0]
        return med * math.exp(random.gauss(0.0, sigma))

    def median(self) -> float:
        low, high = 1e-3, 1e5
        for _ in range(60):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.cdf(middle) < 0.5 else (low, middle)
        return low

    def weights(self) -> list[float]:
        """The true weights of the grid's bins."""
        at = [self.cdf(edge) for edge in GRID]
        return [high - low for low, high in pairwise(at)]


LAWS = {
    "sigma 0.3": Law(((1.0, 20.0, 0.3),)),
    "sigma 0.5": Law(((1.0, 20.0, 0.5),)),
    "sigma 0.9": Law(((1.0, 20.0, 0.9),)),
    "bimodal": Law(((0.7, 4.0, 0.25), (0.3, 60.0, 0.25))),
}
# How far from the optimum a schedule may be. The grid's steps grow with age, which costs most where a late mode is
# narrow and a poll is cheap against it. (How near it gets on average: benchmarks/polling.py.)
PLANNED = 1.04
LEARNED = 1.12


def optimum(law: Law, poll_cost_s: float) -> float:
    """The least possible (polls x cost + delay) a task, by dynamic programming on a grid far finer than the plan's."""
    points, top = 400, 2000.0
    ages = [0.0, *(0.5 * (top / 0.5) ** (k / points) for k in range(points + 1))]
    below = [law.cdf(age) for age in ages]
    area = [0.0]  # of the distribution function up to each age: its integral is the delay
    for low, high in pairwise(ages):
        area.append(area[-1] + sum(law.cdf(low + (high - low) * (k + 0.5) / 4) for k in range(4)) * (high - low) / 4)
    cost = [0.0] * len(ages)
    for i in range(len(ages) - 2, -1, -1):
        cost[i] = min(
            poll_cost_s * (1 - below[i]) + area[j] - area[i] - below[i] * (ages[j] - ages[i]) + cost[j]
            for j in range(i + 1, len(ages))
        )
    return cost[0]


class Watched(NamedTuple):
    polls: float
    delay_s: float

    def cost(self, poll_cost_s: float) -> float:
        return self.polls * poll_cost_s + self.delay_s


def watch(latency: Latency, draw: Callable[[], float], tasks: int, random: Random, start: float = 0.0) -> Watched:
    """Polls so many tasks by the schedule, teaching it what was seen (never the latency itself); means a task."""
    polls, delay_s = 0, 0.0
    for nth in range(tasks):
        ends, age, found_running = draw(), 0.0, 0.0
        first = random.random()
        while True:
            following = latency.next_age_s(age) if age else latency.first_age_s(first)
            assert following > age
            polls, age = polls + 1, following
            if age >= ends:
                break
            found_running = age
        delay_s += age - ends
        latency.see(found_running, age, start + nth)
    return Watched(polls / tasks, delay_s / tasks)


# The plan and the fit.


@pytest.mark.parametrize("name", LAWS)
def test_the_plan_for_a_known_distribution_is_near_the_optimum(name: str) -> None:
    law = LAWS[name]
    poll_cost_s = POLL_SHARE * law.median()
    following = plan(POINTS, even(law.weights()), poll_cost_s)
    at, polls, delay_s = 0, 0.0, 0.0
    random = Random(1)
    draws = [law.draw(random) for _ in range(20_000)]
    while following[at] > at:
        alive = [ends for ends in draws if ends > POINTS[at]]
        polls += len(alive) / len(draws)
        at = following[at]
        delay_s += sum(POINTS[at] - ends for ends in alive if ends <= POINTS[at]) / len(draws)
    left = sum(ends > POINTS[at] for ends in draws)
    assert left < 0.002 * len(draws), "the plan goes on to where the tasks end"
    assert Watched(polls, delay_s).cost(poll_cost_s) < PLANNED * optimum(law, poll_cost_s)


@pytest.mark.parametrize("name", LAWS)
def test_the_learned_schedule_is_near_the_optimum_and_stays_there(name: str) -> None:
    law, random = LAWS[name], Random(2)
    poll_cost_s = POLL_SHARE * law.median()
    best = optimum(law, poll_cost_s)
    latency = Latency()
    watch(latency, lambda: law.draw(random), 600, random)
    costs = [
        watch(latency, lambda: law.draw(random), 1500, random, start=1000.0 + 2000.0 * turn).cost(poll_cost_s)
        for turn in range(4)
    ]
    assert max(costs) < LEARNED * best
    assert costs[-1] < 1.1 * costs[0], "it does not ratchet upward"


@pytest.mark.parametrize("seconds_apart", [1.0, 5.0])
def test_it_beats_a_fixed_interval(seconds_apart: float) -> None:
    # design.md: every 5 s costs 5.0 polls and 2.5 s of delay; a fixed interval is what the vendor suggests.
    law, random = LAWS["sigma 0.5"], Random(3)
    latency = Latency()
    watch(latency, lambda: law.draw(random), 600, random)
    learned = watch(latency, lambda: law.draw(random), 3000, random, start=2000.0)
    draws = [law.draw(random) for _ in range(3000)]
    polls = sum(math.ceil(ends / seconds_apart) for ends in draws) / len(draws)
    fixed = Watched(polls, sum(math.ceil(ends / seconds_apart) * seconds_apart - ends for ends in draws) / len(draws))
    assert learned.cost(1.0) < 0.9 * fixed.cost(1.0)
    assert learned.polls < 4.0


def test_the_fit_finds_the_distribution_from_intervals_alone() -> None:
    law, random = LAWS["sigma 0.5"], Random(4)
    seen: Counter[Interval] = Counter()
    for _ in range(400):
        ends, low = law.draw(random), 0
        while True:  # polls at random grid points, so that no interval is like another
            high = low + random.randint(4, 24)
            if GRID[high] >= ends:
                break
            low = high
        seen[low, high] += 1
    weights = fit(seen)
    assert sum(weights) == pytest.approx(1.0)
    assert min(weights) >= 0.0
    error = max(abs(a - b) for a, b in zip(accumulate(weights), accumulate(law.weights()), strict=True))
    assert error < 0.1
    assert median_s(weights) == pytest.approx(20.0, rel=0.15)


def test_what_an_interval_leaves_open_is_not_taken_for_its_upper_end() -> None:
    # The ratchet: taking the time of the poll for the latency puts the next poll later, and the next later still.
    assert median_s(fit({(0, 160): 400})) < 0.8 * GRID[160]


def test_an_earlier_fit_does_not_rule_out_what_is_seen_now() -> None:
    far = fit({(120, 122): 400})
    near = fit({(60, 62): 400}, far)
    assert sum(near[54:68]) > 0.9


@settings(max_examples=50, deadline=None)
@given(
    seen=st.dictionaries(
        st.tuples(st.integers(0, BINS - 1), st.integers(1, BINS)).map(lambda p: (p[0], min(p[0] + p[1], BINS))),
        st.integers(1, 50),
        min_size=1,
        max_size=20,
    ),
    poll_cost_s=st.floats(0.002, 5.0),
)
def test_any_observations_give_weights_and_a_plan_that_always_goes_on(
    seen: dict[Interval, int], poll_cost_s: float
) -> None:
    weights = fit(seen)
    assert sum(weights) == pytest.approx(1.0)
    assert all(weight >= 0.0 for weight in weights)
    following = plan(POINTS, even(weights), poll_cost_s)
    assert all(j == 0 or j > i for i, j in enumerate(following))
    assert following[0] > 0


# A latency that changes.


def test_a_drop_of_the_latency_is_noticed_by_early_polls() -> None:
    slow, fast, random = LAWS["sigma 0.5"], Law(((1.0, 2.0, 0.5),)), Random(5)
    latency = Latency()
    watch(latency, lambda: slow.draw(random), 2000, random)
    before = latency.next_age_s(0.0)
    assert before > 5.0
    watch(latency, lambda: fast.draw(random), 400, random, start=3000.0)
    after = watch(latency, lambda: fast.draw(random), 200, random, start=4000.0)
    assert after.delay_s < 0.6
    assert latency.next_age_s(0.0) < 2.5


def test_without_early_polls_the_first_poll_would_hide_a_drop() -> None:
    # The premise of the early polls: what is only known to lie below the first poll says little about how far below.
    latency = Latency()
    for nth in range(400):
        latency.see(8.0, 12.0, float(nth))
    assert latency.first_age_s(0.0) < 0.5 * latency.next_age_s(0.0)
    assert latency.first_age_s(0.99) == latency.next_age_s(0.0)


def test_a_rise_of_the_latency_is_learned_too() -> None:
    slow, fast, random = LAWS["sigma 0.5"], Law(((1.0, 2.0, 0.5),)), Random(6)
    latency = Latency()
    watch(latency, lambda: fast.draw(random), 1000, random)
    watch(latency, lambda: slow.draw(random), 600, random, start=2000.0)
    assert watch(latency, lambda: slow.draw(random), 300, random, start=3000.0).polls < 5.0


# Before anything is known, and beyond what is known.


def test_before_anything_is_known_polls_spread_out() -> None:
    latency, age, ages = Latency(), 0.0, []
    while age < 3600.0:
        age = latency.next_age_s(age)
        ages.append(age)
    assert tuple(ages[: len(COLD_S)]) == COLD_S
    assert len(ages) < 90
    gaps = [high - low for low, high in pairwise(ages)]
    assert max(gaps) <= 60.0


@settings(max_examples=300, deadline=None)
@given(
    age=st.one_of(st.floats(0.0, 1e6), st.sampled_from(GRID), st.sampled_from(COLD_S)),
    draw=st.floats(0.0, 1.0, exclude_max=True),
    seen=st.lists(st.tuples(st.floats(0.0, 3e5), st.floats(0.0, 3e5)), max_size=3),
)
def test_the_next_poll_is_always_later(age: float, draw: float, seen: list[tuple[float, float]]) -> None:
    latency = Latency()
    for low_s, width_s in seen * LEARN_FROM:
        latency.see(low_s, low_s + width_s, 1e9)
    following = latency.next_age_s(age)
    assert SHORTEST_S * 0.999 <= latency.first_age_s(draw) <= latency.next_age_s(0.0)
    assert following >= age + SHORTEST_S * 0.999
    assert following <= max(age * 1.5, GRID[-1]) + 60.0


def test_a_task_older_than_all_seen_is_asked_about_ever_more_rarely_but_at_least_each_minute() -> None:
    latency = Latency()
    for nth in range(100):
        latency.see(1.0, 1.2, float(nth))
    assert latency.next_age_s(100.0) == 125.0
    assert latency.next_age_s(10_000.0) == 10_060.0


# The groups of a run.


def make(first_s: float | None = None, seed: int = 0) -> Timing:
    return Timing(first_s, Random(seed).random)


def test_groups_learn_for_themselves() -> None:
    timing = make()
    for nth in range(100):
        timing.see("fast", 0.9, 1.1, float(nth))
        timing.see("slow", 90.0, 110.0, float(nth))
    assert timing.next_poll_s("fast", 0.0) < 2.0
    assert timing.next_poll_s("slow", 0.0) > 50.0
    assert timing.next_poll_s("new", 0.0) == COLD_S[0]


def test_the_job_can_fix_the_first_poll_and_only_that() -> None:
    timing = make(first_s=7.0)
    for nth in range(100):
        timing.see("g", 0.9, 1.1, float(nth))
    assert {timing.first_poll_s("g") for _ in range(100)} == {7.0}
    assert make(first_s=0.0).first_poll_s("g") == 0.0
    assert timing.next_poll_s("g", 0.0) < 2.0


def test_a_poll_has_a_price_in_seconds_of_delay() -> None:
    assert poll_price_s(20.0, 1.0) == pytest.approx(1.0)
    assert poll_price_s(20.0, 4.0) == pytest.approx(0.25)
    assert (poll_price_s(0.001, 1.0), poll_price_s(1000.0, 1.0), poll_price_s(1000.0, 0.1)) == (0.002, 5.0, 50.0)


def test_four_times_the_eagerness_is_about_twice_the_polls_and_half_the_delay() -> None:
    law = LAWS["sigma 0.5"]

    def spent(eagerness: float) -> Watched:
        latency, random = Latency(eagerness), Random(9)
        watch(latency, lambda: law.draw(random), 600, random)
        return watch(latency, lambda: law.draw(random), 1500, random, start=2000.0)

    for less, more in pairwise([spent(eagerness) for eagerness in (0.25, 1.0, 4.0, 16.0)]):
        assert 1.3 < more.polls / less.polls < 2.2
        assert 1.6 < less.delay_s / more.delay_s < 2.6


def test_a_few_first_polls_are_early() -> None:
    timing = make()
    for nth in range(100):
        timing.see("g", 9.0, 11.0, float(nth))
    firsts = [timing.first_poll_s("g") for _ in range(2000)]
    usual = max(firsts)
    assert 0.01 < sum(first < usual for first in firsts) / 2000 < 0.1


def test_what_was_learned_is_taken_up_by_the_next_run() -> None:
    timing = make()
    for nth in range(1000):
        timing.see("m|video", 9.0 + nth % 3, 12.0 + nth % 5, float(nth))
    kept = timing.export()
    assert len(kept) < 20 * OBSERVATIONS, "it goes into the checkpoint again and again"
    restored = make()
    restored.restore(kept)
    assert restored.export() == kept
    for age in (0.0, 5.0, 10.0, 14.0):
        assert restored.next_poll_s("m|video", age) == pytest.approx(timing.next_poll_s("m|video", age), rel=0.15)


def kept_as(groups: str, version: int = VERSION, ratio: float = RATIO) -> bytes:
    return f'{{"version":{version},"ratio":{ratio},"groups":{groups}}}'.encode()


SOUND = "[" + ",".join(["100,110"] * LEARN_FROM) + "]"


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100000,
        b'{"g":[[1,2],[1,2]]}',  # what version 1 kept
        b'{"version":2}',
        kept_as(f'{{"g":{SOUND}}}', version=VERSION + 1),
        kept_as(f'{{"g":{SOUND}}}', ratio=1.1),
        kept_as("[]"),
        kept_as('{"g":3}'),
        kept_as('{"g":[[1,2]]}'),
        kept_as('{"g":["a","b"]}'),
        kept_as('{"g":[1,2.5]}'),
        kept_as('{"g":[null]}'),
        kept_as('{"g":[]}'),
        kept_as('{"g":[1]}'),
    ],
    ids=lambda kept: repr(kept)[:60],
)
def test_what_cannot_be_read_is_as_if_nothing_had_been_learned(kept: bytes) -> None:
    timing = make()
    timing.restore(kept)
    assert timing.first_poll_s("g") == COLD_S[0]


def test_malformed_observations_are_passed_over_and_the_sound_ones_kept() -> None:
    wrong = f"5,5,6,5,-1,5,0,{BINS + 1},0,{10**17}"
    timing = make()
    timing.restore(kept_as(f'{{"g":[{wrong},{SOUND[1:]},"h":[{wrong}],"i":"soon","j":{SOUND}}}'))
    kept = msgspec.json.decode(timing.export())["groups"]
    assert kept["g"] == kept["j"] == [100, 110] * LEARN_FROM
    assert not kept["h"]
    assert timing.next_poll_s("g", 0.0) > COLD_S[0]
    assert timing.next_poll_s("h", 0.0) == COLD_S[0]


def test_no_more_is_taken_up_than_is_remembered() -> None:
    timing = make()
    timing.restore(kept_as('{"g":[' + "50,60," * 5000 + ",".join(["100,110"] * OBSERVATIONS) + "]}"))
    assert msgspec.json.decode(timing.export())["groups"]["g"] == [100, 110] * OBSERVATIONS


# Retries.


def test_retries_wait_twice_as_long_each_time_up_to_a_limit() -> None:
    assert [retry_delay_s(times, 0.0) for times in (1, 2, 3, 6, 7, 8, 1000)] == [1, 2, 4, 32, 60, 60, 60]
    assert retry_delay_s(0, 0.0) == 1.0


@given(times=st.integers(0, 10_000), draw=st.floats(0.0, 1.0, exclude_max=True), asked=st.floats(0.0, 3600.0))
def test_a_retry_is_jittered_and_never_before_it_was_asked_for(times: int, draw: float, asked: float) -> None:
    usual = retry_delay_s(times, 0.0)
    assert usual / 2 <= retry_delay_s(times, draw) <= usual <= RETRY_MOST_S
    wait_s = retry_delay_s(times, draw, asked)
    assert wait_s >= asked
    assert wait_s <= max(asked * 1.1, 1.0)


def test_rows_that_failed_together_do_not_come_back_together() -> None:
    random = Random(1)
    waits = {round(retry_delay_s(3, random.random()), 2) for _ in range(200)}
    assert len(waits) > 100
