"""A set of positions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.places import Places


@given(st.sets(st.integers(0, 5_000)), st.integers(0, 6_000))
def test_it_is_a_set(numbers: set[int], other: int) -> None:
    places = Places()
    for number in numbers:
        places.add(number)
    assert all(number in places for number in numbers)
    assert (other in places) == (other in numbers)
