"""Keys: equal exactly where the rows are the same row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.row import KEY_BYTES, Row, key_of_id, key_of_line, key_of_position


def test_an_id_that_looks_like_a_line_is_not_that_line() -> None:
    # Line 5 without an id is named "line:5"; a row may carry that very text as its id.
    assert key_of_id("line:5") != key_of_line(5)


@given(st.text(st.characters(), max_size=12), st.text(st.characters(), max_size=12))
def test_ids_compare_as_text_and_as_nothing_else(one: str, other: str) -> None:
    # Lone surrogates are characters too: JSON can write them.
    assert (key_of_id(one) == key_of_id(other)) == (one == other)
    assert len(key_of_id(one)) == KEY_BYTES


@pytest.mark.parametrize(
    ("one", "other"), [("1", "01"), ("1", "1.0"), ("a", "A"), ("é", "e\u0301"), ("a", "a "), ("", " ")]
)
def test_ids_that_only_look_alike_are_two_rows(one: str, other: str) -> None:
    assert key_of_id(one) != key_of_id(other)


@given(st.text(max_size=12), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_the_three_kinds_of_key_never_meet(text: str, line: int, index: int) -> None:
    assert len({key_of_id(text), key_of_line(line), key_of_position(index)}) == 3


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_positions_sort_as_they_stand_in_the_input(one: int, other: int) -> None:
    assert (key_of_position(one) < key_of_position(other)) == (one < other)
    assert int.from_bytes(key_of_position(one), "big") == one


def test_keys_are_the_same_on_every_machine_and_in_every_version() -> None:
    # They are stored: a change here would pay for every row of every output again.
    assert key_of_id("a").hex() == "fbc7e3e0c48d4873b1d48f39b173a245"
    assert key_of_line(5).hex() == "69dff943a09d954c790b09c282ed2ee7"
    assert key_of_position(258).hex() == "0000000000000102"


def test_a_row_is_never_changed() -> None:
    row = Row(index=0, id="a", key=key_of_id("a"), columns={}, line=1)
    with pytest.raises(AttributeError):
        row.id = "b"  # type: ignore[misc]
