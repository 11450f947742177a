"""Limits of polls, bursts of tasks due at once, and tasks that take for ever: on a fake clock."""

from __future__ import annotations

import math
from collections import deque

import pytest
from fleet_world import OOPS, Api, World, life, make_fleet

from batchfox.core.event import PollEvent, SubmitEvent, Unheard
from batchfox.core.lifecycle import Life
from batchfox.core.poll_pace import AGAIN_WITHIN_S, CLIMB_EVERY_S, HOLD_S, LONE_AFTER, MOST_HOLD_S, PollPace


def rows(number: int) -> list[Life]:
    return [life(index) for index in range(number)]


def refused(wait_s: float | None) -> Unheard:
    return Unheard(error=OOPS, http_status=429, is_rate=True, retry_after_s=wait_s)


# The pace alone.


def test_nothing_holds_polls_back_until_the_api_does() -> None:
    pace = PollPace()
    pace.sent(10_000, 0.0)
    assert pace.room(0.0, 5000) == 5000
    assert pace.ready_at() == 0.0


@pytest.mark.parametrize(("asked_s", "hold_s"), [(None, HOLD_S), (0.0, HOLD_S), (20.0, 20.0), (1e9, MOST_HOLD_S)])
def test_after_a_429_all_polls_wait(asked_s: float | None, hold_s: float) -> None:
    pace = PollPace()
    pace.sent(10, 5.0)
    pace.throttle(5.0, asked_s, 1e6)
    assert pace.ready_at() == 5.0 + hold_s
    assert pace.room(5.0 + hold_s - 0.001, 100) == 0
    assert pace.room(5.0 + hold_s, 100) == 100, "one alone says nothing of the rate"


def test_no_poll_is_held_longer_than_a_task_is_watched() -> None:
    pace = PollPace()
    pace.throttle(0.0, 1e9, 10.0)
    assert pace.ready_at() == 10.0


def test_those_on_the_wire_beside_it_only_lengthen_the_wait() -> None:
    pace = PollPace()
    pace.sent(100, 0.0)
    for nth in range(100):
        pace.throttle(0.1, 1.0 + nth / 100, 1e6)
    assert pace.per_s is None
    assert pace.ready_at() == pytest.approx(0.1 + 1.99)
    assert pace.throttles == 100


def test_where_the_wait_did_not_help_polls_go_on_slower_and_climb_back() -> None:
    pace, now = PollPace(), 0.0
    for _ in range(6):
        for _ in range(LONE_AFTER - 1):
            pace.answered(now)
        pace.throttle(now, None, 1e6)
        now = pace.ready_at()
    slow = pace.per_s
    assert slow is not None
    assert slow < LONE_AFTER
    assert pace.room(now, 1000) <= 2, "no burst after the wait"
    while pace.per_s is not None:
        now += CLIMB_EVERY_S
        pace.answered(now)
        assert now < 1000.0


def test_one_429_now_and_then_costs_its_wait_and_no_more() -> None:
    pace, now = PollPace(), 0.0
    for _ in range(50):
        for _ in range(LONE_AFTER):
            pace.sent(1, now)
            pace.answered(now)
        pace.throttle(now, 1.0, 1e6)
        now = pace.ready_at()
    assert pace.per_s is None


def test_a_limit_by_the_minute_is_found_from_the_second_long_wait_on() -> None:
    pace = PollPace()
    for at in (0.0, 60.0):  # 600 at once, and a wait until the minute is over
        for nth in range(600):
            pace.sent(1, at + nth / 1000)
            pace.answered(at + nth / 1000)
        pace.throttle(at + 1.0, 59.0, 1e6)
    assert AGAIN_WITHIN_S >= 60.0
    assert pace.per_s is not None
    assert 5.0 < pace.per_s <= 20.0


# The fleet behind an API that limits polls.


class Limited(Api):
    """Takes so many polls in any minute, and says when to come back."""

    def __init__(self, polls: int, window_s: float = 60.0, *, says_when: bool = True, median_s: float = 20.0) -> None:
        super().__init__(median_s=median_s)
        self.polls, self.window_s, self.says_when = polls, window_s, says_when
        self.taken: deque[float] = deque()
        self.refused = 0

    def on_poll(self, row: Life, now: float) -> PollEvent:
        while self.taken and self.taken[0] <= now - self.window_s:
            self.taken.popleft()
        if len(self.taken) >= self.polls:
            self.refused += 1
            return refused(math.ceil(self.taken[0] + self.window_s - now) if self.says_when else None)
        self.taken.append(now)
        return super().on_poll(row, now)


@pytest.mark.parametrize(
    ("polls", "window_s", "says_when"), [(300, 60.0, True), (300, 60.0, False), (5, 1.0, True), (5, 1.0, False)]
)
def test_under_a_poll_limit_few_polls_are_refused_and_submits_do_not_wait(
    polls: int, window_s: float, says_when: bool
) -> None:
    # 64 tasks in flight would like some 9 polls a second; 5 are to be had.
    api = Limited(polls, window_s, says_when=says_when)
    world = World(make_fleet(in_flight=64), api, rows(1000), polls_on_the_wire=100).run()
    assert world.statuses() == {"completed": 1000}
    free = World(make_fleet(in_flight=64), Api(median_s=20.0), rows(1000)).run()
    assert world.now < 1.7 * free.now
    asked = sum(outcome.polls for outcome in world.outcomes.values())
    assert api.refused < 0.15 * asked


class Burst(Api):
    """All tasks end at once."""

    def latency_s(self, row: Life) -> float:
        return 10.0


def test_thousands_due_at_once_are_asked_about_within_the_bound_on_the_wire_and_submits_go_on() -> None:
    fleet = make_fleet(in_flight=3000, per_minute=600_000)
    world = World(fleet, Burst(), rows(9000), polls_on_the_wire=100, tick_s=0.005, keeps_deeds=True).run()
    assert world.statuses() == {"completed": 9000}
    first = [deed.at for deed in world.deeds if deed.what == "submit"]
    assert first[2999] < 1.0, "polls do not hold submits up"
    polls = sum(outcome.polls for outcome in world.outcomes.values())
    assert polls < 8 * 9000
    # 100 polls of 0.05 s at a time are 2,000 a second: each wave of 3,000 takes its 10 s and little more.
    assert world.now < 3 * 10.0 + polls / 2000 + 3.0


class LongTail(Api):
    """One task in 500 takes a hundred times as long."""

    def latency_s(self, row: Life) -> float:
        return super().latency_s(row) * (100.0 if row.index % 500 == 250 else 1.0)


def test_a_very_long_tail_costs_little() -> None:
    plain = World(make_fleet(in_flight=64), Api(median_s=20.0), rows(1500)).run()
    tailed = World(make_fleet(in_flight=64), LongTail(median_s=20.0), rows(1500)).run()
    assert tailed.statuses() == {"completed": 1500}
    per_task = [sum(o.polls for o in world.outcomes.values()) / 1500 for world in (plain, tailed)]
    assert per_task[1] < 1.15 * per_task[0]
    slow = [outcome for index, outcome in tailed.outcomes.items() if index % 500 == 250]
    assert all(outcome.polls < 80 for outcome in slow)


class Slowing(Api):
    """Every task takes ten times as long from some row on."""

    def on_submit(self, row: Life, now: float) -> SubmitEvent:
        self.median_s = 20.0 if row.index < 300 else 200.0
        return super().on_submit(row, now)


def test_when_all_tasks_get_slow_at_once_polls_do_not_multiply() -> None:
    world = World(make_fleet(in_flight=64), Slowing(), rows(900)).run()
    late = [outcome.polls for index, outcome in world.outcomes.items() if index >= 300]
    assert sum(late[:100]) / 100 < 12
    assert sum(late[-300:]) / 300 < 8
