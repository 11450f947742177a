"""`batchfox schedule`: processes at their times, what is remembered, kills, and one output for one run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import tomli_w
from conftest import (
    Hearer,
    Remote,
    Simulate,
    Starter,
    by_id,
    environment,
    eventually,
    job_of,
    rows_with_ids,
    tables_of,
    write_rows,
)

from batchfox import run
from batchfox.errors import UserError
from batchfox.schedule.memory import Memory

YEARLY = {"cron": "0 0 1 1 *", "timezone": "Europe/Berlin", "catch_up": True}
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def write_job(folder: Path, name: str, url: str, /, rows: int = 20, **tables: Any) -> Path:
    source = write_rows(folder / f"{name}.jsonl", rows_with_ids(rows))
    path = folder / f"{name}.toml"
    tables = tables_of(source, folder / name, url, **({"schedule": YEARLY} | tables))
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    return path


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a child that remembers below the test's folder; so does this process."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return environment(XDG_STATE_HOME=str(tmp_path / "state"))


def miss_a_night(job: Path) -> Memory:
    """As if the last run of this job had been long ago."""
    memory = Memory(job)
    memory.begin(LONG_AGO, 0.0)
    memory.end(LONG_AGO, 1.0, 0)
    return memory


def listed(start: Starter, state: dict[str, str], *jobs: Path) -> list[dict[str, Any]]:
    child = start("schedule", "--list", "--json", *jobs, env=state)
    assert child.wait() == 0, child.err
    return [json.loads(line) for line in child.out.splitlines()]


def has_ended(memory: Memory, status: int) -> bool:
    """Has a run that began in this test ended so?"""
    night = memory.last()
    return night is not None and night.began_at > 1.0 and night.exit_status == status


def test_missed_nights_are_caught_up_and_a_signal_ends_their_runs_too(
    remote: Callable[..., Remote], start: Starter, tmp_path: Path, state: dict[str, str]
) -> None:
    simulator = remote("--latency", "constant:0.05")
    good = write_job(tmp_path, "good", simulator.url, rows=30, limits={"requests_per_minute": 600})
    twin = tmp_path / "twin.toml"  # two jobs with one output never run at once
    twin.write_text(good.read_text())
    bad = write_job(tmp_path, "bad", simulator.url)
    (tmp_path / "bad.jsonl").unlink()
    memories = [miss_a_night(job) for job in (good, twin, bad)]
    fresh = write_job(tmp_path, "fresh", simulator.url)  # never run before: nothing was missed
    daemon = start("schedule", good, bad, twin, fresh, env=state)
    eventually(lambda: has_ended(memories[2], 2) and simulator.totals()["submits_received"] >= 3, "submits")
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 143, daemon.err
    assert any(has_ended(memory, 143) for memory in memories[:2]), daemon.err
    assert len(by_id(tmp_path / "good")) < 30

    daemon = start("schedule", "--in-order", good, bad, twin, fresh, env=state)
    eventually(lambda: all(has_ended(memory, 0) for memory in memories[:2]) or daemon.is_over(), "the runs")
    found = listed(start, state, good, bad, fresh)
    daemon.send(signal.SIGINT)
    assert daemon.wait() == 130, daemon.err
    assert "another run holds" not in daemon.err
    rows = by_id(tmp_path / "good")
    assert simulator.totals()["submits_received"] == len(rows) == 30
    this_year = datetime.now(ZoneInfo("Europe/Berlin")).year
    assert {str(row["run_date"]) for row in rows.values()} == {f"{this_year}-01-01"}
    assert [one["exit_status"] for one in found] == [0, 2, None]
    assert [one["last"] for one in found] == [f"{this_year}-01-01T00:00+01:00"] * 2 + [None]
    assert [one["next"] for one in found] == [f"{this_year + 1}-01-01T00:00+01:00"] * 3
    assert found[2]["outcome"] == "never run"
    assert not (tmp_path / "fresh").exists()


def test_a_scheduler_that_is_killed_finishes_the_night_when_it_is_back(
    remote: Callable[..., Remote], start: Starter, tmp_path: Path, state: dict[str, str]
) -> None:
    simulator = remote("--latency", "constant:0.1")
    job = write_job(tmp_path, "night", simulator.url, rows=60, limits={"requests_per_minute": 600})
    memory = miss_a_night(job)
    daemon = start("schedule", job, env=state)
    eventually(lambda: simulator.totals()["submits_received"] >= 5, "submits")
    daemon.kill()
    # Its child goes on by itself; the next scheduler waits for it, and pays for nothing twice.
    again = start("schedule", job, env=state)
    eventually(
        lambda: (night := memory.last()) is not None and night.exit_status == 0 and night.began_at > 1, "the end"
    )
    again.send(signal.SIGTERM)
    assert again.wait() == 143, again.err
    assert len(by_id(tmp_path / "night")) == simulator.totals()["submits_received"] == 60
    assert "Traceback" not in again.err


@pytest.fixture
def hearer() -> Iterator[Hearer]:
    found = Hearer(200)
    yield found
    found.close()


HASTY = """
import os, sys
from batchfox.schedule import daemon
sys.argv[0] = "__main__.py"  # its children are started as this one
daemon.LOOK_EVERY_S = daemon.KILLED_WAIT_S = 0.05
def is_too_late(planned, scheduled):
    if is_shut := planned.path.endswith("waits.toml") and os.path.exists("shut"):
        os.remove("shut")
    return is_shut
daemon._is_too_late = is_too_late
"""


def test_a_job_waits_for_its_turn_or_the_next_window_and_its_file_may_change(
    remote: Callable[..., Remote], start: Starter, tmp_path: Path, state: dict[str, str], hearer: Hearer
) -> None:
    simulator = remote("--latency", "constant:0.05")
    an_hour_ago = datetime.now(ZoneInfo("Europe/Berlin")) - timedelta(hours=1)
    window = f"{an_hour_ago:%H:%M}-{an_hour_ago + timedelta(hours=12):%H:%M}"
    windowed = YEARLY | {"cron": f"{an_hour_ago:%M %H} 1 1 *", "window": window}
    notify = {"webhook": f"http://{hearer.place}/"}
    long = write_job(tmp_path, "long", simulator.url, rows=20, limits={"requests_per_minute": 600}, notify=notify)
    waits = write_job(tmp_path, "waits", simulator.url, schedule=windowed)
    edited = write_job(tmp_path, "edited", simulator.url, notify=notify)
    memories = [miss_a_night(job) for job in (long, waits)]
    daemon = start("schedule", "--in-order", long, waits, edited, env=state, code=HASTY)

    def is_said(what: str) -> bool:
        assert not daemon.is_over(), daemon.err
        return what in daemon.err

    # A run that was killed is begun again.
    eventually(lambda: simulator.totals()["submits_received"] >= 3, "submits")
    os.kill(int(daemon.err.split("(process ")[1].split(")")[0]), signal.SIGKILL)
    eventually(lambda: is_said("long.toml: killed by SIGKILL; resumable"), "the kill")
    eventually(lambda: is_said("long.toml: begun again in 0.05 s"), "the second start")
    # What waits for its turn while its window ends is no failure, and is taken up when it opens: at once, here.
    (tmp_path / "shut").touch()
    eventually(lambda: is_said(f"waits.toml: its window {window} was over before its turn came"), "the window's end")
    # An edit that cannot be understood changes nothing, and is told once.
    good = edited.read_text()
    edited.write_text(good.replace('"0 0 1 1 *"', '"0 99 1 1 *"'))
    eventually(lambda: len(hearer.heard) == 2, "the warnings")
    edited.write_text(good.replace('"0 0 1 1 *"', '"0 0 2 1 *"'))
    this_year = datetime.now(ZoneInfo("Europe/Berlin")).year
    eventually(lambda: is_said(f"edited.toml: its schedule has changed: next run {this_year + 1}-01-02 00:00"), "")
    eventually(lambda: all(has_ended(memory, 0) for memory in memories), "the runs")
    assert daemon.err.count("cannot be used") == 1
    assert [body["title"] for _, body in hearer.heard] == [
        "batchfox: long: its run was killed by SIGKILL",
        "batchfox: edited: its job file cannot be used",
    ]
    assert "schedule.cron: expected an hour of 0 to 23" in hearer.heard[1][1]["text"]
    assert daemon.err.count("waits.toml: run scheduled for") == 1
    assert simulator.totals()["submits_received"] in (40, 41)  # one may have been on the wire

    memory = Memory(edited)
    memory.pass_over(LONG_AGO, 0.0)
    (found,) = listed(start, state, edited)
    assert found["outcome"] == "its window was over before its turn came: waits for the next run"
    assert memory.had() == LONG_AGO - timedelta(seconds=1)  # a missed night


def test_the_window_ends_the_run_and_the_next_night_goes_on(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(60))
    now = datetime.now(UTC)
    # A window that ends with the minute after next: clocks show whole minutes only, so the run's own is set back.
    end = now.replace(second=0, microsecond=0) + timedelta(minutes=2)
    window = f"00:00-{end:%H:%M}" if end.hour or end.minute else "00:01-00:00"
    job = job_of(
        source,
        tmp_path / "out",
        simulator.url,
        limits={"requests_per_minute": 6_000},
        schedule={"cron": "* * * * *", "timezone": "UTC", "window": window},
    )
    begun = now - timedelta(days=1)  # scheduled yesterday: its window is over
    summary = run(job, scheduled=begun)
    assert summary.exit_status == 4
    assert summary.reason is not None
    assert "the window of the schedule is over" in summary.reason
    assert simulator.book()["totals"]["submits_received"] < 60
    summary = run(job, scheduled=now)
    assert summary.exit_status == 0
    assert summary.run_date == f"{begun:%Y-%m-%d}"  # the run that the window cut off
    assert len(by_id(tmp_path / "out")) == 60
    with pytest.raises(UserError, match="expected a datetime with a time zone"):
        run(job, scheduled=datetime(2026, 1, 1))


def test_a_scheduled_run_whose_window_is_over_says_so(start: Starter, tmp_path: Path, state: dict[str, str]) -> None:
    job = write_job(
        tmp_path, "night", "http://127.0.0.1:9", schedule=YEARLY | {"window": "00:00-05:00", "catch_up": False}
    )
    children = [
        start("run", job, "--scheduled", "last", env=state),
        start("run", job, "--scheduled", "tonight", env=state),
        start("run", "--input", tmp_path / "night.jsonl", "--output", "x", "--scheduled", "last", env=state),
        start("schedule", write_job(tmp_path, "day", "http://127.0.0.1:9", schedule={}), env=state),
    ]
    said = [(child.wait(), child.err) for child in children]
    assert [status for status, _ in said] == [4, 2, 2, 2]
    for (_, err), words in zip(
        said, ["window 00:00-05:00", "2026-01-31T01:30", "needs a job file", "no [schedule] cron"], strict=True
    ):
        assert words in err
        assert err.count("\n") == 1
    assert not (tmp_path / "night").exists()
    assert Memory(job).last() is None


def test_a_run_waits_for_its_jitter_and_a_signal_ends_the_wait(
    start: Starter, tmp_path: Path, state: dict[str, str]
) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=10)
    job = write_job(tmp_path, "night", "http://127.0.0.1:9", schedule=YEARLY | {"jitter": "5m"})
    child = start("run", job, "--scheduled", ahead.isoformat(), env=state)
    eventually(lambda: waits(child.pid), "the wait")
    child.send(signal.SIGTERM)
    assert child.wait() == 143
    assert "before the run began" in child.err


def waits(pid: int) -> bool:
    """Does this process catch SIGHUP by now?"""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = int(next(line for line in lines if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught & 1)


def test_rows_that_failed_are_tried_again_on_so_many_nights(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"task_rejected": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(4))
    schedule = {"cron": "30 1 * * *", "timezone": "UTC", "retry": ["failed"], "retry_nights": 2}
    job = job_of(source, tmp_path / "out", simulator.url, schedule=schedule)
    nights = iter(datetime(2026, 1, day, 1, 30, tzinfo=UTC) for day in range(1, 10))

    def submits_after(*, is_scheduled: bool = True, **options: Any) -> int:
        run(job, scheduled=next(nights) if is_scheduled else None, **options)
        return int(simulator.book()["totals"]["submits_received"])

    assert submits_after() == 4
    assert submits_after(is_scheduled=False) == 4  # a person orders what a person wants
    assert submits_after(limit=1) == 5
    assert submits_after() == 8  # the same night goes on: the row that failed again is not paid for a third time
    assert submits_after() == 12
    assert submits_after() == 12  # two nights each
    assert submits_after(is_scheduled=False, retry="failed") == 16
    simulator.control(faults={})
    write_rows(source, rows_with_ids(5))
    assert submits_after() == 17  # the new row alone
    assert by_id(tmp_path / "out")["r4"]["status"] == "completed"
