"""Where the words go: standard output may be full or closed, and standard error must stay parseable JSON."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MODEL, Simulate, Starter, by_id, environment, log_events, rows_with_ids, write_rows

BATCHFOX = [sys.executable, "-m", "batchfox"]


def done(simulate: Simulate, start: Starter, tmp_path: Path, *more: str) -> list[str]:
    """A command whose run has been done."""
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    command = ["run", "--input", str(source), "--output", str(tmp_path / "out"), "--id", "id", "--model", MODEL]
    command += ["--base-url", simulate().url, *more]
    child = start(*command)
    assert child.wait() == 0, child.err
    return command


def lost(tmp_path: Path, *arguments: str, unbuffered: str) -> tuple[int, str]:
    """Exit status and stderr of a command whose standard output is a full disk."""
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*BATCHFOX, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment(PYTHONUNBUFFERED=unbuffered),
            check=False,
        )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_one_clear_line(
    simulate: Simulate, start: Starter, tmp_path: Path, unbuffered: str
) -> None:
    command = done(simulate, start, tmp_path)
    line = "batchfox: standard output: No space left on device; what should stand there is lost\n"
    for arguments in (["status", "out"], ["status", "out", "--json"], ["validate", *command[1:]], ["--help"]):
        assert lost(tmp_path, *arguments, unbuffered=unbuffered) == (4, line), arguments
    assert lost(tmp_path, *command, "--quiet", unbuffered=unbuffered) == (0, line), "the run itself went well"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_has_read_enough_is_no_failure(
    simulate: Simulate, start: Starter, tmp_path: Path, unbuffered: str
) -> None:
    command = done(simulate, start, tmp_path)
    for arguments in (["status", "out"], ["validate", *command[1:]], [*command, "--quiet"], ["--help"]):
        own, other = os.pipe()
        os.close(own)
        ended = subprocess.run(
            [*BATCHFOX, *arguments],
            stdout=other,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment(PYTHONUNBUFFERED=unbuffered),
            check=False,
        )
        os.close(other)
        assert (ended.returncode, ended.stderr) == (0, b""), arguments


def test_the_exit_status_of_a_run_is_its_own_though_nobody_reads_its_summary(
    simulate: Simulate, tmp_path: Path
) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    command = ["run", "--input", str(source), "--output", "out", "--id", "id", "--model", MODEL, "--quiet"]
    command += ["--base-url", simulate(balance=0.01).url]
    own, other = os.pipe()
    os.close(own)
    ended = subprocess.run([*BATCHFOX, *command], stdout=other, cwd=tmp_path, env=environment(), check=False)
    os.close(other)
    assert ended.returncode == 4


def test_an_error_that_nobody_can_be_told_keeps_its_exit_status(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [*BATCHFOX, "status", "nowhere"]
        assert subprocess.run(command, stderr=full, cwd=tmp_path, env=environment(), check=False).returncode == 2


def test_a_standard_error_that_is_full_is_no_reason_to_stop_a_run(simulate: Simulate, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    command = [*BATCHFOX, "run", "--input", str(source), "--output", "out", "--id", "id", "--model", MODEL]
    command += ["--base-url", simulate().url, "--log-level", "debug"]
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run(command, stderr=full, cwd=tmp_path, env=environment(), check=False).returncode == 0


def test_with_json_logs_every_line_on_stderr_is_json(simulate: Simulate, start: Starter, tmp_path: Path) -> None:
    command = done(simulate, start, tmp_path, "--log-format", "json")
    child = start(*command, "--log-level", "debug", "--fresh")
    assert child.wait() == 0
    lines = [json.loads(line) for line in child.err.splitlines()]
    progress = [line for line in lines if line["event"] == "run_progressed"]
    assert {"timestamp", "level", "rows_done", "rows_total", "in_flight", "outage"} <= progress[0].keys()
    assert {"run_begun", "row_settled", "run_ended"} <= {line["event"] for line in lines}
    wrong = start("status", "nowhere", "--log-format", "json")
    assert wrong.wait() == 2
    (told,) = map(json.loads, wrong.err.splitlines())
    assert (told["event"], told["level"], told["exit_status"]) == ("command_failed", "error", 2)
    assert "no output of batchfox" in told["error"]


def test_an_input_that_cannot_be_read_is_told_once(simulate: Simulate, start: Starter, tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(b"PAR1 no parquet PAR1")
    child = start(
        *["run", "--input", "in.parquet", "--output", "out", "--model", MODEL, "--base-url", simulate().url],
        *["--log-format", "json"],
    )
    assert child.wait() == 2
    assert child.err.count("cannot be read as Parquet") == 1, child.err
    if (tmp_path / "out" / "_batchfox" / "log.jsonl").exists():
        assert "display_failed" not in log_events(tmp_path / "out")


def test_one_row_is_one_row(simulate: Simulate, start: Starter, tmp_path: Path) -> None:
    command = done(simulate, start, tmp_path)
    write_rows(tmp_path / "in.jsonl", rows_with_ids(1))
    run = start(*command, "--fresh")
    assert run.wait() == 0
    export = start("export", "out", "one.csv")
    assert export.wait() == 0
    status = start("status", "out")
    assert status.wait() == 0
    assert (run.out.splitlines()[0].split(": ")[1], export.out) == ("1 row", "one.csv: 1 row\n")
    assert not re.search(r"(?<![.\d])1 (rows|submits|parts|tasks)\b", run.out + export.out + status.out)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_come_closed_end_no_run(simulate: Simulate, tmp_path: Path, closed: str) -> None:
    """As daemons and some supervisors hand them on: their numbers must not go to files of ours."""
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    words = [sys.executable, "-m", "batchfox", "run", "--input", source, "--id", "id", "--output", tmp_path / "out"]
    command = shlex.join(map(str, [*words, "--model", MODEL, "--base-url", simulator.url]))
    assert subprocess.run(["sh", "-c", f"{command} {closed}"], env=environment(), check=False).returncode == 0
    assert len(by_id(tmp_path / "out")) == 5
