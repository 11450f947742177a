"""The pace enforced, on a loop whose clock jumps instead of waiting."""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from batchfox.core.bucket import bucket
from batchfox.limiter import Limiter

_Result = TypeVar("_Result")


class _Selector(selectors.SelectSelector):
    """Does not wait: the time that it was to wait has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        # While callbacks run a clock must not stand still: aiolimiter's timers ring a rounding early, again and again.
        self.now += 1e-6 if ready else max(timeout or 0.0, 1e-6)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """A real event loop; only its clock is not."""

    def __init__(self) -> None:
        self._jumping = _Selector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def on_a_jumping_clock(play: Callable[[], Awaitable[_Result]]) -> _Result:
    async def main() -> _Result:
        return await play()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main())


async def times_of(limiter: Limiter, number: int) -> list[float]:
    loop = asyncio.get_running_loop()
    times = []
    for _ in range(number):
        await limiter.take()
        times.append(loop.time())
    return times


def most_in_a_window(times: list[float], span_s: float) -> int:
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - span_s:
            first += 1
        most = max(most, last - first + 1)
    return most


@settings(deadline=None, max_examples=40)
@given(st.one_of(st.floats(0.2, 100), st.floats(100, 3_000), st.sampled_from([1, 59, 60, 61, 600, 1_000])))
def test_no_window_of_60_s_holds_more_than_the_rate(per_minute: float) -> None:
    number = int(per_minute * 2) + 3
    times = on_a_jumping_clock(lambda: times_of(Limiter(per_minute), number))
    most = most_in_a_window(times, 60.0)
    assert most <= max(per_minute, 1), f"{most} in 60 s at {per_minute} a minute"


@settings(deadline=None, max_examples=30)
@given(st.floats(1, 60_000))
def test_the_pace_is_close_to_the_rate(per_minute: float) -> None:
    number = 200
    times = on_a_jumping_clock(lambda: times_of(Limiter(per_minute), number))
    asked = per_minute if per_minute > 60 else math.floor(per_minute)
    assert (number - 1) / (times[-1] - times[0]) * 60 >= 0.9 * asked


@pytest.mark.parametrize("per_minute", [1, 60, 600, 60_000])
def test_a_new_limiter_begins_without_a_free_burst(per_minute: float) -> None:
    """A resume is a new limiter: what an earlier run sent a moment ago must not come on top of a burst."""

    async def play() -> float:
        began_at = asyncio.get_running_loop().time()
        await Limiter(per_minute).take()
        return asyncio.get_running_loop().time() - began_at

    assert on_a_jumping_clock(play) >= 0.9 * 60 / per_minute


def test_two_limiters_one_after_the_other_stay_within_the_rate() -> None:
    """As a change of pace makes them, and a resume."""

    async def play() -> list[float]:
        times: list[float] = []
        for _ in range(20):
            times += await times_of(Limiter(600), 17)
        return times

    times = on_a_jumping_clock(play)
    assert most_in_a_window(times, 60.0) <= 600
    assert most_in_a_window(times, 1.0) <= 11


def test_a_token_that_is_announced_is_there() -> None:
    async def play() -> None:
        limiter = Limiter(600)
        loop = asyncio.get_running_loop()
        for _ in range(50):
            while (wait_s := await limiter.ready_in_s()) > 0:
                await asyncio.sleep(wait_s)
            announced_at = loop.time()
            await limiter.take()
            assert loop.time() - announced_at < 1e-4

    on_a_jumping_clock(play)


def test_rows_are_recorded_only_as_far_ahead_as_tokens_drip_during_a_sync() -> None:
    assert Limiter(60).ahead() == 1
    assert Limiter(60_000).ahead() == 10


async def changing(per_minute: int) -> tuple[list[float], float]:
    """When tokens were there at the start, after a change of pace to and fro, after a pause, after a time without work;
    and the share of the rate that was used before all this."""
    limiter, loop = Limiter(per_minute), asyncio.get_running_loop()
    times: list[float] = []
    began_at = loop.time()

    async def send(for_s: float) -> None:
        until = loop.time() + for_s
        while loop.time() < until:
            await limiter.take()
            times.append(loop.time())

    await send(1.5)
    used = len(times) / ((times[-1] - began_at) * per_minute / 60)
    limiter.change(per_minute / 3)
    await send(0.3)
    limiter.change(per_minute)
    await send(0.3)
    await asyncio.sleep(1.1)
    limiter.calm()
    await send(0.5)
    await asyncio.sleep(0.7)
    await send(0.5)
    return times, used


@pytest.mark.parametrize("per_minute", [600, 6_000])
async def test_on_a_real_clock_no_second_holds_more_than_its_share(per_minute: int) -> None:
    times, _ = await changing(per_minute)
    assert most_in_a_window(times, 1.0) <= 1.05 * per_minute / 60 + 1


@pytest.mark.parametrize("per_minute", [600, 6_000, 60_000])
def test_no_second_holds_more_than_its_share_and_little_is_left_unused(per_minute: int) -> None:
    times, used = on_a_jumping_clock(lambda: changing(per_minute))
    assert most_in_a_window(times, 1.0) <= 1.05 * per_minute / 60 + 1
    assert used >= 0.97


def test_a_change_of_pace_right_after_a_token_is_taken_ends_no_run() -> None:
    """The level as kept here may lie a little above the bucket's size: uvloop's clock moves in steps of 1 ms, and
    aiolimiter looked at it a moment earlier."""

    async def play() -> None:
        for turn in range(150):
            limiter = Limiter(60_000 + turn)
            for _ in range(10):
                await limiter.take()
                until = time.perf_counter() + 0.0003
                while time.perf_counter() < until:
                    pass
            limiter.change(60.0)
            await limiter.ready_in_s()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())


@pytest.mark.parametrize("rpm", [600, 6_000])
def test_tokens_taken_several_at_a_time_are_no_more_than_one_by_one(rpm: int) -> None:
    async def play(most: int) -> list[float]:
        limiter, loop, times = Limiter(rpm), asyncio.get_running_loop(), list[float]()
        while len(times) < 100:
            tokens = await limiter.take(most)
            assert 1 <= tokens <= most
            times += [loop.time()] * tokens
            await asyncio.sleep(0.05)  # tokens drip in meanwhile
        return times

    for times in (on_a_jumping_clock(lambda: play(1)), on_a_jumping_clock(lambda: play(5))):
        size, per_s = bucket(rpm)
        for span_s in (0.1, 1.0):
            most = max(sum(at <= later < at + span_s for later in times) for at in times)
            assert most <= size + per_s * span_s + 1
