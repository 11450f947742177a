"""`validate`: every row against the rules, and nothing sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, Simulate, job_of, rows_with_ids, tables_of, write_rows

from batchfox import run
from batchfox.core.job import Job
from batchfox.errors import JobError
from batchfox.survey import Survey, Surveyor, describe


def survey(job: Job, root: Path | None = None) -> Survey:
    return Surveyor(job).survey(root)


ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "x" * 400, "max_tokens": 50},
    {"id": "b", "prompt": "x", "image_urls": ["https://example.org/a.png", "https://example.org/b.png"]},
    {"id": "c", "prompt": "x" * 100_001},
    {"id": "d", "prompt": "x", "max_tokens": 0},
    {"id": "e", "prompt": "x", "max_tokens": 0},
    {"id": "f", "prompt": "x", "image_urls": ["missing.png"]},
    {"id": "a", "prompt": "other"},
    {"id": "b", "prompt": "x", "image_urls": ["https://example.org/a.png", "https://example.org/b.png"]},
    {"prompt": "no id"},
]


def test_rows_are_counted_by_what_would_become_of_them(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    job = job_of(source, tmp_path / "out", "http://127.0.0.1:9", request={"model": "gemini-2.5-flash"})
    found = survey(job)
    assert (found.rows, found.valid, found.invalid, found.duplicates) == (9, 2, 5, 2)
    assert (found.differing_rows, found.differing) == (1, ["a"])
    assert (found.requests, found.by_shape) == (2, {"text": 1, "vision": 1})
    assert (found.media, found.completion_tokens > 50) == ({"image": 2}, True)
    assert set(found.fields) == {"prompt", "max_tokens", "image_urls"}
    rules = {finding.rule: finding for finding in found.findings}
    assert rules["max_tokens"].rows == 2
    assert rules["max_tokens"].places == [f"{source}:4", f"{source}:5"]
    assert "missing id" in rules["unreadable_row"].example
    assert not (tmp_path / "out").exists()
    text = "\n".join(describe(found))
    assert "9 rows: 2 valid, 5 invalid" in text


def test_what_is_done_is_counted_as_done(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(10))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"requests_per_minute": 60})
    run(job_of(source, tmp_path / "out", simulator.url), limit=4)
    found = survey(job, tmp_path / "out")
    assert (found.rows, found.done_before, found.requests, found.minutes) == (10, 4, 6, 0.1)
    assert simulator.book()["totals"]["submits_received"] == 4


def test_a_variable_that_no_row_has_is_the_jobs_mistake(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(150))
    job = job_of(source, tmp_path / "out", "http://x", request={"prompt": "{{ titel }}"})
    with pytest.raises(JobError, match="titel"):
        survey(job)


def test_notes_tell_what_a_dated_path_and_missing_ids_mean(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(2))
    tables = tables_of(source, tmp_path / "{{ run_date }}", "http://x", input={"id": None})
    notes = " ".join(survey(Job.from_dict(tables)).notes)
    assert "each day's folder is complete by itself" in notes
    assert "known by their position" in notes


def test_the_command_says_it_in_words_or_json_and_ends_with_3_when_a_row_would_not_be_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from batchfox.cli import main

    def validate(rows: list[dict[str, Any]], *more: str) -> tuple[int, str]:
        source = write_rows(tmp_path / "in.jsonl", rows)
        arguments = ["validate", "--input", str(source), "--output", str(tmp_path / "out"), "--model", MODEL]
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--id", "id", *more])
        assert isinstance(left.value.code, int)
        return left.value.code, capsys.readouterr().out

    status, out = validate(rows_with_ids(3))
    assert status == 0
    assert "3 rows: 3 valid, 0 invalid" in out
    status, out = validate(ROWS, "--json")
    assert status == 3
    assert json.loads(out)["invalid"] == 6
    status, out = validate([{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}])
    assert status == 3
    assert "1 of them differ in content (a)" in out


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"request": {"temperature": 3, "prompt": "{{ prompt }}"}}, "request.temperature"),
        ({"request": {"model": None}}, "request.model: missing"),
        ({"input": {"id": "idd"}}, 'did you mean "id"'),
        ({"request": {"prompt": "{{ promt }}"}}, 'did you mean "prompt"'),
    ],
)
def test_what_all_rows_would_share_stops_validate_and_run_before_anything_is_sent(
    simulate: Simulate, tmp_path: Path, tables: dict[str, Any], says: str
) -> None:
    simulator = simulate()
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(150)), tmp_path / "out", simulator.url, **tables)
    with pytest.raises(JobError, match=says):
        survey(job)
    with pytest.raises(JobError, match=says):
        run(job)
    assert simulator.book()["totals"]["submits_received"] == 0
    mended = job_of(tmp_path / "in.jsonl", tmp_path / "out", simulator.url)
    assert run(mended, limit=1).by_status == {"completed": 1}, "the output is not spoiled"
