"""What the pace finds, against models of a server's limiter: how much of the limit is used, how much is refused."""

from __future__ import annotations

import pytest
from pace_world import World

from batchfox.core.pace import Pace
from batchfox.simulator.rates import whole_seconds

LATENCIES = (0.05, 0.5)
SECONDS = ("bucket", "small bucket", "second")
MINUTES = ("minute", "fixed minute")


def exactly(wait_s: float) -> float:
    """As the simulator says it."""
    return float(whole_seconds(wait_s))


@pytest.mark.parametrize("latency_s", LATENCIES)
@pytest.mark.parametrize("per_minute", [600, 6000])
@pytest.mark.parametrize("kind", SECONDS)
def test_a_hidden_limit_is_found_and_used(kind: str, per_minute: int, latency_s: float) -> None:
    world = World(Pace(None), kind, per_minute, latency_s=latency_s).run(300.0)
    assert world.used(60.0, 300.0) >= 0.9
    assert world.refused(60.0, 300.0) < 0.02


@pytest.mark.parametrize("latency_s", [0.01, *LATENCIES])
@pytest.mark.parametrize("job", [1200, 3000, 6000, 30_000])
@pytest.mark.parametrize("kind", ["bucket", "small bucket"])
def test_a_limit_set_too_high_is_never_taken_for_chance(kind: str, job: int, latency_s: float) -> None:
    world = World(Pace(job), kind, 600, latency_s=latency_s).run(300.0)
    assert world.used(60.0, 300.0) >= (0.9 if kind == "bucket" and job <= 6000 else 0.85)
    assert world.refused(60.0, 300.0) < 0.02
    assert world.pace.noise == 0.0


@pytest.mark.parametrize("latency_s", LATENCIES)
@pytest.mark.parametrize("per_minute", [600, 6000])
@pytest.mark.parametrize("kind", MINUTES)
@pytest.mark.parametrize("asks", ["1 s", "exactly"])
def test_a_minutes_ration_is_found_and_used(kind: str, per_minute: int, latency_s: float, asks: str) -> None:
    retry_after = exactly if asks == "exactly" else lambda wait_s: 1.0
    world = World(Pace(None), kind, per_minute, latency_s=latency_s, retry_after=retry_after).run(300.0)
    assert world.used(60.0, 300.0) >= 0.8
    assert world.refused(60.0, 300.0) < 0.025


@pytest.mark.parametrize("latency_s", LATENCIES)
@pytest.mark.parametrize("per_minute", [600, 6000])
@pytest.mark.parametrize("kind", SECONDS)
def test_a_doubled_limit_is_used_within_a_minute(kind: str, per_minute: int, latency_s: float) -> None:
    world = World(Pace(None), kind, per_minute, latency_s=latency_s).run(180.0)
    world.change(2 * per_minute)
    world.run(250.0)
    assert max(world.used(180.0 + at, 190.0 + at) for at in range(51)) >= 0.9


@pytest.mark.parametrize("latency_s", LATENCIES)
@pytest.mark.parametrize("per_minute", [600, 6000])
@pytest.mark.parametrize("kind", SECONDS)
def test_after_a_halved_limit_hardly_anything_is_refused(kind: str, per_minute: int, latency_s: float) -> None:
    world = World(Pace(None), kind, per_minute, latency_s=latency_s).run(180.0)
    world.change(per_minute // 2)
    world.run(260.0)
    assert world.refused(190.0, 250.0) < 0.02
    assert world.used(200.0, 260.0) >= 0.8


@pytest.mark.parametrize("latency_s", LATENCIES)
@pytest.mark.parametrize("kind", SECONDS)
def test_long_waits_are_kept_and_cost_little(kind: str, latency_s: float) -> None:
    world = World(Pace(None), kind, 6000, latency_s=latency_s, retry_after=lambda wait_s: 30.0).run(660.0)
    assert world.used(60.0, 660.0) >= 0.8
    assert world.longest_gap(0.0, 660.0) <= 30.0 + latency_s + 0.2


@pytest.mark.parametrize(("stall_s", "least"), [(0.05, 0.9), (0.1, 0.8)])
def test_what_arrives_at_once_is_refused_only_beyond_the_burst(stall_s: float, least: float) -> None:
    # 100 a second and a burst of 10: a server that stands still for 0.1 s fills it.
    world = World(Pace(None), "bucket", 6000, latency_s=0.02, stall_s=stall_s).run(110.0)
    assert world.used(60.0, 110.0) >= least
    assert world.refused(60.0, 110.0) < 0.02


@pytest.mark.parametrize("per_minute", [150, 300, 600, 900, 1000, 2000])
@pytest.mark.parametrize(("kind", "soon", "late"), [("bucket", 0.8, 0.84), ("small bucket", 0.65, 0.75)])
def test_long_waits_at_a_low_limit_cost_a_fifth(kind: str, soon: float, late: float, per_minute: int) -> None:
    # Each refused probe costs a sixth of three minutes.
    world = World(Pace(None), kind, per_minute, latency_s=0.2, retry_after=lambda wait_s: 30.0).run(660.0)
    assert world.used(60.0, 240.0) >= soon
    assert world.used(60.0, 660.0) >= late
    assert world.refused(60.0, 660.0) < 0.02


@pytest.mark.parametrize("latency_s", LATENCIES)
@pytest.mark.parametrize(("chance", "least"), [(0.01, 0.7), (0.05, 0.7)])
@pytest.mark.parametrize("per_minute", [600, 6000])
def test_refusals_by_chance_do_not_wear_a_jobs_limit_down(
    per_minute: int, chance: float, least: float, latency_s: float
) -> None:
    world = World(Pace(per_minute), "bucket", 2 * per_minute, latency_s=latency_s, chance=chance).run(600.0)
    world.per_minute = per_minute
    assert world.used(60.0, 600.0) >= least


@pytest.mark.parametrize("latency_s", LATENCIES)
@pytest.mark.parametrize("chance", [0.01, 0.05])
@pytest.mark.parametrize("per_minute", [600, 6000])
def test_a_limit_is_found_in_spite_of_them(per_minute: int, chance: float, latency_s: float) -> None:
    world = World(Pace(None), "bucket", per_minute, latency_s=latency_s, chance=chance).run(600.0)
    assert world.used(60.0, 600.0) >= 0.5
