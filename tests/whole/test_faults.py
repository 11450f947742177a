"""Runs against an API that misbehaves: every row ends, and what may have been paid twice says so."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, Simulate, by_id, job_of, once, rows_with_ids, write_rows

from batchfox import api, run
from batchfox.core import breaker, timing
from batchfox.simulator import SimulatorThread, answer, digest_of


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of patience become tenths."""
    monkeypatch.setattr(timing, "RETRY_FIRST_S", 0.1)
    monkeypatch.setattr(breaker, "FIRST_PROBE_S", 0.1)
    monkeypatch.setattr(breaker, "LAST_WAIT_S", 0.1)


@pytest.fixture
def short_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an API that leaves calls without an answer: elsewhere a time-out would be this machine's fault."""
    monkeypatch.setattr(api, "SUBMIT_S", 2.0)
    monkeypatch.setattr(api, "POLL_S", 1.0)


def check_against_the_book(folder: Path, simulator: SimulatorThread) -> dict[str, dict[str, Any]]:
    """Each answer is its row's own; each task beyond the first is flagged; no POST is hidden."""
    found = by_id(folder)
    billed = Counter(entry["digest"] for entry in simulator.book()["entries"])
    for row in found.values():
        request = {"model": MODEL, "prompt": row["prompt"]}
        count = billed[digest_of(request)]
        assert count <= row["submits"], row
        if row["status"] == "completed":
            assert row["text"] == answer(request)["choices"][0]["message"]["content"]
        failed = sum(
            entry["fate"] in ("task_failed", "task_rejected", "expired")
            for entry in simulator.book()["entries"]
            if entry["digest"] == digest_of(request)
        )
        assert row["maybe_billed_twice"] or count - failed <= 1, row
        assert row["submits"] > 1 or not row["maybe_billed_twice"], row
    return found


MIX = {
    "reset_before": 0.03,
    "hang_before": 0.01,
    "http_500_before": 0.03,
    "redirect_307": 0.03,
    "refuse_429": 0.02,
    "refuse_503": 0.02,
    "refuse_503_html": 0.02,
    "no_channel": 0.02,
    "lost": 0.03,
    "reset_after": 0.03,
    "hang": 0.01,
    "http_502": 0.03,
    "http_408": 0.03,
    "html_200": 0.02,
    "truncated_200": 0.02,
    "cut_200": 0.02,
    "empty_200": 0.02,
    "not_utf8_200": 0.02,
    "wrong_json_200": 0.02,
    "slow_answer": 0.02,
    "task_failed": 0.05,
    "late": 0.03,
    "unknown_status": 0.1,
    "legacy_results": 0.1,
    "null_results": 0.5,
    "poll_500": 0.05,
    "poll_502_html": 0.05,
    "poll_429": 0.01,
    "poll_hang": 0.01,
    "poll_reset": 0.05,
    "poll_truncated": 0.05,
    "poll_cut": 0.05,
    "poll_404": 0.05,
    "poll_not_utf8": 0.05,
}


@pytest.mark.usefixtures("short_calls")
def test_with_all_faults_at_once_every_row_completes_and_every_double_payment_is_flagged(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults=MIX, slow_s=0.2)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(200))
    job = job_of(
        source, tmp_path / "out", simulator.url, retry={"attempts": 20, "in_doubt_limit": 10_000}, poll={"first": 0.03}
    )
    summary = run(job)
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 200})
    found = check_against_the_book(tmp_path / "out", simulator)
    twice = sum(row["maybe_billed_twice"] for row in found.values())
    assert twice == summary.maybe_billed_twice
    assert twice > 20


IN_DOUBT = {
    "lost": None,
    "reset_before": None,
    "reset_after": None,
    "hang": None,
    "hang_before": None,
    "http_500": 500,
    "http_500_before": 500,
    "http_502": 502,
    "http_504": 504,
    "http_408": 408,
    "http_520": 520,
    "redirect_307": 307,
    "html_200": 200,
    "truncated_200": 200,
    "cut_200": None,
    "empty_200": 200,
    "not_utf8_200": 200,
    "wrong_json_200": 200,
}


@pytest.mark.parametrize(("fault", "http_status"), IN_DOUBT.items())
def test_a_submit_of_unknown_fate_is_held_and_never_posted_twice(
    simulate: Simulate, tmp_path: Path, request: pytest.FixtureRequest, fault: str, http_status: int | None
) -> None:
    if "hang" in fault:
        request.getfixturevalue("short_calls")
    simulator = simulate(faults={fault: 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    job = job_of(source, tmp_path / "out", simulator.url, retry={"in_doubt": "hold"})
    for _ in range(2):
        summary = run(job)
        assert (summary.exit_status, summary.by_status) == (3, {"in_doubt": 3})
    assert simulator.book()["totals"]["submits_received"] == 3
    for row in by_id(tmp_path / "out").values():
        assert (row["http_status"], row["submits"], row["maybe_billed_twice"]) == (http_status, 1, False)
        assert row["error_message"]


def test_a_row_costs_at_most_so_many_submits_as_attempts(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"lost": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(4))
    job = job_of(source, tmp_path / "out", simulator.url, retry={"attempts": 2})
    assert run(job).by_status == {"in_doubt": 4}
    assert Counter(entry["digest"] for entry in simulator.book()["entries"]).most_common(1)[0][1] == 2
    for row in by_id(tmp_path / "out").values():
        assert (row["submits"], row["maybe_billed_twice"]) == (2, True)


def test_past_the_limit_of_resubmits_rows_in_doubt_are_held_and_the_summary_says_so(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults={"lost": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(7))
    job = job_of(
        source, tmp_path / "out", simulator.url, retry={"in_doubt_limit": 3, "attempts": 2}, limits={"in_flight": 1}
    )
    summary = run(job)
    assert (summary.by_status, summary.in_doubt_held) == ({"in_doubt": 7}, 4)
    assert simulator.book()["totals"]["submits_received"] == 10
    assert sorted(row["submits"] for row in by_id(tmp_path / "out").values()) == [1, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("policy", "fault", "submits"),
    [
        ("never", "task_failed", 1),
        ("transient", "task_failed", 3),
        ("transient", "task_rejected", 1),
        ("always", "task_rejected", 3),
    ],
)
def test_a_failed_task_is_paid_for_again_as_the_job_says(
    simulate: Simulate, tmp_path: Path, policy: str, fault: str, submits: int
) -> None:
    simulator = simulate(faults={fault: 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(2))
    job = job_of(source, tmp_path / "out", simulator.url, retry={"failed": policy, "attempts": 3})
    assert run(job).by_status == {"failed": 2}
    assert simulator.book()["totals"]["submits_accepted"] == 2 * submits
    for row in by_id(tmp_path / "out").values():
        assert (row["submits"], row["maybe_billed_twice"]) == (submits, False)
        assert row["error_code"] in ("upstream_error", "content_policy_violation", "invalid_param")


@pytest.mark.parametrize("fault", ["refuse_403_model", "refuse_no_model", "refuse_options"])
def test_a_refusal_fails_its_row_only_and_costs_nothing(simulate: Simulate, tmp_path: Path, fault: str) -> None:
    simulator = simulate(faults={fault: 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(4))
    summary = run(job_of(source, tmp_path / "out", simulator.url))
    assert (summary.exit_status, summary.by_status) == (3, {"failed": 4})
    assert simulator.book()["totals"]["submits_received"] == 4
    for row in by_id(tmp_path / "out").values():
        assert (row["submits"], row["credits"], row["http_status"]) == (0, None, 403 if "403" in fault else 422)
    assert summary.causes[0].rows == 4


def test_an_outage_ends_no_row_and_costs_no_attempt(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(outage="503")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(40))
    job = job_of(source, tmp_path / "out", simulator.url, retry={"patience": "100ms"})

    def are_refused() -> bool:
        return bool(simulator.book()["totals"]["submits_received"] >= 10)

    with once(are_refused, "submits that are refused", lambda: simulator.control(outage=None)):
        summary = run(job)
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 40})
    assert {row["submits"] for row in by_id(tmp_path / "out").values()} == {1}
    assert simulator.book()["totals"]["submits_received"] < 40 + 60, "the breaker holds submits back"


def test_a_row_that_nobody_serves_runs_out_of_patience_while_the_others_get_through(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults={"no_channel": 0.5})
    rows = rows_with_ids(80)
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulator.url, retry={"patience": "1ms"}, limits={"in_flight": 4})
    summary = run(job)
    assert summary.exit_status == 3
    assert summary.by_status.keys() == {"completed", "failed"}
    found = by_id(tmp_path / "out")
    assert len(found) == 80
    for row in found.values():
        if row["status"] == "failed":
            assert (row["error_code"], row["submits"]) == ("no_compatible_channel", 0)


def test_a_stuck_task_holds_nobody_back_and_ends_timed_out(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"stuck": 0.1})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(60))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"in_flight": 10}, poll={"task_timeout": "2s"})
    summary = run(job)
    stuck = sum(entry["fate"] == "stuck" for entry in simulator.book()["entries"])
    assert 0 < stuck < 10
    assert summary.by_status == {"completed": 60 - stuck, "timed_out": stuck}
    check_against_the_book(tmp_path / "out", simulator)
    for row in by_id(tmp_path / "out").values():
        if row["status"] == "timed_out":
            assert row["task_id"]
            assert row["credits"] == 0.01, "a task given up may be charged: its reservation stands"


def test_completed_without_results_is_asked_again_and_never_paid_again(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"null_results_cached": 0.3, "poll_404": 0.3})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(15))
    assert run(job_of(source, tmp_path / "out", simulator.url)).by_status == {"completed": 15}
    assert simulator.book()["totals"]["submits_accepted"] == 15
    check_against_the_book(tmp_path / "out", simulator)


def test_an_api_that_is_not_there_costs_no_submit(simulate: Simulate, tmp_path: Path) -> None:
    """A failure to connect is no doubt: the rows wait, and the time limit ends the run."""
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        other = simulate()
        summary = run(job_of(source, tmp_path / "out", url, limits={"time": "1s"}))
    assert (summary.exit_status, summary.by_status, summary.settled) == (4, {}, {})
    again = run(job_of(source, tmp_path / "other", other.url))
    assert again.exit_status == 0
    assert {row["submits"] for row in by_id(tmp_path / "other").values()} == {1}
