"""What stops a run early, and the rates and sums that are never exceeded."""

from __future__ import annotations

import signal
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
    put_forward,
    rows_of,
    rows_with_ids,
    write_rows,
)

from batchfox import api, run
from batchfox.core.bucket import bucket
from batchfox.core.timing import Timing
from batchfox.errors import UserError
from batchfox.monitor import Silence, View
from batchfox.simulator import SimulatorThread

PRICE = 0.01  # credits a call of MODEL


def totals(simulator: SimulatorThread) -> dict[str, Any]:
    found: dict[str, Any] = simulator.book()["totals"]
    return found


# Credits.


def test_the_credit_limit_is_never_exceeded_and_a_resume_goes_on_counting(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(latency="constant:0.1")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(60))

    def job(most: float) -> Any:
        return job_of(source, tmp_path / "out", simulator.url, limits={"credits": most})

    first = run(job(0.255))
    assert (first.exit_status, first.by_status) == (4, {"completed": 25})
    assert totals(simulator)["credits_reserved"] == pytest.approx(25 * PRICE)
    assert first.reason == (
        "the credit limit is reached: the next request may cost 0.01 (estimate), and 0.005 of limits.credits = 0.255 "
        "are left (0.25 spent): raise limits.credits, then run the same command again"
    )
    assert run(job(0.255)).exit_status == 4
    assert totals(simulator)["submits_received"] == 25
    more = run(job(0.405))
    assert (more.exit_status, more.by_status) == (4, {"completed": 40})
    assert totals(simulator)["credits_reserved"] == pytest.approx(40 * PRICE)
    last = run(job(10))
    assert (last.exit_status, last.by_status) == (0, {"completed": 60})
    assert last.whole_run.credits_spent == pytest.approx(60 * PRICE)


def test_rows_in_doubt_stay_reserved_under_the_credit_limit(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"lost": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(20))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"credits": 0.055}, retry={"in_doubt": "hold"})
    summary = run(job)
    assert (summary.exit_status, summary.by_status) == (4, {"in_doubt": 5})
    assert totals(simulator)["credits_reserved"] == pytest.approx(5 * PRICE)
    assert summary.credits_in_doubt == pytest.approx(5 * PRICE)
    assert "0.05 set aside for what is in doubt" in (summary.reason or "")
    assert run(job).exit_status == 4
    assert totals(simulator)["submits_received"] == 5


def test_a_run_that_ended_at_its_limit_goes_on_counting_until_its_input_is_done(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(8))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"credits": 0.055})
    first = run(job, limit=3)
    assert (first.exit_status, first.is_limited, first.by_status) == (0, True, {"completed": 3})
    second = run(job, limit=3)
    assert (second.exit_status, second.by_status) == (4, {"completed": 5}), "3 and 2 of 5.5"
    assert (second.run_id, second.is_resume) == (first.run_id, True)
    assert totals(simulator)["credits_reserved"] == pytest.approx(5 * PRICE)

    raised = job_of(source, tmp_path / "out", simulator.url, limits={"credits": 0.085})
    last = run(raised)
    assert (last.exit_status, last.run_id, last.by_status) == (0, first.run_id, {"completed": 8})
    assert last.whole_run.credits_spent == pytest.approx(8 * PRICE)
    write_rows(source, rows_with_ids(16))
    new = run(raised, limit=8)
    assert (new.exit_status, new.is_limited, new.is_resume) == (0, False, False), "all that is new, from 0"


def test_a_new_run_after_a_finished_one_counts_from_0(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"credits": 0.055})
    assert run(job).exit_status == 0
    write_rows(source, rows_with_ids(10))
    assert run(job).exit_status == 0


def test_a_limit_that_no_estimate_can_serve_is_refused(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(models=("gpt-7",))
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(2))
    limits = {"credits": 100}
    with pytest.raises(UserError, match=r"limits\.credits"):
        run(job_of(source, tmp_path / "out", simulator.url, limits=limits, request={"model": "not-listed"}))
    assert totals(simulator)["submits_received"] == 0


# Time, balance, key.


def test_the_time_limit_stops_submitting_and_finishes_what_is_in_flight(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(latency="constant:600")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(40))
    limits = {"time": "2s", "in_flight": 5}

    class Ender(Silence):
        """The tasks end once the run takes no more rows."""

        is_over = False

        def update(self, view: View) -> None:
            if view.figures["stopped"] == "time" and not self.is_over:
                self.is_over = True
                put_forward(simulator, 600)

    job = job_of(source, tmp_path / "out", simulator.url, limits=limits, poll={"first": 0.2})
    summary = run(job, display=Ender(), quiet=True)
    assert (summary.exit_status, summary.by_status, summary.left_in_flight) == (4, {"completed": 5}, 0)
    assert "time limit" in (summary.reason or "")
    assert totals(simulator)["submits_received"] == 5


def test_a_spent_balance_stops_the_run_and_what_is_in_flight_is_finished(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(balance=10 * PRICE, latency="constant:0.5")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"requests_per_minute": 6_000, "in_flight": 15})
    summary = run(job)
    assert (summary.exit_status, summary.by_status, summary.left_in_flight) == (4, {"completed": 10}, 0)
    assert "balance" in (summary.reason or "")
    assert totals(simulator)["submits_received"] <= 15, "after the first 402 nothing more is sent"
    simulator.control(balance=None)
    again = run(job)
    assert (again.exit_status, again.by_status) == (0, {"completed": 30})
    assert {row["submits"] for row in rows_of(tmp_path / "out")} == {1}


def test_a_refused_key_stops_the_run_and_loses_nothing(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(key_refused=True)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"requests_per_minute": 6_000, "in_flight": 10})
    summary = run(job)
    assert (summary.exit_status, summary.by_status) == (4, {})
    assert "key" in (summary.reason or "")
    assert totals(simulator)["submits_received"] <= 10, "after the first 401 nothing more is sent"
    simulator.control(key_refused=False)
    assert run(job).by_status == {"completed": 30}
    assert {row["submits"] for row in rows_of(tmp_path / "out")} == {1}


def test_a_key_refused_while_tasks_run_leaves_them_for_the_next_run(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    """Some of the POSTs on the wire are still answered after the first refusal: the run ends all the same."""
    simulator = simulate(latency="constant:1", faults={"slow_answer": 1.0}, slow_s=0.5)
    command: list[str | Path] = ["run", "--input", write_rows(tmp_path / "in.jsonl", rows_with_ids(30)), "--id", "id"]
    command += ["--output", tmp_path / "out", "--model", MODEL, "--base-url", simulator.url]
    command += ["--set", "limits.requests_per_minute=1200", "--set", "limits.in_flight=12"]
    child = start(*command)
    eventually(lambda: totals(simulator)["submits_accepted"] >= 5 or child.is_over(), "tasks")
    simulator.control(key_refused=True, faults={})
    assert child.wait() == 4, child.err
    taken = totals(simulator)["submits_accepted"]
    assert taken < 30
    simulator.control(key_refused=False)
    again = start(*command)
    assert again.wait() == 0, again.err
    assert totals(simulator)["submits_accepted"] == 30
    assert {(row["submits"], row["maybe_billed_twice"]) for row in rows_of(tmp_path / "out")} == {(1, False)}


def test_a_gateway_that_refuses_the_client_stops_the_run(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "USER_AGENT", "python-requests/2.32")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    summary = run(job_of(source, tmp_path / "out", simulate().url))
    assert (summary.exit_status, summary.by_status) == (4, {})
    assert "1010" in (summary.reason or "")


# Rates. A window of 60 s holds `rpm`; what a second may hold follows from the bucket: its burst and its drip.


def most_in(per_minute: float, span_s: float) -> int:
    size, per_s = bucket(per_minute)
    return int(size + per_s * span_s) + 1


# When each token was taken, right before its POST: by the system's clock, which all processes share. The API's own book
# tells when it got round to a POST, and after a pause that is many at once.
TAKES_NOTED = """
import time
from batchfox import limiter
take = limiter.Limiter.take
async def noted(self, most=1):
    tokens = await take(self, most)
    with open(PLACE, "a") as file:
        file.write(f"{time.monotonic()}\\n" * tokens)
    return tokens
limiter.Limiter.take = noted
"""


def test_the_rate_holds_in_every_window_and_across_resumes(
    start: Starter, remote: Callable[..., Remote], tmp_path: Path
) -> None:
    rpm = 3_000
    taken = tmp_path / "taken"
    code = TAKES_NOTED.replace("PLACE", repr(str(taken)))
    simulator = remote("--latency", "constant:0.02")
    command: list[str | Path] = ["run", "--input", write_rows(tmp_path / "in.jsonl", rows_with_ids(200)), "--id", "id"]
    command += ["--output", tmp_path / "out", "--model", MODEL, "--base-url", simulator.url]
    command += ["--set", f"limits.requests_per_minute={rpm}", "--set", "retry.in_doubt_limit=1000"]

    def run_until(submits: int) -> Child:
        child = start(*command, code=code)
        eventually(lambda: simulator.totals()["submits_received"] >= submits or child.is_over(), "submits")
        return child

    for submits in (50, 100):
        run_until(submits).kill()
    stopped = run_until(150)
    stopped.send(signal.SIGTERM)
    stopped.wait()
    last = start(*command, code=code)
    assert last.wait() == 0, last.err
    times = [float(line) for line in taken.read_text().splitlines()]
    for span_s in (0.25, 1.0, 2.0):
        most = max(sum(at <= later < at + span_s for later in times) for at in times)
        assert most <= most_in(rpm, span_s) + rpm / 60 * 0.05, f"{most} submits in {span_s} s"
    assert len(times) >= simulator.totals()["submits_received"] >= 200, "no POST without a token"


def test_a_run_is_as_fast_as_its_rate_allows(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(50))
    run(job_of(source, tmp_path / "out", simulator.url, limits={"requests_per_minute": 1_500}))
    assert totals(simulator)["max_submits_in_1_s"] >= 20, "the best second of two shows the rate, whatever came between"


def test_without_a_rate_the_run_finds_what_the_api_allows(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(rpm=3_000, rate_limit="bucket", burst=5)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(150))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"requests_per_minute": None, "in_flight": 30})
    summary = run(job)
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 150})
    assert summary.here.throttles > 0
    refused = totals(simulator)["submits_refused"]["429"]
    assert refused < 60, "everybody waits after a 429"
    assert {row["submits"] for row in by_id(tmp_path / "out").values()} == {1}, "a 429 costs no attempt"


def test_polls_have_a_limit_of_their_own(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(latency="constant:0.3")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(8))
    limits = {"polls_per_minute": 240}
    assert run(job_of(source, tmp_path / "out", simulator.url, limits=limits, poll={"first": 0.01})).exit_status == 0
    entries = simulator.book()["entries"]
    spread_s = max(entry["created"] for entry in entries) - min(entry["created"] for entry in entries)
    assert spread_s < 1.5, "eight polls take two seconds: submits do not wait for them"


def test_a_router_whose_cache_is_behind_is_asked_to_refresh(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(latency="constant:0.2", cache_lag_s=3.0)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(600))
    summary = run(
        job_of(source, tmp_path / "out", simulator.url, limits={"in_flight": 60, "requests_per_minute": None})
    )
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 600})
    took_s = [row["latency_s"] for row in by_id(tmp_path / "out").values()]
    assert sum(seconds < 3.2 for seconds in took_s) > 300, "plain polls would show nothing for 3.2 s"


def test_what_was_learned_of_latencies_is_there_for_the_next_run(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate(latency="constant:0.4")
    first_poll_s, waits_s = Timing.first_poll_s, list[float]()

    def noted(self: Timing, group: str) -> float:
        waits_s.append(first_poll_s(self, group))
        return waits_s[-1]

    monkeypatch.setattr(Timing, "first_poll_s", noted)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(60))
    assert run(job_of(source, tmp_path / "out", simulator.url)).exit_status == 0
    assert max(waits_s[:5]) < 0.2, "guesses"
    waits_s.clear()
    write_rows(source, rows_with_ids(120))
    assert run(job_of(source, tmp_path / "out", simulator.url)).exit_status == 0
    assert max(waits_s[:5]) > 0.2, "the second run does not begin by guessing"
