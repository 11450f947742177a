"""The results as one file: what stands in it, of outputs that were retried, grew, or are still being written."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import MODEL, Simulate, Starter, job_of, parts_of, rows_with_ids, write_rows

from batchfox import Options, run
from batchfox.audit import Choice, audit_output
from batchfox.cli import main
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


def test_an_export_of_a_run_that_is_not_at_its_end_says_so(
    simulate: Simulate, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(4)), tmp_path / "out", simulate().url)

    def notes(*options: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["export", "out", "x.csv", "--overwrite", *options])
        assert end.value.code == 0
        return capfd.readouterr().err

    assert run(job, Options(limit=2)).exit_status == 0
    with (tmp_path / "out/_batchfox/lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "a run is at work there; rows that end from now on are not in x.csv" in notes()
    assert "the run there did not finish" in notes()
    assert notes("--quiet") == ""
    run(job)
    assert notes() == ""


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
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match="exists and is no file"):  # so is /dev/full, which root could replace
        export(tmp_path / "out", tmp_path / "pipe.csv")
    assert (tmp_path / "pipe.csv").is_fifo()
    with pytest.raises(UserError, match="name the file to write"):
        audit_output(tmp_path / "out", Choice(costs=Path()))


# What a spreadsheet would run, and what looks like it and is harmless.
FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n",
    "  =cmd|' /C calc'!A0",
    "＝1",
    "\u200b=1",
    '=HYPERLINK("x")',
]
HARMLESS = ["a=b", "'=1", "1-1", "", "🦊 = fox", "line\n=2", '"=1"']


def test_no_text_is_a_formula_for_excel(simulate: Simulate, tmp_path: Path) -> None:
    texts = [*FORMULAS, *HARMLESS]
    rows = [{"id": text or "empty", "prompt": "x", "=note": text, "n": -at} for at, text in enumerate(texts)]
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url)
    run(job)
    columns = ["row_id", "=note", "n"]
    assert export(tmp_path / "out", tmp_path / "x.csv", form="excel", columns=columns) == len(texts)
    data = (tmp_path / "x.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    with (tmp_path / "x.csv").open(encoding="utf-8-sig", newline="") as file:
        head, *found = list(csv.reader(file))
    assert head == ["row_id", "'=note", "n"]
    assert [note for _, note, _ in found] == [*(f"'{text}" for text in FORMULAS), *HARMLESS]
    assert [row_id for row_id, _, _ in found][: len(FORMULAS)] == [f"'{text}" for text in FORMULAS]
    assert [n for *_, n in found] == [str(-at) for at in range(len(texts))], "numbers are no formulas"


def test_the_openai_batch_form_tells_answers_refusals_and_the_rest(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"refuse_options": 0.4})
    rows = [*rows_with_ids(20), {"id": "bad", "prompt": 7, "model": ""}]
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulator.url)
    assert run(job).exit_status == 3
    assert export(tmp_path / "out", tmp_path / "x.jsonl", form="openai-batch") == 21
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [row["id"] for row in rows]
    assert len({line["id"] for line in lines}) == 21
    statuses = {}
    for line, row in zip(lines, pq.read_table(tmp_path / "out" / "data").sort_by("row_index").to_pylist(), strict=True):
        assert set(line) == {"id", "custom_id", "response", "error"}
        statuses[row["status"]] = line
        if row["status"] == "completed":
            assert line["error"] is None
            assert line["response"]["body"]["choices"][0]["message"]["content"] == row["text"]
            assert (line["response"]["status_code"], line["response"]["request_id"]) == (200, row["task_id"])
    assert set(statuses) == {"completed", "failed", "invalid"}
    assert statuses["failed"]["response"]["status_code"] == 422
    assert statuses["failed"]["response"]["body"]["error"]["message"]
    assert statuses["invalid"]["response"] is None
    assert statuses["invalid"]["error"]["code"]


def test_a_folder_for_datasets_is_read_and_replaced_whole(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import load_dataset

    monkeypatch.setattr("batchfox.export.ordering.MOST_ROWS_A_RANGE", 7)
    monkeypatch.setattr("batchfox.export.dataset.BYTES_A_SHARD", 1)
    rows = rows_with_ids(20)
    run(job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url))
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no folder that was exported before"):
        export(tmp_path / "out", tmp_path / "ours", form="datasets")
    assert (tmp_path / "ours" / "notes.txt").read_text() == "mine"
    for status, count in (("failed", 0), ("completed", 20)):
        assert export(tmp_path / "out", tmp_path / "set", form="datasets", statuses=[status]) == count
    names = sorted(path.name for path in (tmp_path / "set" / "data").iterdir())
    assert names == [f"train-{at:05d}-of-00003.parquet" for at in range(3)]
    found = load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache"))
    assert found["row_id"][:] == [row["id"] for row in rows]
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


def test_names_and_formats_that_do_not_fit_are_told(simulate: Simulate, tmp_path: Path, start: Starter) -> None:
    rows = [row | {"a,b": "both"} for row in rows_with_ids(2)]
    run(job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url))
    child = start(
        "export", "out", "x.csv", "--columns", "row_id,status", "--columns", "a,b", "--status", "failed,completed"
    )
    assert child.wait() == 0, child.err
    assert (tmp_path / "x.csv").read_text().splitlines()[:2] == ['"row_id","status","a,b"', '"r0","completed","both"']
    with pytest.raises(UserError, match=r"--format excel writes a file that ends in \.csv"):
        export(tmp_path / "out", tmp_path / "x.jsonl", form="excel")
    with pytest.raises(UserError, match="writes a folder"):
        export(tmp_path / "out", tmp_path / "x.csv", form="datasets")
    with pytest.raises(UserError, match=r'no such format .did you mean "excel"'):
        export(tmp_path / "out", tmp_path / "x.csv", form="exel")
    with pytest.raises(UserError, match="has its own"):
        export(tmp_path / "out", tmp_path / "x.jsonl", form="openai-batch", columns=["text"])
    for place in ("out/data", "out/_batchfox"):
        with pytest.raises(UserError, match="lies in an output"):
            export(tmp_path / "out", tmp_path / place, form="datasets")
