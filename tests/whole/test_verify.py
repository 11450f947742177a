"""What `batchfox verify` says of outputs that runs left, and of every kind of damage done to them by hand."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import (
    KEY,
    MODEL,
    Simulate,
    Starter,
    as_anybody,
    eventually,
    job_of,
    parts_of,
    rows_with_ids,
    tables_of,
    write_rows,
)

from batchfox import run
from batchfox.audit import Choice, audit_output
from batchfox.audit.finding import Audit
from batchfox.checkpoint import Checkpoint
from batchfox.cli import main, verify
from batchfox.core.job import Job
from batchfox.core.outcome import Outcome
from batchfox.core.prepare import key_of_outcome
from batchfox.core.render import request_hash
from batchfox.doctor import repair
from batchfox.errors import DamagedError, OutputBusyError, OutputError
from batchfox.group import encode
from batchfox.simulator import Settings, SimulatorThread

Row = dict[str, Any]


def off(audit: Audit) -> dict[str, int]:
    """What is off: how many of each kind."""
    return {finding.kind: finding.number for finding in audit.problems}


def notes(audit: Audit) -> dict[str, int]:
    return {finding.kind: finding.number for finding in audit.findings if not finding.is_problem}


def examples(audit: Audit, kind: str) -> list[str]:
    return next(finding.examples for finding in audit.findings if finding.kind == kind)


def rewrite(path: Path, change: Callable[[list[Row]], list[Row]]) -> None:
    """The same part with other rows."""
    schema = pq.read_schema(path)
    rows = change(pq.read_table(path).to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, schema), path, write_page_checksum=True)


def in_checkpoint(out: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(out / "_batchfox" / "checkpoint.db")) as db:
        db.execute(sql)
        db.commit()


@pytest.fixture(params=[True, False], ids=["ids", "no-ids"])
def has_ids(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def job_in(folder: Path, base_url: str, *, has_ids: bool) -> Job:
    """120 rows in parts of 40. One task at a time: rows stand in the parts as in the input."""
    column = {} if has_ids else {"id": None}
    source = write_rows(folder / "in.jsonl", rows_with_ids(120))
    return job_of(source, folder / "out", base_url, rows_per_part=40, input=column, limits={"in_flight": 1})


@pytest.fixture
def job(tmp_path: Path, simulate: Simulate, has_ids: bool) -> Job:
    return job_in(tmp_path, simulate(latency="constant:0.001").url, has_ids=has_ids)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """Folders with an input and its finished output, made once."""
    made: dict[bool, Path] = {}

    def make(has_ids: bool) -> Path:
        if has_ids not in made:
            folder = made[has_ids] = tmp_path_factory.mktemp("finished")
            simulator = SimulatorThread(Settings(latency="constant:0.001"))
            with contextlib.ExitStack() as stack:
                patch = stack.enter_context(pytest.MonkeyPatch.context())
                patch.setenv("FOXAPI_API_KEY", KEY)
                simulator.start()
                stack.callback(simulator.stop)
                assert run(job_in(folder, simulator.url, has_ids=has_ids)).exit_status == 0
        return made[has_ids]

    return make


@pytest.fixture
def out(tmp_path: Path, finished: Callable[[bool], Path], has_ids: bool) -> Path:
    """A finished output of 120 rows in 3 parts, a copy of its own."""
    made = finished(has_ids)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    kept = tmp_path / "out" / "_batchfox" / "job.toml"
    kept.write_text(kept.read_text().replace(str(made), str(tmp_path)))
    return tmp_path / "out"


only_ids = pytest.mark.parametrize("has_ids", [True], ids=["ids"])
only_positions = pytest.mark.parametrize("has_ids", [False], ids=["no-ids"])


def test_a_sound_output_is_counted_whole_and_not_touched(out: Path) -> None:
    def state() -> dict[Path, tuple[bytes, int]]:
        # A reader of a checkpoint in WAL mode makes the two files beside it, as `status` does.
        files = (path for path in out.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = state()
    audit = audit_output(out)
    assert audit.findings == []
    assert (audit.input_rows, audit.output_rows, audit.parts, audit.is_finished) == (120, 120, 3, True)
    cost = audit.costs["completed"]
    assert (cost.rows, cost.submits, cost.unknown) == (120, 120, 0)
    paid = sum(row["credits"] for path in parts_of(out) for row in pq.read_table(path).to_pylist())
    assert audit.credits == pytest.approx(paid)
    assert state() == before


def test_duplicates_rows_without_an_id_and_invalid_rows_are_nothing_off(simulate: Simulate, tmp_path: Path) -> None:
    rows: list[Row] = [*rows_with_ids(20), {"id": "r3", "prompt": "another"}, {"prompt": "no id"}, {"id": "r77"}]
    source = write_rows(tmp_path / "in.jsonl", rows)
    with source.open("a") as file:
        file.write("no JSON\n")
    assert run(job_of(source, tmp_path / "out", simulate().url)).exit_status == 3
    audit = audit_output(tmp_path / "out")
    assert (off(audit), notes(audit)) == ({}, {"duplicates": 1})
    assert {status: cost.rows for status, cost in audit.costs.items()} == {"completed": 20, "invalid": 3}
    rows[22] = {"id": "r77", "prompt": "mended"}
    write_rows(source, rows[:21] + rows[22:])
    audit = audit_output(tmp_path / "out")
    assert off(audit) == {}, "with ids rows may go and be mended"
    assert notes(audit) == {"duplicates": 1, "mended": 1, "moved": 1, "no_longer_asked": 2}


def test_exit_statuses_and_what_goes_where(start: Starter, out: Path, has_ids: bool) -> None:
    sound = start("verify", out)
    assert (sound.wait(), sound.err) == (0, "")
    assert "nothing off (120 rows of input, 120 rows in 3 parts" in sound.out
    assert "completed" in sound.out
    parts_of(out)[1].unlink()
    told = start("verify", out)
    assert told.wait() == 3
    assert "part-00001.parquet (40 rows)" in told.out
    assert f"{'r40; r41' if has_ids else '40; 41'}" in told.out
    assert "batchfox doctor" in told.out
    as_json = start("verify", out, "--json")
    assert as_json.wait() == 3
    found = json.loads(as_json.out)
    assert found["is_sound"] is False
    assert {finding["kind"]: finding["number"] for finding in found["findings"]} == {"part_gone": 1, "row_missing": 40}


@only_ids
def test_progress_goes_to_stderr_and_only_there(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "PLAIN_EVERY_S", 0.0)
    said: dict[str, str] = {}
    for options in ("--log-format=console", "--log-format=json", "--quiet"):
        with pytest.raises(SystemExit) as left:
            main(["verify", str(out), "--json", options])
        assert left.value.code == 0
        told = capsys.readouterr()
        assert json.loads(told.out)["is_sound"]
        said[options] = told.err
    lines = said["--log-format=console"].splitlines()
    assert lines[:3] == [f"reading the parts: {rows} rows" for rows in (40, 80, 120)]
    assert {"reading the input: 120 rows", "comparing rows: 120 rows"} <= set(lines)
    events = [json.loads(line) for line in said["--log-format=json"].splitlines()]
    assert events[0] == {"event": "progress", "level": "info", "doing": "reading the parts", "rows": 40}
    assert said["--quiet"] == ""


def test_it_does_not_start_where_one_of_the_three_cannot_be_read(
    start: Starter, out: Path, tmp_path: Path, has_ids: bool
) -> None:
    with pytest.raises(OutputError, match="no output of batchfox"):
        audit_output(tmp_path)
    (tmp_path / "in.jsonl").rename(tmp_path / "moved.jsonl")
    child = start("verify", out)
    assert (child.wait(), child.out) == (2, "")
    assert "no such file" in child.err
    assert "--input PATH" in child.err
    assert start("verify", out, "--input", tmp_path / "moved.jsonl").wait() == 0
    without = start("verify", out, "--no-input")
    assert (without.wait(), "the input was not read" in without.out) == (0, True)
    assert start("verify", out, "--no-input", "--input", "x").wait() == 2
    with (out / "_batchfox" / "checkpoint.db").open("r+b") as file:
        file.write(b"\0" * 100)
    with pytest.raises(DamagedError):
        audit_output(out, Choice(has_input=False))
    for path in (out / "_batchfox").glob("checkpoint.db*"):
        path.unlink()
    child = start("verify", out, "--no-input")
    assert (child.wait(), "doctor" in child.err) == (2, True)


# Parts.


def test_a_part_that_is_gone_and_its_rows(out: Path) -> None:
    parts_of(out)[2].unlink()
    for choice in (Choice(), Choice(has_input=False)):
        assert off(audit_output(out, choice)) == {"part_gone": 1, "row_missing": 40}


def test_a_row_that_stands_there_twice(out: Path) -> None:
    rewrite(parts_of(out)[1], lambda rows: [*rows, rows[7]])
    assert off(audit_output(out)) == {"part_altered": 1, "row_double": 1}


def test_a_row_in_the_place_of_another_though_all_counts_agree(out: Path, has_ids: bool) -> None:
    rewrite(parts_of(out)[1], lambda rows: [rows[7] if number == 3 else row for number, row in enumerate(rows)])
    audit = audit_output(out)
    assert off(audit) == {"row_double": 1, "row_missing": 1}
    assert examples(audit, "row_missing") == ["r43" if has_ids else "43"]
    assert examples(audit, "row_double") == [f"{'r47' if has_ids else '47'} (part-00001.parquet, part-00001.parquet)"]


def test_a_copy_of_a_part(out: Path) -> None:
    shutil.copy(parts_of(out)[0], out / "data" / "part-00005.parquet")
    audit = audit_output(out)
    assert off(audit) == {"part_unknown": 1, "row_double": 40}
    assert audit.costs["completed"].rows == 120, "what a row cost is counted once"


def test_a_byte_that_changed_anywhere_among_the_rows(out: Path) -> None:
    path = parts_of(out)[1]
    whole = path.read_bytes()
    metadata = pq.read_metadata(path).row_group(0)
    starts = [metadata.column(number) for number in range(metadata.num_columns)]
    for column in starts[:: max(1, len(starts) // 8)]:
        begin = column.dictionary_page_offset or column.data_page_offset
        at = begin + column.total_compressed_size - 1
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = off(audit_output(out))
        assert found == {"part_unreadable": 1, "row_missing": 40}, column.path_in_schema
    path.write_bytes(whole[:-100])
    assert off(audit_output(out)) == {"part_unreadable": 1, "row_missing": 40}


def test_a_part_of_another_output(out: Path, simulate: Simulate, tmp_path: Path, has_ids: bool) -> None:
    source = write_rows(tmp_path / "other.jsonl", rows_with_ids(10, first=500))
    column = {} if has_ids else {"id": None}
    assert run(job_of(source, tmp_path / "other", simulate().url, input=column)).exit_status == 0
    shutil.copy(parts_of(tmp_path / "other")[0], out / "data" / "part-00003.parquet")
    # Without ids these are the rows 0 to 9 once more.
    expected = {"row_foreign": 10} if has_ids else {"row_double": 10}
    assert off(audit_output(out)) == {"part_unknown": 1} | expected


def test_files_that_are_no_parts_and_columns_that_are_not_this_outputs(out: Path) -> None:
    (out / "data" / "notes.txt").write_text("mine")
    pq.write_table(pa.table({"a": [1]}), out / "data" / "part-00009.parquet")
    audit = audit_output(out)
    assert off(audit) == {"file_foreign": 2}
    shutil.copy(out / "data" / "part-00009.parquet", parts_of(out)[0])
    assert off(audit_output(out)) == {"file_foreign": 3, "row_missing": 40}


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("status", "failed", {"part_altered": 1, "row_altered": 1}),
        ("status", "fine", {"part_altered": 1, "row_unsound": 1, "row_missing": 1}),
        ("request_hash", "ab" * 16, {"row_altered": 1, "row_edited": 1}),
        ("request_hash", None, {"row_unsound": 1, "row_missing": 1}),
        ("row_index", 4711, {"row_altered": 1}),
        ("row_id", "x", {"row_foreign": 1, "row_missing": 1}),
        ("row_id", None, {"row_unsound": 1, "row_missing": 1}),
    ],
)
@only_ids
def test_a_value_that_was_changed_by_hand(out: Path, column: str, value: Any, expected: dict[str, int]) -> None:
    rewrite(parts_of(out)[1], lambda rows: [rows[0] | {column: value}, *rows[1:]])
    audit = audit_output(out)
    if value == 4711:
        assert notes(audit) == {"moved": 1}
    assert off(audit) == expected


@only_positions
def test_without_ids_a_rows_name_is_its_position(out: Path) -> None:
    rewrite(parts_of(out)[1], lambda rows: [rows[0] | {"row_id": "x"}, *rows[1:]])
    assert off(audit_output(out)) == {"row_unsound": 1, "row_missing": 1}


def test_a_task_that_answers_two_rows(out: Path) -> None:
    first = pq.read_table(parts_of(out)[0])["task_id"][0].as_py()
    rewrite(parts_of(out)[1], lambda rows: [rows[0] | {"task_id": first}, *rows[1:]])
    audit = audit_output(out)
    assert off(audit) == {"task_shared": 1}
    assert examples(audit, "task_shared")[0].startswith(first)


# The checkpoint.


@only_ids
def test_what_is_on_record_and_what_is_in_the_parts_must_agree_row_by_row(out: Path) -> None:
    in_checkpoint(out, "DELETE FROM finished WHERE row_index = 5")
    in_checkpoint(out, "UPDATE finished SET status = 1 WHERE row_index = 6")
    in_checkpoint(out, "UPDATE finished SET key = randomblob(16) WHERE row_index = 7")
    audit = audit_output(out)
    assert off(audit) == {"row_unrecorded": 2, "row_altered": 1, "row_missing": 1}
    assert examples(audit, "row_altered") == ["r6"]


@only_positions
def test_bits_that_differ_from_the_parts(out: Path) -> None:
    """Position 8 not done, 16 not completed, by the first bits of their bytes."""
    for column, byte, bits in (("done", 2, "FE"), ("incomplete", 3, "01")):
        sql = f"substr({column}, 1, {byte - 1}) || x'{bits}' || substr({column}, {byte + 1})"
        in_checkpoint(out, f"UPDATE finished_block SET {column} = CAST({sql} AS BLOB)")
    audit = audit_output(out)
    assert off(audit) == {"row_unrecorded": 1, "row_altered": 1}
    assert (examples(audit, "row_unrecorded"), examples(audit, "row_altered")) == (["8"], ["16"])


def test_a_part_that_no_record_names(out: Path) -> None:
    in_checkpoint(out, "DELETE FROM part WHERE number = 1")
    assert off(audit_output(out)) == {"part_unknown": 1}


# The input and the job.


def test_a_row_that_was_taken_out_of_the_input(out: Path, tmp_path: Path, has_ids: bool) -> None:
    rows = rows_with_ids(120)
    write_rows(tmp_path / "in.jsonl", rows[:-1])
    audit = audit_output(out)
    if has_ids:
        assert (off(audit), notes(audit)) == ({}, {"no_longer_asked": 1})
    else:
        assert off(audit) == {"row_beyond_input": 1, "input_changed": 1}
        assert examples(audit, "row_beyond_input") == ["119"]


def test_rows_that_were_added_to_the_input_are_still_to_come(out: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", rows_with_ids(125))
    audit = audit_output(out)
    assert (off(audit), notes(audit)) == ({}, {"still_to_come": 5})


def test_a_row_of_which_nobody_knows_anything_though_the_run_finished(out: Path, tmp_path: Path) -> None:
    path = parts_of(out)[2]
    rewrite(path, lambda rows: rows[:-1])
    counts = json.dumps({"completed": 39})
    in_checkpoint(out, f"UPDATE part SET rows = 39, counts = '{counts}' WHERE number = 2")
    in_checkpoint(out, "DELETE FROM finished WHERE row_index = 119")
    in_checkpoint(
        out, "UPDATE finished_block SET done = CAST(substr(done, 1, 14) || x'7F' || substr(done, 16) AS BLOB)"
    )
    assert off(audit_output(out)) == {"row_unanswered": 1}


def test_a_prompt_that_was_edited(out: Path, tmp_path: Path, has_ids: bool) -> None:
    rows = rows_with_ids(120)
    rows[77]["prompt"] = "another question"
    write_rows(tmp_path / "in.jsonl", rows)
    audit = audit_output(out)
    assert off(audit) == {"row_edited": 1} | ({} if has_ids else {"input_changed": 1})
    assert examples(audit, "row_edited") == ["r77" if has_ids else "77"]
    assert off(audit_output(out, Choice(is_rendered=False))) == ({} if has_ids else {"input_changed": 1})
    rows[77] = {"id": "r77", "note": "nothing to ask"}
    write_rows(tmp_path / "in.jsonl", rows)
    assert off(audit_output(out))["row_edited"] == 1, "nor does it ask nothing"


@only_ids
def test_a_job_that_was_edited_where_the_output_keeps_it(out: Path) -> None:
    path = out / "_batchfox" / "job.toml"
    kept = path.read_text()
    path.write_text(kept.replace(MODEL, "another-model"))
    audit = audit_output(out)
    assert off(audit) == {"job_altered": 1, "row_edited": 120}
    assert "request.model" in examples(audit, "job_altered")[0]
    path.write_text("no = [TOML")
    assert off(audit_output(out)) == {"job_unreadable": 1}


def test_standard_input_cannot_be_read_again(start: Starter, simulate: Simulate, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(10))
    job = job_of(source, tmp_path / "out", simulate().url, input={"id": None})
    assert run(job).exit_status == 0
    path = tmp_path / "out" / "_batchfox" / "job.toml"
    path.write_text(path.read_text().replace(f'"{source}"', '"-"'))
    assert notes(audit_output(tmp_path / "out")) == {"input_not_read": 1}
    again = audit_output(tmp_path / "out", Choice(inputs=[str(source)]))
    assert (again.findings, again.input_rows) == ([], 10)


def test_every_form_of_input_is_read_as_the_run_read_it(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows = rows_with_ids(12)
    batch = [{"custom_id": row["id"], "body": {"model": MODEL, "prompt": row["prompt"]}} for row in rows]
    write_rows(tmp_path / "batch.jsonl", batch)
    with gzip.open(tmp_path / "packed.jsonl.gz", "wt") as packed:
        packed.writelines(json.dumps(row) + "\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "prompt"], *(row.values() for row in rows)])
    for name, column in (
        ("batch.jsonl", None),
        ("packed.jsonl.gz", "id"),
        ("packed.jsonl.gz", None),
        ("table.parquet", "id"),
        ("table.parquet", None),
        ("table.csv", None),
    ):
        out = tmp_path / f"{name}-{column}"
        request = {"model": None if name == "batch.jsonl" else MODEL}
        job = job_of(tmp_path / name, out, simulator.url, input={"id": column}, request=request)
        assert run(job).by_status == {"completed": 12}
        audit = audit_output(out)
        assert (audit.findings, audit.input_rows) == ([], 12), name


@only_positions
def test_blocks_that_changed_are_named_all(out: Path, tmp_path: Path) -> None:
    """Blocks are of 10,000 rows; a record of two more stands for a longer input."""
    in_checkpoint(out, "INSERT INTO block VALUES (1, 10000, zeroblob(16)), (3, 5, zeroblob(16))")
    audit = audit_output(out)
    assert off(audit) == {"input_changed": 2}
    assert examples(audit, "input_changed") == ["rows 10,000 to 19,999 (from 0)", "rows 30,000 to 30,004 (from 0)"]


def test_an_output_that_may_not_be_written_can_be_verified(out: Path, tmp_path: Path) -> None:
    folders = [path for path in (out, *out.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        command = as_anybody("-m", "batchfox", "verify", out)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing off" in done.stdout


# Runs that are not over.


def test_a_run_that_stopped_before_its_end(job: Job, tmp_path: Path, has_ids: bool) -> None:
    assert run(job, limit=50).is_limited
    audit = audit_output(tmp_path / "out")
    assert (off(audit), notes(audit)) == ({}, {"still_to_come": 70})
    parts_of(tmp_path / "out")[0].unlink()
    assert off(audit_output(tmp_path / "out")) == {"part_gone": 1, "row_missing": 40}


def test_a_run_that_was_killed_with_tasks_in_flight(start: Starter, simulate: Simulate, tmp_path: Path) -> None:
    rows = [row | {"model": "slow" if number >= 50 else MODEL} for number, row in enumerate(rows_with_ids(80))]
    source = write_rows(tmp_path / "in.jsonl", rows)
    simulator = simulate(latency="constant:0.3", models=("slow",))
    words = ["--id", "id", "--base-url", simulator.url, "--set", "output.rows_per_part=20"]
    words += ["--set", "limits.in_flight=30"]
    child = start("run", "--input", source, "--output", tmp_path / "out", *words)
    eventually(lambda: len(parts_of(tmp_path / "out")) >= 1 or child.is_over(), "a part")
    child.send(signal.SIGKILL)
    child.wait()
    audit = audit_output(tmp_path / "out")
    assert off(audit) == {}
    assert audit.unfinished
    waiting = sum(cost.rows for cost in audit.costs.values()) + sum(audit.unfinished.values())
    assert waiting + notes(audit).get("still_to_come", 0) == 80


def test_a_run_at_work_is_never_taken_for_damage(start: Starter, simulate: Simulate, tmp_path: Path, job: Job) -> None:
    """Rows end, parts come, a retry takes rows out of older ones; meanwhile the auditor looks again and again."""
    simulator = simulate(latency="constant:0.02", faults={"task_rejected": 0.5})
    tables = tables_of(tmp_path / "in.jsonl", tmp_path / "live", simulator.url, rows_per_part=8)
    words = ["--set", "output.rows_per_part=8", "--model", MODEL, "--base-url", simulator.url]
    if (column := job.input.id) is not None:
        words += ["--id", column]
    words += ["--set", "limits.in_flight=4"]
    command = ["run", "--input", tables["input"]["path"], "--output", tmp_path / "live", *words]
    seen = 0
    for retry in ((), ("--retry", "failed")):
        child = start(*command, *retry)
        kept = tmp_path / "live" / "_batchfox" / "job.toml"
        eventually(kept.exists, "a job on record")
        while not child.is_over():
            try:
                audit = audit_output(tmp_path / "live")
            except OutputBusyError:
                continue
            assert off(audit) == {}, audit.problems
            seen += audit.is_running
        assert child.wait() == 3, child.err
    assert seen > 3
    audit = audit_output(tmp_path / "live")
    assert off(audit) == {}
    assert audit.replaced.rows > 0


def test_a_run_that_was_killed_between_putting_a_part_in_its_place_and_saying_so(out: Path, has_ids: bool) -> None:
    """The rows are in the part and among the recorded ones; each is counted, and paid, once."""
    table = pq.read_table(parts_of(out)[2])
    rows = table.to_pylist()
    with (
        contextlib.closing(Checkpoint(out / "_batchfox" / "checkpoint.db")) as checkpoint,
        checkpoint.transaction() as db,
    ):
        for slot, row in enumerate(rows):
            names = ("row_index", "row_id", "status", "task_id", "credits", "submits", "request_hash", "run_id")
            values = {name: row[name] for name in names}
            outcome = Outcome(**values, finished_at=row["finished_at"].timestamp(), run_date=str(row["run_date"]))
            key = key_of_outcome(row, has_ids=has_ids)
            db.execute("INSERT INTO row VALUES (?, ?, 3, NULL, x'80', ?, NULL, NULL)", (slot, key, encode(outcome)))
            db.execute("INSERT INTO assigned VALUES (?, 2)", (slot,))
        db.execute("UPDATE part SET is_filed = 0, counts = '{}' WHERE number = 2")
        db.execute("UPDATE run SET is_finished = 0")
        db.execute("DELETE FROM finished WHERE row_index >= 80")
        db.execute("UPDATE finished_block SET done = CAST(substr(done, 1, 10) || zeroblob(1240) AS BLOB)")
    audit = audit_output(out)
    assert audit.findings == []
    assert {status: cost.rows for status, cost in audit.costs.items()} == {"completed": 120}
    assert (audit.recorded_costs, audit.unfinished) == ({}, {})
    parts_of(out)[2].unlink()
    audit = audit_output(out)
    assert (off(audit), notes(audit)) == ({}, {"unfinished": 40})
    assert (audit.costs["completed"].rows, audit.recorded_costs["completed"].rows) == (80, 40)


def test_parts_that_change_while_they_are_read_are_read_again(simulate: Simulate, tmp_path: Path) -> None:
    """A retry takes rows out of parts that were read and puts them into a new one, and only then all is compared."""
    simulator = simulate(faults={"task_failed": 0.4})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(60))
    job = job_of(source, tmp_path / "out", simulator.url, rows_per_part=20, retry={"failed": "never"})
    failed = run(job).by_status["failed"]
    simulator.control(faults={})
    told: list[str] = []

    def tell(what: str, _: int) -> None:
        told.append(what)
        if len(told) == 1:
            assert run(job, retry="failed").settled == {"completed": failed}

    audit = audit_output(tmp_path / "out", None, tell)
    assert audit.findings == []
    assert {status: cost.rows for status, cost in audit.costs.items()} == {"completed": 60}
    assert (audit.replaced.rows, audit.output_rows) == (failed, 60)
    assert told.count("reading the parts") > 4


def test_parts_that_change_again_and_again_are_told_and_not_taken_for_damage(out: Path) -> None:
    def tell(_: str, __: int) -> None:
        path = parts_of(out)[0]
        shutil.copy(path, out / "copy")
        (out / "copy").rename(path)

    with pytest.raises(OutputBusyError, match="faster than they can be read"):
        audit_output(out, None, tell)


@only_ids
def test_memory_does_not_grow_with_the_rows(out: Path, tmp_path: Path) -> None:
    """50 MB of ids more, which stand in the input, in the parts and in all that is compared."""
    code = (
        "import pathlib, resource, sys\nfrom batchfox.audit import audit_output\n"
        "audit = audit_output(pathlib.Path(sys.argv[1]))\n"
        "print(len(audit.problems), audit.output_rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"
    )

    def audited() -> tuple[int, ...]:
        done = subprocess.run(
            [sys.executable, "-c", code, out], capture_output=True, text=True, timeout=200, check=True
        )
        return tuple(int(word) for word in done.stdout.split())

    schema = pq.read_schema(parts_of(out)[0])
    example = pq.read_table(parts_of(out)[0]).to_pylist()[0]

    def add(numbers: range) -> None:
        with (tmp_path / "in.jsonl").open("a") as file:
            for number in numbers:
                rows: list[Row] = []
                for index in range(number * 1_000, (number + 1) * 1_000):
                    row_id, prompt = f"{index}-{'x' * 5_000}", f"question {index}"
                    file.write(json.dumps({"id": row_id, "prompt": prompt}) + "\n")
                    known = {"id": row_id, "prompt": prompt, "row_index": index, "row_id": row_id}
                    hashed = request_hash({"model": MODEL, "prompt": prompt})
                    rows.append(example | known | {"task_id": f"t{index}", "request_hash": hashed})
                pq.write_table(pa.Table.from_pylist(rows, schema), out / "data" / f"part-{number:05d}.parquet")
        assert repair(out)[1] == []

    add(range(3, 5))
    *_, small_mb = audited()
    add(range(5, 15))
    problems, rows_found, large_mb = audited()
    assert (problems, rows_found) == (0, 12_120)
    assert large_mb - small_mb < 35


# Costs.


def test_what_each_row_cost_with_what_was_paid_before_it_was_replaced(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults={"task_rejected": 0.4})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(40))
    job = job_of(source, tmp_path / "out", simulator.url, rows_per_part=10)
    failed = run(job).by_status["failed"]
    simulator.control(faults={})
    assert run(job, retry="failed").exit_status == 0
    child = start("verify", tmp_path / "out", "--costs", tmp_path / "costs.csv", "--json")
    assert child.wait() == 0, child.out
    found = json.loads(child.out)
    assert found["replaced"]["rows"] == failed
    with (tmp_path / "costs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row_index"] for row in rows] == [str(number) for number in range(40)]
    assert sum(int(row["submits"]) for row in rows) == simulator.book()["totals"]["submits_accepted"]
    paid = sum(float(row["credits"] or 0) + float(row["credits_replaced"] or 0) for row in rows)
    assert paid == pytest.approx(found["costs"]["completed"]["credits"] + found["replaced"]["credits"])
    again = start("verify", tmp_path / "out", "--costs", tmp_path / "costs.csv")
    assert (again.wait(), "exists already" in again.err) == (2, True)


def test_a_task_that_was_asked_about_once_more_is_paid_once(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(latency="constant:1")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(6))
    watch = {"task_timeout": "0.3s", "first": 0.1}
    job = job_of(source, tmp_path / "out", simulator.url, poll=watch)
    assert run(job).by_status == {"timed_out": 6}
    eventually(lambda: run(job).by_status == {"completed": 6}, "the answers that came too late")
    audit = audit_output(tmp_path / "out")
    assert off(audit) == {}
    assert audit.replaced.rows >= 6
    assert audit.replaced.credits == 0
    assert audit.credits == pytest.approx(audit.costs["completed"].credits)


def test_rows_that_may_have_been_billed_twice_are_named(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"reset_after": 0.3})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    summary = run(job_of(source, tmp_path / "out", simulator.url))
    assert summary.maybe_billed_twice
    audit = audit_output(tmp_path / "out")
    assert off(audit) == {}
    assert notes(audit)["maybe_billed_twice"] == summary.maybe_billed_twice
    assert sum(cost.maybe_billed_twice for cost in audit.costs.values()) == summary.maybe_billed_twice
