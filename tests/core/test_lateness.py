"""Delays, told to a fifth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.lateness import RATIO, SHORTEST_S, Lateness


def test_without_delays_nothing_is_late() -> None:
    assert Lateness().within_s(0.99) == 0.0


@given(st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_share_is_told_to_a_fifth_and_never_too_little(delays: list[float], share: float) -> None:
    lateness = Lateness()
    for delay in delays:
        lateness.see(delay)
    exact = next(delay for at, delay in enumerate(sorted(delays), 1) if at >= share * len(delays))
    told = lateness.within_s(share)
    assert exact <= told <= max(exact, SHORTEST_S) * RATIO * 1.000_001
