"""What a run is doing or did: while it runs, after it was killed, after it ended."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import (
    GUARD_S,
    MODEL,
    Child,
    Simulate,
    Starter,
    environment,
    eventually,
    job_of,
    rows_with_ids,
    write_rows,
)

from batchfox import output, run
from batchfox.errors import OutputError
from batchfox.output import hold
from batchfox.simulator import SimulatorThread
from batchfox.status import Status, describe, is_held, look


def started(start: Starter, simulator: SimulatorThread, tmp_path: Path, rows: int = 30) -> Child:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(rows))
    command: list[str | Path] = ["run", "--input", source, "--output", tmp_path / "out", "--id", "id", "--model", MODEL]
    return start(*command, "--base-url", simulator.url, "--set", "limits.in_flight=20")


def test_a_running_run_is_seen_without_disturbing_it_and_a_killed_one_afterwards(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:600")
    child = started(start, simulator, tmp_path)

    def seen() -> Status | None:
        if not (tmp_path / "out" / "_batchfox" / "checkpoint.db").exists():
            return None
        status = look(tmp_path / "out")
        return status if status.in_flight == 20 and status.figures.get("submits") == 20 else None

    status = eventually(lambda: seen() or child.is_over(), "a status with the tasks in flight")
    assert isinstance(status, Status), child.err
    assert (status.is_running, status.is_finished, status.ended_at) == (True, False, None)
    assert "running for" in describe(status)
    assert "20 tasks in flight" in describe(status)
    assert not child.is_over()
    child.kill()
    dead = look(tmp_path / "out")
    assert (dead.is_running, dead.in_flight, dead.exit_status) == (False, 20, None)
    assert "died" in describe(dead)
    assert "the same command resumes it" in describe(dead)


def test_submits_on_the_wire_at_a_kill_are_shown_in_doubt(start: Starter, simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"hang": 1.0})
    child = started(start, simulator, tmp_path)
    eventually(lambda: simulator.book()["totals"]["submits_received"] == 20 or child.is_over(), "hanging POSTs")
    assert look(tmp_path / "out").in_doubt_now == 0, "a live run waits for them"
    child.kill()
    status = look(tmp_path / "out")
    assert (status.in_doubt_now, status.in_flight) == (20, 0)
    assert "20 submits in doubt" in describe(status)


def test_watch_ends_with_the_run_and_json_is_one_object_a_line(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:1")
    child = started(start, simulator, tmp_path)
    eventually(lambda: simulator.book()["totals"]["submits_received"] >= 1 or child.is_over(), "a submit")
    watcher = start("status", tmp_path / "out", "--watch", "--json")
    assert child.wait() == 0, child.err
    assert watcher.wait() == 0, watcher.err
    looks = [json.loads(line) for line in watcher.out.splitlines()]
    assert [status["is_running"] for status in looks] == [True] * (len(looks) - 1) + [False]
    assert looks[-1]["by_status"] == {"completed": 30}


def test_a_finished_run_shows_its_end_and_a_stopped_one_why(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(balance=0.1)
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(20)), tmp_path / "out", simulator.url)
    summary = run(job)
    stopped = look(tmp_path / "out")
    assert (stopped.run_id, stopped.exit_status, stopped.is_finished) == (summary.run_id, 4, False)
    assert "ended with exit 4" in describe(stopped)
    simulator.control(balance=None)
    run(job)
    ended = look(tmp_path / "out")
    assert (ended.exit_status, ended.is_finished, ended.by_status) == (0, True, {"completed": 20})
    assert "ended with exit 0" in describe(ended)


def test_a_checkpoint_that_lies_elsewhere_is_found(simulate: Simulate, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    job = job_of(source, tmp_path / "out", simulate().url, output={"checkpoint": str(tmp_path / "c.db")})
    assert run(job).exit_status == 0
    assert look(tmp_path / "out").by_status == {"completed": 3}
    assert run(job).completed_before == 3
    fresh = run(job, fresh=True)
    assert fresh.settled == {"completed": 3}
    (tmp_path / "c.db").unlink()
    with pytest.raises(OutputError, match="the checkpoint is missing"):
        look(tmp_path / "out")


def test_a_run_without_anything_to_do_leaves_the_figures_of_the_one_before(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(20)), tmp_path / "out", simulator.url)
    first = run(job)
    for _ in range(2):
        second = run(job)
        status = look(tmp_path / "out")
        assert (status.run_id, status.figures_of) == (second.run_id, first.run_id)
        assert status.figures["submits"] == 20
        told = describe(status)
        assert "every row is completed; there was nothing left to do" in told
        assert f"the run before, {first.run_id}: 20 submits" in told
    write_rows(tmp_path / "in.jsonl", rows_with_ids(21))
    third = run(job)
    status = look(tmp_path / "out")
    assert (status.figures_of, status.figures["submits"]) == (third.run_id, 1)
    assert "this run: 1 submit, " in describe(status)
    assert "the run before" not in describe(status)


def test_a_limited_run_does_not_claim_that_every_row_is_completed(simulate: Simulate, tmp_path: Path) -> None:
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(20)), tmp_path / "out", simulate().url)
    summary = run(job, limit=5)
    assert (summary.exit_status, summary.is_limited) == (0, True)
    status = look(tmp_path / "out")
    assert status.is_limited
    assert "every row taken is completed; rows beyond --limit or --pilot were not taken" in describe(status)
    run(job)
    assert not look(tmp_path / "out").is_limited
    assert "exit 0: every row is completed" in describe(look(tmp_path / "out"))


def test_what_a_resumed_run_used_is_told_of_both_scopes(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(balance=0.1)
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(20)), tmp_path / "out", simulator.url)
    first = run(job)
    assert (first.here, first.is_resume) == (first.whole_run, False)
    simulator.control(balance=None)
    second = run(job)
    assert second.is_resume
    assert (first.here.submits, second.here.submits, second.whole_run.submits) == (10, 10, 20)
    for name in ("polls", "prompt_tokens", "completion_tokens", "credits_spent", "elapsed_s"):
        whole = getattr(first.here, name) + getattr(second.here, name)
        assert getattr(second.whole_run, name) == pytest.approx(whole), name
    figures = look(tmp_path / "out").figures
    assert (figures["submits"], figures["polls"]) == (20, second.whole_run.polls)
    assert (figures["here"]["submits"], figures["here"]["polls"]) == (10, second.here.polls)


def test_looking_never_gets_in_the_way_of_a_run_that_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four lookers without a pause: none of them, and no other looker, is taken for a run; every run begins."""
    monkeypatch.setattr(output, "LOCK_S", GUARD_S)
    with hold(tmp_path / "out"):
        assert is_held(tmp_path / "out")
    is_over = threading.Event()
    seen: list[bool] = []

    def look_on() -> None:
        while not is_over.is_set():
            seen.append(is_held(tmp_path / "out"))

    lookers = [threading.Thread(target=look_on) for _ in range(4)]
    for looker in lookers:
        looker.start()
    eventually(lambda: len(seen) > 1_000, "lookers")
    assert not any(seen)
    try:
        for _ in range(100):
            with hold(tmp_path / "out"):
                pass
    finally:
        is_over.set()
        for looker in lookers:
            looker.join()


LOOK = b"/out: run "  # how one begins


def test_watch_redraws_in_place_on_a_terminal(start: Starter, simulate: Simulate, tmp_path: Path) -> None:
    """What a terminal would hold at the end: one look, not one below the other."""
    simulator = simulate(latency="constant:600")
    child = started(start, simulator, tmp_path)
    eventually(lambda: simulator.book()["totals"]["submits_received"] >= 1 or child.is_over(), "a submit")
    own, other = pty.openpty()
    command = [sys.executable, "-m", "batchfox", "status", str(tmp_path / "out"), "--watch"]
    with subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environment(TERM="xterm")) as watcher:
        os.close(other)
        said = b""
        with contextlib.suppress(OSError):  # what the end of a terminal looks like
            while chunk := os.read(own, 65536):
                said += chunk
                if said.count(LOOK) == 2:
                    child.send(signal.SIGTERM)
        os.close(own)
        assert watcher.wait(GUARD_S) == 0
    looks = said.count(LOOK)
    assert said.count(b"\x1b[2K") >= 4 * (looks - 1), "the lines of each look but the last are cleared"
    assert "ended with exit 143" in said.decode()


ODD_JOBS = [b"x = [[[", b"\xff", b"output = 1", b"[output]\ncheckpoint = 3", b"x = " + b"[" * 3000]


@pytest.mark.parametrize("job", ODD_JOBS)
def test_a_job_on_record_that_cannot_be_read_says_nothing_of_the_checkpoint(tmp_path: Path, job: bytes) -> None:
    (tmp_path / "_batchfox").mkdir()
    (tmp_path / "_batchfox" / "job.toml").write_bytes(job)
    with pytest.raises(OutputError, match="the checkpoint is missing"):
        look(tmp_path)
