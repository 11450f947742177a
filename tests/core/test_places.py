"""Positions at one bit each, against a set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.places import Places


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=20))
def test_runs_and_single_positions_are_there_and_no_others(runs: list[tuple[int, int]]) -> None:
    places, known = Places(), set[int]()
    for first, number in runs:
        if number == 1:
            places.add(first)
        else:
            places.add_run(first, number)
        known.update(range(first, first + number))
    assert {at for at in range(500) if at in places} == known
