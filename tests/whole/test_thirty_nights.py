"""Thirty nights on a fake calendar: an input that grows, an outage, no balance, a kill, clocks set forward, an edited
prompt. Every row once, money as by the simulator's book, and told of what went wrong, and of nothing else."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import tomli_w
from conftest import (
    Simulate,
    Starter,
    by_id,
    environment,
    eventually,
    put_forward,
    superseded_rows,
    tables_of,
    write_rows,
)

from batchfox import Options, load_job, run
from batchfox.execution import SystemClock
from batchfox.schedule.memory import Memory
from batchfox.schedule.planned import Planned, plan
from batchfox.schedule.scheduled import run_scheduled

BERLIN = ZoneInfo("Europe/Berlin")
FIRST = datetime(2026, 3, 10, 12, tzinfo=BERLIN)
OUTAGE, NO_BALANCE, KILL, CLOCKS, EDIT, SHRINK = 4, 8, 13, 18, 23, 27


@pytest.fixture
def told() -> Iterator[list[dict[str, Any]]]:
    """What a webhook got; its address is `told_url` of the first entry."""
    heard: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    heard.append({"url": f"http://127.0.0.1:{server.server_port}/"})
    yield heard
    server.shutdown()
    thread.join()
    server.server_close()


class Calendar:
    """The days go by here; the seconds of a run are real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = FIRST.astimezone(UTC)
        monkeypatch.setattr(SystemClock, "unix", lambda _: self.now.timestamp())

    def sleep_until_night(self, planned: Planned) -> datetime:
        """What the scheduler would do next; the scheduled time of it."""
        self.now = planned.nights.next_start(self.now, Memory(planned.place).had())
        return planned.nights.due(self.now)


def test_thirty_nights(
    simulate: Simulate,
    start: Starter,
    tmp_path: Path,
    told: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    simulator, calendar, draws = simulate(), Calendar(monkeypatch), random.Random(1)
    source, path = tmp_path / "in.jsonl", tmp_path / "night.toml"
    rows: list[dict[str, Any]] = []
    job = tables_of(
        source,
        tmp_path / "out",
        simulator.url,
        request={"prompt": "Say {{ q }}"},
        schedule={"cron": "30 2 * * *", "timezone": "Europe/Berlin", "catch_up": True},
        notify={"webhook": told.pop()["url"]},
    )
    ended: list[tuple[int, int]] = []
    scheduled: list[datetime] = []

    def night(number: int, *, retry: str = "") -> None:
        path.write_text(tomli_w.dumps(job))
        planned = plan(str(path), load_job(path))
        at = calendar.sleep_until_night(planned)
        scheduled.append(at)
        options = Options(retry=retry, quiet=True)

        def execute(time: datetime) -> int:
            return run(planned.job, options, scheduled=time).exit_status

        if number == KILL:
            simulator.control(latency="constant:30")
            before = simulator.book()["totals"]["submits_received"]
            child = start("run", path, "--scheduled", at.isoformat(), env=environment())
            eventually(lambda: simulator.book()["totals"]["submits_received"] >= before + 5, "submits")
            child.kill()
            simulator.control(latency="constant:0.02")
            put_forward(simulator, 60.0)
            calendar.now += timedelta(hours=1)
            again = calendar.sleep_until_night(planned)
            assert (again, calendar.now.astimezone(BERLIN).hour) == (at, 3)  # at once
        ended.append((number, run_scheduled(planned, at.isoformat(), execute)))

    for number in range(30):
        rows += [{"id": f"n{number}-{n}", "q": f"{number} {n}"} for n in range(6)]
        if number == SHRINK:
            del rows[:20]
        draws.shuffle(rows)
        write_rows(source, rows)
        simulator.control(faults={"refuse_503": 1.0} if number == OUTAGE else {})
        job["limits"]["time"] = "1s" if number == OUTAGE else "10m"
        spent = simulator.book()["totals"]["credits_charged"]
        simulator.control(balance=spent if number == NO_BALANCE else None)
        if number == EDIT:
            job["request"]["prompt"] = "Tell {{ q }}"
        night(number, retry="stale" if number == EDIT else "")

    # Each night once, at half past two, but for the one on which there was none.
    local = [at.astimezone(BERLIN) for at in scheduled]
    assert [at.date() for at in local] == [(FIRST + timedelta(days=day + 1)).date() for day in range(30)]
    odd = {number for number, at in enumerate(local) if (at.hour, at.minute) != (2, 30)}
    assert odd == {CLOCKS}
    assert (local[CLOCKS].hour, local[CLOCKS].minute) == (3, 0)
    assert [(number, status) for number, status in ended if status] == [(OUTAGE, 4), (NO_BALANCE, 4)]
    assert [(one["event"], one["exit_status"], one["run_date"]) for one in told] == [
        ("failure", 4, str(local[number].date())) for number in (OUTAGE, NO_BALANCE)
    ]
    assert "balance is spent" in told[1]["text"]
    # Every row that ever was, once.
    found = by_id(tmp_path / "out")
    assert len(found) == 30 * 6
    assert {row["status"] for row in found.values()} == {"completed"}
    assert len({json.loads(row["completion"])["id"] for row in found.values()}) == len(found)
    # Asked anew on one night: all that had been answered, and nothing else was ever paid for twice.
    old = superseded_rows(tmp_path / "out")
    assert {row["row_id"] for row in old} == {f"n{number}-{n}" for number in range(EDIT) for n in range(6)}
    paid = [*old, *found.values()]
    assert len(paid) == 30 * 6 + EDIT * 6
    tasks = {entry["task_id"]: entry["credits"] for entry in simulator.book()["entries"]}
    assert {row["task_id"]: row["credits"] for row in paid}.items() <= tasks.items()
    # What the kill left in doubt was sent again, and says so.
    doubted = {row["row_id"] for row in paid if row["maybe_billed_twice"]}
    assert doubted <= {f"n{KILL}-{n}" for n in range(6)}
    assert len(paid) <= len(tasks) <= len(paid) + len(doubted)
    # Each night's rows in parts of their own, under its date; a night that was cut off goes on with its own.
    goes_on = {OUTAGE + 1: OUTAGE, NO_BALANCE + 1: NO_BALANCE}
    for row in [*found.values(), *old]:
        number = int(row["row_id"][1:].split("-")[0])
        is_anew = number < EDIT and row["row_id"] in found and row is found[row["row_id"]]
        assert row["run_date"] == local[EDIT if is_anew else goes_on.get(number, number)].date(), row["row_id"]
