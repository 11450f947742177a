"""What a program that imports batchfox meets: options, mistakes, event loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Simulate, by_id, job_of, rows_with_ids, tables_of, write_rows

import batchfox
from batchfox import Job, Options, arun, load_job, run
from batchfox.errors import JobError, UserError


def test_everything_public_can_be_imported() -> None:
    assert {name for name in batchfox.__all__ if getattr(batchfox, name) is None} == set()
    assert "Options" in batchfox.__all__


@pytest.mark.parametrize("retry", ["failed", " failed , in_doubt", ["failed"], ("failed",), iter(["failed"])])
def test_retry_is_a_word_or_words(simulate: Simulate, tmp_path: Path, retry: Any) -> None:
    simulator = simulate(faults={"task_rejected": 1.0})
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(3)), tmp_path / "out", simulator.url)
    assert run(job).by_status == {"failed": 3}
    simulator.control(faults={})
    assert run(job, retry=retry).by_status == {"completed": 3}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"limit": 0}, "limit: expected a whole number from 1"),
        ({"limit": -1}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": "5"}, "limit"),
        ({"retry": "fialed"}, 'did you mean "failed"'),
        ({"retry": [5]}, "retry: expected statuses"),
        ({"log_level": "loud"}, "log_level: expected"),
        ({"log_format": "xml"}, "log_format: expected"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(3)), tmp_path / "out", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=told):
        run(job, **options)
    assert not (tmp_path / "out").exists()


def test_options_are_keywords_or_a_record_that_keywords_change(simulate: Simulate, tmp_path: Path) -> None:
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(30)), tmp_path / "out", simulate().url)
    assert run(job, Options(limit=10)).by_status == {"completed": 10}
    assert run(job, Options(limit=10), limit=5).by_status == {"completed": 15}
    assert run(job, limit=None).by_status == {"completed": 30}
    with pytest.raises(TypeError, match="limt"):
        run(job, limt=5)  # type: ignore[call-arg]


async def test_run_beside_a_running_loop_names_arun(simulate: Simulate, tmp_path: Path) -> None:
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(3)), tmp_path / "out", simulate().url)
    with pytest.raises(UserError, match=r"await arun\(\.\.\.\)"):
        run(job)
    assert (await arun(job, Options(limit=2), quiet=True)).by_status == {"completed": 2}


def test_dicts_where_records_belong_are_told_what_makes_a_job_of_them(tmp_path: Path) -> None:
    tables = tables_of(tmp_path / "in.jsonl", tmp_path / "out", "http://x")
    with pytest.raises(JobError, match=r"input: expected a record \(Input\), got a table; Job\.from_dict"):
        Job(**tables)
    good = Job.from_dict(tables)
    with pytest.raises(JobError, match=r"limits: expected a record \(Limits\), got a table"):
        Job(input=good.input, output=good.output, limits={"in_flight": 3})  # type: ignore[arg-type]
    with pytest.raises(JobError, match="load_job reads a job file"):
        Job.from_dict("jobs/demo.toml")  # type: ignore[arg-type]
    with pytest.raises(JobError, match=r"got a dict; Job\.from_dict"):
        run(tables)  # type: ignore[arg-type]
    assert Job(input=good.input, output=good.output).limits.in_flight == 200


def test_run_takes_a_path_as_load_job_does(simulate: Simulate, tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    path = tmp_path / "job.toml"
    path.write_text(
        f'[input]\npath = "{tmp_path}/in.jsonl"\nid = "id"\n[output]\npath = "{tmp_path}/out"\n'
        f'[api]\nbase_url = "{simulate().url}"\n[request]\nmodel = "nemotron-3-nano-omni"\n'
    )
    assert run(path).by_status == {"completed": 3}
    assert run(str(path)).completed_before == 3
    assert run(load_job(path)).completed_before == 3
    assert len(by_id(tmp_path / "out")) == 3
