"""How many submits reach a server in how long, over a socket: at the start, after a pause, after a resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MODEL, Remote, Simulate, Starter, eventually, job_of, rows_of, rows_with_ids, write_rows

from batchfox import run

# A machine that is busy hands a submit over so late; what waited meanwhile comes at once.
LATE_S = 0.1
MODELS = ("gemini-2.5-flash", "gemini-2.5-pro")


@pytest.mark.parametrize("rpm", [600, 6_000])
def test_no_second_sees_more_than_its_share(
    start: Starter, remote: Callable[..., Remote], tmp_path: Path, rpm: int
) -> None:
    simulator = remote("--latency", "constant:0.02", "--fault", "refuse_429=0.02", "--seed", "3")
    rows = rpm // 60 * 4
    command: list[str | Path] = ["run", "--input", write_rows(tmp_path / "in.jsonl", rows_with_ids(rows)), "--id", "id"]
    command += ["--output", tmp_path / "out", "--model", MODEL, "--base-url", simulator.url]
    command += ["--set", f"limits.requests_per_minute={rpm}"]
    first = start(*command)
    eventually(lambda: simulator.totals()["submits_accepted"] >= rows // 2 or first.is_over(), "submits")
    first.kill()
    last = start(*command)
    assert last.wait() == 0, last.err
    assert simulator.totals()["max_submits_in_1_s"] <= (1.05 + LATE_S) * rpm / 60 + 1
    assert len(rows_of(tmp_path / "out")) == rows


def test_a_model_that_is_refused_holds_no_other_back(simulate: Simulate, tmp_path: Path) -> None:
    slow, fast = MODELS
    simulator = simulate(latency="constant:0.02", model_rpm={slow: 20})
    rows = [{**row, "model": slow if n % 10 == 0 else fast} for n, row in enumerate(rows_with_ids(220))]
    source = write_rows(tmp_path / "in.jsonl", rows)
    limits = {"requests_per_minute": None, "time": "12s", "in_flight": 500}
    job = job_of(source, tmp_path / "out", simulator.url, limits=limits, request={"model": None})
    run(job)
    entries = simulator.book()["entries"]
    times = {model: [entry["created"] for entry in entries if entry["model"] == model] for model in MODELS}
    assert len(times[fast]) == 198
    assert times[fast][-1] - times[fast][0] < 11.0, "as fast as without the other"
    assert len(times[slow]) >= 19
