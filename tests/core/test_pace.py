"""The pace: the bucket that keeps a limit in every sliding minute, and how the rate is learned from 429."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pace_world import World

from batchfox.core.bucket import Drip, bucket
from batchfox.core.evidence import ALARM, MOST_NOISE
from batchfox.core.pace import Pace
from batchfox.core.pace_rules import (
    CUT,
    FEEL_PER_S,
    LEAST_PER_S,
    LONE_CUT_LEAST,
    LONE_CUT_MOST,
    MOST_WAIT_S,
    PROBE_REPLIES,
    PROBE_S,
    SEEK_EVERY_S,
    SEEK_FACTOR,
    START_PER_S,
    WAIT_S,
    Step,
    limit_by_burst,
)


def passes(per_minute: float, until_s: float, *, level: float | None = None) -> list[float]:
    """When requests pass the leaky bucket if there is always one waiting. `level`: how full it starts, None: full."""
    capacity, per_s = bucket(per_minute)
    level = capacity if level is None else level
    now = 0.0
    times: list[float] = []
    while True:
        wait_s = max(level + 1.0 - capacity, 0.0) / per_s
        now, level = now + wait_s, level - wait_s * per_s
        if now > until_s:
            return times
        level += 1.0
        times.append(now)


def most_in_a_minute(times: list[float]) -> int:
    """The most that passed in any closed window of 60 s."""
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] > 60.0:
            first += 1
        most = max(most, last - first + 1)
    return most


WHOLE = [1, 2, 7, 20, 59, 60, 61, 90, 600, 1200, 60_000]


@pytest.mark.parametrize("per_minute", [0.5, 1.5, 7.5, 59.9, 60.5, *WHOLE])
@pytest.mark.parametrize("starts", ["full", "empty"])
def test_no_sliding_minute_sees_more_than_the_limit(per_minute: float, starts: str) -> None:
    times = passes(per_minute, max(300.0, 600.0 / per_minute), level=None if starts == "full" else 0.0)
    assert 0 < most_in_a_minute(times) <= max(int(per_minute), 1)


@pytest.mark.parametrize("per_minute", [0.5, *WHOLE])
def test_hardly_anything_of_the_limit_is_wasted(per_minute: float) -> None:
    times = passes(per_minute, max(300.0, 3000.0 / per_minute))
    used = (len(times) - 1) / (times[-1] - times[0]) * 60.0
    assert used >= 0.97 * per_minute


@settings(max_examples=60, deadline=None)
@given(per_minute=st.floats(0.05, 3000.0), level=st.floats(0.0, 1.0))
def test_no_limit_at_all_is_passed(per_minute: float, level: float) -> None:
    capacity, _ = bucket(per_minute)
    times = passes(per_minute, 130.0, level=level * capacity)
    assert most_in_a_minute(times) <= max(int(per_minute), 1)


@pytest.mark.parametrize("per_minute", [0.05, 0.5, 0.99])
def test_less_than_one_a_minute_is_one_in_several_minutes(per_minute: float) -> None:
    times = passes(per_minute, 6000.0)
    assert min(high - low for low, high in itertools.pairwise(times)) >= 60.0 / per_minute


def test_a_bucket_lets_one_request_through_and_no_great_burst() -> None:
    for per_minute in (0.1, *WHOLE):
        capacity, _ = bucket(per_minute)
        assert 1.0 <= capacity <= 1.0 + per_minute / 60.0 * 0.05


@pytest.mark.parametrize("per_minute", [90, 600, 1200, 6_000, 60_000])
def test_a_token_taken_a_little_late_is_not_lost_and_no_second_holds_more_than_its_share(per_minute: float) -> None:
    capacity, per_s = bucket(per_minute)
    level, now, times = capacity, 0.0, list[float]()
    while now < 20.0:
        wait_s = max(level + 1.0 - capacity, 0.0) / per_s
        wait_s += 0.006 if wait_s > 0.0 else 0.0  # a timer's step, and the sync of an intent
        now, level = now + wait_s, max(level - wait_s * per_s, 0.0) + 1.0
        times.append(now)
    assert (len(times) - 1) / (times[-1] - times[0]) * 60.0 >= 0.97 * per_minute
    most = max(sum(at <= later < at + 1.0 for later in times[n : n + 1_200]) for n, at in enumerate(times[:400]))
    assert most <= 1.05 * per_minute / 60.0 + 1.0


def test_a_change_of_pace_within_a_minute_does_not_pass_the_limit() -> None:
    # Each pace is a new bucket that starts full (limiter.py): up and down within the minute, at most 600.
    times: list[float] = []
    start = 0.0
    for turn in range(20):
        times += [start + at for at in passes(600 if turn % 2 else 300, 9.7)]
        start += 9.7
    assert most_in_a_minute(times) <= 600


def test_a_pace_that_goes_up_and_down_and_pauses_brings_no_burst() -> None:
    drip, now, times = Drip(), 0.0, []
    for turn in range(200):
        drip.resize((600, 60, 599, 7)[turn % 4], now)
        until = now + 0.7
        while (ready := drip.ready_at(now)) < until:
            now = ready
            drip.take(now)
            times.append(now)
        now = until
        if turn % 7 == 0:
            now += 5.0
            drip.calm(now)
    assert most_in_a_minute(times) <= 600
    assert max(sum(at <= later < at + 1.0 for later in times) for at in times) <= 11


# Learning. Whole worlds are in test_pace_found.py.


def use(pace: Pace, since: float, until: float) -> float:
    """Submits get through at the whole pace from `since` to `until`; returns when the next would leave."""
    while since < until:
        pace.accept(since, since)
        since += 1.0 / pace.per_s
    return since


def refuse_many(pace: Pace, now: float, wait_s: float | None = 1.0) -> None:
    for _ in range(int(ALARM) + 1):
        pace.throttle(now, now - 0.05, wait_s)


def test_a_job_with_a_limit_starts_at_it_and_never_passes_it() -> None:
    pace = Pace(600)
    assert pace.per_minute == 600
    use(pace, 0.0, 1000.0)
    assert pace.per_minute == 600
    assert not pace.is_limited


def test_without_a_limit_the_pace_doubles_while_nobody_complains() -> None:
    pace = Pace(None)
    assert pace.per_s == START_PER_S
    now = use(pace, 0.0, SEEK_EVERY_S)
    assert pace.per_s == START_PER_S, "a moment must pass first"
    pace.accept(now, now)
    assert pace.per_s == START_PER_S * SEEK_FACTOR


def test_a_lone_429_makes_everybody_wait_and_takes_a_little() -> None:
    pace = Pace(600)
    use(pace, 0.0, 20.0)
    pace.throttle(20.0, 19.9, 7.0)
    assert LONE_CUT_LEAST * 10.0 <= pace.per_s <= LONE_CUT_MOST * 10.0
    assert not pace.is_open(26.9)
    assert pace.is_open(27.0)
    assert pace.is_limited
    assert pace.throttles == 1


def test_many_refusals_halve_the_pace_that_had_held_and_one_success_brings_it_back() -> None:
    pace = Pace(600)
    use(pace, 0.0, 20.0)
    refuse_many(pace, 20.0)
    assert pace.per_s == FEEL_PER_S, "until something gets through, only a few feel for it"
    pace.accept(20.1, 19.0)
    assert pace.per_s == FEEL_PER_S, "it was on the wire before"
    pace.accept(21.1, 21.05)
    assert pace.per_s == pytest.approx(10.0 * CUT)


@pytest.mark.parametrize(("got_through", "per_s"), [(0, 300.0 / 16), (30, 30.0), (200, 150.0)])
def test_of_a_pace_far_too_high_the_share_that_got_through_is_kept(got_through: int, per_s: float) -> None:
    pace = Pace(300 * 60)
    for _ in range(got_through):
        pace.accept(0.4, 0.2)
    for _ in range(300 - got_through):
        pace.throttle(0.5, 0.3, 1.0)
    pace.accept(2.0, 1.9)
    assert pace.per_s == pytest.approx(per_s)


def test_how_soon_a_burst_is_used_up_tells_the_limit() -> None:
    steps = [Step(per_s=per_s, since=since) for per_s, since in ((8.0, 0.0), (12.0, 3.0), (14.0, 5.0))]
    assert limit_by_burst(steps, 6.5) == pytest.approx(10.0), "2 x 2 s and 4 x 1.5 s above it are a burst of 10"
    assert limit_by_burst(steps[:1], 2.0) == pytest.approx(3.0)
    assert limit_by_burst(steps, 5.0) < 10.0
    assert limit_by_burst(steps[:1], 0.5) == limit_by_burst(steps[:1], 0.0) == 0.0


def test_a_probe_where_some_are_refused_by_chance_pays_for_what_chance_does_not_explain() -> None:
    """600 a minute, of which one in twenty is refused whatever the pace is; then so are all beyond the limit."""
    worlds = [World(Pace(6000), "bucket", 600, latency_s=0.1, chance=0.05, seed=seed).run(240.0) for seed in range(12)]
    assert sum(world.refused(60.0, 240.0) for world in worlds) / len(worlds) < 0.11


def test_a_refused_probe_returns_to_the_pace_that_held() -> None:
    pace = Pace(None)
    now = use(pace, 0.0, 6.0)
    held = pace.per_s / SEEK_FACTOR
    pace.throttle(now, now, 1.0)
    assert pace.per_s == held


def test_a_refusal_of_what_was_sent_a_step_ago_is_that_steps() -> None:
    pace = Pace(None)
    now = use(pace, 0.0, 6.0)
    use(pace, now, now + 0.2)
    pace.throttle(now + 0.3, 4.6, 1.0)
    assert pace.per_s == START_PER_S * SEEK_FACTOR**3


def test_a_pace_is_held_and_what_was_refused_is_paid_for_before_the_next_probe() -> None:
    pace = Pace(None)
    now = use(pace, 0.0, 6.0)
    pace.throttle(now, now, 1.0)
    now = use(pace, now + 1.0, now + 2.5)
    assert pace.per_s == 320.0, "one refusal may be chance: it seeks again"
    pace.throttle(now, now, 1.0)
    held = pace.per_s
    now = use(pace, now + 1.0, now + 1.0 + PROBE_S - 0.5)
    assert pace.per_s == held
    now = use(pace, now, now + 1.0)
    assert pace.per_s == 1.5 * held, "half-way to what was refused"
    pace.throttle(now, now, 1.0)
    assert pace.per_s == held
    use(pace, now + 1.0, now + PROBE_S - 0.5)
    assert pace.per_s == held


def test_a_minutes_ration_is_recognised_by_its_standstill() -> None:
    """600 got through within seconds, then nothing for most of a minute: 10 a second it is."""
    pace = Pace(None)
    count = 0
    now = 0.0
    while count < 600:
        pace.accept(now, now)
        count += 1
        now += 1.0 / pace.per_s
    refuse_many(pace, now)
    for at in (11.0, 13.0, 20.0, 50.0):
        pace.throttle(at, at - 0.05, 1.0)
    pace.accept(61.0, 60.9)
    assert pace.per_s == pytest.approx(10.0, rel=0.05)


def test_the_longest_wait_asked_for_counts() -> None:
    pace = Pace(600)
    pace.throttle(10.0, 9.0, 30.0)
    pace.throttle(11.0, 9.0, 1.0)
    assert pace.resumes_at == 40.0


def test_replies_to_what_was_sent_before_the_cut_do_not_cut_again() -> None:
    pace = Pace(600)
    use(pace, 0.0, 9.0)
    pace.throttle(10.0, 9.0, 1.0)
    per_s = pace.per_s
    pace.throttle(10.0, 9.1, 1.0)
    assert pace.per_s == per_s
    assert pace.throttles == 2


def test_waits_that_nobody_asked_for_double_up_to_a_minute_and_begin_anew_after_a_success() -> None:
    pace, now, waits = Pace(600), 0.0, []
    for _ in range(1200):  # more of them than a float has powers of two
        pace.throttle(now, now, None)
        waits.append(pace.resumes_at - now)
        now = pace.resumes_at + 1.0
    assert [round(wait) for wait in waits[:8]] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert max(waits) <= MOST_WAIT_S + 1e-6
    pace.accept(now, now)
    pace.throttle(now + 10.0, now + 9.9, None)
    assert pace.resumes_at == pytest.approx(now + 10.0 + WAIT_S)


def test_refusals_that_go_on_at_a_lower_pace_are_noise_and_hold_nobody_else_back() -> None:
    pace = Pace(600)
    now, lone = 0.0, 0
    for turn in range(2000):
        now = max(now + 1.0 / pace.per_s, pace.resumes_at)
        if turn % 20 == 19:
            pace.throttle(now, now, 1.0)
            lone += 1
        else:
            pace.accept(now, now)
    assert 0.0 < pace.noise < MOST_NOISE
    assert pace.per_s == 10.0, "it is the job's limit again"
    pace.throttle(now + 0.1, now + 0.1, 30.0)
    assert pace.is_open(now + 0.1)


def test_a_pace_that_is_not_used_stays() -> None:
    # Few tasks in flight would else let it climb without end, and a limit met later would be far below it.
    pace = Pace(None)
    for second in range(100):
        pace.accept(float(second), float(second))
    assert pace.per_s == START_PER_S
    assert PROBE_REPLIES < 100


@pytest.mark.parametrize(("per_minute", "least"), [(None, LEAST_PER_S), (600.0, LEAST_PER_S), (0.5, 0.5 / 60.0)])
def test_the_pace_never_dies(per_minute: float | None, least: float) -> None:
    pace = Pace(per_minute)
    for now in range(0, 10_000, 10):
        pace.throttle(float(now), float(now), 0.0)
        assert pace.per_s >= least


_events = st.lists(
    st.tuples(st.booleans(), st.floats(0.0, 20.0), st.floats(0.0, 30.0), st.one_of(st.none(), st.floats(0.0, 3600.0))),
    max_size=80,
)


@given(per_minute=st.one_of(st.none(), st.floats(0.1, 1e5)), events=_events)
def test_whatever_comes_the_pace_keeps_its_bounds(
    per_minute: float | None, events: list[tuple[bool, float, float, float | None]]
) -> None:
    pace, now = Pace(per_minute), 0.0
    for is_refusal, step_s, ago_s, retry_after_s in events:
        now += step_s
        before = pace.resumes_at
        if is_refusal:
            pace.throttle(now, now - ago_s, retry_after_s)
            assert pace.noise or pace.resumes_at >= max(before, now + (retry_after_s or 0.0))
        else:
            pace.accept(now, now - ago_s)
            assert pace.resumes_at == before
        assert pace.per_s > 0.0
        assert per_minute is None or pace.per_minute <= per_minute * (1 + 1e-9)


def test_another_limit_holds_at_once_and_a_pace_that_the_api_holds_back_stays_where_it_is() -> None:
    pace = Pace(600)
    pace.limit(300, 10.0)
    assert pace.per_minute == 300
    pace.limit(1200, 20.0)
    assert pace.per_minute == 1200, "nobody had complained"
    pace.throttle(30.0, 29.0, 1.0)
    held = pace.per_minute
    assert held < 1200
    pace.limit(6000, 40.0)
    assert pace.per_minute == held, "the API said so"
    use(pace, 40.0, 400.0)
    assert held < pace.per_minute <= 6000, "and it is found anew"
    pace.limit(60, 500.0)
    assert pace.per_minute == 60
