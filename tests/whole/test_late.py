"""Tasks that were given up as timed out: every later run asks about them once, for free, before anything is paid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import Simulate, by_id, job_of, put_forward, rows_with_ids, write_rows

from batchfox import run
from batchfox.core.job import Job
from batchfox.simulator import SimulatorThread

LATENCY_S = 600.0


def given_up(
    simulate: Simulate, tmp_path: Path, has_ids: bool = True, **simulator_options: Any
) -> tuple[SimulatorThread, Job]:
    """Ten rows whose tasks take longer than they are watched."""
    simulator = simulate(latency=f"constant:{LATENCY_S}", **simulator_options)
    rows = [row | {"size": n, "tags": ["a", n], "share": n / 4} for n, row in enumerate(rows_with_ids(10))]
    rows[7]["size"] = "seven"  # does not fit the column, and stands in `input_extra`
    source = write_rows(tmp_path / "in.jsonl", rows)
    ids = {} if has_ids else {"id": None, "keep": ["*"]}
    watch = {"task_timeout": "0.5s", "first": 0.1}
    job = job_of(source, tmp_path / "out", simulator.url, input=ids, poll=watch, rows_per_part=4)
    assert run(job).by_status == {"timed_out": 10}
    return simulator, job


def submits(simulator: SimulatorThread) -> int:
    received: int = simulator.book()["totals"]["submits_received"]
    return received


def carried(folder: Path) -> dict[str, dict[str, Any]]:
    names = ("id", "prompt", "size", "tags", "share", "input_extra")
    return {name: {key: row[key] for key in names} for name, row in by_id(folder).items()}


def test_answers_that_came_too_late_are_collected_and_nothing_is_paid(simulate: Simulate, tmp_path: Path) -> None:
    for has_ids in (True, False):
        folder = tmp_path / str(has_ids)
        folder.mkdir()
        simulator, job = given_up(simulate, folder, has_ids)
        before = carried(folder / "out")
        put_forward(simulator, LATENCY_S)
        summary = run(job)
        assert (summary.exit_status, summary.by_status) == (0, {"completed": 10})
        assert submits(simulator) == 10
        assert carried(folder / "out") == before
        found = by_id(folder / "out").values()
        assert all(row["text"] and row["submits"] == 1 and not row["maybe_billed_twice"] for row in found)
        assert list((folder / "out" / "_batchfox" / "superseded").iterdir()), "the old outcomes are kept"
        assert run(job).settled == {}


def test_a_task_that_is_still_stuck_is_asked_about_once_and_left_as_it_is(simulate: Simulate, tmp_path: Path) -> None:
    simulator, job = given_up(simulate, tmp_path, faults={"stuck": 1.0})
    parts = sorted((tmp_path / "out" / "data").iterdir())
    before = [part.read_bytes() for part in parts]
    polls = simulator.book()["totals"]["polls"]
    summary = run(job)
    assert (summary.exit_status, summary.by_status) == (3, {"timed_out": 10})
    assert simulator.book()["totals"]["polls"] == polls + 10
    assert submits(simulator) == 10
    assert [part.read_bytes() for part in parts] == before


def test_a_retry_of_such_rows_pays_only_where_the_free_look_found_nothing(simulate: Simulate, tmp_path: Path) -> None:
    simulator, job = given_up(simulate, tmp_path, faults={"stuck": 0.4}, seed=3)
    stuck = sum(entry["fate"] == "stuck" for entry in simulator.book()["entries"])
    assert 0 < stuck < 10
    put_forward(simulator, LATENCY_S)
    simulator.control(faults={}, latency="constant:0.05")
    summary = run(job, retry=("timed_out",))
    assert summary.by_status == {"completed": 10}
    assert submits(simulator) == 10 + stuck
    flagged = [row["maybe_billed_twice"] for row in by_id(tmp_path / "out").values()]
    assert sum(flagged) == stuck


def test_a_task_that_failed_meanwhile_ends_its_row_and_is_not_paid_for_again(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator, job = given_up(simulate, tmp_path, faults={"task_failed": 1.0})
    put_forward(simulator, LATENCY_S)
    summary = run(job)
    assert summary.by_status == {"failed": 10}
    assert submits(simulator) == 10


def test_while_nobody_answers_such_rows_hold_nothing_up(simulate: Simulate, tmp_path: Path) -> None:
    simulator, job = given_up(simulate, tmp_path)
    simulator.control(faults={"poll_502_html": 1.0})
    summary = run(job)
    assert summary.by_status == {"timed_out": 10}
