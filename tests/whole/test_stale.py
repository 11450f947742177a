"""Rows that changed under their id after they were answered: told by `validate`, asked anew by `--retry stale`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MODEL,
    QUICK,
    Simulate,
    by_id,
    eventually,
    job_of,
    parts_of,
    put_forward,
    rows_with_ids,
    superseded_rows,
    write_rows,
)

from batchfox import run
from batchfox.audit import audit_output
from batchfox.core.job import Job
from batchfox.errors import JobError, UserError
from batchfox.options import Options
from batchfox.simulator import answer
from batchfox.survey.findings import Survey, describe
from batchfox.survey.forecast import ask_prices
from batchfox.survey.preview import preview
from batchfox.survey.surveyor import Surveyor

OUT = "out"


def text_of(prompt: str, model: str = MODEL) -> str:
    text: str = answer({"model": model, "prompt": prompt})["choices"][0]["message"]["content"]
    return text


def asking(prompt: str) -> dict[str, Any]:
    return {"request": {"model": MODEL, "prompt": prompt + " {{ q }}"}, "limits": {"in_flight": 1}}


def questions(number: int) -> list[dict[str, Any]]:
    return [{"id": f"r{n}", "q": n} for n in range(number)]


def survey(job: Job, folder: Path) -> Survey:
    return Surveyor(job).survey(folder / OUT, ask_prices(job))


def test_an_edited_prompt_is_told_and_asked_anew_only_by_order(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows = [*questions(12), {"id": "wrong", "q": "x", "max_tokens": 0}]
    source = write_rows(tmp_path / "in.jsonl", rows)

    def job(prompt: str) -> Job:
        return job_of(source, tmp_path / OUT, simulator.url, rows_per_part=5, **asking(prompt))

    assert run(job("name")).by_status == {"completed": 12, "invalid": 1}
    before = {path.name: path.read_bytes() for path in parts_of(tmp_path / OUT)}
    assert survey(job("name"), tmp_path).stale == 0
    assert run(job("name"), retry="stale").settled == {}, "nothing changed"

    told = survey(job("tell"), tmp_path)
    assert (told.stale, told.requests, told.is_clean) == (12, 0, False)
    assert (told.stale_forecast.credits or 0) > 0
    assert any("12 rows stale" in line and "--retry stale" in line for line in describe(told))
    assert len(preview(job("tell"), Options(retry="stale"))) == 3
    assert preview(job("tell"), Options()) == []

    assert run(job("tell")).settled == {}, "a plain run keeps the answers"
    assert {path.name: path.read_bytes() for path in parts_of(tmp_path / OUT)} == before

    part = run(job("tell"), retry="stale", limit=5)
    assert (part.settled, part.retry_left) == ({"completed": 5}, 7)
    assert run(job("tell")).exit_status == 3, "the order stands until the run is finished"
    found = by_id(tmp_path / OUT)
    assert {name: row["text"] for name, row in found.items()} == {
        "wrong": None,
        **{f"r{n}": text_of(f"tell {n}") for n in range(12)},
    }
    assert {row["submits"] for row in found.values()} == {0, 2}
    assert not any(row["maybe_billed_twice"] for row in found.values()), "two questions, each asked once"
    assert sorted(row["text"] for row in superseded_rows(tmp_path / OUT)) == sorted(
        text_of(f"name {n}") for n in range(12)
    )
    assert simulator.book()["totals"]["submits_accepted"] == 24
    assert run(job("tell"), retry="stale").settled == {}

    rows[3]["q"], rows[4]["max_tokens"] = "other", 0
    write_rows(source, [rows[3], {"id": "r3", "q": "a second line of it"}, *rows])
    again = run(job("tell"), retry=("failed", "stale"))
    assert (again.settled, again.by_status) == ({"completed": 1}, {"completed": 12, "invalid": 1})
    assert by_id(tmp_path / OUT)["r3"]["text"] == text_of("tell other")
    assert by_id(tmp_path / OUT)["r4"]["text"] == text_of("tell 4"), "what cannot be sent now keeps its answer"
    report = audit_output(tmp_path / OUT)
    assert {finding.kind for finding in report.problems} == {"row_edited"}
    assert [finding.examples for finding in report.problems] == [["r4"]]


def test_a_job_that_changed_under_an_unfinished_run_goes_on_with_stale_rows_asked_anew(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", questions(12))
    simulator.control(balance=0.05)
    old = job_of(source, tmp_path / OUT, simulator.url, **asking("name"))
    done = run(old).settled["completed"]
    assert 0 < done < 12
    simulator.control(balance=None)
    new = job_of(source, tmp_path / OUT, simulator.url, **asking("tell"))
    with pytest.raises(JobError, match=r"--retry stale"):
        run(new)
    told = survey(new, tmp_path)
    assert (told.stale, len(told.refused), told.requests) == (done, 1, 12 - done)
    elsewhere = job_of(source, tmp_path / OUT, simulator.url, **asking("tell"), media={"root": str(tmp_path)})
    with pytest.raises(JobError) as refusal:  # rows with other files have the same request: not found as stale
        run(elsewhere, retry="stale")
    assert "media.root" in str(refusal.value)
    assert "--retry stale" not in str(refusal.value)
    with monkeypatch.context() as patch:  # it ends between the order and the marks
        patch.setattr("batchfox.execution.mark_rows", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(new, retry="stale")
    assert run(new).by_status == {"completed": 12}, "the order is on record"
    assert {row["text"] for row in by_id(tmp_path / OUT).values()} == {text_of(f"tell {n}") for n in range(12)}
    assert simulator.book()["totals"]["submits_accepted"] == 12 + done
    assert audit_output(tmp_path / OUT).problems == []


def test_tasks_in_flight_when_the_job_was_edited_are_collected_and_told_as_outdated(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(latency="constant:30")
    source = write_rows(tmp_path / "in.jsonl", questions(3))

    def job(prompt: str) -> Job:
        request = {"model": MODEL, "prompt": prompt + " {{ q }}"}
        return job_of(source, tmp_path / OUT, simulator.url, request=request, poll={"first": 0.1})

    def refuse_key() -> None:
        eventually(lambda: simulator.book()["totals"]["submits_accepted"] == 3, "three tasks")
        simulator.control(key_refused=True)

    helper = threading.Thread(target=refuse_key)
    helper.start()
    assert run(job("name")).left_in_flight == 3
    helper.join()
    simulator.control(key_refused=False, latency=QUICK)
    put_forward(simulator, 30.0)
    summary = run(job("tell"), retry="stale")
    assert (summary.by_status, summary.outdated) == ({"completed": 3}, 3)
    assert summary.next_step(["batchfox", "run", "job.toml"]) == "batchfox run job.toml --retry stale"
    assert {row["text"] for row in by_id(tmp_path / OUT).values()} == {text_of(f"name {n}") for n in range(3)}
    assert run(job("tell"), retry="stale").outdated == 0
    assert {row["text"] for row in by_id(tmp_path / OUT).values()} == {text_of(f"tell {n}") for n in range(3)}


def test_stale_rows_need_an_id_and_an_input_that_can_be_read_twice(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(1))
    with pytest.raises(UserError, match="an id"):
        run(job_of(source, tmp_path / OUT, simulator.url, input={"id": None}), retry="stale")
    with pytest.raises(UserError, match="put it in a file"):
        run(job_of(Path("-"), tmp_path / OUT, simulator.url), retry="stale")
    assert not (tmp_path / OUT).exists()
