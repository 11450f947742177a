"""An API that is not there: who looks at three in the morning is told what is wrong, and since when."""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KEY,
    MODEL,
    Simulate,
    Starter,
    eventually,
    job_of,
    log_events,
    put_forward,
    rows_with_ids,
    write_rows,
)

from batchfox import assembly, execution, run
from batchfox.core import breaker, timing
from batchfox.errors import ApiGoneError
from batchfox.execution import SystemClock
from batchfox.monitor import View
from batchfox.pool import Limits
from batchfox.status import describe, look


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)
    monkeypatch.setattr(timing, "RETRY_FIRST_S", 0.05)
    monkeypatch.setattr(breaker, "FIRST_PROBE_S", 0.05)
    monkeypatch.setattr(breaker, "LAST_WAIT_S", 0.1)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where every connection is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


class Hours:
    """The machine's clock, which may jump ahead."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.ahead_s = 0.0

    def now(self) -> float:
        return self._clock.now() + self.ahead_s

    def unix(self) -> float:
        return self._clock.unix()


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    """The clock of the run."""
    found = Hours()
    monkeypatch.setattr(execution, "SystemClock", lambda: found)
    return found


class Watcher:
    """A display that remembers what it was shown."""

    def __init__(self) -> None:
        self.figures: list[dict[str, Any]] = []

    def update(self, view: View) -> None:
        self.figures.append(view.figures)

    def close(self) -> None:
        """Nothing."""


def warnings_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "_batchfox" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["level"] == "warning"]


def test_a_refused_connection_is_shown_logged_once_and_named_in_the_reason(
    nobody: str, tmp_path: Path, hours: Hours
) -> None:
    class Patient(Watcher):
        """Sees the outage go on for a while."""

        def update(self, view: View) -> None:
            super().update(view)
            shown = [figures["outage"] for figures in self.figures if figures["outage"]]
            if len(shown) > 1 and shown[-1]["tries"] > shown[0]["tries"]:
                hours.ahead_s = 7_200.0

    watcher = Patient()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    summary = run(job_of(source, tmp_path / "out", nobody, limits={"time": "1h"}), display=watcher, quiet=True)
    assert (summary.exit_status, summary.by_status) == (4, {})
    assert summary.here.submits == summary.whole_run.submits == 0, "no POST has reached anybody"
    for part in (
        "the time limit is reached",
        "takes no submits since",
        "unreached",
        "Cannot connect to host 127.0.0.1",
    ):
        assert part in (summary.reason or ""), summary.reason
    shown = [figures["outage"] for figures in watcher.figures if figures["outage"]]
    shown = shown[: 1 + next(at for at, outage in enumerate(shown) if outage["tries"] > shown[0]["tries"])]
    assert shown[-1]["what"] == "submits"
    assert shown[-1]["kind"] == "unreached"
    assert "Cannot connect" in shown[-1]["message"]
    assert shown[-1]["tries"] > shown[0]["tries"]
    assert shown[-1]["since"] == pytest.approx(shown[0]["since"], abs=1.0)
    assert all(figures["submits"] == 0 for figures in watcher.figures)
    (warning,) = warnings_of(tmp_path / "out")
    assert (warning["event"], warning["what"], warning["error"]) == ("outage_begun", "submits", "unreached")
    assert "Cannot connect" in warning["message"]
    told = describe(look(tmp_path / "out"))
    assert "takes no submits since" in told
    assert "0 submits" in told


@pytest.mark.parametrize("outage", ["503", "500", "close"])
def test_an_outage_that_ends_is_told_twice_and_costs_nothing(simulate: Simulate, tmp_path: Path, outage: str) -> None:
    simulator = simulate(outage=outage)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    job = job_of(source, tmp_path / "out", simulator.url, retry={"attempts": 100, "in_doubt_limit": 1000})

    class Mender(Watcher):
        def update(self, view: View) -> None:
            super().update(view)
            if len(self.figures) > 3 and self.figures[-1]["outage"]:
                simulator.control(outage=None)

    summary = run(job, display=Mender(), quiet=True)
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 30})
    begun, ended = warnings_of(tmp_path / "out")
    assert (begun["event"], ended["event"]) == ("outage_begun", "outage_ended")
    assert begun["error"] == {"503": begun["error"], "500": begun["error"], "close": "lost_reply"}[outage]
    assert outage == "close" or begun["error"].startswith(f"HTTP {outage}")
    assert ended["lasted_s"] > 0
    assert summary.reason is None
    assert look(tmp_path / "out").figures["outage"] is None


def test_polls_that_nobody_answers_are_an_outage_too(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(latency="constant:600")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    seen: list[dict[str, Any]] = []

    class Breaker(Watcher):
        def update(self, view: View) -> None:
            if view.figures["in_flight"] == 30 and view.figures["on_the_wire"] == 0 and not seen:
                simulator.control(outage="503")
            if view.figures["outage"]:
                seen.append(view.figures["outage"])
                simulator.control(outage=None)
                if len(seen) == 1:
                    put_forward(simulator, 600)

    job = job_of(source, tmp_path / "out", simulator.url, poll={"first": 0.8})
    assert run(job, display=Breaker(), quiet=True).exit_status == 0
    assert seen[0]["what"] == "polls"
    assert seen[0]["kind"].startswith("HTTP 503")


def test_a_whole_day_of_nothing_is_not_called_the_time_limit(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "Limits", functools.partial(Limits, idle_s=1.5))
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    summary = run(job_of(source, tmp_path / "out", nobody), quiet=True)
    assert summary.exit_status == 4
    assert "the API took nothing for a whole day" in (summary.reason or "")
    assert "Cannot connect" in (summary.reason or "")
    assert "time limit" not in (summary.reason or "")
    assert '"reason":"the API took nothing' in (tmp_path / "out" / "_batchfox" / "log.jsonl").read_text()


def test_a_credit_limit_without_a_price_list_in_an_outage_can_be_tried_again(
    simulate: Simulate, nobody: str, tmp_path: Path
) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    for url in (nobody, simulate(outage="503").url):
        with pytest.raises(ApiGoneError, match=r"price list.*run the same command again") as caught:
            run(job_of(source, tmp_path / "out", url, limits={"credits": 1}), quiet=True)
        assert caught.value.exit_status == 4
    assert "run_begun" not in log_events(tmp_path / "out")


def test_the_live_display_and_the_plain_one_say_it(
    nobody: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], hours: Hours
) -> None:
    from rich.console import Console

    from batchfox.display import PlainDisplay
    from batchfox.picture import draw

    views: list[View] = []

    class Keeper(Watcher):
        def update(self, view: View) -> None:
            views.append(view)
            if view.figures["outage"]:
                hours.ahead_s = 7_200.0

    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    run(job_of(source, tmp_path / "out", nobody, limits={"time": "1h"}), display=Keeper(), quiet=True)
    away = next(view for view in views if view.figures["outage"])
    plain = PlainDisplay()
    for view in (views[0], away, away):
        plain.update(view)
    first, second = capsys.readouterr().err.splitlines()
    assert "takes no submits" not in first
    assert "the API takes no submits since" in second, "at once, not after the usual pause"
    assert "unreached: Cannot connect" in second
    console = Console(width=200)
    console.print(draw(away.figures, away.shown, width=200))
    drawn = capsys.readouterr().out
    assert "takes no submits since" in drawn
    assert "0 submits" in drawn


@pytest.mark.parametrize("number", [1, 2])
def test_one_or_two_rows_alone_outlast_500s_to_every_submit(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Polls and free questions are answered, submits are not: the attempts that are left are spread over time."""
    monkeypatch.setattr(breaker, "LAST_WAIT_S", 4.0)
    simulator = simulate(faults={"http_500_before": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(number))
    shown: list[str] = []

    class Mender(Watcher):
        def update(self, view: View) -> None:
            super().update(view)
            if outage := view.figures["outage"]:
                shown.append(outage["kind"])
                simulator.control(faults={})

    summary = run(job_of(source, tmp_path / "out", simulator.url), display=Mender(), quiet=True)
    assert summary.by_status == {"completed": number}
    assert summary.here.submits < 4 * number, "attempts were left"
    assert shown[0].startswith("HTTP 500"), "people see why it waits"


def test_a_row_alone_that_is_never_taken_ends_in_doubt_after_its_attempts(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "LAST_WAIT_S", 0.5)
    simulator = simulate(faults={"http_500_before": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(1))
    summary = run(job_of(source, tmp_path / "out", simulator.url), quiet=True)
    assert (summary.exit_status, summary.by_status) == (3, {"in_doubt": 1})
    assert simulator.book()["totals"]["submits_received"] == 4


def test_after_an_outage_rows_leave_though_no_task_ends_and_the_input_is_over(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    """The one submit that shows that the API is back lets the others leave: none waits for a task of ten minutes."""
    simulator = simulate(latency="constant:600", outage="503")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(60))
    command: list[str | Path] = ["run", "--input", source, "--output", tmp_path / "out", "--model", MODEL]
    child = start(*command, "--base-url", simulator.url, "--set", "limits.requests_per_minute=60000")
    eventually(lambda: simulator.book()["totals"]["submits_received"] >= 10 or child.is_over(), "refused submits")
    simulator.control(outage=None)
    eventually(lambda: simulator.book()["totals"]["submits_accepted"] == 60 or child.is_over(), "all tasks")
    assert not child.is_over(), child.err
