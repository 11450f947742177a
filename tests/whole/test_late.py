"""Tasks that were given up as timed out: every later run asks about them once, for free, before anything is paid."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, Simulate, by_id, job_of, log_events, put_forward, rows_with_ids, write_rows

from batchfox import late, looking, run
from batchfox.core import timing
from batchfox.core.job import Job
from batchfox.core.late import LOOKS, LOOKS_AT_STAKE
from batchfox.core.vitals import Shown, Vitals
from batchfox.show import ASKS_OR_PAYS, describe
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


def shown_at_the_end(folder: Path) -> Vitals:
    """What a display makes of the last figures on record."""
    with contextlib.closing(sqlite3.connect(folder / "_batchfox" / "checkpoint.db")) as db:
        (figures,) = db.execute("SELECT progress FROM run ORDER BY rowid DESC LIMIT 1").fetchone()
    return Vitals(json.loads(figures), Shown(title="job", input_share=1.0))


def test_answers_that_came_too_late_are_collected_and_nothing_is_paid(simulate: Simulate, tmp_path: Path) -> None:
    for has_ids in (True, False):
        folder = tmp_path / str(has_ids)
        folder.mkdir()
        simulator, job = given_up(simulate, folder, has_ids)
        before = carried(folder / "out")
        put_forward(simulator, LATENCY_S)
        summary = run(job)
        assert (summary.exit_status, summary.by_status) == (0, {"completed": 10})
        shown = shown_at_the_end(folder / "out")
        assert (shown.ended, shown.total) == (10, 10), "each row counts once, though it had ended before"
        paid = sum(row["credits"] for row in by_id(folder / "out").values())
        assert summary.late_collected == 10
        assert summary.late_credits == pytest.approx(paid)
        assert paid > 0
        assert "collected: 10 late tasks; " in describe(summary, ["batchfox", "run", "job.toml"])
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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that said nothing is asked again at once."""
    monkeypatch.setattr(timing, "RETRY_FIRST_S", 0.001)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["poll_500", "poll_502_html", "poll_truncated", "poll_reset", "poll_404"])
def test_a_poll_that_says_nothing_is_asked_again_before_a_row_is_paid_for_anew(
    simulate: Simulate, tmp_path: Path, fault: str
) -> None:
    simulator, job = given_up(simulate, tmp_path)
    put_forward(simulator, LATENCY_S)
    simulator.control(faults={fault: 0.3}, latency="constant:0.05")
    summary = run(job, retry=("timed_out",))
    assert summary.settled.get("completed", 0) > 5, "most had an answer within their looks"
    assert submits(simulator) == 10, "every task had ended: nothing was to be paid"
    assert summary.by_status.get("timed_out", 0) == summary.late_unheard == summary.retry_unpaid
    simulator.control(faults={})
    assert run(job).by_status == {"completed": 10}
    assert submits(simulator) == 10


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("retry", [(), ("timed_out",)])
def test_a_task_that_is_done_without_results_is_asked_about_once_more_without_a_refresh(
    simulate: Simulate, tmp_path: Path, retry: tuple[str, ...]
) -> None:
    simulator, job = given_up(simulate, tmp_path)
    put_forward(simulator, LATENCY_S)
    simulator.control(faults={"null_results": 1.0}, latency="constant:0.05")
    assert run(job, retry=retry).by_status == {"completed": 10}
    assert submits(simulator) == 10


@pytest.mark.usefixtures("impatient")
def test_while_nothing_can_be_learned_no_row_is_paid_for_anew_and_the_summary_says_so(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator, job = given_up(simulate, tmp_path)
    put_forward(simulator, LATENCY_S)
    simulator.control(faults={"poll_500": 1.0})
    summary = run(job, retry=("timed_out",))
    assert (summary.exit_status, summary.by_status) == (3, {"timed_out": 10})
    assert submits(simulator) == 10
    assert (summary.late_unheard, summary.retry_unpaid, summary.retry_left) == (10, 10, 0)
    told = describe(summary, ["batchfox", "run", "job.toml", "--retry", "timed_out"])
    assert "not paid for anew: 10 timed_out rows" in told
    assert "(last: " in told
    assert "late_tasks_unheard" in log_events(tmp_path / "out")
    simulator.control(faults={"stuck": 1.0})
    again = run(job)
    assert (again.by_status, again.late_unheard, submits(simulator)) == ({"completed": 10}, 0, 10)


@pytest.mark.usefixtures("impatient")
def test_rows_that_were_not_asked_about_are_not_paid_for_anew_either(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 20 tasks in a row without a word the others are left alone; rows of other statuses are retried all the
    same."""
    monkeypatch.setattr(looking, "MOST_AT_ONCE", late.BATCH)
    monkeypatch.setattr(late, "BATCH", 20)
    simulator = simulate(faults={"stuck": 1.0})
    rows = [row | {"model": "gone" if n >= 50 else MODEL} for n, row in enumerate(rows_with_ids(55))]
    source = write_rows(tmp_path / "in.jsonl", rows)
    watch = {"task_timeout": "0.3s", "first": 0.1}
    job = job_of(source, tmp_path / "out", simulator.url, poll=watch, request={"model": None}, rows_per_part=10)
    assert run(job).by_status == {"failed": 5, "timed_out": 50}
    polls = simulator.book()["totals"]["polls"]
    simulator.control(faults={"poll_500": 1.0}, models=("gone",))
    summary = run(job, retry=("timed_out", "failed"))
    assert (summary.late_unheard, summary.retry_unpaid) == (50, 50)
    asked = simulator.book()["totals"]["polls"] - polls
    assert asked < 35 * LOOKS_AT_STAKE, "not all 50 were asked about"
    assert simulator.book()["totals"]["submits_accepted"] == 55, "the five that had failed, and no other"
    assert summary.by_status["timed_out"] >= 50


@pytest.mark.usefixtures("impatient")
def test_a_plain_run_does_not_wait_long_for_tasks_that_nobody_tells_of(simulate: Simulate, tmp_path: Path) -> None:
    simulator, job = given_up(simulate, tmp_path)
    polls = simulator.book()["totals"]["polls"]
    simulator.control(faults={"poll_500": 1.0})
    summary = run(job)
    assert (summary.late_unheard, summary.retry_unpaid) == (10, 0)
    assert simulator.book()["totals"]["polls"] - polls == 10 * LOOKS
    assert "no news of 10 timed_out tasks" in describe(summary, ["batchfox", "run", "job.toml"])


def test_a_key_that_is_refused_ends_the_look_and_the_order_to_pay_anew_stands(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator, job = given_up(simulate, tmp_path, faults={"stuck": 1.0})
    simulator.control(faults={}, key_refused=True)
    summary = run(job, retry=("timed_out",))
    assert (summary.exit_status, summary.retry_left, summary.late_unheard) == (4, 10, 0)
    assert submits(simulator) == 10
    simulator.control(key_refused=False, latency="constant:0.05")
    assert run(job).by_status == {"completed": 10}
    assert submits(simulator) == 20


@pytest.mark.usefixtures("impatient")
def test_tasks_that_are_gone_for_good_are_paid_for_anew_only_by_order(simulate: Simulate, tmp_path: Path) -> None:
    simulator, job = given_up(simulate, tmp_path, faults={"expired": 1.0})
    put_forward(simulator, LATENCY_S)
    simulator.control(faults={}, latency="constant:0.05")
    assert run(job).by_status == {"timed_out": 10}
    assert submits(simulator) == 10
    assert run(job, retry=("timed_out",)).by_status == {"completed": 10}
    assert submits(simulator) == 20
    assert all(row["maybe_billed_twice"] for row in by_id(tmp_path / "out").values())


def test_the_closing_line_says_what_is_free_and_what_pays_anew(simulate: Simulate, tmp_path: Path) -> None:
    _, job = given_up(simulate, tmp_path, faults={"stuck": 1.0})
    told = describe(run(job), ["batchfox", "run", "job.toml"]).splitlines()
    assert told[-1] == "next: batchfox run job.toml --retry timed_out"
    assert told[-2] == ASKS_OR_PAYS
