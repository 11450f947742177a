"""`[guard]`: a run whose answers are off ends early with exit 4, and says what is off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, Simulate, job_of, log_events, rows_with_ids, write_rows

from batchfox import run
from batchfox.core.job import Job
from batchfox.errors import JobError
from batchfox.guarding import NOT_YET
from batchfox.runs import read_runs
from batchfox.show import describe
from batchfox.survey.surveyor import Surveyor

NIGHT = 40


def test_a_broken_prompt_stops_the_night_after_few_rows_and_an_honest_one_goes_on(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate()
    source = tmp_path / "in.jsonl"

    def night(number: int, prompt: str, **guard: Any) -> Job:
        write_rows(source, [{"id": f"n{n}", "q": n} for n in range(number * NIGHT)])
        tables: dict[str, dict[str, Any]] = {
            "request": {"model": MODEL, "prompt": prompt},
            "guard": guard,
            "limits": {"in_flight": 5},
        }
        return job_of(source, tmp_path / "out", simulator.url, rows_per_part=50, **tables)

    guard = {"after": 20, "tokens": 1.5, "refused": 0.1}
    for number in (1, 2):
        job = night(number, "say {{ q }}", **guard)
        said = [f"guard.tokens: {NOT_YET}"] if number == 1 else []
        assert [note for note in Surveyor(job).survey(tmp_path / "out").notes if "guard" in note] == said
        assert run(job).exit_status == 0
    assert log_events(tmp_path / "out").count("guard_unmeasured") == 1
    broken = "say {{ q }} " + "and so on " * 60
    stopped = run(night(3, broken, **guard))
    assert stopped.exit_status == 4
    assert "tokens a row" in (stopped.reason or "")
    assert [drifted.name for drifted in stopped.drift] == ["tokens"]
    assert 20 <= stopped.settled["completed"] < 30, "it ends early"
    assert stopped.next_step(["batchfox", "run", "job.toml"]) == "batchfox run job.toml"
    last = read_runs(tmp_path / "out")[-1]
    assert (last.stopped, last.exit_status) == ("guard", 4)

    assert run(night(3, broken, **(guard | {"tokens": 99.0}))).exit_status == 0, "a person has looked, and goes on"
    told = run(night(4, "say {{ q }}"))
    assert told.exit_status == 0, "without a guard nothing is stopped"
    guard = {"after": 20, "refused": 0.1}
    simulator.control(faults={"task_rejected": 1.0})
    refused = run(night(5, "say {{ q }}", **guard))
    assert refused.exit_status == 4
    assert "refused or failed: 100.0%" in describe(refused, ["batchfox", "run"])
    assert refused.settled["failed"] < 30


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("after", 5),
        ("refused", 5),
        ("refused", -0.1),
        ("length", 0.5),
        ("runs", 0),
        ("since", "yesterday"),
        ("speed", 2),
    ],
)
def test_a_limit_that_cannot_be_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(1))
    with pytest.raises(JobError, match=rf"guard\.{key}"):
        job_of(source, tmp_path / "out", "http://127.0.0.1:9", guard={key: value})
