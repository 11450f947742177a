"""Whole runs over hostile rows against an API that says anything: they end, with one valid output row an id."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import KEY, MODEL, Simulate, by_id, http_reply, job_of, parts_of, raw_server, rows_with_ids, write_rows

from batchfox import arun, run
from batchfox.core import breaker, lifecycle, pace, timing
from batchfox.core.outcome import STATUSES
from batchfox.show import describe
from batchfox.simulator import answer
from batchfox.summary import Summary

DEEP = 100_000
LINES: list[bytes] = [
    b'{"id": "fine", "prompt": "x"}',
    b'{"id": "nul", "prompt": "a\\u0000b"}',
    b'{"id": "n\\u0000ul", "prompt": "x", "n": "\\u0000"}',
    b'{"id": "raw nul", "prompt": "a\0b"}',
    b'{"id": "surrogate", "prompt": "\\ud800"}',
    b'{"id": "pair", "prompt": "\\ud83d\\ude00"}',
    b'{"id": "\\udfff", "prompt": "a surrogate as an id"}',
    b'{"id": "latin", "prompt": "\xe4"}',
    b'{"id": "nan", "prompt": "x", "top_p": NaN}',
    b'{"id": "kept nan", "prompt": "x", "score": NaN}',
    b'{"id": NaN, "prompt": "x"}',
    b'{"id": "huge", "prompt": "x", "number": ' + b"9" * 4000 + b"}",
    b'{"id": "endless", "prompt": "x", "number": 1e999}',
    b'{"id": "deep", "prompt": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"id": "deep objects", "n": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    b'{"id": "cut", "prompt": ' + b"[" * DEEP,
    b'{"id": "long", "messages": [{"role": "user", "content": "' + b"x" * 3_000_000 + b'"}]}',
    b'{"id": "too long", "prompt": "' + b"x" * 3_000_000 + b'"}',
    b'{"id": "' + b"i" * 10_000 + b'", "prompt": "x"}',
    b'{"id": "twice", "prompt": "first"}',
    b'{"id": "twice", "prompt": "second"}',
    b'{"id": 7, "prompt": "x"}',
    b'{"id": "7", "prompt": "the same id as text"}',
    b'{"id": 7.0, "prompt": "another one"}',
    b'{"id": "own", "prompt": "x", "status": "mine", "ROW_ID": 1, "input_row_id": 2, "Text": [], "input_extra": {}}',
    b'{"id": "", "prompt": "x"}',
    b'{"prompt": "no id"}',
    b"[]",
    b"null",
    b"\xff\xfe\xfd",
    b'{"id": "template", "prompt": "{{ 1 / 0 }}"}',
    b'{"id": "controls\\u001b[2J\\n", "prompt": "\\u001b]0;x\\u0007"}',
    b'{"id": "last", "prompt": "x"}',
]
# What each row without an id of its own is named by, and the ids that stand there twice.
BY_LINE = 14
DUPLICATES = 2


def check_output(folder: Path, summary: Summary, rows: int) -> dict[str, dict[str, Any]]:
    """One valid row an id, each with a status of the contract, and a reason where it did not complete."""
    found = by_id(folder)
    assert len(found) == rows == sum(summary.by_status.values())
    schemas = {pq.read_schema(path).remove_metadata().to_string() for path in parts_of(folder)}
    assert len(schemas) == 1
    assert Counter(row["status"] for row in found.values()) == summary.by_status
    for row in found.values():
        assert row["status"] in STATUSES
        reasons = [row["error_message"], row["error_code"], row["error_type"]]
        assert any(reasons) == (row["status"] != "completed"), row
        assert len(row["error_message"] or "") <= 3000
        if row["status"] == "completed":
            assert row["completion"] is not None
            json.loads(row["completion"])
        json.dumps(row, default=str).encode()
    assert all(json.loads(line) for line in (folder / "_batchfox" / "log.jsonl").read_bytes().splitlines())
    describe(summary, ["batchfox", "run"]).encode()
    assert list((folder / "_batchfox" / "tmp").iterdir()) == []
    return found


@pytest.mark.filterwarnings("ignore:Sending a large body")
def test_hostile_rows_are_one_output_row_each_and_hinder_no_other(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n\r\n \n".join(LINES))
    job = job_of(source, tmp_path / "out", simulator.url, rows_per_part=7)
    summary = run(job, quiet=True, log_level="debug")
    found = check_output(tmp_path / "out", summary, len(LINES) - DUPLICATES)
    assert (summary.exit_status, summary.duplicates) == (3, DUPLICATES)
    assert sum(name.startswith("line:") for name in found) == BY_LINE
    completed = {name for name, row in found.items() if row["status"] == "completed"}
    assert completed >= {"fine", "nul", "n\0ul", "pair", "kept nan", "long", "twice", "7", "7.0", "own", "template"}
    assert completed >= {"last", "controls\x1b[2J\n", "i" * 10_000}
    assert {row["status"] for row in found.values()} == {"completed", "invalid"}
    for name, prompt in (("nul", "a\0b"), ("twice", "first"), ("7", "x"), ("template", "{{ 1 / 0 }}")):
        assert found[name]["text"] == answer({"model": MODEL, "prompt": prompt})["choices"][0]["message"]["content"]
    assert simulator.book()["totals"]["submits_received"] == len(completed)
    again = run(job, quiet=True)
    assert (again.exit_status, simulator.book()["totals"]["submits_received"]) == (3, len(completed))


def test_a_million_empty_lines_between_rows_cost_nothing(simulate: Simulate, tmp_path: Path) -> None:
    rows = [json.dumps(row).encode() for row in rows_with_ids(3)]
    source = tmp_path / "in.jsonl"
    source.write_bytes((b"\n" * 1_000_000).join(rows))
    job = job_of(source, tmp_path / "out", simulate().url)
    began_s = time.process_time()
    with source.open("rb") as lines:
        assert sum(not line.strip() for line in lines) == 1_999_998
    reading_s, began_s = time.process_time() - began_s, time.process_time()
    summary = run(job, quiet=True)
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 3})
    assert time.process_time() - began_s < 2.0 + 20 * reading_s, "of what it costs to look at them in Python"


# An API that says anything.


STATUSES_SAID = ["200 OK"] * 12 + ["201 Created", "204 No Content", "302 Found", "400 Bad Request", "404 Not Found"]
STATUSES_SAID += ["408 Timeout", "422 Unprocessable", "429 Too Many", "500 Oops", "502 Bad", "503 Busy", "599 ?"]
TEXTS = [
    "",
    "completed",
    "failed",
    "pending",
    "task-1",
    "\0",
    "\ud800",
    "x" * 5000,
    "http://127.0.0.1:9/",
    "ü",
    "1e999",
]
NAMES = ["id", "status", "results", "choices", "message", "content", "error", "usage", "code", "type", "progress", "x"]


class Gibberish:
    """Says anything, drawn from a seed; now and then what is right."""

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed)
        self.serial = 0
        self.posts: Counter[str] = Counter()
        self.polls: Counter[str] = Counter()

    def value(self, depth: int = 0) -> Any:
        kind = self.draw.randrange(9 if depth < 4 else 7)
        if kind < 3:
            return self.draw.choice(TEXTS)
        if kind < 7:
            return self.draw.choice([None, True, 0, -1, 2**63, 10**30, 1.5, float("nan"), float("inf"), -0.0])
        if kind == 7:
            return [self.value(depth + 1) for _ in range(self.draw.randrange(4))]
        return {self.draw.choice(NAMES): self.value(depth + 1) for _ in range(self.draw.randrange(4))}

    def spoil(self, value: Any) -> Any:
        """Puts anything in the place of any node."""
        if self.draw.random() < 0.12:
            return self.value()
        if isinstance(value, dict):
            spoilt = {name: self.spoil(item) for name, item in value.items() if self.draw.random() > 0.05}
            return spoilt | ({self.draw.choice(NAMES): self.value()} if self.draw.random() < 0.1 else {})
        return [self.spoil(item) for item in value] if isinstance(value, list) else value

    def encode(self, value: Any) -> bytes:
        body = json.dumps(value).encode()
        luck = self.draw.random()
        if luck < 0.05:
            return body[: self.draw.randrange(len(body) + 1)]
        if luck < 0.1:
            return body.replace(b'"', self.draw.choice([b"\xff", b"'", b'\\"', b'"\\ud800']), 1)
        if luck < 0.12:
            return b"[" * DEEP + b"]" * DEEP
        if luck < 0.14:
            return b'{"id":"deep","status":"completed","results":[{"a":' + b"[" * DEEP + b"]" * DEEP + b"}]}"
        return self.draw.randbytes(40) if luck < 0.17 else body

    def task(self, request: bytes) -> dict[str, Any]:
        self.posts[str(json.loads(request.partition(b"\r\n\r\n")[2])["prompt"])] += 1
        self.serial += 1
        return {"id": f"task-{self.serial}", "status": "pending", "usage": {"credits_reserved": 0.5}}

    def state(self, request: bytes) -> dict[str, Any]:
        task = request.split(b" ")[1].split(b"?")[0].decode()
        self.polls[task] += 1
        if self.polls[task] < 2:
            return {"id": "x", "status": "processing", "progress": 50}
        if self.draw.random() < 0.2:
            return {"status": "failed", "error": {"code": "upstream_error", "message": "no", "type": "task_error"}}
        message = {"role": "assistant", "content": "yes", "reasoning_content": None}
        completion: dict[str, Any] = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
        completion |= {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
        return {"status": "completed", "results": [completion], "usage": {"credits_charged": 0.5}}

    async def talk(self, request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        value: Any = self.task(request) if request.startswith(b"POST") else self.state(request)
        status, headers = "200 OK", []
        if self.draw.random() < 0.5:
            value = self.spoil(value)
            status = self.draw.choice(STATUSES_SAID)
            if self.draw.random() < 0.2:
                headers = [f"Retry-After: {self.draw.choice(['0', '-1', 'soon', '0.01', 'nan', '1e-3'])}"]
        body = b"" if status.startswith("204") else self.encode(value)
        writer.write(http_reply(body, status, *headers))
        await writer.drain()
        if self.draw.random() < 0.05:
            writer.close()


@pytest.mark.parametrize("is_sync", [False, True], ids=["tasks", "sync"])
@pytest.mark.parametrize("seed", range(2))
async def test_an_api_that_says_anything_ends_no_run_and_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, is_sync: bool
) -> None:
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)
    monkeypatch.setattr(timing, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(pace, "MOST_WAIT_S", 0.05)
    monkeypatch.setattr(breaker, "FIRST_PROBE_S", 0.01)
    monkeypatch.setattr(breaker, "LAST_WAIT_S", 0.1)
    monkeypatch.setattr(lifecycle, "ODD_FOR_S", 0.2)
    gibberish = Gibberish(seed)
    rows = rows_with_ids(100)
    async with raw_server(gibberish.talk) as server:
        job = job_of(
            write_rows(tmp_path / "in.jsonl", rows),
            tmp_path / "out",
            server.url,
            request={"sync": is_sync or None},
            retry={"attempts": 3, "in_doubt_limit": 10_000, "patience": "60s"},
            poll={"first": 0.01, "task_timeout": "6s"},
        )
        summary = await arun(job, quiet=True, log_level="debug")
    found = check_output(tmp_path / "out", summary, len(rows))
    assert summary.exit_status == 3, summary.reason
    assert summary.by_status["completed"] > 25
    for row in rows:
        out = found[row["id"]]
        assert out["submits"] <= min(gibberish.posts[row["prompt"]], 3), "attempts that nobody made"
