"""`data/` opens with what people use, given the folder's path alone; and `export` gives one file in input order."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Simulate, job_of, rows_with_ids, write_rows

from batchfox.cli import cli
from batchfox.errors import UserError
from batchfox.export import export, in_order, part_paths
from batchfox.status import describe, look

ROWS = 120


@pytest.fixture
def output(simulate: Simulate, tmp_path: Path) -> Path:
    """A finished output of several parts, with one invalid row and a column that is null in the first part."""
    from batchfox import run

    rows = rows_with_ids(ROWS)
    for number, row in enumerate(rows):
        row["late"] = None if number < 60 else f"value {number}"
        row["tags"] = ["a", number]
    rows[7]["prompt"] = "x" * 100_001
    source = write_rows(tmp_path / "in.jsonl", rows)
    simulator = simulate(latency="uniform:0.01,0.2")
    summary = run(job_of(source, tmp_path / "out", simulator.url, rows_per_part=25))
    assert summary.by_status == {"completed": ROWS - 1, "invalid": 1}
    return tmp_path / "out"


def test_pandas_polars_duckdb_and_datasets_read_the_folder(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets
    import duckdb
    import pandas as pd
    import polars as pl

    data = str(output / "data")
    frame = pd.read_parquet(data)
    assert len(frame) == ROWS
    assert frame.set_index("row_id").loc["r119", "late"] == "value 119"
    assert pl.read_parquet(data).height == ROWS
    counted = duckdb.execute(f"SELECT count(*) FROM read_parquet('{data}') WHERE status = 'completed'").fetchall()
    assert counted == [(ROWS - 1,)]
    loaded = datasets.load_dataset(data, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == ROWS
    assert set(loaded["status"]) == {"completed", "invalid"}


def test_the_schema_is_the_same_from_the_first_part_to_the_last(output: Path) -> None:
    schemas = {str(pq.read_schema(path)) for path in part_paths(output)}
    assert len(part_paths(output)) == 5
    assert len(schemas) == 1
    assert "late: string" in schemas.pop()


def test_exports_are_in_input_order_and_whole(output: Path, tmp_path: Path) -> None:
    assert export(output, tmp_path / "all.parquet") == ROWS
    table = pq.read_table(tmp_path / "all.parquet")
    assert table["row_index"].to_pylist() == list(range(ROWS))
    assert export(output, tmp_path / "all.jsonl") == ROWS
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["row_id"] for line in lines] == [f"r{number}" for number in range(ROWS)]
    assert lines[0]["completion"]["object"] == "chat.completion"
    assert export(output, tmp_path / "all.csv") == ROWS
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row_id"] for row in rows] == [f"r{number}" for number in range(ROWS)]
    assert rows[3]["tags"] == '["a",3]'


def test_an_export_takes_only_the_chosen_columns_and_statuses(output: Path, tmp_path: Path) -> None:
    target = tmp_path / "some.parquet"
    assert export(output, target, columns=["row_id", "error_code"], statuses=["invalid"]) == 1
    assert pq.read_table(target).to_pylist() == [{"row_id": "r7", "error_code": "prompt"}]
    with pytest.raises(UserError, match=r'did you mean "row_id"'):
        export(output, target, columns=["row_idd"])


def test_an_export_holds_a_range_at_a_time(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchfox.export.ordering.MOST_ROWS_A_RANGE", 7)
    tables = list(in_order(part_paths(output), ["row_index"]))
    assert max(table.num_rows for table in tables) <= 8
    assert [index for table in tables for index in table["row_index"].to_pylist()] == list(range(ROWS))


def test_an_export_that_fails_leaves_nothing(output: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing was written"):
        export(output, tmp_path / "no" / "such" / "folder.csv")
    assert not list(tmp_path.rglob("*.part"))


def test_status_tells_of_a_run_that_ended(output: Path) -> None:
    status = look(output)
    assert (status.is_running, status.is_finished, status.exit_status) == (False, True, 3)
    assert status.by_status == {"completed": ROWS - 1, "invalid": 1}
    assert status.parts == 5
    assert "some rows did not complete" in describe(status)


def test_status_is_one_json_object_on_request(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", str(output), "--json"], standalone_mode=False) == 0
    assert json.loads(capsys.readouterr().out)["by_status"]["completed"] == ROWS - 1
