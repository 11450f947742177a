"""`batchfox ctl`: a running job is paused, changed, given a row back, and stopped, and nothing is paid twice."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, Simulate, Starter, by_id, eventually, job_of, put_forward, rows_with_ids, write_rows

from batchfox import run
from batchfox.control import ask
from batchfox.core.steer import Order
from batchfox.errors import OutputError
from batchfox.simulator import SimulatorThread
from batchfox.status import look

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c636060606000000005"
    "0001a5f645400000000049454e44ae426082"
)


def received(simulator: SimulatorThread) -> int:
    return int(simulator.book()["totals"]["submits_received"])


def told(folder: Path, do: Any, **values: Any) -> str:
    reply = ask(folder, Order(do=do, **values))
    assert reply.ok, reply.message
    return reply.message


def refused(folder: Path, do: Any, **values: Any) -> str:
    reply = ask(folder, Order(do=do, **values))
    assert not reply.ok, reply.message
    return reply.message


def test_a_running_job_is_paused_changed_given_a_row_back_and_stopped(
    start: Starter, simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # as the child: media are found from here
    simulator = simulate(latency="constant:600")
    rows: list[dict[str, Any]] = rows_with_ids(30)
    rows[0] = {"id": "r0", "prompt": "what is it?", "image_urls": ["missing.png"]}
    source, folder = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out"
    command: list[str | Path] = ["run", "--input", source, "--output", folder, "--id", "id", "--model", MODEL]
    child = start(*command, "--base-url", simulator.url, "--set", "limits.in_flight=5", "--set", "poll.eagerness=100")
    eventually(lambda: received(simulator) == 5 or child.is_over(), "five tasks")
    named = folder / "_batchfox" / "control"
    link = Path(named.read_text().strip())
    assert (stat.S_ISSOCK(link.stat().st_mode), stat.S_IMODE(link.stat().st_mode)) == (True, 0o600)

    assert "nothing more is submitted" in told(folder, "pause")
    assert "paused already" in refused(folder, "pause")
    put_forward(simulator, 600)
    eventually(lambda: look(folder).by_status.get("completed") == 5 or child.is_over(), "answers during the pause")
    assert received(simulator) == 5
    assert look(folder).figures["paused_s"] > 0

    assert told(folder, "set", key="limits.in_flight", value=8).startswith("limits.in_flight = 8 (was 5)")
    assert "expected 1 or more" in refused(folder, "set", key="limits.in_flight", value=0)
    assert 'did you mean "limits.in_flight"' in refused(folder, "set", key="limits.in_fligt", value=8)
    assert "began without it" in refused(folder, "set", key="limits.credits", value=1)
    assert received(simulator) == 5
    told(folder, "resume")
    eventually(lambda: received(simulator) == 13 or child.is_over(), "eight tasks more")
    assert "not paused" in refused(folder, "resume")

    assert "r1 is completed" in refused(folder, "retry", row="r1")
    assert "no row r99 has ended" in refused(folder, "retry", row="r99")
    assert "its task runs" in refused(folder, "retry", row="r8")
    (tmp_path / "missing.png").write_bytes(PNG)
    told(folder, "set", key="limits.in_flight", value=9)
    eventually(lambda: received(simulator) == 14 or child.is_over(), "one task more")
    told(folder, "pause")
    assert "gets fresh attempts" in told(folder, "retry", row="r0")
    assert "has not ended: it waits" in refused(folder, "retry", row="r0")

    stopper = start("ctl", folder, "stop")
    assert child.wait() == 4, child.err
    assert stopper.wait() == 0, stopper.err
    assert "9 tasks in flight left for the next run" in stopper.out
    assert "stopped by `batchfox ctl`" in child.out
    assert not link.parent.exists()
    assert not named.exists()
    with pytest.raises(OutputError, match="no run is alive here"):
        ask(folder, Order(do="stop"))

    put_forward(simulator, 600)
    simulator.control(latency="constant:0.02")
    job = job_of(source, folder, simulator.url, limits={"in_flight": 50, "requests_per_minute": None})
    summary = run(job)
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 30}), summary
    assert by_id(folder)["r0"]["status"] == "completed", "marked for the next run, as this one was stopped before it"
    assert received(simulator) == 30


def test_a_row_that_failed_in_this_run_completes_in_it_and_is_counted_once(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    """Deep below a long path, where no socket has a name; what a dead run left is in nobody's way."""
    simulator = simulate(latency="constant:600")
    rows: list[dict[str, Any]] = [{"prompt": "what is it?", "image_urls": ["missing.png"]}, {"prompt": "and this?"}]
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    source, folder = write_rows(tmp_path / "in.jsonl", rows), deep / "out"
    command: list[str | Path] = ["run", "--input", source, "--output", folder, "--model", MODEL]
    command += ["--base-url", simulator.url, "--set", "poll.eagerness=100"]
    killed = start(*command)
    eventually(lambda: received(simulator) == 1 or killed.is_over(), "a task")
    eventually(lambda: look(folder).figures.get("submits") == 1 or killed.is_over(), "its id on record")
    named = Path((folder / "_batchfox" / "control").read_text().strip())
    assert stat.S_IMODE(named.parent.stat().st_mode) == 0o700
    killed.kill()
    with pytest.raises(OutputError, match="no run is alive here"):
        ask(folder, Order(do="pause"))

    child = start(*command)
    eventually(lambda: not named.parent.exists() or child.is_over(), "the dead run's folder cleared away")
    eventually(lambda: look(folder).figures.get("polls") or child.is_over(), "the resumed task's poll")
    (tmp_path / "missing.png").write_bytes(PNG)
    changed = eventually(lambda: _answer(folder, "retry", "0"), "an order that is taken")
    assert "gets fresh attempts" in changed
    eventually(lambda: received(simulator) == 2 or child.is_over(), "the row that was given back")
    put_forward(simulator, 1200)
    assert child.wait() == 0, child.err
    assert look(folder).by_status == {"completed": 2}
    assert received(simulator) == 2
    assert not (folder / "_batchfox" / "control").exists()


def _answer(folder: Path, do: Any, row: str) -> str | None:
    try:
        reply = ask(folder, Order(do=do, row=row))
    except OutputError:
        return None
    return reply.message if reply.ok else None


def test_another_users_run_is_not_said_to_be_dead(simulate: Simulate) -> None:
    """The lock is its owner's alone to read: whether the run lives cannot be known, nor be steered."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "out"
        run(job_of(write_rows(Path(made) / "in.jsonl", rows_with_ids(1)), folder, simulate().url))
        for open_to_all in (Path(made), folder, folder / "_batchfox"):
            open_to_all.chmod(0o755)
        lock = folder / "_batchfox" / "lock"
        lock.chmod(0o600 if os.geteuid() == 0 else 0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65_534)
            with pytest.raises(OutputError, match="another user's: only who began it"):
                ask(folder, Order(do="pause"))
        finally:
            os.seteuid(user)
