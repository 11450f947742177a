"""`[limits] straggle`: a run does not wait for its last tasks for ever, and the next one collects their answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import QUICK, Simulate, by_id, job_of, put_forward, rows_with_ids, write_rows

from batchfox import run
from batchfox.monitor import View
from batchfox.show import describe
from batchfox.words import tail_words


class Pictures:
    """A display that keeps what it is shown."""

    def __init__(self) -> None:
        self.tails: list[str] = []

    def update(self, view: View) -> None:
        if view.figures["tail"] is not None:
            self.tails.append(tail_words(view.figures["tail"]))

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize(("time_s", "straggle"), [(None, "600ms"), (2.5, "3500ms")])
def test_what_still_runs_so_long_after_the_last_submit_is_given_up_and_collected_free(
    simulate: Simulate, tmp_path: Path, time_s: float | None, straggle: str
) -> None:
    simulator = simulate(latency="constant:60")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    limits = {"straggle": straggle, "time": time_s}
    job = job_of(source, tmp_path / "out", simulator.url, limits=limits, poll={"first": 0.1})
    shown = Pictures()
    first = run(job, display=shown)
    assert (first.exit_status, first.by_status) == (3 if time_s is None else 4, {"timed_out": 3})
    assert (first.given_up, {one.row_id for one in first.stragglers}) == (3, {"r0", "r1", "r2"})
    assert all(one.age_s >= 0.6 for one in first.stragglers)
    told = describe(first, ["batchfox", "run", "job.toml"])
    assert "3 tasks, collected by the next run, free" in told
    assert told.endswith("next: batchfox run job.toml"), "which pays nothing"
    assert any("3 tasks still running; the oldest: 0:0" in line for line in shown.tails)
    found = by_id(tmp_path / "out")
    assert {row["error_code"] for row in found.values()} == {"straggler"}
    assert {row["task_id"] for row in found.values()} == {entry["task_id"] for entry in simulator.book()["entries"]}

    put_forward(simulator, 60)
    simulator.control(latency=QUICK)
    second = run(job)
    assert (second.by_status, second.late_collected) == ({"completed": 3}, 3)
    assert simulator.book()["totals"]["submits_received"] == 3
