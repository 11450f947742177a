"""Which input columns travel, and under which names: none takes the place of another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.assembly import own_columns
from batchfox.core.carry import Carry


def names_of(*columns: str) -> list[str]:
    """What these columns of one row are called in the output."""
    return list(Carry(["*"], own_columns()).select(dict.fromkeys(columns, 1)))


@pytest.mark.parametrize(
    ("column", "output_name"),
    [
        ("prompt", "prompt"),
        ("input_prompt", "input_prompt"),
        ("text", "input_text"),
        ("Text", "input_Text"),
        ("input_text", "input_input_text"),
        ("INPUT_text", "input_INPUT_text"),
        ("input_input_text", "input_input_input_text"),
        ("input_extra", "input_input_extra"),
        ("extra", "extra"),
        ("input_", "input_"),
    ],
)
def test_the_name_of_a_column_depends_on_its_own_spelling_alone(column: str, output_name: str) -> None:
    assert names_of(column) == [output_name]
    assert output_name in names_of("text", column, "input_text")


words = st.sampled_from(["input_", "Input_", "text", "Text", "extra", "status", "x", "_"])
columns = st.lists(words, min_size=1, max_size=4).map("".join)


@given(st.lists(columns, unique=True))
def test_no_two_columns_of_a_row_get_one_name_and_none_gets_one_of_the_outputs_own(names: list[str]) -> None:
    found = names_of(*names)
    assert len(set(found)) == len(names)
    assert not {name.casefold() for name in found} & own_columns()


@given(st.lists(columns, unique_by=str.casefold))
def test_columns_that_differ_in_more_than_case_still_do(names: list[str]) -> None:
    assert len({name.casefold() for name in names_of(*names)}) == len(names)


def test_an_output_as_the_input_of_the_next_loses_nothing_however_often() -> None:
    """Every stage adds its own `text` to what it carried of the ones before."""
    row: dict[str, Any] = {"prompt": "the question"}
    for stage in range(4):
        row = {"text": f"answer {stage}"} | Carry(["*"], own_columns()).select(row)
    assert sorted(row.values()) == ["answer 0", "answer 1", "answer 2", "answer 3", "the question"]
