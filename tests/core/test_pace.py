"""The pace: the bucket that keeps a limit in every sliding minute, and how the rate is learned from 429."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchfox.core.pace import (
    CLIMB_EVERY_S,
    CLIMB_FACTOR,
    CUT,
    LEAST_PER_S,
    LONE_AFTER,
    LONE_CUT,
    MOST_WAIT_S,
    PROBE_EVERY_S,
    PROBE_FACTOR,
    START_PER_S,
    WAIT_S,
    Pace,
    bucket,
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
        assert 1.0 <= capacity <= max(1.0, per_minute / 60.0 * 0.05)


def test_a_change_of_pace_within_a_minute_does_not_pass_the_limit() -> None:
    # Each pace is a new bucket that starts full (limiter.py): up and down within the minute, at most 600.
    times: list[float] = []
    start = 0.0
    for turn in range(20):
        times += [start + at for at in passes(600 if turn % 2 else 300, 9.7)]
        start += 9.7
    assert most_in_a_minute(times) <= 600


# Learning.


def use(pace: Pace, since: float, until: float) -> None:
    """Submits get through at the whole pace from `since` to `until`, as far as it does not change meanwhile."""
    while since < until:
        pace.accept(since)
        since += 1.0 / pace.per_s
    pace.accept(until)


def test_a_job_with_a_limit_starts_at_it_and_never_passes_it() -> None:
    pace = Pace(600)
    assert pace.per_minute == 600
    use(pace, 0.0, 1000.0)
    assert pace.per_minute == 600
    assert not pace.is_limited


def test_without_a_limit_the_pace_doubles_while_nobody_complains() -> None:
    pace = Pace(None)
    assert pace.per_s == START_PER_S
    use(pace, 0.0, PROBE_EVERY_S - 0.01)
    assert pace.per_s == START_PER_S, "a moment must pass first"
    pace.accept(PROBE_EVERY_S)
    assert pace.per_s == START_PER_S * PROBE_FACTOR


def test_a_429_cuts_the_pace_and_makes_everybody_wait() -> None:
    pace = Pace(600)
    pace.throttle(10.0, sent_at=9.5, retry_after_s=7.0)
    assert pace.per_s == 10.0 * CUT
    assert not pace.is_open(16.9)
    assert pace.is_open(17.0)
    assert pace.is_limited
    assert pace.throttles == 1


def test_a_429_that_stands_alone_takes_back_a_step_and_its_wait_does_not_double() -> None:
    """Some come whatever the pace is: they must not wear it down to nothing."""
    pace = Pace(600)
    now = 0.0
    for _ in range(20):
        for _ in range(LONE_AFTER):
            pace.accept(now)
        pace.throttle(now, now, None)
        assert pace.resumes_at == now + WAIT_S
        now += 1.01 * WAIT_S
    assert pace.per_s == pytest.approx(10.0 * LONE_CUT**20)
    pace.throttle(now, now, None)
    assert pace.per_s == pytest.approx(10.0 * LONE_CUT**20 * CUT), "two in a row do not stand alone"
    assert pace.resumes_at == now + 2 * WAIT_S


def test_the_longest_wait_asked_for_counts() -> None:
    pace = Pace(600)
    pace.throttle(10.0, 9.0, 30.0)
    pace.throttle(11.0, 9.0, 1.0)
    assert pace.resumes_at == 40.0


def test_replies_to_what_was_sent_before_the_cut_do_not_cut_again() -> None:
    pace = Pace(600)
    for sent_at in (9.0, 9.1, 9.2, 9.9):
        pace.throttle(10.0, sent_at, 1.0)
    assert pace.per_s == 10.0 * CUT
    assert pace.throttles == 4
    pace.throttle(12.0, 11.5, 1.0)
    assert pace.per_s == 10.0 * CUT * CUT


def test_a_429_to_what_was_sent_before_a_climb_is_news_all_the_same() -> None:
    # The pace was lower then, and already too fast.
    pace = Pace(None)
    use(pace, 0.0, 1.0)
    assert pace.per_s == START_PER_S * PROBE_FACTOR
    pace.throttle(1.2, sent_at=0.9, retry_after_s=None)
    assert pace.per_s == START_PER_S * PROBE_FACTOR * CUT
    assert pace.resumes_at == pytest.approx(2.2), "a second at first"


def test_waits_that_nobody_asked_for_double_up_to_a_minute_and_begin_anew_after_a_success() -> None:
    pace, now, waits = Pace(600), 0.0, []
    for _ in range(1200):  # more of them than a float has powers of two
        pace.throttle(now, now - 0.1, None)
        waits.append(pace.resumes_at - now)
        now = pace.resumes_at + 1.0
    assert [round(wait) for wait in waits[:8]] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert max(waits) <= MOST_WAIT_S + 1e-6
    pace.accept(now + CLIMB_EVERY_S)
    pace.throttle(now + 10.0, now + 9.9, None)
    assert pace.resumes_at == pytest.approx(now + 11.0)


def test_after_a_cut_the_pace_climbs_back_slowly_to_the_limit() -> None:
    pace = Pace(600)
    pace.throttle(0.0, -1.0, 10.0)
    use(pace, 10.0, 10.0 + CLIMB_EVERY_S - 0.01)
    assert pace.per_s == 5.0, "the wait itself is no time without complaint"
    pace.accept(10.0 + CLIMB_EVERY_S)
    assert pace.per_s == pytest.approx(5.0 * CLIMB_FACTOR)
    use(pace, 15.0, 200.0)
    assert pace.per_s == 10.0
    assert not pace.is_limited


def test_a_pace_that_was_found_is_no_longer_probed_for() -> None:
    pace = Pace(None)
    pace.throttle(1.0, 0.5, 1.0)
    use(pace, 2.0, 2.0 + PROBE_EVERY_S)
    assert pace.per_s == START_PER_S * CUT
    use(pace, 2.0 + PROBE_EVERY_S, 2.0 + CLIMB_EVERY_S)
    assert pace.per_s == pytest.approx(START_PER_S * CUT * CLIMB_FACTOR)


def test_a_pace_that_is_not_used_stays() -> None:
    # Few tasks in flight would else let it climb without end, and a limit met later would be far below it.
    pace = Pace(None)
    for second in range(100):
        pace.accept(float(second))
    assert pace.per_s == START_PER_S
    # What got through before a cut is no use of the pace after it.
    pace = Pace(600)
    use(pace, 0.0, 4.0)
    pace.throttle(4.1, 4.0, 0.0)
    pace.accept(4.1 + CLIMB_EVERY_S)
    assert pace.per_s == 10.0 * LONE_CUT


@pytest.mark.parametrize(("per_minute", "least"), [(None, LEAST_PER_S), (600.0, LEAST_PER_S), (0.5, 0.5 / 60.0)])
def test_the_pace_never_dies(per_minute: float | None, least: float) -> None:
    pace = Pace(per_minute)
    for now in range(0, 10_000, 10):
        pace.throttle(float(now), now - 1.0, 0.0)
    assert pace.per_s == pytest.approx(least)


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
        before = (pace.per_s, pace.resumes_at)
        if is_refusal:
            pace.throttle(now, now - ago_s, retry_after_s)
            assert pace.per_s <= before[0]
            assert pace.resumes_at >= max(before[1], now + (retry_after_s or 0.0))
        else:
            pace.accept(now)
            assert pace.per_s >= before[0]
            assert pace.resumes_at == before[1]
        assert pace.per_s > 0.0
        assert per_minute is None or pace.per_minute <= per_minute * (1 + 1e-9)
