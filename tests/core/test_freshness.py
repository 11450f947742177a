"""When the router is asked to refresh: where its cache is found to be behind, and there only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from fleet_world import OOPS, Api, World, life, make_fleet

from batchfox.core.event import Answered, PollEvent, TaskFailed, Unheard
from batchfox.core.freshness import CHECKED, FIRST, LEAST_BEHIND, Freshness
from batchfox.core.lifecycle import Life


def test_a_cache_is_stale_once_some_checks_found_it_behind_and_no_more_when_they_do_not() -> None:
    freshness = Freshness()
    for _ in range(LEAST_BEHIND):
        assert not freshness.is_stale
        freshness.note(was_behind=True)
    assert freshness.is_stale
    checks = 0
    while freshness.is_stale:
        freshness.note(was_behind=False)
        checks += 1
    assert 20 < checks < 400


def test_by_chance_a_task_ends_between_two_polls_now_and_then() -> None:
    random, freshness = Random(1), Freshness()
    for _ in range(2000):
        freshness.note(was_behind=random.random() < 0.005)
        assert not freshness.is_stale


def test_few_plain_polls_are_checked_and_hardly_any_once_the_cache_is_known() -> None:
    random, freshness = Random(2), Freshness()
    first = sum(freshness.is_checked(random.random()) for _ in range(1000))
    for _ in range(FIRST):
        freshness.note(was_behind=False)
    later = sum(freshness.is_checked(random.random()) for _ in range(1000))
    assert 40 < first < 120
    assert later < 1000 * 3 * CHECKED


class Cached(Api):
    """A router whose plain answers are `lag_s` old; `empties`: refreshed answers are often without results."""

    def __init__(self, lag_s: float, *, empties: bool = False) -> None:
        super().__init__(median_s=10.0)
        self.lag_s, self.empties = lag_s, empties
        self.asks_upstream: Callable[[Life], bool] = lambda row: False
        self.asked: Counter[bool] = Counter()
        self.delays_s: list[float] = []

    def on_poll(self, row: Life, now: float) -> PollEvent:
        is_fresh = self.asks_upstream(row)
        self.asked[is_fresh] += 1
        event = super().on_poll(row, now if is_fresh else now - self.lag_s)
        if isinstance(event, Answered | TaskFailed):
            if is_fresh and self.empties and self.random.random() < 0.5:
                return Unheard(error=OOPS, without_results=True)
            self.delays_s.append(now - self.tasks[row.task_id or ""].done_at)
        return event


def run(api: Cached, rows: int = 1500) -> World:
    fleet = make_fleet(in_flight=64)
    api.asks_upstream = fleet.watch.asks_upstream
    world = World(fleet, api, [life(index) for index in range(rows)]).run()
    assert world.statuses() == {"completed": rows}
    return world


def test_a_router_that_answers_from_a_stale_cache_is_asked_to_refresh() -> None:
    stale, fresh = Cached(15.0), Cached(0.0)
    run(stale)
    run(fresh)
    late = stale.delays_s[-1000:]
    assert sum(late) / len(late) < 3.0, "it would be 15 s and more"
    assert stale.asked[True] > 2 * stale.asked[False]
    assert fresh.asked[True] < 0.3 * fresh.asked[False], "late tasks, and checks"


def test_where_a_refresh_hides_the_results_the_rows_complete_all_the_same() -> None:
    api = Cached(15.0, empties=True)
    run(api, 400)
    assert api.asked[False] > 0


def test_checks_cost_few_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Cached(0.0)
    with_checks = sum(outcome.polls for outcome in run(api).outcomes.values())
    monkeypatch.setattr(Freshness, "is_checked", lambda self, draw: False)
    without = sum(outcome.polls for outcome in run(Cached(0.0)).outcomes.values())
    assert with_checks < 1.06 * without
