"""How soon `batchfox view` shows an output of a million rows: `python benchmarks/view.py [--rows N] [--folder DIR]`.

Makes the output (kept in DIR, where one is named), starts the command as a process, and asks as the page asks. With
`--browser` also until Chromium, already started, shows the first rows.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchfox.parts import part_name, schema_of

ROWS_A_PART = 10_000
LIMIT_S = 2.0
WORDS = (
    "a",
    "fox",
    "that",
    "runs",
    "over",
    "the",
    "quiet",
    "hill",
    "and",
    "finds",
    "home",
    "before",
    "night",
    "is",
    "long",
)
TYPES = {"id": pa.string(), "title": pa.string(), "url": pa.string(), "prompt": pa.string()}


def make_output(folder: Path, rows: int, *, seed: int = 7) -> Path:
    """An output of so many rows, as a run would have left it, but for its checkpoint."""
    data = folder / "data"
    data.mkdir(parents=True)
    (folder / "_batchfox").mkdir()
    draws = random.Random(seed)
    schema = schema_of(TYPES)
    for number, start in enumerate(range(0, rows, ROWS_A_PART)):
        part = _part(range(start, min(start + ROWS_A_PART, rows)), draws, schema)
        pq.write_table(part, data / part_name(number), compression="zstd")
    return folder


def _part(numbers: range, draws: random.Random, schema: pa.Schema) -> pa.Table:
    order = sorted(numbers, key=lambda n: n + draws.random() * 400)
    began = datetime(2026, 3, 1, tzinfo=UTC)
    rows = []
    for n in order:
        status = "completed" if n % 50 else ("failed", "invalid", "timed_out")[n // 50 % 3]
        text = " ".join(draws.choices(WORDS, k=60)) if status == "completed" else None
        at = began + timedelta(milliseconds=20 * n)
        latency_s = draws.lognormvariate(3, 0.5)
        rows.append(
            {
                "row_index": n,
                "row_id": f"img-{n:07d}",
                "status": status,
                "text": text,
                "finish_reason": "stop" if text else None,
                "model": ("gemini-2.5-pro", "claude-opus-4-7", "gpt-5")[n % 3],
                "task_id": f"task-{draws.getrandbits(64):016x}",
                "completion": f'{{"id":"c-{n}","choices":[{{"message":{{"content":"{text}"}}}}]}}' if text else None,
                "prompt_tokens": 300 + n % 40,
                "completion_tokens": 80,
                "total_tokens": 380 + n % 40,
                "credits": 0.01 if text else 0.0,
                "error_code": None if text else ("content_policy", "empty_prompt", "task_timeout")[n // 50 % 3],
                "error_message": None if text else f"what went wrong with row {n}",
                "http_status": 200,
                "submits": 1,
                "maybe_billed_twice": False,
                "polls": 3,
                "submitted_at": at,
                "finished_at": at + timedelta(seconds=latency_s),
                "latency_s": latency_s,
                "request_hash": f"{draws.getrandbits(128):032x}",
                "media": ["url"],
                "run_id": "20260301-000000-abcd",
                "run_date": date(2026, 3, 1),
                "id": f"img-{n:07d}",
                "title": f"Fox number {n}",
                "url": f"https://images.example/{n}.jpg",
                "prompt": f"Describe Fox number {n} in one sentence.",
            }
        )
    return pa.Table.from_pylist(rows, schema=schema)


QUESTIONS: dict[str, dict[str, Any]] = {
    "all rows, first page": {},
    "those that failed": {"status": "failed"},
    "the slowest first": {"sort": "latency_s", "is_descending": True},
    "latency at least 60 s": {"filters": [{"column": "latency_s", "operator": "at least", "value": "60"}]},
    "a word that no row has": {"search": "zebra"},
    "two words that many have": {"search": "quiet hill"},
    "the second page of those": {"search": "quiet hill", "offset": 50},
}


def measure(folder: Path, *, is_browser: bool) -> float:
    """Prints the times of one start, in seconds; returns how long the first page took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "batchfox", "view", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    base, _, token = url.partition("/#token=")

    def ask(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base + path, data=data, headers={"X-Token": token})
        with urllib.request.urlopen(request) as reply:
            answer: dict[str, Any] = json.load(reply)
        return answer

    try:
        first_s = time.perf_counter() - began
        print(f"{first_s:7.3f}  from the command to its address")
        if is_browser:
            shown_s = _until_shown(url)
            first_s += shown_s
            print(f"{shown_s:7.3f}  from there to the first rows in Chromium")
        rows = ask("/api/state")["total"]
        for name, question in QUESTIONS.items():
            asked = time.perf_counter()
            total = ask("/api/rows", question)["total"]
            print(f"{time.perf_counter() - asked:7.3f}  {name} ({total:,} rows)")
            if not question and not is_browser:
                first_s = time.perf_counter() - began
                print(f"{first_s:7.3f}  from the command to the first page")
        asked = time.perf_counter()
        first = ask("/api/rows", {"offset": rows * 7 // 10})["rows"][0]
        ask("/api/row", {"index": first["_index"], "id": first["_id"]})
        print(f"{time.perf_counter() - asked:7.3f}  a far page, and a row of it in full")
    finally:
        process.terminate()
        process.wait()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{usage.ru_maxrss / 1024:7.0f}  MB at most; {usage.ru_utime + usage.ru_stime:.1f} s of processor in all")
    return first_s


def _until_shown(url: str) -> float:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page()
        began = time.perf_counter()
        page.goto(url)
        page.wait_for_selector("#rows tr")
        shown = time.perf_counter() - began
        chromium.close()
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--browser", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "output"
        if not (folder / "data").is_dir():
            make_output(folder, given.rows)
        first_s = measure(folder, is_browser=given.browser)
    print(f"first page after {first_s:.2f} s; the limit is {LIMIT_S:g} s")
    raise SystemExit(first_s > LIMIT_S)


if __name__ == "__main__":
    main()
