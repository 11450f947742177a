"""Submits of unknown fate, through whole runs: counted, bounded, flagged, held; and what is none of them.

That `hold` never POSTs such a row twice, kind by kind, is `test_faults.py`'s, and what `--retry in_doubt` then does
`test_retry.py`'s. Here the rows are sent again, and the account is compared with the API's own.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KEY,
    MODEL,
    QUICK,
    Simulate,
    Starter,
    by_id,
    eventually,
    http_reply,
    job_of,
    log_events,
    once,
    raw_server,
    rows_with_ids,
    write_rows,
)

from batchfox import arun, run
from batchfox.core import breaker, timing
from batchfox.show import describe
from batchfox.simulator import FAULTS, Settings, SimulatorThread, answer, digest_of
from batchfox.summary import Summary

SYNC = {"sync": True}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of patience become tenths."""
    monkeypatch.setattr(timing, "RETRY_FIRST_S", 0.02)
    monkeypatch.setattr(breaker, "FIRST_PROBE_S", 0.01)
    monkeypatch.setattr(breaker, "LAST_WAIT_S", 0.1)


def request_of(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": row["prompt"], **more}


def check_account(folder: Path, simulator: SimulatorThread, summary: Summary, **more: Any) -> dict[str, dict[str, Any]]:
    """Each row's submits, its flag and its answer against the API's book, and the summary against the rows."""
    found, book = by_id(folder), simulator.book()
    billed = Counter(entry["digest"] for entry in book["entries"])
    refused = sum(book["totals"]["submits_refused"].get(status, 0) for status in ("403", "422", "429", "503"))
    for row in found.values():
        digest = digest_of(request_of(row, **more))
        assert billed[digest] <= row["submits"], f"a POST is hidden: {row}"
        assert row["maybe_billed_twice"] == (row["submits"] > 1), row
        if row["status"] == "completed":
            assert billed[digest] >= 1
            assert row["text"] == answer(request_of(row, **more))["choices"][0]["message"]["content"]
            assert row["error_code"] is None
    submits = sum(row["submits"] for row in found.values())
    assert summary.here.submits == submits
    assert book["totals"]["submits_received"] - refused == submits
    assert summary.maybe_billed_twice == sum(row["maybe_billed_twice"] for row in found.values())
    assert billed.total() == sum(billed[digest_of(request_of(row, **more))] for row in found.values())
    return found


# Every kind, sent again.


DOUBTFUL = [fault.name for fault in FAULTS if fault.where == "submit" and fault.is_task_made]
DOUBTFUL = [name for name in DOUBTFUL if name not in ("slow_answer", "hang")]
DOUBTFUL += ["reset_before", "http_500_before", "redirect_307"]


@pytest.mark.parametrize("fault", DOUBTFUL)
def test_a_submit_in_doubt_is_sent_again_and_flagged_and_no_other(
    simulate: Simulate, tmp_path: Path, fault: str
) -> None:
    simulator = simulate(faults={fault: 0.35})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(24))
    job = job_of(source, tmp_path / "out", simulator.url, retry={"attempts": 30, "in_doubt_limit": 1000})
    summary = run(job)
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 24})
    found = check_account(tmp_path / "out", simulator, summary)
    assert 2 <= summary.maybe_billed_twice <= 22
    assert f"maybe billed twice: {summary.maybe_billed_twice} rows" in describe(summary, ["batchfox", "run"])
    extra = sum(row["submits"] - 1 for row in found.values())
    made = simulator.book()["totals"]["submits_accepted"]
    is_made = next(one.is_task_made for one in FAULTS if one.name == fault)
    assert made == 24 + (extra if is_made else 0), "each task that was made for nothing is one submit more"


@pytest.mark.parametrize("fault", ["lost", "reset_after", "truncated_200", "html_200", "http_504"])
def test_a_synchronous_submit_may_be_in_doubt_too(simulate: Simulate, tmp_path: Path, fault: str) -> None:
    simulator = simulate(faults={fault: 0.3})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(15))
    job = job_of(
        source,
        tmp_path / "out",
        simulator.url,
        request=SYNC,
        retry={"attempts": 30, "in_doubt_limit": 1000},
    )
    summary = run(job)
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 15})
    check_account(tmp_path / "out", simulator, summary, **SYNC)
    assert summary.maybe_billed_twice > 0


# What is none.


@pytest.mark.parametrize("fault", ["refuse_429", "refuse_503", "refuse_503_html", "no_channel", "slow_answer"])
def test_what_was_put_off_is_not_in_doubt_and_goes_on_even_where_doubt_is_held(
    simulate: Simulate, tmp_path: Path, fault: str
) -> None:
    simulator = simulate(faults={fault: 0.3}, slow_s=0.1)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(8))
    job = job_of(source, tmp_path / "out", simulator.url, retry={"in_doubt": "hold"}, limits={"in_flight": 2})
    summary = run(job)
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 8})
    found = check_account(tmp_path / "out", simulator, summary)
    assert {row["submits"] for row in found.values()} == {1}
    totals = simulator.book()["totals"]
    assert totals["submits_accepted"] == 8
    assert (totals["submits_received"] > 8) == (fault != "slow_answer")


def test_a_connection_that_does_not_come_about_is_no_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at first; who then comes gets each row once, though doubt is held."""
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)
    source, log = write_rows(tmp_path / "in.jsonl", rows_with_ids(12)), tmp_path / "out" / "_batchfox" / "log.jsonl"

    def has_found_nobody() -> bool:
        return log.exists() and "outage_begun" in log_events(tmp_path / "out")

    with socket.socket() as taken:
        # Bound for as long as the test lasts, so that nobody else comes to listen there.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        late = SimulatorThread(Settings(latency=QUICK), port=port)
        job = job_of(source, tmp_path / "out", f"http://127.0.0.1:{port}", retry={"in_doubt": "hold"})
        try:
            with once(has_found_nobody, "connections that are refused", late.start):
                summary = run(job, quiet=True)
            assert (summary.exit_status, summary.by_status) == (0, {"completed": 12})
            assert {row["submits"] for row in check_account(tmp_path / "out", late, summary).values()} == {1}
        finally:
            late.stop()


REFUSED = {400, 403, 404, 413, 422}
PUT_OFF = {429, 503}
STOPPING = {401, 402}


@pytest.mark.parametrize("body", [b"", b'{"error": {"message": "no", "type": "t", "code": "c"}}', b"<html>no</html>"])
async def test_every_status_there_is_is_in_doubt_but_for_those_that_the_api_calls_refusals(
    tmp_path: Path, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)
    statuses = [status for status in (*range(300, 309), *range(400, 600)) if status not in STOPPING]
    statuses = [status for status in statuses if status < 420 or status % 10 in (0, 2, 3, 4, 9) or status > 590]
    posts: Counter[str] = Counter()

    async def talk(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.startswith(b"GET"):
            said = {"choices": [{"message": {"role": "assistant", "content": "yes"}}]}
            writer.write(http_reply(json.dumps({"status": "completed", "results": [said]}).encode()))
        else:
            name = json.loads(request.partition(b"\r\n\r\n")[2])["prompt"]
            posts[name] += 1
            if name == "fine" or posts[name] > 1:
                writer.write(http_reply(b'{"id": "task-1"}'))
            else:
                writer.write(http_reply(b"" if name == "304" else body, f"{name} X", "Location: /v1/x"))
        await writer.drain()

    rows: list[dict[str, Any]] = []
    for status in statuses:  # between two of those one that is taken: the breaker stays out of it
        rows += [{"id": f"s{status}", "prompt": str(status)}, {"id": f"after {status}", "prompt": "fine"}]
    async with raw_server(talk) as server:
        job = job_of(
            write_rows(tmp_path / "in.jsonl", rows),
            tmp_path / "out",
            server.url,
            retry={"in_doubt": "hold"},
            limits={"in_flight": 1},
            poll={"first": 0},
        )
        summary = await arun(job, quiet=True)
    found = by_id(tmp_path / "out")
    for status in statuses:
        row = found[f"s{status}"]
        expected = "failed" if status in REFUSED else "completed" if status in PUT_OFF else "in_doubt"
        assert (row["status"], row["maybe_billed_twice"]) == (expected, False), status
        assert row["submits"] == (0 if status in REFUSED else 1), status
        assert posts[str(status)] == (2 if status in PUT_OFF else 1), status
        assert row["http_status"] == (200 if status in PUT_OFF else status)
    assert summary.exit_status == 3


# Held.


def test_a_row_held_in_doubt_by_a_kill_is_posted_again_by_a_persons_order_alone(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults={"hang": 1.0})
    source, out = write_rows(tmp_path / "in.jsonl", rows_with_ids(6)), tmp_path / "out"
    command: list[str | Path] = ["run", "--input", source, "--id", "id", "--output", out, "--model", MODEL]
    command += ["--base-url", simulator.url, "--set", 'retry.in_doubt="hold"']
    child = start(*command)
    eventually(lambda: simulator.book()["totals"]["submits_received"] == 6 or child.is_over(), "POSTs")
    child.kill()
    simulator.control(faults={})
    child = start(*command)
    assert child.wait() == 3, child.err
    assert simulator.book()["totals"]["submits_received"] == 6
    held = by_id(out).values()
    assert {(row["status"], row["submits"], row["maybe_billed_twice"]) for row in held} == {("in_doubt", 1, False)}
    assert {row["error_code"] for row in held} == {"interrupted"}
    assert child.out.rstrip().endswith("--retry in_doubt")
    ordered = start(*command, "--retry", "in_doubt")
    assert ordered.wait() == 0, ordered.err
    assert {(row["submits"], row["maybe_billed_twice"]) for row in by_id(out).values()} == {(2, True)}
    assert simulator.book()["totals"]["submits_received"] == 12


# Bounded.


def test_past_the_limit_rows_are_held_and_the_summary_says_why(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"lost": 0.4})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(60))
    job = job_of(source, tmp_path / "out", simulator.url, retry={"in_doubt_limit": 5, "attempts": 10})
    summary = run(job)
    found = check_account(tmp_path / "out", simulator, summary)
    held = [row for row in found.values() if row["status"] == "in_doubt"]
    assert summary.exit_status == 3
    assert summary.by_status == {"completed": 60 - len(held), "in_doubt": len(held)}
    assert len(held) > 10
    assert sum(row["submits"] - 1 for row in found.values()) == 5, "no more than the limit, and no less"
    assert (summary.in_doubt_held, simulator.book()["totals"]["submits_received"]) == (len(held), 65)
    said = describe(summary, ["batchfox", "run", "job.toml"])
    assert f"held in doubt: {len(held)} rows, past [retry] in_doubt_limit" in said
    assert f"{len(held)}  in_doubt lost_reply" in said
    assert said.endswith("next: batchfox run job.toml --retry in_doubt")
    again = run(job)
    assert (again.exit_status, simulator.book()["totals"]["submits_received"]) == (3, 65)


def test_the_automatic_limit_lets_a_hundred_through(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"lost": 0.4}, latency="constant:0")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(500))
    summary = run(job_of(source, tmp_path / "out", simulator.url, retry={"attempts": 10}))
    found = check_account(tmp_path / "out", simulator, summary)
    assert sum(row["submits"] - 1 for row in found.values()) == 100
    assert simulator.book()["totals"]["submits_received"] == 600
    assert summary.in_doubt_held == summary.by_status["in_doubt"] > 50


def test_the_limit_counts_over_the_resumes_of_one_run_and_begins_anew_with_the_next(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults={"lost": 0.5})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(60))

    def job(most: float) -> Any:
        retry = {"in_doubt_limit": 6, "attempts": 10}
        return job_of(source, tmp_path / "out", simulator.url, retry=retry, limits={"credits": most})

    def resubmits() -> int:
        return sum(row["submits"] - 1 for row in by_id(tmp_path / "out").values())

    for most in (0.1, 0.2, 0.3):
        assert run(job(most)).exit_status == 4
    last = run(job(100))
    assert last.exit_status == 3
    assert resubmits() == 6
    assert last.whole_run.submits == 66
    write_rows(source, rows_with_ids(120))
    assert run(job(100)).exit_status == 3
    assert resubmits() == 12, "another run, another six"
    assert simulator.book()["totals"]["submits_received"] == 132


@pytest.mark.parametrize("limit", [0, "auto"])
def test_a_limit_of_nothing_holds_the_first_row_already(simulate: Simulate, tmp_path: Path, limit: int | str) -> None:
    simulator = simulate(faults={"http_502": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    job = job_of(source, tmp_path / "out", simulator.url, retry={"in_doubt_limit": limit, "attempts": 2})
    summary = run(job)
    assert summary.by_status == {"in_doubt": 3}
    assert simulator.book()["totals"]["submits_received"] == (3 if limit == 0 else 6)
    assert summary.in_doubt_held == (3 if limit == 0 else 0), "whose attempts are used up is not held by the limit"
    check_account(tmp_path / "out", simulator, summary)


def test_attempts_bounds_doubts_and_failed_tasks_together(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"lost": 0.3, "task_failed": 0.5})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(60))
    retry = {"attempts": 3, "in_doubt_limit": 1000, "failed": "always"}
    summary = run(job_of(source, tmp_path / "out", simulator.url, retry=retry))
    found = by_id(tmp_path / "out")
    book = simulator.book()
    assert {row["submits"] for row in found.values()} == {1, 2, 3}
    assert {row["submits"] for row in found.values() if row["status"] != "completed"} == {3}
    assert summary.here.submits == book["totals"]["submits_received"] == sum(row["submits"] for row in found.values())
    assert max(Counter(entry["digest"] for entry in book["entries"]).values()) == 3
    good = Counter(entry["digest"] for entry in book["entries"] if entry["fate"] != "task_failed")
    for row in found.values():
        assert row["maybe_billed_twice"] or good[digest_of(request_of(row))] <= 1, "paid twice and not flagged"
    assert summary.by_status.keys() == {"completed", "failed", "in_doubt"}
