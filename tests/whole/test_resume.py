"""The same command again: what is known is kept, what runs is picked up, what would mix two meanings is refused."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MODEL,
    Child,
    Remote,
    Simulate,
    Starter,
    by_id,
    eventually,
    job_of,
    log_events,
    put_forward,
    rows_of,
    rows_with_ids,
    write_rows,
)

from batchfox import run, skimming
from batchfox.errors import InputError, JobError
from batchfox.simulator import SimulatorThread
from batchfox.status import look

NO_IDS = {"id": None}


def numbered(number: int) -> list[dict[str, Any]]:
    return [{"prompt": f"p{n}"} for n in range(number)]


def submits(simulator: SimulatorThread) -> int:
    received: int = simulator.book()["totals"]["submits_received"]
    return received


# Without ids.


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda rows: [{"prompt": "new first"}, *rows], "a row before the others"),
        (lambda rows: [*rows[:10], {"prompt": "other"}, *rows[11:]], "one row changed"),
        (lambda rows: rows[:20], "rows missing at the end"),
        (lambda rows: rows[1:] + rows[:1], "another order"),
    ],
)
def test_a_changed_input_without_ids_is_refused_before_anything_is_sent(
    simulate: Simulate, tmp_path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], what: str
) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", numbered(40))
    job = job_of(source, tmp_path / "out", simulator.url, input=NO_IDS)
    run(job)
    before = rows_of(tmp_path / "out")
    write_rows(source, [*change(numbered(40)), *([{"prompt": "appended"}] * 5 if "missing" not in what else [])])
    with pytest.raises(InputError, match="the input changed: rows 0 to"):
        run(job)
    assert submits(simulator) == 40
    assert rows_of(tmp_path / "out") == before
    write_rows(source, numbered(40))
    assert run(job).exit_status == 0


def test_rows_appended_to_an_input_without_ids_are_new_rows(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", numbered(40))
    job = job_of(source, tmp_path / "out", simulator.url, input=NO_IDS)
    run(job)
    write_rows(source, numbered(55))
    summary = run(job)
    assert (summary.exit_status, summary.completed_before, summary.settled) == (0, 40, {"completed": 15})
    assert submits(simulator) == 55
    assert {name: row["prompt"] for name, row in by_id(tmp_path / "out").items()} == {
        str(n): f"p{n}" for n in range(55)
    }


def test_an_input_without_ids_is_compared_only_as_far_as_it_was_read(simulate: Simulate, tmp_path: Path) -> None:
    """With `--limit` the rows beyond were never read, so they may be others the next time."""
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", numbered(40))
    job = job_of(source, tmp_path / "out", simulator.url, input=NO_IDS)
    run(job, limit=10)
    write_rows(source, [*numbered(10), {"prompt": "another"}])
    assert run(job).exit_status == 0
    assert by_id(tmp_path / "out")["10"]["prompt"] == "another"


def test_a_limit_holds_after_an_interruption_too(start: Starter, simulate: Simulate, tmp_path: Path) -> None:
    """Without ids the rows read before are held until their block is compared, and then come all at once."""
    simulator = simulate(latency="constant:600")
    source = write_rows(tmp_path / "in.jsonl", numbered(40))
    command: list[str | Path] = ["run", "--input", source, "--output", tmp_path / "out", "--model", MODEL]
    command += ["--base-url", simulator.url, "--set", "limits.requests_per_minute=60000"]
    child = start(*command, "--set", "limits.in_flight=2")
    eventually(lambda: submits(simulator) == 2 or child.is_over(), "the tasks in flight")
    child.send(signal.SIGTERM)
    assert child.wait() == 143, child.err
    simulator.control(latency="constant:0.02")
    resumed = start(*command, "--limit", "5")
    eventually(lambda: submits(simulator) >= 5 or resumed.is_over(), "three new rows beside the two")
    resumed.send(signal.SIGTERM)
    resumed.wait()
    assert submits(simulator) == 5


# With ids.


def test_with_ids_rows_may_be_added_moved_and_removed(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows = rows_with_ids(30)
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulator.url)
    run(job)
    write_rows(source, [*rows_with_ids(10, first=100), *reversed(rows[5:])])
    summary = run(job)
    assert (summary.exit_status, summary.settled) == (0, {"completed": 10})
    assert submits(simulator) == 40
    assert by_id(tmp_path / "out").keys() == {row["id"] for row in rows} | {f"r{n}" for n in range(100, 110)}


def test_rows_that_moved_are_no_duplicates_and_those_that_failed_are_not_forgotten(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate()
    rows = [row | {"temperature": 9 if number == 1 else 1} for number, row in enumerate(rows_with_ids(4))]
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulator.url)
    assert run(job).exit_status == 3
    for moved in ([{"id": "new", "prompt": "another"}, *rows], rows[::-1], [*rows[2:], *rows[:2], rows[2]]):
        write_rows(source, moved)
        summary = run(job)
        assert summary.exit_status == 3, "one row of the present input is invalid"
        assert "--retry invalid" in (summary.next_step(["batchfox", "run"]) or "")
    assert (summary.completed_before, summary.duplicates) == (4, 1)


@pytest.mark.parametrize("lines", [4, 512])
def test_a_row_put_in_among_rows_that_are_done_makes_no_duplicate(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    """It ends where another row ended before, so a position is not who a row is; neither now nor in later runs."""
    monkeypatch.setattr(skimming, "LINES", lines)
    monkeypatch.setattr(skimming, "PAUSE", lines)
    simulator = simulate()
    old, new = rows_with_ids(140), rows_with_ids(12, first=500)
    source = write_rows(tmp_path / "in.jsonl", old)
    job = job_of(source, tmp_path / "out", simulator.url, output={"rows_per_part": 50})
    assert run(job).duplicates == 0
    inputs = [
        ([*old[:120], new[0], *old[120:]], 0),
        ([*old[:120], *new[:9], *old[120:]], 0),
        ([*old[:120], *new[:9], *old[120:]], 0),
        ([*new[9:], *old[:120], *new[:9], *old[120:]], 0),
        ([*new[9:], *old[:120], *new[:9], *old[120:]], 0),
        ([*new[9:], *old[:120], new[2], *new[:9], old[119], *old[120:], old[3], new[2]], 4),
    ]
    for rows, duplicates in inputs:
        write_rows(source, rows)
        summary = run(job)
        assert (summary.exit_status, summary.duplicates) == (0, duplicates)
    assert submits(simulator) == 152
    assert len(by_id(tmp_path / "out")) == 152


def test_a_row_that_is_sent_and_comes_again_is_a_duplicate_once_it_is_filed_too(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:0.001")
    old, new = rows_with_ids(120), rows_with_ids(3, first=500)
    source = write_rows(tmp_path / "in.jsonl", old)
    job = job_of(source, tmp_path / "out", simulator.url, limits={"in_flight": 1}, output={"rows_per_part": 1})
    run(job)
    write_rows(source, [*old[:110], *new, *new, *old[110:], *new])
    summary = run(job)
    assert (summary.exit_status, summary.settled, summary.duplicates) == (0, {"completed": 3}, 6)


def test_the_column_that_names_rows_may_not_change(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    run(job_of(source, tmp_path / "out", simulator.url))
    for column in (None, "prompt"):
        with pytest.raises(JobError, match="the column that names a row"):
            run(job_of(source, tmp_path / "out", simulator.url, input={"id": column}))
    assert submits(simulator) == 5


# A changed job.


def test_what_gives_rows_their_meaning_may_not_change_while_a_run_is_unfinished(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(balance=0.05)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(20))
    assert run(job_of(source, tmp_path / "out", simulator.url)).exit_status == 4
    sent = submits(simulator)
    for tables, key, was, now in (
        ({"request": {"max_tokens": 7}}, "request.max_tokens", "(not set)", "7"),
        ({"request": {"model": "gpt-5.4"}}, "request.model", f'"{MODEL}"', '"gpt-5.4"'),
        ({"input": {"keep": ["id"]}}, "input.keep", '["*"]', '["id"]'),
    ):
        with pytest.raises(JobError) as caught:
            run(job_of(source, tmp_path / "out", simulator.url, **tables))
        assert f"{key} was {was}, is now {now}" in str(caught.value)
    assert submits(simulator) == sent
    simulator.control(balance=None)
    changed = job_of(
        source,
        tmp_path / "out",
        simulator.url,
        limits={"in_flight": 3, "requests_per_minute": 30_000},
        retry={"attempts": 2, "failed": "never"},
        poll={"first": 0.01},
    )
    assert run(changed).exit_status == 0
    assert len(by_id(tmp_path / "out")) == 20


def test_after_a_finished_run_rows_with_ids_may_be_asked_anew_and_keep_their_answers(
    simulate: Simulate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    run(job_of(source, tmp_path / "out", simulator.url))
    old = by_id(tmp_path / "out")
    write_rows(source, rows_with_ids(8))
    assert "job_changed" not in capfd.readouterr().err
    assert run(job_of(source, tmp_path / "out", simulator.url, request={"max_tokens": 9})).exit_status == 0
    told = capfd.readouterr().err
    assert "key=request.max_tokens" in told
    assert "was='(not set)'" in told
    assert "keep their answers" in told
    found = by_id(tmp_path / "out")
    assert {name: found[name] for name in old} == old
    assert len(found) == 8


def test_after_a_finished_run_without_ids_the_request_may_not_change(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", numbered(5))
    run(job_of(source, tmp_path / "out", simulator.url, input=NO_IDS))
    with pytest.raises(JobError, match=r"request\.max_tokens was"):
        run(job_of(source, tmp_path / "out", simulator.url, input=NO_IDS, request={"max_tokens": 9}))


def test_a_resume_keeps_the_runs_id_and_date_and_a_new_run_has_its_own(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(balance=0.05)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(20))
    job = job_of(source, tmp_path / "out", simulator.url)
    first = run(job)
    simulator.control(balance=None)
    second = run(job)
    assert (first.exit_status, second.exit_status) == (4, 0)
    assert (second.run_id, second.run_date) == (first.run_id, first.run_date)
    assert {row["run_id"] for row in rows_of(tmp_path / "out")} == {first.run_id}
    assert run(job).run_id != first.run_id


# Signals, in processes.


def command_of(tmp_path: Path, url: str, rows: int, *settings: str) -> list[str | Path]:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(rows))
    command: list[str | Path] = ["run", "--input", source, "--output", tmp_path / "out", "--id", "id"]
    command += ["--model", MODEL, "--base-url", url]
    for setting in ("limits.requests_per_minute=60000", *settings):
        command += ["--set", setting]
    return command


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda value: value
)
def test_a_signal_stops_the_run_and_its_tasks_are_picked_up_and_not_paid_again(
    start: Starter, simulate: Simulate, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    simulator = simulate(latency="constant:600")
    command = command_of(tmp_path, simulator.url, 40, "limits.in_flight=25")
    child = start(*command)
    eventually(lambda: submits(simulator) == 25 or child.is_over(), "the tasks in flight")
    child.send(number)
    assert child.wait() == status, child.err
    assert "Traceback" not in child.err
    assert "-m batchfox run --input" in child.out.partition("next: ")[2]
    assert "25 tasks, picked up by the next run" in child.out
    assert submits(simulator) == 25
    simulator.control(latency="constant:0.02")  # of new tasks: the old ones go on
    resumed = start(*command)
    eventually(lambda: simulator.book()["totals"]["polls"] >= 25 or resumed.is_over(), "polls of the old tasks")
    assert submits(simulator) == 25, "the old tasks fill in_flight: nothing may be sent"
    resumed.send(number)
    assert resumed.wait() == status


# The input is read when all tasks that are known from before have ended.
SLOW_FEED = """
import asyncio
from batchfox.feed import Feed
run = Feed.run
async def late(self):
    while self._fleet.lives:
        await asyncio.sleep(0.01)
    await run(self)
Feed.run = late
"""


def test_tasks_that_ended_meanwhile_are_collected_by_the_next_run(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:600")
    command = command_of(tmp_path, simulator.url, 30)
    child = start(*command)
    eventually(lambda: submits(simulator) == 30 or child.is_over(), "the submits")
    child.send(signal.SIGTERM)
    assert child.wait() == 143, child.err
    put_forward(simulator, 600)
    resumed = start(*command, code=SLOW_FEED)
    assert resumed.wait() == 0, resumed.err
    assert submits(simulator) == 30
    found = by_id(tmp_path / "out")
    assert {row["submits"] for row in found.values()} == {1}
    assert len({row["run_id"] for row in found.values()}) == 1
    assert log_events(tmp_path / "out").count("stop_requested") == 1
    last = json.loads((tmp_path / "out" / "_batchfox" / "runs.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert (last["by_status"], last.get("completed_before", 0)) == ({"completed": 30}, 0), "they ended in this run"


# How long a stopped run may wait for the POSTs on the wire: longer than any test.
LONG_STOP = "from batchfox import pool\npool.STOP_S = 3600.0"


def wait_for_the_wire(simulator: SimulatorThread, child: Child, rows: int) -> None:
    eventually(lambda: submits(simulator) == rows or child.is_over(), "POSTs on the wire")
    assert not child.is_over(), child.err


def test_the_first_signal_waits_for_the_posts_on_the_wire_and_records_them(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:600", faults={"slow_answer": 1.0}, slow_s=2.0)
    command = command_of(tmp_path, simulator.url, 20)
    child = start(*command, code=LONG_STOP)
    wait_for_the_wire(simulator, child, 20)
    child.send(signal.SIGTERM)
    assert child.wait() == 143, "it leaves with the last reply, and does not wait as long as it might"
    put_forward(simulator, 600)
    simulator.control(faults={}, latency="constant:0.02")
    assert start(*command).wait() == 0
    assert submits(simulator) == 20
    assert {row["maybe_billed_twice"] for row in by_id(tmp_path / "out").values()} == {False}


def test_the_second_signal_leaves_at_once_and_what_was_on_the_wire_is_in_doubt(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:0.02", faults={"hang": 1.0})
    command = command_of(tmp_path, simulator.url, 20)
    child = start(*command, code=LONG_STOP)
    wait_for_the_wire(simulator, child, 20)
    child.send(signal.SIGINT)
    eventually(lambda: "stop_requested" in log_events(tmp_path / "out"), "the first signal")
    child.send(signal.SIGTERM)
    assert child.wait() == 130, "the POSTs on the wire get their time after the first signal alone"
    simulator.control(faults={})
    assert start(*command).wait() == 0
    assert submits(simulator) == 40
    found = by_id(tmp_path / "out")
    assert {(row["submits"], row["maybe_billed_twice"]) for row in found.values()} == {(2, True)}


def test_what_a_second_signal_leaves_is_told_apart_tasks_and_submits_in_doubt(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:600")
    command = command_of(tmp_path, simulator.url, 20)
    child = start(*command, "--limit", "8")
    eventually(lambda: simulator.book()["totals"]["submits_accepted"] == 8 or child.is_over(), "tasks")
    eventually(lambda: look(tmp_path / "out").figures.get("submits") == 8, "their ids on record")
    child.kill()
    simulator.control(faults={"hang": 1.0})
    child = start(*command)
    eventually(lambda: submits(simulator) == 20 or child.is_over(), "hanging POSTs")
    child.send(signal.SIGTERM)
    eventually(lambda: "stop_requested" in log_events(tmp_path / "out"), "the first signal")
    child.send(signal.SIGTERM)
    assert child.wait() == 143, child.err
    assert "still in flight at the API: 8 tasks" in child.out
    assert "12 submits in doubt: on the wire at the end" in child.out
    status = look(tmp_path / "out")
    assert (status.in_flight, status.in_doubt_now) == (8, 12)
    lines = (tmp_path / "out" / "_batchfox" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ended = json.loads(lines[-1])
    assert (ended["event"], ended["in_flight"], ended["in_doubt"]) == ("run_ended", 8, 12)


def test_a_run_waits_no_longer_than_5_s_for_posts_that_hang(start: Starter, simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(latency="constant:0.02", faults={"hang": 1.0})
    child = start(*command_of(tmp_path, simulator.url, 5))
    wait_for_the_wire(simulator, child, 5)
    began_at = time.monotonic()
    child.send(signal.SIGHUP)
    assert child.wait() == 129, child.err
    assert "5 s for 5 submits on the wire; a second signal leaves at once" in child.err
    assert 4.5 < time.monotonic() - began_at < 60.0, "a POST has 120 s"


def test_two_runs_of_one_output_do_not_meet(start: Starter, remote: Callable[..., Remote], tmp_path: Path) -> None:
    simulator = remote("--latency", "constant:600")
    command = command_of(tmp_path, simulator.url, 5)
    first = start(*command)
    eventually(lambda: simulator.totals()["submits_received"] == 5 or first.is_over(), "the first run's submits")
    second = start(*command)
    assert second.wait() == 5
    assert second.err.count("\n") == 1
    assert f"process {first.pid}" in second.err
    first.kill()
    third = start(*command, "--limit", "1")
    eventually(lambda: simulator.totals()["polls"] >= 5 or third.is_over(), "a run after the dead one")
    assert not third.is_over(), third.err
    assert simulator.totals()["submits_received"] == 5


# Rows that were edited between two runs, with ids.


@pytest.mark.parametrize("outage", ["503", "500"])
def test_a_waiting_row_that_may_no_longer_be_sent_ends_with_the_reason_and_an_edited_one_as_it_is_now(
    simulate: Simulate, tmp_path: Path, outage: str
) -> None:
    """After a 503 nothing was paid for them; after a 500 something may have been."""
    simulator = simulate(outage=outage)
    rows = rows_with_ids(5)
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulator.url, limits={"time": "2s"})
    assert run(job, quiet=True).exit_status == 4
    assert look(tmp_path / "out").waiting == 5
    rows[0]["max_tokens"] = -5
    rows[1]["prompt"] = "another question"
    write_rows(source, rows)
    simulator.control(outage=None)
    again = job_of(source, tmp_path / "out", simulator.url)
    assert run(again, quiet=True).exit_status == 3
    found = by_id(tmp_path / "out")
    fresh = job_of(source, tmp_path / "fresh", simulator.url)
    run(fresh, quiet=True)
    for name, row in by_id(tmp_path / "fresh").items():
        for column in ("prompt", "request_hash", "text", "error_code"):
            if name != "r0" or column != "request_hash":
                assert found[name][column] == row[column], (name, column)
    assert found["r0"]["status"] == ("invalid" if outage == "503" else "in_doubt")
    assert "max_tokens" in found["r0"]["error_message"]


def test_a_row_edited_while_its_task_ran_is_the_edited_one_once_it_is_sent_again(
    simulate: Simulate, start: Starter, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:600", faults={"task_failed": 1.0})
    rows = rows_with_ids(3)
    source = write_rows(tmp_path / "in.jsonl", rows)
    words: list[str | Path] = ["run", "--input", source, "--id", "id", "--output", tmp_path / "out", "--model", MODEL]
    command = [*words, "--base-url", simulator.url, "--set", 'retry.failed="always"']
    child = start(*command)
    eventually(lambda: submits(simulator) == 3 and look(tmp_path / "out").in_flight == 3, "three tasks")
    child.send(signal.SIGTERM)
    assert child.wait() == 143
    rows[0]["prompt"] = "another question"
    rows[1]["max_tokens"] = -5
    write_rows(source, rows)
    put_forward(simulator, 600)
    simulator.control(faults={}, latency="constant:0.02")
    assert start(*command).wait() == 3
    found = by_id(tmp_path / "out")
    assert {name: row["status"] for name, row in found.items()} == {
        "r0": "completed",
        "r1": "failed",
        "r2": "completed",
    }
    assert "max_tokens" in found["r1"]["error_message"]
    fresh = job_of(source, tmp_path / "fresh", simulator.url)
    run(fresh, quiet=True)
    asked = by_id(tmp_path / "fresh")["r0"]
    assert [found["r0"][name] for name in ("prompt", "request_hash", "text")] == [
        asked[name] for name in ("prompt", "request_hash", "text")
    ]
