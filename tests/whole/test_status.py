"""What a run is doing or did: while it runs, after it was killed, after it ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MODEL, Child, Simulate, Starter, eventually, job_of, rows_with_ids, write_rows

from batchfox import run
from batchfox.errors import OutputError
from batchfox.simulator import SimulatorThread
from batchfox.status import Status, describe, look


def started(start: Starter, simulator: SimulatorThread, tmp_path: Path, rows: int = 30) -> Child:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(rows))
    command: list[str | Path] = ["run", "--input", source, "--output", tmp_path / "out", "--id", "id", "--model", MODEL]
    return start(*command, "--base-url", simulator.url, "--set", "limits.in_flight=20")


def test_a_running_run_is_seen_without_disturbing_it_and_a_killed_one_afterwards(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:60")
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
