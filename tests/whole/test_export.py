"""The results as one file: what stands in it, of outputs that were retried, grew, or are still being written."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import MODEL, Simulate, job_of, parts_of, rows_with_ids, write_rows

from batchfox import run
from batchfox.audit import Choice, audit_output
from batchfox.errors import OutputError, UserError
from batchfox.export import export


def test_retried_rows_stand_in_their_place(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"refuse_options": 0.4})
    rows = rows_with_ids(60)
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulator.url, rows_per_part=10)
    assert run(job).exit_status == 3
    simulator.control(faults={})
    assert run(job, retry=("failed",)).exit_status == 0
    assert export(tmp_path / "out", tmp_path / "all.parquet") == 60
    table = pq.read_table(tmp_path / "all.parquet")
    assert table["row_id"].to_pylist() == [row["id"] for row in rows]
    assert table["prompt"].to_pylist() == [row["prompt"] for row in rows]
    assert set(table["status"].to_pylist()) == {"completed"}


def test_text_of_every_kind_survives_jsonl_and_csv(simulate: Simulate, tmp_path: Path) -> None:
    texts = ['say "hi", ok', "line\nbreak", "tab\tand ünïcödé 🦊", "", "=1+1", "NULL", "a,b;c"]
    rows = [{"id": f"r{n}", "prompt": "x", "note": text, "n": n, "deep": {"a": [n]}} for n, text in enumerate(texts)]
    rows.append({"id": "none", "prompt": "x", "note": None})
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url)
    run(job)
    export(tmp_path / "out", tmp_path / "all.jsonl")
    text = (tmp_path / "all.jsonl").read_text(encoding="utf-8")
    assert "🦊" in text, "what is no ASCII is written as it is"
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    assert [line["note"] for line in lines] == [*texts, None]
    assert json.loads(lines[2]["deep"]) == {"a": [2]}
    export(tmp_path / "out", tmp_path / "all.csv", columns=["row_id", "note", "n"])
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["note"] for row in found] == [*texts, ""]
    assert [row["n"] for row in found] == [*map(str, range(len(texts))), ""]


def test_columns_come_in_the_order_asked_for(simulate: Simulate, tmp_path: Path) -> None:
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(3)), tmp_path / "out", simulate().url)
    run(job)
    export(tmp_path / "out", tmp_path / "x.csv", columns=["text", "row_id"])
    assert (tmp_path / "x.csv").read_text().splitlines()[0] == '"text","row_id"'
    export(tmp_path / "out", tmp_path / "x.jsonl", columns=["status"])
    assert (tmp_path / "x.jsonl").read_text() == '{"status":"completed"}\n' * 3


def test_an_empty_output_gives_an_empty_file_with_its_columns(simulate: Simulate, tmp_path: Path) -> None:
    run(job_of(write_rows(tmp_path / "in.jsonl", []), tmp_path / "out", simulate().url))
    for name in ("x.parquet", "x.csv", "x.jsonl"):
        assert export(tmp_path / "out", tmp_path / name) == 0
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 0
    assert (tmp_path / "x.csv").read_text().startswith('"row_index","row_id","status"')
    assert (tmp_path / "x.jsonl").read_text() == ""


def test_a_status_or_an_output_that_does_not_exist_is_told(simulate: Simulate, tmp_path: Path) -> None:
    run(job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(1)), tmp_path / "out", simulate().url))
    with pytest.raises(UserError, match="no such status"):
        export(tmp_path / "out", tmp_path / "x.csv", statuses=["done"])
    with pytest.raises(UserError, match=r'unknown format "\.xls"'):
        export(tmp_path / "out", tmp_path / "x.xls")
    with pytest.raises(OutputError, match="no output of batchfox"):
        export(tmp_path / "none", tmp_path / "x.csv")
    (tmp_path / "out" / "data" / "part-00000.parquet").write_bytes(b"cut")
    with pytest.raises(OutputError, match="cannot be read as Parquet"):
        export(tmp_path / "out", tmp_path / "x.csv")
    assert not list(tmp_path.glob("*.csv")) + list(tmp_path.glob(".*"))


def test_what_is_there_of_a_run_that_stopped_can_be_exported(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(balance=0.1)
    source = write_rows(tmp_path / "in.jsonl", [row | {"model": MODEL} for row in rows_with_ids(30)])
    job = job_of(source, tmp_path / "out", simulator.url, request={"model": None})
    assert run(job).exit_status == 4
    assert export(tmp_path / "out", tmp_path / "x.parquet") == 10


@pytest.mark.parametrize("place", ["data/all.parquet", "data/part-00007.parquet", "_batchfox/all.csv"])
def test_nothing_is_exported_into_an_output(simulate: Simulate, tmp_path: Path, place: str) -> None:
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(3)), tmp_path / "out", simulate().url)
    run(job)
    with pytest.raises(UserError, match="lies in an output"):
        export(tmp_path / "out", tmp_path / "out" / place)
    assert not (tmp_path / "out" / place).exists()
    assert export(tmp_path / "out", tmp_path / "out" / "all.csv") == 3


def test_damage_in_a_part_is_told_and_never_exported(simulate: Simulate, tmp_path: Path) -> None:
    """Flipped bits: where one changes what would be exported, the part is named and no file is written."""
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(30)), tmp_path / "out", simulate().url)
    run(job)
    target, (part,) = tmp_path / "all.jsonl", parts_of(tmp_path / "out")
    export(tmp_path / "out", target)
    whole, expected = part.read_bytes(), target.read_bytes()
    refusals = []
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # Parquet has no checksum of its footer
    for at in range(4, pages, pages // 40):
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        target.unlink(missing_ok=True)
        try:
            export(tmp_path / "out", target)
        except OutputError as error:
            refusals.append(str(error))
        else:
            assert target.read_bytes() == expected, f"byte {at}"
    assert len(refusals) > 20
    for refusal in refusals:
        assert "part-00000.parquet: cannot be read" in refusal
        assert "batchfox doctor" in refusal


def test_a_place_where_no_file_can_be_is_told(simulate: Simulate, tmp_path: Path) -> None:
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(1)), tmp_path / "out", simulate().url)
    run(job)
    (tmp_path / "file").touch()
    for target, reason in (
        (tmp_path / "file" / "all.csv", "Not a directory"),
        (tmp_path / f"{'x' * 248}.csv", "File name too long"),
        (tmp_path / "nowhere" / "all.csv", "No such file or directory"),
    ):
        told = f"{re.escape(str(target))}: {reason}; nothing was written"
        with pytest.raises(UserError, match=told):
            export(tmp_path / "out", target)
        with pytest.raises(UserError, match=told):
            audit_output(tmp_path / "out", Choice(costs=target))
