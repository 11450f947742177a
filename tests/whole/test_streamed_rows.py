"""Streamed rows over real sockets: reasoning and answer, every way a stream may look or break, and what is paid."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KEY,
    Remote,
    Simulate,
    Starter,
    by_id,
    eventually,
    http_reply,
    job_of,
    log_events,
    raw_server,
    rows_with_ids,
    write_rows,
)

from batchfox import arun, run
from batchfox.core.lifecycle import PARTIAL
from batchfox.simulator import SimulatorThread, answer
from batchfox.simulator.answers import brief, reasoning
from batchfox.simulator.draws import digest_of
from batchfox.streaming import OPENINGS

THINKER = "kimi-k2.6"
ROWS = 12
BREAKS = ("cut", "end", "error", "scrap", "hang")
ODD = ("unnamed", "marker", "crlf", "comments", "multiline", "split", "task")


def request_of(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": THINKER, "prompt": row["prompt"], "stream": True} | more


def text_of(request: dict[str, Any]) -> str:
    said: str = answer(request)["choices"][0]["message"]["content"]
    return said


def reasoning_of(request: dict[str, Any]) -> str:
    return reasoning(brief(request, digest_of(request)))


def run_streamed(
    simulator: SimulatorThread, tmp_path: Path, *, rows: int = ROWS, **tables: Any
) -> tuple[int, dict[str, dict[str, Any]]]:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(rows))
    tables["request"] = {"model": THINKER, "stream": True} | tables.get("request", {})
    summary = run(job_of(source, tmp_path / "out", simulator.url, **tables))
    return summary.exit_status, by_id(tmp_path / "out")


def totals(simulator: SimulatorThread) -> dict[str, Any]:
    found: dict[str, Any] = simulator.book(has_entries=False)["totals"]
    return found


@pytest.mark.parametrize("odd", [(), *((name,) for name in ODD), ODD], ids=lambda names: "+".join(names) or "plain")
@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
def test_a_stream_gives_reasoning_and_answer_however_it_looks(
    simulate: Simulate, tmp_path: Path, odd: tuple[str, ...], is_sync: bool
) -> None:
    simulator = simulate(faults={f"stream_{name}": 1.0 for name in odd})
    more = {"sync": True} if is_sync else {}
    status, found = run_streamed(simulator, tmp_path, request=more)
    assert status == 0
    charges = {entry["task_id"]: entry["credits"] for entry in simulator.book()["entries"]}
    for row in rows_with_ids(ROWS):
        out, request = found[row["id"]], request_of(row, **more)
        assert (out["text"], out["reasoning"]) == (text_of(request), reasoning_of(request))
        assert (out["submits"], out["error_code"], out["finish_reason"]) == (1, None, "stop")
        assert out["total_tokens"] == answer(request)["usage"]["total_tokens"]
        assert json.loads(out["completion"])["choices"][0]["message"]["content"] == out["text"]
        if out["task_id"] is not None:
            assert out["credits"] == charges[out["task_id"]]
        assert (out["task_id"] is None) == (is_sync and "task" not in odd)
    assert totals(simulator)["submits_received"] == ROWS
    assert totals(simulator)["streams"] == (0 if is_sync else ROWS)


@pytest.mark.parametrize(
    ("fault", "is_sync"),
    [("refused", False), *((fault, is_sync) for fault in BREAKS for is_sync in (False, True))],
)
def test_where_a_stream_breaks_the_task_is_polled_and_the_row_says_that_its_reasoning_is_partial(
    simulate: Simulate, tmp_path: Path, fault: str, is_sync: bool
) -> None:
    simulator = simulate(faults={f"stream_{fault}": 1.0, "stream_task": 1.0}, latency="constant:0.2")
    more = {"sync": True} if is_sync else {}
    status, found = run_streamed(simulator, tmp_path, request=more, poll={"stream_idle": 0.5})
    assert status == 0
    for row in rows_with_ids(ROWS):
        out, request = found[row["id"]], request_of(row, **more)
        assert out["status"] == "completed"
        assert out["text"] == text_of(request)
        got = out["reasoning"] or ""
        assert reasoning_of(request).startswith(got)
        assert bool(got) == (fault != "refused")
        assert out["error_code"] == PARTIAL
        assert f"the stream broke after {len(got)} characters of reasoning" in out["error_message"]
        assert (out["submits"], out["maybe_billed_twice"]) == (1, False)
    assert totals(simulator)["submits_received"] == ROWS
    assert log_events(tmp_path / "out").count("stream_broken") == ROWS


def test_a_stream_that_is_refused_for_the_moment_is_asked_for_again(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"stream_refused": 0.3})
    status, found = run_streamed(simulator, tmp_path)
    assert status == 0
    asked = {entry["task_id"]: entry["streams"] for entry in simulator.book()["entries"]}
    assert len(asked) == ROWS
    assert 2 in asked.values()
    assert max(asked.values()) <= OPENINGS
    for row in rows_with_ids(ROWS):
        out, request = found[row["id"]], request_of(row)
        if asked[out["task_id"]] < OPENINGS:
            assert (out["error_code"], out["reasoning"]) == (None, reasoning_of(request))


def test_all_streams_together_hold_no_more_than_may_be_in_flight(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(latency="constant:0.5")
    status, found = run_streamed(simulator, tmp_path, limits={"bytes_in_flight": 500})
    assert status == 0
    partial = [row for row in found.values() if row["error_code"] == PARTIAL]
    assert partial
    assert all("all streams together told more than 500 characters" in row["error_message"] for row in partial)
    for row in rows_with_ids(ROWS):
        assert found[row["id"]]["text"] == text_of(request_of(row))
    assert totals(simulator)["submits_received"] == ROWS


def test_a_synchronous_stream_that_breaks_before_it_names_its_task_is_in_doubt(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults={"stream_cut": 1.0})
    held = {"in_doubt": "hold"}
    status, found = run_streamed(simulator, tmp_path, rows=2, request={"sync": True}, retry=held)
    assert status == 3
    assert {(row["status"], row["submits"], row["task_id"]) for row in found.values()} == {("in_doubt", 1, None)}
    assert {row["error_code"] for row in found.values()} == {"stream_broken"}
    simulator.control(faults={})
    again, found = run_streamed(simulator, tmp_path, rows=2, request={"sync": True}, retry=held)
    assert again == 3
    assert totals(simulator)["submits_received"] == 2


def test_a_task_that_fails_is_paid_for_again_and_its_stream_is_heard_anew(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"task_failed": 0.4})
    status, found = run_streamed(simulator, tmp_path, rows=40, retry={"attempts": 20})
    assert status == 0
    assert any(row["submits"] > 1 for row in found.values())
    for row in rows_with_ids(40):
        out = found[row["id"]]
        assert (out["error_code"], out["reasoning"]) == (None, reasoning_of(request_of(row)))


def test_auto_streams_where_the_reasoning_is_nowhere_else(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(models=("deep-thought",))
    asked: list[dict[str, Any]] = [
        {"id": "thinks", "model": THINKER},
        {"id": "told not to", "model": THINKER, "reasoning": False},
        {"id": "thinks too", "model": "gemini-2.5-pro"},
        {"id": "does not", "model": "gemini-2.5-flash"},
        {"id": "told to", "model": "gemini-2.5-flash", "reasoning": True},
        {"id": "known by the user", "model": "deep-thought"},
        {"id": "unknown", "model": "nemotron-3-nano-omni"},
    ]
    source = write_rows(tmp_path / "in.jsonl", [row | {"prompt": "why?"} for row in asked])
    rules = {"models": [{"match": "deep-*", "thinks": True}]}
    job = job_of(source, tmp_path / "out", simulator.url, request={"model": None, "stream": "auto"}, rules=rules)
    assert run(job).exit_status == 0
    streamed = {"thinks", "thinks too", "told to", "known by the user"}
    assert totals(simulator)["streams"] == len(streamed)
    found = by_id(tmp_path / "out")
    assert {name for name, row in found.items() if row["reasoning"]} == streamed - {"known by the user"}
    assert {row["error_code"] for row in found.values()} == {None}


def test_one_slow_stream_delays_nobody(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"stream_slow": 0.1}, slow_s=4.0)
    status, found = run_streamed(simulator, tmp_path, rows=60)
    assert status == 0
    slow = sorted(row["latency_s"] for row in found.values() if row["latency_s"] >= 4.0)
    quick = [row["finished_at"] for row in found.values() if row["latency_s"] < 4.0]
    assert 1 <= len(slow) < 30
    begun = min(row["submitted_at"] for row in found.values())
    assert (max(quick) - begun).total_seconds() < 4.0
    assert all(row["error_code"] is None for row in found.values())


def command_of(tmp_path: Path, url: str, rows: int, *settings: str) -> list[str | Path]:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(rows))
    command: list[str | Path] = ["run", "--input", source, "--output", tmp_path / "out", "--id", "id"]
    command += ["--model", THINKER, "--base-url", url]
    for setting in ("limits.requests_per_minute=60000", "request.stream=true", *settings):
        command += ["--set", setting]
    return command


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_a_run_that_ends_in_mid_stream_polls_its_tasks_and_pays_for_none_again(
    start: Starter, remote: Callable[..., Remote], tmp_path: Path, how: signal.Signals
) -> None:
    simulator = remote("--latency", "constant:6")
    command = command_of(tmp_path, simulator.url, ROWS)
    child = start(*command)
    eventually(lambda: simulator.totals()["streams"] == ROWS or child.is_over(), "the streams")
    last = max(entry["created"] for entry in simulator.entries())
    # A third of their time: some of the reasoning was told, not all.
    eventually(lambda: time.time() - last > 2.0, "the middle of the streams")
    child.send(how)
    assert child.wait() == (130 if how is signal.SIGINT else -signal.SIGKILL), child.err
    resumed = start(*command)
    assert resumed.wait() == 0, resumed.err
    found = by_id(tmp_path / "out")
    assert len(found) == ROWS
    for row in rows_with_ids(ROWS):
        out, request = found[row["id"]], request_of(row)
        assert (out["text"], out["submits"], out["maybe_billed_twice"]) == (text_of(request), 1, False)
        assert out["error_code"] == PARTIAL
        got = out["reasoning"] or ""
        assert reasoning_of(request).startswith(got)
        assert got != reasoning_of(request)
        assert bool(got) == (how is signal.SIGINT)
    assert simulator.totals()["submits_received"] == ROWS
    assert simulator.totals()["streams"] == ROWS


def test_a_synchronous_stream_that_named_its_task_is_left_by_a_signal_and_by_a_kill(
    start: Starter, remote: Callable[..., Remote], tmp_path: Path
) -> None:
    simulator = remote("--latency", "constant:8", "--fault", "stream_task=1")
    command = command_of(tmp_path, simulator.url, 6, "request.sync=true")
    for how in (signal.SIGINT, signal.SIGKILL):
        child = start(*command)
        eventually(
            lambda: states_of(tmp_path / "out").count(2) == 6 or child.is_over(),  # noqa: B023
            "all tasks on record",
        )
        child.send(how)
        assert child.wait() in (130, -signal.SIGKILL), child.err
    assert start(*command).wait() == 0
    found = by_id(tmp_path / "out")
    assert {(row["submits"], row["status"]) for row in found.values()} == {(1, "completed")}
    assert simulator.totals()["submits_received"] == 6


def states_of(folder: Path) -> list[int]:
    """The states of the rows in the checkpoint: 2 is running, its task's id known."""
    path = folder / "_batchfox" / "checkpoint.db"
    if not path.exists():
        return []
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
    ):
        return [state for (state,) in db.execute("SELECT state FROM row")]
    return []


async def test_the_key_is_hidden_in_what_a_stream_tells_wherever_it_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)

    def event(**delta: str) -> bytes:
        return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"

    pieces = [KEY[at : at + 4] for at in range(0, len(KEY), 4)]
    told = [event(reasoning_content=piece) for piece in pieces] + [event(content=piece) for piece in pieces]
    streamed = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + b"".join(told)

    async def talk(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.startswith(b"POST") and b'"sync":true' in request:
            writer.write(streamed + b"data: [DONE]\n\n")
            await writer.drain()
            writer.close()
        elif request.startswith(b"POST"):
            offered = {"id": "task-1", "status": "pending", "stream": {"url": "https://elsewhere.example/stream"}}
            writer.write(http_reply(json.dumps(offered).encode()))
        elif b"/stream" in request.split(b"\r\n")[0]:
            assert b"GET /v1/llm/generations/task-1/stream HTTP/1.1" in request
            writer.write(streamed + b'event: error\ndata: {"message": "' + KEY.encode() + b'"}\n\n')
            await writer.drain()
            writer.close()
        else:
            result = {"choices": [{"message": {"content": "hi"}}]}
            writer.write(http_reply(json.dumps({"id": "task-1", "status": "completed", "results": [result]}).encode()))

    async with raw_server(talk) as server:
        for name, more in (("sync", {"sync": True}), ("async", {})):
            source = write_rows(tmp_path / f"{name}.jsonl", rows_with_ids(1))
            job = job_of(source, tmp_path / name, server.url, request={"model": THINKER, "stream": True} | more)
            assert (await arun(job)).exit_status == 0
            row = by_id(tmp_path / name)["r0"]
            assert row["reasoning"] == "[key]"
            assert row["text"] == ("[key]" if name == "sync" else "hi")
    assert KEY.encode() not in held_in(tmp_path)


def held_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
