"""The API key that stands in the input by mistake: it goes to the API with the row's text, and into no file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import KEY, MODEL, Simulate, Starter, by_id, eventually, job_of, superseded_rows, write_rows

from batchfox import run
from batchfox.audit import audit_output
from batchfox.core.secret import Secret
from batchfox.errors import JobError
from batchfox.options import Options
from batchfox.show import describe
from batchfox.simulator import digest_of
from batchfox.survey.preview import preview

# A job whose rows bring their own model.
OWN_MODEL: dict[str, Any] = {"request": {"model": None}}


def check_hidden(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path
    for row in by_id(folder).values():
        assert KEY not in repr(row)


def test_a_row_that_holds_the_key_is_answered_and_the_key_is_in_no_file(
    simulate: Simulate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    simulator = simulate()
    good = {"model": MODEL, "prompt": "x"}
    rows: list[dict[str, Any]] = [
        good | {"id": "plain", "note": "nothing"},
        good | {"id": "text", "note": f"curl -H 'Bearer {KEY}'"},
        good | {"id": "deep", "note": {"a": [{"headers": {KEY: f"Bearer {KEY}"}}]}},
        good | {"id": "new column", f"x {KEY}": 1},
        good | {"id": "prompt", "prompt": f"what is {KEY}?"},
        good | {"id": f"id {KEY}"},
        good | {"id": "invalid", "max_tokens": KEY},
        good | {"id": "model", "model": KEY},
        good | {"id": "medium", "image_urls": [f"{KEY}.png"]},
    ]
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulator.url, **OWN_MODEL)
    summary = run(job, log_level="debug")
    found = by_id(tmp_path / "out")
    assert {name: row["status"] for name, row in found.items() if row["status"] != "completed"} == {
        "invalid": "invalid",
        "model": "failed",
        "medium": "invalid",
    }
    assert "[key]" in found["text"]["note"]
    assert found["text"]["x [key]"] is None, "a name that held it is a column without it"
    assert found["id [key]"]["status"] == "completed"
    assert found["model"]["model"] == "[key]"
    assert found["prompt"]["prompt"] == "what is [key]?"
    billed = {entry["digest"] for entry in simulator.book()["entries"]}
    assert digest_of({"model": MODEL, "prompt": f"what is {KEY}?"}) in billed, "what is asked is the row's own text"
    write_rows(source, [*rows, good | {"id": "later", "unknown": [KEY]}])
    run(job)
    assert "[key]" in by_id(tmp_path / "out")["later"]["input_extra"]
    check_hidden(tmp_path / "out")
    told = repr(audit_output(tmp_path / "out"))
    assert KEY not in told
    assert "in the input, without an output row" not in told, "an id that held the key is the one in the output"
    said = capfd.readouterr()
    assert KEY not in said.out + said.err + describe(summary, ["batchfox"])
    for some in (rows[3:6], rows[6:]):
        write_rows(source, some)
        shown = "".join(preview(job, Options(fresh=True)))
        assert "[key]" in shown
        assert KEY not in shown


def test_rows_named_by_the_key_are_known_again_and_retried(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"task_rejected": 1.0})
    rows = [{"id": f"{KEY}-{n}", "prompt": f"p{n}"} for n in range(5)]
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulator.url)
    assert run(job).by_status == {"failed": 5}
    assert run(job).settled == {}
    simulator.control(faults={})
    assert run(job, retry="failed").by_status == {"completed": 5}
    assert {row["row_id"] for row in superseded_rows(tmp_path / "out")} == {f"[key]-{n}" for n in range(5)}
    assert run(job).settled == {}
    assert simulator.book()["totals"]["submits_received"] == 10
    check_hidden(tmp_path / "out")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_no_other_form_of_input_lets_it_through(simulate: Simulate, tmp_path: Path, form: str) -> None:
    simulator = simulate()
    rows = [{"id": f"r{n}", "prompt": "x", "note": KEY if n == 1 else "no", f"head {KEY}": "v"} for n in range(3)]
    source = tmp_path / f"in.{form}"
    if form == "csv":
        with source.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), source)
    assert run(job_of(source, tmp_path / "out", simulator.url)).by_status == {"completed": 3}
    found = by_id(tmp_path / "out")
    assert (found["r1"]["note"], found["r1"]["head [key]"]) == ("[key]", "v")
    check_hidden(tmp_path / "out")


def test_the_checkpoint_of_a_run_that_is_killed_does_not_hold_it(
    simulate: Simulate, start: Starter, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:60")
    source = write_rows(tmp_path / "in.jsonl", [{"id": f"r {KEY}", "prompt": "x", "note": KEY}])
    command: list[str | Path] = [
        "run",
        "--input",
        source,
        "--id",
        "id",
        "--output",
        tmp_path / "out",
        "--base-url",
        simulator.url,
    ]
    child = start(*command, "--model", MODEL)
    eventually(lambda: simulator.book()["entries"], "the task")
    child.kill()
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any(b"r [key]" in path.read_bytes() for path in files), "the row is on record"
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_job_that_holds_the_key_is_refused_before_it_is_kept(simulate: Simulate, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"id": "a", "prompt": "x"}])
    job = job_of(source, tmp_path / "out", simulate().url, request={"system_prompt": f"use {KEY}"})
    with pytest.raises(JobError, match=r"request\.system_prompt: holds the API key itself"):
        run(job)
    assert not (tmp_path / "out").exists()


def test_hiding_goes_to_any_depth_and_leaves_the_rest_as_it_is() -> None:
    secret = Secret(KEY)
    value = {"a": [1, None, {KEY: [f"<{KEY}>", KEY.encode()]}], "b": 2.5, "c": "x"}
    assert secret.hide_in(value) == {"a": [1, None, {"[key]": ["<[key]>", b"[key]"]}], "b": 2.5, "c": "x"}
    assert secret.is_in(f"x{KEY}")
    assert secret.is_in_bytes(json.dumps(value | {"a": KEY}).encode())
    assert not secret.is_in("x")
    assert not Secret("").is_in("x")
    assert not Secret("").is_in_bytes(b"x")
