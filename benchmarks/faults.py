"""Everything goes wrong at once: does every row end, how many complete, how long does it take, and who paid twice?

Three runs of the same rows at the same time, each against a simulator in a process of its own: without faults, with
all of `FAULTS`, and with all of them at the default `in_doubt_limit`. Their pace is a fraction of what the machine
can do, so that they hardly slow one another. Rows are compared with the simulator's book of what was billed. Exits 1
where a bound broke.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import children
import pyarrow.parquet as pq

from batchfox.simulator import FAULTS as TABLE
from batchfox.simulator import answer, digest_of

KEY = {"FOXAPI_API_KEY": "sk-benchmark"}
MODEL = "nemotron-3-nano-omni"
# The fault-free run is as long as its pace makes it: 5,000 rows in a good two minutes.
PER_MINUTE = 2_400
LATENCY = "lognormal:2,0.5"

# Each costs its row one of its attempts: a task may exist, or failed.
COSTLY = {
    "reset_before": 0.01,
    "hang_before": 0.002,
    "http_500_before": 0.01,
    "redirect_307": 0.005,
    "lost": 0.015,
    "reset_after": 0.01,
    "hang": 0.002,
    "http_500": 0.01,
    "http_502": 0.01,
    "http_504": 0.01,
    "http_408": 0.005,
    "http_520": 0.005,
    "html_200": 0.005,
    "truncated_200": 0.005,
    "cut_200": 0.005,
    "empty_200": 0.005,
    "not_utf8_200": 0.005,
    "wrong_json_200": 0.005,
    "task_failed": 0.025,
    "expired": 0.001,
}
# These cost time. Tasks that never end, and rows refused for their content, are no matter of getting through.
FREE = {
    "refuse_429": 0.001,
    "refuse_503": 0.01,
    "refuse_503_html": 0.005,
    "no_channel": 0.01,
    "slow_answer": 0.01,
    "late": 0.005,
    "unknown_status": 0.1,
    "legacy_results": 0.1,
    "null_results": 0.2,
    "null_results_cached": 0.02,
    "poll_500": 0.03,
    "poll_502_html": 0.02,
    "poll_429": 0.003,
    "poll_hang": 0.002,
    "poll_reset": 0.03,
    "poll_truncated": 0.02,
    "poll_cut": 0.02,
    "poll_404": 0.03,
    "poll_not_utf8": 0.02,
}
FAULTS = COSTLY | FREE
SLOW = ("hang", "hang_before", "poll_hang", "late", "expired")  # a minute and more each: not in a quick run
# The request of each row, by its id.
Requests = Mapping[str, dict[str, Any]]
NOT_PAID = ("task_failed", "task_rejected")

MOST_COSTLY = 0.15
LEAST_KINDS = 20
LEAST_FREE_S = 120.0
LEAST_COMPLETED = 0.995
MOST_RATIO = 2.5


@dataclass(slots=True)
class Found:
    """What one run came to. `broken`: what must not be, in words."""

    seconds: float
    exit_status: int
    rows: int
    said: str
    by_status: Counter[str] = field(default_factory=Counter)
    submits: int = 0
    received: int = 0
    billed: int = 0
    refused: int = 0
    paid_twice: int = 0
    flagged: int = 0
    unflagged: int = 0
    resubmitted: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def completed(self) -> float:
        return self.by_status["completed"] / self.rows


class Simulator:
    """`batchfox simulate`, and its book."""

    def __init__(self, url: str) -> None:
        self.url = url

    def book(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/__book", timeout=60) as reply:
            found: dict[str, Any] = json.load(reply)
            return found


@contextlib.contextmanager
def simulate(faults: Mapping[str, float], seed: int) -> Iterator[Simulator]:
    command = [sys.executable, "-m", "batchfox", "simulate", "--latency", LATENCY]
    command += ["--seed", str(seed)]
    for name, rate in faults.items():
        command += ["--fault", f"{name}={rate}"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        try:
            yield Simulator(child.stdout.readline().strip())
        finally:
            child.terminate()


def write_rows(path: Path, rows: int) -> dict[str, dict[str, Any]]:
    """The input; returns the request of each row by its id."""
    requests = {f"row-{n}": {"model": MODEL, "prompt": f"Question {n}: why?"} for n in range(rows)}
    lines = (json.dumps({"id": name, "prompt": request["prompt"]}) for name, request in requests.items())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return requests


def run(folder: Path, simulator: Simulator, rows: int, *settings: str) -> Found:
    """The command that anybody types, to its end."""
    command = [sys.executable, "-m", "batchfox", "run", "--input", str(folder.parent / "in.jsonl"), "--id", "id"]
    command += ["--output", str(folder), "--model", MODEL, "--base-url", simulator.url, "--quiet"]
    for setting in settings:
        command += ["--set", setting]
    began_at = time.monotonic()
    child = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ | KEY, check=False
    )
    found = Found(time.monotonic() - began_at, child.returncode, rows, child.stdout)
    if child.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)}: exit {child.returncode}\n{child.stdout}\n{child.stderr}")
    return found


def status_of(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "batchfox", "status", str(folder), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def outputs_of(folder: Path) -> list[dict[str, Any]]:
    columns = ["row_id", "status", "text", "submits", "maybe_billed_twice", "error_code", "error_message"]
    paths = sorted((folder / "data").iterdir())
    return [row for path in paths for row in pq.read_table(path, columns=columns).to_pylist()]


def check(found: Found, folder: Path, simulator: Simulator, requests: Requests) -> None:
    """Rows against the input and the book."""
    book = simulator.book()
    entries = Counter(entry["digest"] for entry in book["entries"])
    paid = Counter(entry["digest"] for entry in book["entries"] if entry["fate"] not in NOT_PAID)
    outs = outputs_of(folder)
    ids = Counter(out["row_id"] for out in outs)
    wrong = hidden = 0
    for out in outs:
        request = requests.get(out["row_id"])
        if request is None:
            wrong += 1
            continue
        digest = digest_of(request)
        found.by_status[out["status"]] += 1
        found.submits += out["submits"]
        found.flagged += out["maybe_billed_twice"]
        found.paid_twice += paid[digest] > 1
        found.unflagged += paid[digest] > 1 and not out["maybe_billed_twice"]
        hidden += entries[digest] > out["submits"]
        if out["status"] == "completed":
            wrong += out["text"] != answer(request)["choices"][0]["message"]["content"]
    totals = book["totals"]
    found.received, found.billed = totals["submits_received"], totals["submits_accepted"]
    found.refused = sum(totals["submits_refused"].get(status, 0) for status in ("422", "429", "503"))
    lost = len(requests.keys() - ids.keys())
    for what, number in {
        "rows without an end": lost,
        "rows that ended twice": ids.total() - len(ids),
        "rows with a wrong answer": wrong,
        "rows whose submits hide one": hidden,
        "rows paid twice and not flagged": found.unflagged,
        "submits the rows do not account for": abs(found.received - found.refused - found.submits),
    }.items():
        if number:
            found.broken.append(f"{what}: {number}")


def check_held(found: Found, folder: Path, simulator: Simulator, requests: Requests, limit: int) -> None:
    """At the defaults: what was held was POSTed once since its last failed task, and is by no later run."""
    book = simulator.book()
    paid = Counter(entry["digest"] for entry in book["entries"] if entry["fate"] not in NOT_PAID)
    outs = outputs_of(folder)
    held = [out for out in outs if out["status"] == "in_doubt" and not out["maybe_billed_twice"]]
    again = sum(paid[digest_of(requests[out["row_id"]])] > 1 for out in held)
    failed = Counter(entry["digest"] for entry in book["entries"] if entry["fate"] in NOT_PAID)
    again += sum(out["submits"] - failed[digest_of(requests[out["row_id"]])] > 1 for out in held)
    if again:
        found.broken.append(f"rows past the limit that were POSTed again: {again}")
    # A task that failed unheard, its submit's reply being lost, hides one here.
    resubmitted = sum(
        max(out["submits"] - failed[digest_of(requests[out["row_id"]])] - 1, 0)
        for out in outs
        if out["maybe_billed_twice"]
    )
    found.resubmitted = status_of(folder)["figures"]["in_doubt_resubmitted"]
    if not 0 < found.flagged <= limit or not resubmitted <= found.resubmitted <= limit:
        found.broken.append(f"resubmits in doubt: {found.resubmitted}, of {found.flagged} rows; the limit is {limit}")
    if "past [retry] in_doubt_limit" not in found.said:
        found.broken.append("the summary does not say why rows are held")


def tell(name: str, found: Found, free: Found | None) -> None:
    """A table of one run."""
    lines: list[tuple[str, str]] = [("seconds", f"{found.seconds:.1f}")]
    if free is not None:
        lines = [("fault-free seconds", f"{free.seconds:.1f}"), ("faulty seconds", f"{found.seconds:.1f}")]
        lines.append(("ratio", f"{found.seconds / free.seconds:.2f}"))
    lines += [(f"rows {status}", f"{number:,}") for status, number in sorted(found.by_status.items())]
    lines += [
        ("% completed", f"{100 * found.completed:.2f}"),
        ("POSTs, refusals aside", f"{found.received - found.refused:,}"),
        ("tasks made", f"{found.billed:,}"),
        ("paid twice", f"{found.paid_twice:,}"),
        ("flagged", f"{found.flagged:,}"),
        ("paid twice, unflagged", f"{found.unflagged:,}"),
    ]
    print(f"\n{name} (exit {found.exit_status})")
    for what, figure in lines:
        print(f"  {what:<24}{figure:>10}")
    for what in found.broken:
        print(f"  broken: {what}")
    sys.stdout.flush()


def run_free(folder: Path, requests: Requests, seed: int, pace: str) -> Found:
    """Without faults."""
    with simulate({}, seed) as simulator:
        free = run(folder / "free", simulator, len(requests), pace)
        check(free, folder / "free", simulator, requests)
    if free.by_status != {"completed": len(requests)}:
        free.broken.append("without faults not every row completed")
    return free


def run_faulty(folder: Path, requests: Requests, seed: int, pace: str, *, faults: Mapping[str, float]) -> Found:
    """With all faults, and every row in doubt sent again."""
    with simulate(faults, seed) as simulator:
        faulty = run(folder / "faulty", simulator, len(requests), pace, f"retry.in_doubt_limit={len(requests)}")
        check(faulty, folder / "faulty", simulator, requests)
    if faulty.completed < LEAST_COMPLETED:
        faulty.broken.append(f"fewer than {LEAST_COMPLETED:.1%} completed")
    return faulty


def run_bounded(
    folder: Path, requests: Requests, seed: int, pace: str, *, faults: Mapping[str, float], is_quick: bool
) -> Found:
    """With all faults at the default limit, and once more: what is held is not POSTed."""
    output, rows = folder / "bounded", len(requests)
    # So few rows never reach the default: 100, or a hundredth of the submits.
    settings = [pace, "retry.in_doubt_limit=10"] if is_quick else [pace]
    with simulate(faults, seed) as simulator:
        bounded = run(output, simulator, rows, *settings)
        check(bounded, output, simulator, requests)
        limit = 10 if is_quick else max(100, int(0.01 * bounded.submits))
        check_held(bounded, output, simulator, requests, limit)
        before = simulator.book()["totals"]["submits_received"]
        run(output, simulator, rows, *settings)
        if simulator.book()["totals"]["submits_received"] != before:
            bounded.broken.append("a second run POSTed rows that were held")
    return bounded


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs rows through every fault at once and counts what it cost.")
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0, help="of latencies, fates and faults")
    parser.add_argument("--quick", action="store_true", help="300 rows, no fault that takes a minute, no bound on time")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the outputs go")
    arguments = parser.parse_args()
    is_quick = arguments.quick
    rows = 300 if is_quick else arguments.rows
    faults = {name: rate for name, rate in FAULTS.items() if not (is_quick and name in SLOW)}
    costly = sum(rate for name, rate in faults.items() if name in COSTLY)
    assert round(costly, 6) <= MOST_COSTLY, "more than a bad day"
    assert len(faults) >= LEAST_KINDS
    assert faults.keys() <= {fault.name for fault in TABLE}
    pace = f"limits.requests_per_minute={PER_MINUTE}"
    print(
        f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}; {rows:,} rows at "
        f"{PER_MINUTE:,} a minute, {len(faults)} kinds of fault, those that cost an attempt {costly:.1%} of submits",
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        requests = write_rows(folder / "in.jsonl", rows)

        with ThreadPoolExecutor(3) as threads:
            runs = [
                threads.submit(play, folder, requests, arguments.seed, pace)
                for play in (
                    run_free,
                    partial(run_faulty, faults=faults),
                    partial(run_bounded, faults=faults, is_quick=is_quick),
                )
            ]
        free, faulty, bounded = (done.result() for done in runs)
    if free.seconds < LEAST_FREE_S and not is_quick:
        free.broken.append(f"shorter than {LEAST_FREE_S:.0f} s: too short to compare with")
    if faulty.seconds > MOST_RATIO * free.seconds and not is_quick:
        faulty.broken.append(f"more than {MOST_RATIO} times the time of the fault-free run")
    tell("without faults", free, None)
    tell(f"all faults at once, in_doubt_limit = {rows:,}", faulty, free)
    tell("all faults at once, at the defaults", bounded, free)

    broken = [*free.broken, *faulty.broken, *bounded.broken]
    print(
        f"\n{len(faults)} kinds of fault: {faulty.completed:.2%} completed in {faulty.seconds / free.seconds:.2f} "
        f"times the fault-free {free.seconds:.0f} s; {faulty.paid_twice} paid twice, {faulty.unflagged} unflagged; "
        f"at the defaults {bounded.by_status['in_doubt']} held in doubt, {bounded.resubmitted} resubmitted"
    )
    for what in broken:
        print(f"broken: {what}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
