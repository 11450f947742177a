"""`validate`: every row against the rules, and nothing sent."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, Simulate, job_of, rows_with_ids, tables_of, write_rows

from batchfox import run
from batchfox.core.job import Job
from batchfox.core.prices import Price
from batchfox.core.row import key_of_id
from batchfox.errors import JobError, UserError
from batchfox.options import Options
from batchfox.survey.findings import Survey, describe
from batchfox.survey.forecast import PriceList, ask_prices
from batchfox.survey.preview import preview
from batchfox.survey.surveyor import Surveyor


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
    assert (found.media, found.forecast.completion_tokens > 50) == ({"image": 2}, True)
    assert set(found.fields) == {"prompt", "max_tokens", "image_urls"}
    rules = {finding.rule: finding for finding in found.findings}
    assert rules["max_tokens"].rows == 2
    assert rules["max_tokens"].places == [f"{source}:4", f"{source}:5"]
    assert "missing id" in rules["unreadable_row"].example
    assert not (tmp_path / "out").exists()
    text = "\n".join(describe(found))
    assert "9 rows: 2 valid, 5 invalid" in text


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"requests_per_minute": 4, "polls_per_minute": 20}, "time: 2:30 or more, by limits.requests_per_minute"),
        ({"requests_per_minute": 20, "polls_per_minute": 4}, "time: 2:30 or more, by limits.polls_per_minute"),
        (
            {"requests_per_minute": 60, "tokens_per_minute": 100},
            "time: 1:43:00 by limits.tokens_per_minute, less where",
        ),
    ],
)
def test_the_time_is_told_by_the_limit_that_binds(limits: dict[str, float], said: str, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"id": n, "prompt": "why?"} for n in range(10)])
    text = "\n".join(describe(survey(job_of(source, tmp_path / "out", "http://127.0.0.1:9", limits=limits))))
    assert said in text, text


def test_what_is_done_is_counted_as_done(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(10))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"requests_per_minute": 60})
    run(job_of(source, tmp_path / "out", simulator.url), limit=4)
    found = survey(job, tmp_path / "out")
    assert (found.rows, found.before, found.requests, found.forecast.minutes) == (10, {"completed": 4}, 6, 0.1)
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
    assert "1 of them differs in content (a)" in out


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


# What an earlier run did.


def test_done_rows_are_checked_and_those_that_ended_as_invalid_are_told(simulate: Simulate, tmp_path: Path) -> None:
    url = simulate().url
    rows = [*rows_with_ids(6), {"id": "bad", "prompt": "x", "max_tokens": 0}, {"id": "long", "prompt": "x" * 100_001}]
    for has_ids in (True, False):
        source, folder = write_rows(tmp_path / "in.jsonl", rows), tmp_path / f"out-{has_ids}"
        job = job_of(source, folder, url, input={"id": "id" if has_ids else None})
        assert run(job).by_status == {"completed": 6, "invalid": 2}
        found = survey(job, folder)
        assert (found.valid, found.invalid, found.requests) == (0, 0, 0)
        assert found.before == {"completed": 6, "invalid": 2}
        assert found.fields == ["prompt", "max_tokens"], "the columns of done rows are shown"
        assert {(finding.rule, finding.rows) for finding in found.findings} == {("max_tokens", 1), ("prompt", 1)}
        assert not found.is_clean
        text = "\n".join(describe(found))
        assert "8 rows: 0 valid, 0 invalid, 8 done already (6 completed, 2 invalid)" in text
        assert "2 rows ended as invalid before, 0 of them valid now" in text
    mended = job_of(source, tmp_path / "out-True", url, rules={"off": ["max_tokens"]})
    assert survey(mended, tmp_path / "out-True").mended == 1


def test_files_of_completed_rows_may_be_gone(simulate: Simulate, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    rows = [{"id": "a", "prompt": "x", "image_urls": ["a.png"]}, {"id": "b", "prompt": "x", "image_urls": ["b.png"]}]
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulate().url, media={"root": str(tmp_path)})
    assert survey(job, tmp_path / "out").invalid == 1
    assert run(job).by_status == {"completed": 1, "invalid": 1}
    picture.unlink()
    found = survey(job, tmp_path / "out")
    assert [(finding.rule, finding.rows) for finding in found.findings] == [("media", 1)]


def test_an_input_that_changed_below_what_is_done_is_found(simulate: Simulate, tmp_path: Path) -> None:
    job = job_of(tmp_path / "in.jsonl", tmp_path / "out", simulate().url, input={"id": None})
    write_rows(tmp_path / "in.jsonl", rows_with_ids(20))
    run(job)
    assert survey(job, tmp_path / "out").is_clean
    write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    assert survey(job, tmp_path / "out").is_clean, "appended rows are new rows"
    for rows in (rows_with_ids(20, first=1), rows_with_ids(19)):
        write_rows(tmp_path / "in.jsonl", rows)
        found = survey(job, tmp_path / "out")
        assert ["the input changed" in reason for reason in found.refused] == [True]
        assert not found.is_clean
        assert "a run would not start: the input changed" in "\n".join(describe(found))


def test_what_a_run_would_refuse_in_the_output_is_told(simulate: Simulate, tmp_path: Path) -> None:
    url = simulate().url
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    checkpoint = str(tmp_path / "elsewhere.db")
    job = job_of(source, tmp_path / "out", url, output={"checkpoint": checkpoint})
    run(job)
    assert survey(job, tmp_path / "out").before == {"completed": 3}, "the checkpoint may lie elsewhere"
    renamed = job_of(source, tmp_path / "out", url, output={"checkpoint": checkpoint}, input={"id": "prompt"})
    assert "the column that names a row" in survey(renamed, tmp_path / "out").refused[0]
    (tmp_path / "elsewhere.db").write_bytes(b"no database" * 1000)
    assert "damaged" in survey(job, tmp_path / "out").refused[0]
    assert "not an output of batchfox" in survey(job_of(source, tmp_path, url), tmp_path).refused[0]
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (source, source / "out", tmp_path / "loop"):
        assert "a file is in the way" in survey(job_of(source, place, url), place).refused[0]


def test_rows_whose_task_runs_are_not_among_the_requests(simulate: Simulate, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    job = job_of(source, tmp_path / "out", simulate().url)
    run(job, limit=1)
    with contextlib.closing(sqlite3.connect(tmp_path / "out" / "_batchfox" / "checkpoint.db")) as db, db:
        db.execute("INSERT INTO row (slot, key, state, kept) VALUES (99, ?, 2, ?)", (key_of_id("r3"), b"\x80"))
    found = survey(job, tmp_path / "out")
    assert (found.before, found.requests) == ({"completed": 1, "running": 1}, 3)
    assert "1 done already, 1 running" in next(iter(describe(found)))


# Credits, time, columns.


def test_credits_are_estimated_by_the_price_list(simulate: Simulate, tmp_path: Path) -> None:
    rows = [{"id": str(n), "model": model, "prompt": "x", "max_tokens": 100} for n, model in enumerate(["m", "m", "u"])]
    job = job_of(
        write_rows(tmp_path / "in.jsonl", rows),
        tmp_path / "out",
        "http://127.0.0.1:9",
        request={"model": None},
        limits={"credits": 1, "requests_per_minute": None, "in_flight": 2},
    )
    found = Surveyor(job).survey(None, PriceList(prices={"m": Price(fixed=0.75)}))
    assert (found.forecast.credits, found.forecast.unpriced) == (1.5, {"u": 1})
    text = "\n".join(describe(found))
    assert "credits, roughly: at most 1.50 by the price list; without 1 request of unlisted models (u)" in text
    assert "above limits.credits" in text
    assert "by limits.in_flight 2 times as long as one task takes" in text


def test_the_price_list_is_asked_for_where_it_can_be_had(simulate: Simulate, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(1))
    for url in (simulate().url, "simulator"):
        assert ask_prices(job_of(source, tmp_path / "out", url)).prices[MODEL].fixed == 0.01
    absent = ask_prices(job_of(source, tmp_path / "out", "http://127.0.0.1:9"))
    assert not absent.prices
    assert "http://127.0.0.1:9 cannot be had now" in absent.absence
    text = "\n".join(describe(Surveyor(job_of(source, tmp_path / "out", "http://127.0.0.1:9")).survey(None, absent)))
    assert "credits: no estimate: the price list of http://127.0.0.1:9 cannot be had now" in text
    assert not (tmp_path / "out").exists()


def test_columns_that_are_not_sent_or_named_in_vain_are_notes(tmp_path: Path) -> None:
    rows = [row | {"messages": [{"role": "user", "content": "y"}]} for row in rows_with_ids(3)] + rows_with_ids(
        2, first=3
    )
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", "http://x", input={"keep": ["promt"]}, request={"prompt": "{{ prompt }}"})
    found = survey(job)
    assert found.passed_over == {"messages": 3}
    assert "the column messages is passed over in 3 rows: [request] has prompt" in found.notes
    assert any(
        'input.keep: "promt" is no column of the first 5 rows (did you mean "prompt"?)' in n for n in found.notes
    )


def test_the_body_is_checked_as_it_would_go_out(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"ID3" + bytes(16_000_000))
    source = write_rows(tmp_path / "in.jsonl", [{"id": "a", "audio_url": "a.mp3"}])
    media = {"root": str(tmp_path), "mode": "inline"}
    job = job_of(source, tmp_path / "out", "http://x", request={"model": "gemini-2.5-pro"}, media=media)
    (finding,) = survey(job).findings
    assert finding.rule == "body_size"


# --dry-run.


def dry_run(job: Job, **options: Any) -> list[Any]:
    return [json.loads(line) for line in preview(job, Options(**options))]


def test_a_dry_run_shows_the_first_requests_that_a_run_would_send(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows = [*rows_with_ids(2), {"id": "bad", "prompt": "x", "image_urls": ["gone.png"]}, *rows_with_ids(4, first=2)]
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulator.url)
    assert [said["row_id"] for said in dry_run(job)] == ["r0", "r1", "bad"]
    assert [said["row_id"] for said in dry_run(job, limit=1)] == ["r0"]
    assert "gone.png" in dry_run(job)[2]["reason"]
    assert not (tmp_path / "out").exists()
    run(job, limit=4)
    assert [said["row_id"] for said in dry_run(job)] == ["r3", "r4", "r5"], "what is done is passed over"
    assert [said["row_id"] for said in dry_run(job, retry="invalid")] == ["bad", "r3", "r4"]
    assert [said["row_id"] for said in dry_run(job, fresh=True)] == ["r0", "r1", "bad"]
    run(job)
    assert dry_run(job) == []
    assert simulator.book()["totals"]["submits_received"] == 6


@pytest.mark.parametrize(
    ("tables", "options", "says"),
    [
        ({}, {"retry": "fialed"}, 'did you mean "failed"'),
        ({"media": {"root": "oci://bucket/photos"}}, {}, "batchfox"),
        ({"request": {"temperature": 3, "prompt": "x"}}, {}, "request.temperature"),
        ({"request": {"prompt": "{{ promt }}"}}, {}, 'did you mean "prompt"'),
        ({"input": {"id": "prompt"}}, {}, "the column that names a row"),
        ({"request": {"model": "nemotron"}, "limits": {"credits": 1}}, {}, "the price list does not name"),
        ({"api": {"base_url": "simulator", "simulate": {"rpm": "x"}}, "limits": {"credits": 1}}, {}, "api.simulate"),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(
    simulate: Simulate, tmp_path: Path, tables: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    source, url = write_rows(tmp_path / "in.jsonl", rows_with_ids(5)), simulate().url
    if "input" in tables:
        run(job_of(source, tmp_path / "out", url), limit=1)
    with pytest.raises(UserError, match=says):
        dry_run(job_of(source, tmp_path / "out", url, **tables), **options)
    with pytest.raises(UserError, match=says):
        run(job_of(source, tmp_path / "out", url, **tables), **options)


def test_a_dry_run_says_that_nothing_was_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from batchfox.cli import main

    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(1))
    with pytest.raises(SystemExit) as left:
        main(["run", "--input", str(source), "--output", str(tmp_path / "out"), "--model", MODEL, "--dry-run"])
    assert not left.value.code
    said = capsys.readouterr()
    assert json.loads(said.out)["request"] == {"model": MODEL, "prompt": "question 0"}
    assert said.err == "nothing was sent\n"
