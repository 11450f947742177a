"""How many submits leave in how long, at the moment of sending: at the start, after a pause, after a resume."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import Simulate, Starter, eventually, job_of, rows_of, rows_with_ids, write_rows

from batchfox import run
from batchfox.limiter import Limiter
from batchfox.simulator import SimulatorThread

MODELS = ("gemini-2.5-flash", "gemini-2.5-pro")


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the submits of this process left: a busy machine may hand them over late, and several at once."""
    times: list[float] = []
    take = Limiter.take

    async def noting(limiter: Limiter, most: int = 1) -> int:
        tokens = await take(limiter, most)
        times.extend([time.monotonic()] * tokens)
        return tokens

    monkeypatch.setattr(Limiter, "take", noting)
    return times


def most_in(times: list[float], span_s: float) -> int:
    return max(sum(at <= later < at + span_s for later in times) for at in times)


@pytest.mark.parametrize("rpm", [600, 6_000])
def test_no_second_sees_more_than_its_share(simulate: Simulate, tmp_path: Path, leaving: list[float], rpm: int) -> None:
    simulator = simulate(latency="constant:0.02", faults={"refuse_429": 0.02}, seed=3)
    rows = rpm // 60 * 4
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(rows))
    stopped = run(job_of(source, tmp_path / "out", simulator.url, limits={"requests_per_minute": rpm, "time": "2s"}))
    assert (stopped.exit_status, len(leaving) < rows) == (4, True)
    assert run(job_of(source, tmp_path / "out", simulator.url, limits={"requests_per_minute": rpm})).exit_status == 0
    assert len(leaving) >= rows == len(rows_of(tmp_path / "out"))
    assert most_in(leaving, 1.0) <= 1.05 * rpm / 60 + 1


def test_a_model_that_is_refused_holds_no_other_back(start: Starter, simulate: Simulate, tmp_path: Path) -> None:
    slow, fast = MODELS
    simulator = simulate(latency="constant:0.02", model_rpm={slow: 10})
    rows = [{**row, "model": slow if n % 10 == 0 else fast} for n, row in enumerate(rows_with_ids(220))]
    command: list[str | Path] = ["run", "--input", write_rows(tmp_path / "in.jsonl", rows), "--id", "id"]
    command += ["--output", tmp_path / "out", "--base-url", simulator.url, "--set", "limits.in_flight=500"]
    child = start(*command)
    # The slow one's next minute begins 60 s after its first submit, and so long a 429 of it asks to wait.
    eventually(lambda: submits_of(simulator, fast) == 198 or child.is_over(), "all submits of the fast one")
    assert not child.is_over(), child.err
    assert submits_of(simulator, slow) == 10
    assert simulator.book()["totals"]["submits_refused"]["429"] > 0


def submits_of(simulator: SimulatorThread, model: str) -> int:
    return sum(entry["model"] == model for entry in simulator.book()["entries"])


def test_tokens_of_a_minute_hold_submits_back_and_are_known_after_a_resume(simulate: Simulate, tmp_path: Path) -> None:
    """Each row is expected to take a little more than 1,024."""
    simulator = simulate(latency="constant:600")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(20))
    limits = {"tokens_per_minute": 5_500, "time": "1s"}
    job = job_of(source, tmp_path / "out", simulator.url, limits=limits, poll={"task_timeout": "2s"})
    for _ in range(2):
        assert run(job).exit_status == 4
        assert simulator.book()["totals"]["submits_received"] == 5
