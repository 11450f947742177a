"""One Parquet part: its columns, its steps, and what is told of a file that is none."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox import parts
from batchfox.core.event import Answer
from batchfox.core.outcome import COLUMNS, Outcome
from batchfox.errors import MachineError, OutputError


def outcome(index: int, text: str | None = "hi") -> Outcome:
    return Outcome(
        row_index=index,
        row_id=str(index),
        status="completed",
        answer=Answer(completion="{}", text=text),
        submits=1,
        submitted_at=1_700_000_000.25,
        finished_at=1_700_000_001.5,
        latency_s=1.25,
        media=["url", "inline"],
        run_id="r",
        run_date="2026-02-28",
    )


def test_a_table_has_the_contracts_columns_then_the_carried_ones_then_the_extra(tmp_path: Path) -> None:
    types = {"n": pa.int64(), "tags": pa.string()}
    records = [outcome(0).record(), outcome(1, None).record()]
    table, misfits = parts.build(records, [{"n": 1}, {"n": "x", "z": 2}], types)
    assert table.schema.names == [*COLUMNS, "n", "tags", "input_extra"]
    assert table.schema.equals(parts.schema_of(types))
    assert misfits == {"n", "z"}
    first, second = table.to_pylist()
    assert (first["n"], first["input_extra"]) == (1, None)
    assert (second["n"], second["text"]) == (None, None)
    assert second["input_extra"] == '{"n":"x","z":2}' or second["input_extra"] == '{"z":2,"n":"x"}'
    assert first["submitted_at"].isoformat() == "2023-11-14T22:13:20.250000+00:00"
    assert first["run_date"].isoformat() == "2026-02-28"
    assert first["media"] == ["url", "inline"]


@given(st.integers(0, 10**9))
def test_a_part_is_named_by_its_number_and_nothing_else_is_a_part(number: int) -> None:
    assert parts.number_of(parts.part_name(number)) == number


@pytest.mark.parametrize("name", ["part-1.parquet", "part-00000.parquet.tmp", "x-part-00000.parquet", ".DS_Store", ""])
def test_other_names_are_no_parts(name: str) -> None:
    assert parts.number_of(name) is None


def test_a_part_is_written_in_row_groups_and_read_in_small_tables(tmp_path: Path) -> None:
    def tables() -> Iterator[pa.Table]:
        for start in (0, 3):
            records = [outcome(start + n).record() for n in range(3)]
            yield parts.build(records, [{}] * 3, {})[0]
        yield parts.schema_of({}).empty_table()

    path = tmp_path / "a.parquet"
    assert parts.write(path, parts.schema_of({}), tables()) == 6
    assert parts.count_rows(path) == 6
    assert pq.ParquetFile(path).metadata.num_row_groups == 2
    read = list(parts.read(path, ["row_index"], rows=4))
    assert [table.num_rows for table in read] == [4, 2]
    assert [row["row_index"] for table in read for row in table.to_pylist()] == list(range(6))


def test_an_empty_part_has_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    assert parts.write(path, parts.schema_of({"n": pa.int64()}), []) == 0
    assert parts.count_rows(path) == 0
    assert pq.read_schema(path).names == [*COLUMNS, "n", "input_extra"]


def test_a_part_in_place_replaces_what_was_there_and_the_temporary_is_gone(tmp_path: Path) -> None:
    (tmp_path / "final").write_text("old")
    (tmp_path / "temporary").write_text("new")
    parts.put_in_place(tmp_path / "temporary", tmp_path / "final")
    assert (tmp_path / "final").read_text() == "new"
    assert not (tmp_path / "temporary").exists()


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -8, -100])
def test_a_part_cut_anywhere_is_no_part(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.parquet"
    parts.write(path, parts.schema_of({}), [parts.build([outcome(0).record()], [{}], {})[0]])
    path.write_bytes(path.read_bytes()[:cut] if cut else b"")
    assert parts.count_rows(path) is None
    with pytest.raises(OutputError, match="cannot be read"):
        list(parts.read(path))


def test_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert parts.count_rows(tmp_path / "none") is None


def test_a_full_disk_is_the_machines_fault_and_a_forbidden_folder_the_users(tmp_path: Path) -> None:
    schema = parts.schema_of({})
    with pytest.raises(MachineError, match="make room"):
        parts.write(Path("/dev/full"), schema, [parts.build([outcome(0).record()], [{}], {})[0]])

    def forbidden() -> Iterator[pa.Table]:
        yield parts.build([outcome(0).record()], [{}], {})[0]
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(OutputError, match="must be writable"):
        parts.write(tmp_path / "a.parquet", schema, forbidden())
