"""Which rows come a second time: against a model, over a real checkpoint."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from batchfox.checkpoint import Checkpoint
from batchfox.core.row import Row, key_of_id
from batchfox.repeats import Repeats, repeats_of


def rows_of_input(ids: list[int]) -> list[Row]:
    return [
        Row(key=key_of_id(str(name)), index=index, id=str(name), columns={}, line=index + 1)
        for index, name in enumerate(ids)
    ]


@given(
    order=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    ended=st.integers(0, 31),
    batch=st.integers(1, 20),
)
def test_a_key_is_repeated_where_it_was_met_before(order: list[int], ended: int, batch: int) -> None:
    """The first `ended` ids ended where they stand in the order of their numbers, the others never did."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.db"
        with contextlib.closing(Checkpoint(path)) as checkpoint, checkpoint.transaction() as db:
            ends = [(key_of_id(str(number)), 0, number, None) for number in range(ended)]
            db.executemany("INSERT INTO finished VALUES (?, ?, ?, ?)", ends)
        with contextlib.closing(Checkpoint(path, read_only=True)) as checkpoint:
            repeats = Repeats(checkpoint)
            rows = rows_of_input(order)
            found: list[bool] = []
            for start in range(0, len(rows), batch):
                some = rows[start : start + batch]
                found += repeats.among(some, checkpoint.finished.ids([row.key for row in some]), ())
    assert found == [name in order[:index] for index, name in enumerate(order)]


def test_rows_that_were_passed_over_were_met_and_others_that_ended_there_were_not(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.db"
    with contextlib.closing(Checkpoint(path)) as checkpoint:
        assert repeats_of(checkpoint) is None, "what is known later was met in this pass"
        with checkpoint.transaction() as db:
            ends = [(key_of_id(str(number)), 0, number % 10, None) for number in range(12)]
            db.executemany("INSERT INTO finished VALUES (?, ?, ?, ?)", ends)
    with contextlib.closing(Checkpoint(path, read_only=True)) as checkpoint:
        repeats = repeats_of(checkpoint)
        assert repeats is not None
        repeats.pass_over(0, 10)
        rows = rows_of_input([*[99] * 10, 5, 10, 10, 11])[10:]
        done = checkpoint.finished.ids([row.key for row in rows])
        assert repeats.among(rows, done, ()) == [True, False, True, False]
