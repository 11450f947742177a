"""Several models in one job: each has its pace, the job's limit is for all of them."""

from __future__ import annotations

import pytest
from fleet_world import OOPS, Api, World, life, make_fleet, throttled

from batchfox.core.event import ApiError, SubmitEvent
from batchfox.core.lifecycle import Life
from batchfox.core.paces import MOST_MODELS, Paces, is_everybodys
from batchfox.simulator.rates import Bucket

ACCOUNT = ApiError(code="rate_limit_exceeded", message="Rate limit reached for your organization")


class Limited(Api):
    """A limit of submits a second for each model; `None`: none."""

    def __init__(self, per_s: dict[str, float]) -> None:
        super().__init__(reply_s=0.05, median_s=0.5)
        self.limits = {model: Bucket(int(rate * 60), 5, 0.0) for model, rate in per_s.items()}
        self.taken: dict[str, list[float]] = {model: [] for model in per_s}

    def on_submit(self, row: Life, now: float) -> SubmitEvent:
        assert row.model is not None
        if self.limits[row.model].take(now):
            return throttled(1.0)
        self.taken[row.model].append(now)
        return self.make_task(row, now)


def rate(times: list[float], since: float, until: float) -> float:
    return sum(since <= at < until for at in times) / (until - since)


def test_a_model_that_is_held_back_holds_no_other_back() -> None:
    api = Limited({"slow": 2.0, "fast": 50.0})
    rows = [life(index, model=("slow", "fast")[index % 10 > 0]) for index in range(6000)]
    world = World(make_fleet(in_flight=500), api, rows, time_s=100.0).run()
    assert rate(api.taken["fast"], 30.0, 90.0) >= 0.85 * 50.0
    assert rate(api.taken["slow"], 30.0, 90.0) >= 0.7 * 2.0
    assert world.fleet.gate.pace.of("slow").per_s < 4.0 < world.fleet.gate.pace.of("fast").per_s


def test_a_run_cools_down_while_all_models_that_rows_wait_for_do() -> None:
    fleet = make_fleet(in_flight=10, per_minute=60_000.0)
    for index, model in enumerate(["a", "b", "b", "a"]):
        fleet.offer(life(index, model=model))
    sent = [row for at in (1.0, 2.0, 3.0) for row in fleet.submits(at, 0.0, 1)]
    assert [row.model for row in sent] == ["a", "b"]
    fleet.receive(sent[1].key, throttled(50.0), 3.5, 0.0)
    assert fleet.cools_until < 3.5, "the row of a may go"
    assert [row.model for at in (4.0, 5.0) for row in fleet.submits(at, 0.0, 1)] == ["a"]
    assert fleet.cools_until == 53.5, "those of b may not, and no other waits"


def test_the_jobs_limit_is_for_all_models_together() -> None:
    api = Limited({"a": 1000.0, "b": 1000.0})
    rows = [life(index, model="ab"[index % 2]) for index in range(4000)]
    World(make_fleet(in_flight=500, per_minute=600.0), api, rows, time_s=100.0).run()
    times = sorted(api.post_times)
    assert max(sum(at <= later < at + 60.0 for later in times) for at in times[::50]) <= 600
    assert rate(times, 10.0, 90.0) >= 0.97 * 10.0


def test_models_take_turns_and_each_keeps_its_order() -> None:
    fleet = make_fleet(in_flight=10, per_minute=60_000.0)
    for index in range(6):
        fleet.offer(life(index, model="a" if index < 4 else "b"))
    chosen = []
    for step in range(10):
        chosen += fleet.submits(1.0 + step, 0.0, 10)
    assert [row.index for row in chosen if row.model == "a"] == [0, 1, 2, 3]
    assert [row.index for row in chosen].index(4) < 3


@pytest.mark.parametrize(("error", "is_all"), [(OOPS, False), (ACCOUNT, True), (ApiError(), False)])
def test_a_429_about_the_account_is_everybodys(error: ApiError, is_all: bool) -> None:
    assert is_everybodys(error) is is_all
    paces = Paces(None)
    paces.of("a"), paces.of("b")
    paces.throttle("a", 1.0, 0.9, 5.0, error)
    assert paces.opens_at("a", 1.0) == 6.0
    assert (paces.opens_at("b", 1.0) == 6.0) is is_all
    assert paces.is_open(2.0) is not is_all


def test_models_without_end_share_a_pace() -> None:
    paces = Paces(None)
    for number in range(10 * MOST_MODELS):
        paces.of(f"model-{number}")
    assert paces.of("model-600") is paces.of("model-601")
    assert paces.of("model-1") is not paces.of("model-2")


@pytest.mark.parametrize("reply_s", [0.05, 0.2, 0.5])
def test_a_limit_set_far_too_high_begins_with_few_refusals(reply_s: float) -> None:
    api = Limited({"m": 10.0})
    api.reply_s = reply_s
    rows = [life(index, model="m") for index in range(2000)]
    world = World(make_fleet(in_flight=1000, per_minute=30_000.0), api, rows, time_s=60.0).run()
    refused = world.fleet.gate.pace.throttles
    assert refused < 100
    assert len(api.taken["m"]) >= 300


def test_a_fast_api_is_not_held_up_at_the_beginning() -> None:
    api = Api(reply_s=0.2)
    World(make_fleet(in_flight=5000, per_minute=60_000.0), api, [life(index) for index in range(4000)]).run()
    times = sorted(api.post_times)
    assert sum(at < times[0] + 2.0 for at in times) >= 1200
