"""`_batchfox/runs.jsonl` and `batchfox runs`: each time that a job was run, the one that died among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MODEL, Simulate, Starter, job_of, rows_with_ids, write_rows

from batchfox import run
from batchfox.runs import read_runs
from batchfox.runs_shown import describe, look

OUT = "out"


def test_each_run_is_listed_once_whatever_ended_it(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Starter
) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(6))
    job = job_of(source, tmp_path / OUT, simulator.url)
    listed = tmp_path / OUT / "_batchfox" / "runs.jsonl"
    first = run(job, limit=2)
    with monkeypatch.context() as patch:  # as a kill at the end of the second: its end is not on record
        patch.setattr("batchfox.history.end_run", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(job)
    assert [ran.how for ran in read_runs(tmp_path / OUT)] == ["ended"]
    assert [(ran.how, ran.rows, ran.exit_status) for ran in look(tmp_path / OUT)] == [
        ("ended", 2, 0),
        ("died", 4, None),
    ]
    with listed.open("ab") as file:
        file.write(b'{"run_id": "cut by a full di')
    wrong = [{"id": "wrong", "prompt": "x", "model": "gone"}]
    rows = [row | {"model": MODEL} for row in rows_with_ids(6)]
    write_rows(source, [*rows, *wrong])
    again = run(job_of(source, tmp_path / OUT, simulator.url, request={"model": None}), retry="stale")
    with monkeypatch.context() as patch:  # the line of a run that ended is lost
        patch.setattr("batchfox.runs._append", lambda *_: None)
        run(job_of(source, tmp_path / OUT, simulator.url, request={"model": None}))
    simulator.control(key_refused=True)
    write_rows(source, [*rows, *wrong, *({"id": "new", "prompt": "y", "model": MODEL},)])
    run(job_of(source, tmp_path / OUT, simulator.url, request={"model": None}))

    found = read_runs(tmp_path / OUT)
    assert [(ran.how, ran.exit_status, ran.rows, ran.not_completed) for ran in found] == [
        ("ended", 0, 2, 0),
        ("died", None, 4, 0),
        ("ended", 3, 1, 1),
        ("ended", 3, 0, 0),
        ("ended", 4, 0, 0),
    ]
    assert [ran.is_resume for ran in found] == [False, True, True, False, False]
    assert (found[0].run_id, found[2].run_id) == (first.run_id, again.run_id)
    assert sum(ran.submits for ran in found) == simulator.book()["totals"]["submits_accepted"]
    assert sum(ran.credits for ran in found) == pytest.approx(simulator.book()["totals"]["credits_charged"])
    assert all(ran.ended_at >= ran.begun_at for ran in found)
    shown = list(describe(look(tmp_path / OUT), "out"))
    assert "died: the same command resumes it" in shown[2]
    assert "4: the API refused the key" in shown[5]

    told = start("runs", "--last", "1", "--json", tmp_path / OUT)
    assert told.wait() == 0
    assert json.loads(told.out)["exit_status"] == 4
    lines = start("runs", tmp_path / OUT)
    assert (lines.wait(), lines.out.splitlines()) == (0, shown)
