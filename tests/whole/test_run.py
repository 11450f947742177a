"""A job from its first row to its last, against the simulator over a socket."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import (
    GUARD_S,
    KEY,
    MODEL,
    Simulate,
    by_id,
    http_reply,
    job_of,
    once,
    parts_of,
    put_forward,
    raw_server,
    rows_of,
    rows_with_ids,
    tables_of,
    write_rows,
)

from batchfox import Job, arun, load_job, run
from batchfox.api import Api
from batchfox.core.event import PollEvent
from batchfox.errors import JobError
from batchfox.show import describe
from batchfox.simulator import answer, digest_of

OWN_COLUMNS = {
    "row_index": pa.int64(),
    "row_id": pa.string(),
    "status": pa.string(),
    "text": pa.string(),
    "reasoning": pa.string(),
    "finish_reason": pa.string(),
    "model": pa.string(),
    "task_id": pa.string(),
    "completion": pa.string(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "total_tokens": pa.int64(),
    "credits": pa.float64(),
    "error_code": pa.string(),
    "error_type": pa.string(),
    "error_message": pa.string(),
    "http_status": pa.int16(),
    "submits": pa.int16(),
    "maybe_billed_twice": pa.bool_(),
    "polls": pa.int32(),
    "submitted_at": pa.timestamp("us", tz="UTC"),
    "finished_at": pa.timestamp("us", tz="UTC"),
    "latency_s": pa.float64(),
    "request_hash": pa.string(),
    "media": pa.list_(pa.string()),
    "run_id": pa.string(),
    "run_date": pa.date32(),
}


def text_of(prompt: str, **more: Any) -> str:
    text: str = answer({"model": MODEL, "prompt": prompt} | more)["choices"][0]["message"]["content"]
    return text


def test_every_row_ends_with_its_own_answer_and_the_same_command_again_sends_nothing(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate()
    rows = rows_with_ids(120)
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulator.url)
    first = run(job)
    assert (first.exit_status, first.by_status, first.here.submits) == (0, {"completed": 120}, 120)
    found = by_id(tmp_path / "out")
    assert {name: row["text"] for name, row in found.items()} == {row["id"]: text_of(row["prompt"]) for row in rows}
    entries = {entry["task_id"]: entry for entry in simulator.book()["entries"]}
    for row in found.values():
        assert json.loads(row["completion"]) == answer({"model": MODEL, "prompt": row["prompt"]})
        assert entries[row["task_id"]]["prompt_head"] == row["prompt"]
        assert (row["submits"], row["maybe_billed_twice"], row["http_status"]) == (1, False, 200)
        assert row["credits"] == 0.01
        assert row["run_id"] == first.run_id
        assert 0 < row["latency_s"] < GUARD_S
        assert row["polls"] >= 1
    before = {path: path.stat().st_mtime_ns for path in parts_of(tmp_path / "out")}
    assert len(before) == 3
    again = run(job)
    assert (again.exit_status, again.completed_before, again.settled) == (0, 120, {})
    assert again.run_id != first.run_id
    assert simulator.book()["totals"]["submits_received"] == 120
    assert {path: path.stat().st_mtime_ns for path in parts_of(tmp_path / "out")} == before


def test_the_columns_are_the_contracts_with_the_inputs_behind_them(simulate: Simulate, tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "x", "n": 1, "tags": ["t"], "Status": "mine", "none": None}]
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url)
    run(job)
    schema = pq.read_schema(parts_of(tmp_path / "out")[0])
    assert schema.names[: len(OWN_COLUMNS)] == list(OWN_COLUMNS)
    assert [schema.field(name).type for name in OWN_COLUMNS] == list(OWN_COLUMNS.values())
    assert schema.names[-1] == "input_extra"
    carried = set(schema.names) - OWN_COLUMNS.keys()
    assert carried == {"id", "prompt", "n", "tags", "input_Status", "none", "input_extra"}
    (row,) = rows_of(tmp_path / "out")
    assert (row["n"], row["tags"], row["input_Status"], row["none"]) == (1, '["t"]', "mine", None)


def test_rows_without_ids_are_named_by_their_position(simulate: Simulate, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}"} for n in range(60)]
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url, input={"id": None})
    assert run(job).exit_status == 0
    found = by_id(tmp_path / "out")
    assert {row["row_id"]: row["row_index"] for row in found.values()} == {str(n): n for n in range(60)}
    assert all(found[str(n)]["text"] == text_of(f"p{n}") for n in range(60))


def test_rows_with_the_same_id_are_one_row_and_the_first_is_sent(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows = [{"id": n % 10, "prompt": f"p{n}"} for n in range(60)]
    rows.append({"id": "3", "prompt": "3 as text is the same id"})
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulator.url)
    summary = run(job)
    assert (summary.exit_status, summary.by_status, summary.duplicates) == (0, {"completed": 10}, 51)
    assert {name: row["text"] for name, row in by_id(tmp_path / "out").items()} == {
        str(n): text_of(f"p{n}") for n in range(10)
    }
    assert simulator.book()["totals"]["submits_received"] == 10


def test_a_duplicate_of_an_earlier_runs_row_is_no_new_row(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    job = job_of(source, tmp_path / "out", simulator.url)
    run(job)
    write_rows(source, [*rows_with_ids(5), {"id": "r2", "prompt": "other"}])
    summary = run(job)
    assert (summary.exit_status, summary.completed_before, summary.duplicates) == (0, 5, 1)
    assert simulator.book()["totals"]["submits_received"] == 5


def test_a_row_that_cannot_be_sent_is_an_output_row_with_its_reason(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = tmp_path / "in.jsonl"
    lines = [
        b'{"id": "good", "prompt": "x"}',
        b"no JSON at all",
        b"",
        b'{"prompt": "no id"}',
        b'{"id": null, "prompt": "null id"}',
        b'{"id": "bytes", "prompt": "\xff\xfe"}',
        b'{"id": "rule", "prompt": "x", "max_tokens": 0}',
        b"[1, 2]",
    ]
    source.write_bytes(b"\n".join(lines) + b"\n")
    job = job_of(source, tmp_path / "out", simulator.url)
    summary = run(job)
    assert (summary.exit_status, summary.by_status) == (3, {"completed": 1, "invalid": 6})
    found = by_id(tmp_path / "out")
    assert found.keys() == {"good", "line:2", "line:4", "line:5", "line:6", "rule", "line:8"}
    assert "line 2" in found["line:2"]["error_message"]
    assert "UTF-8" in found["line:6"]["error_message"]
    assert "max_tokens" in found["rule"]["error_message"]
    for name, row in found.items():
        if name != "good":
            assert (row["submits"], row["task_id"], row["submitted_at"]) == (0, None, None)
    assert simulator.book()["totals"]["submits_received"] == 1
    again = run(job)
    assert (again.exit_status, again.settled) == (3, {})
    assert simulator.book()["totals"]["submits_received"] == 1


def test_an_empty_input_leaves_one_empty_part_with_the_schema(simulate: Simulate, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [])
    job = job_of(source, tmp_path / "out", simulate().url)
    assert run(job).exit_status == 0
    (part,) = parts_of(tmp_path / "out")
    table = pq.read_table(part)
    assert table.num_rows == 0
    assert table.schema.names == [*OWN_COLUMNS, "input_extra"]
    write_rows(source, rows_with_ids(3))
    assert run(job).exit_status == 0
    assert len(by_id(tmp_path / "out")) == 3


def test_lines_in_the_openai_batch_form_are_taken_as_they_are(simulate: Simulate, tmp_path: Path) -> None:
    bodies = {
        f"c{n}": {"model": MODEL, "messages": [{"role": "user", "content": f"hello {n}"}], "top_p": 0.5}
        for n in range(5)
    }
    rows = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for name, body in bodies.items()
    ]
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulate().url, input={"id": None}, request={"model": None})
    assert run(job).exit_status == 0
    found = by_id(tmp_path / "out")
    assert {name: json.loads(row["completion"]) for name, row in found.items()} == {
        name: answer(body) for name, body in bodies.items()
    }
    assert all(row["task_id"].startswith("task-llm-") for row in found.values())


def test_all_five_shapes_travel_in_one_run(simulate: Simulate, tmp_path: Path) -> None:
    requests: dict[str, dict[str, Any]] = {
        "text": {"prompt": "hello", "system_prompt": "be brief", "temperature": 0.5},
        "vision": {"prompt": "what is it", "image_urls": ["https://example.org/a.png"]},
        "video": {"prompt": "what moves", "video_urls": ["https://example.org/a.mp4"], "max_tokens": 30},
        "audio": {"audio_url": "https://example.org/a.wav"},
        "custom": {
            "messages": [
                {"role": "system", "content": "be kind"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "and this?"},
                        {"type": "image_url", "image_url": {"url": "https://example.org/b.png"}},
                    ],
                },
            ],
            "max_tokens": 50,
            "top_p": 0.5,
        },
    }
    source = write_rows(tmp_path / "in.jsonl", [{"id": name} | request for name, request in requests.items()])
    simulator = simulate()
    job = job_of(source, tmp_path / "out", simulator.url, request={"model": "gemini-2.5-flash"})
    assert run(job).exit_status == 0
    found = by_id(tmp_path / "out")
    for name, request in requests.items():
        assert json.loads(found[name]["completion"]) == answer({"model": "gemini-2.5-flash"} | request)
    assert {entry["shape"] for entry in simulator.book()["entries"]} == set(requests)
    assert (found["vision"]["media"], found["text"]["media"]) == (["url"], [])


def test_a_local_medium_travels_inline_and_counts_by_its_path(simulate: Simulate, tmp_path: Path) -> None:
    picture = tmp_path / "media" / "a.png"
    picture.parent.mkdir()
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    source = write_rows(tmp_path / "in.jsonl", [{"id": "a", "prompt": "x", "image_urls": ["a.png"]}])
    simulator = simulate()
    job = job_of(source, tmp_path / "out", simulator.url, media={"root": str(picture.parent)})
    assert run(job).exit_status == 0
    assert by_id(tmp_path / "out")["a"]["media"] == ["inline"]
    assert [entry["shape"] for entry in simulator.book()["entries"]] == ["vision"]


def test_the_last_row_at_the_limit_leaves_none_beyond_it(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    for number, column in enumerate(("id", None)):
        source = write_rows(tmp_path / f"in{number}.jsonl", rows_with_ids(600))
        job = job_of(source, tmp_path / f"out{number}", simulator.url, input={"id": column})
        assert [run(job, limit=300).is_limited for _ in range(2)] == [True, False]


def test_limit_takes_so_many_unfinished_rows_and_the_next_run_goes_on(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(70))
    job = job_of(source, tmp_path / "out", simulator.url)
    for done, before in ((30, 0), (60, 30), (70, 60)):
        summary = run(job, limit=30)
        assert (summary.exit_status, summary.by_status) == (0, {"completed": done})
        assert summary.settled == {"completed": done - before}
    assert simulator.book()["totals"]["submits_received"] == 70
    assert {row["row_index"] for row in rows_of(tmp_path / "out")} == set(range(70))


def test_sync_is_one_call_and_one_answer_in_the_same_output(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    job = job_of(source, tmp_path / "out", simulator.url, request={"sync": True})
    assert run(job).exit_status == 0
    for row in by_id(tmp_path / "out").values():
        assert row["text"] == text_of(row["prompt"], sync=True)
        assert (row["submits"], row["polls"], row["task_id"]) == (1, 0, None)
    totals = simulator.book()["totals"]
    assert (totals["submits_received"], totals["polls"]) == (30, 0)


def test_a_streamed_row_is_polled_once_its_stream_is_over(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(10))
    job = job_of(source, tmp_path / "out", simulator.url, request={"stream": True})
    assert run(job).exit_status == 0
    assert all(row["text"] == text_of(row["prompt"], stream=True) for row in by_id(tmp_path / "out").values())
    totals = simulator.book()["totals"]
    assert totals["polls"] >= 10
    assert totals["streams"] == 10


def test_in_flight_bounds_the_tasks_that_are_not_settled(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(latency="constant:0.1")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"in_flight": 4})
    assert run(job).exit_status == 0
    entries = simulator.book()["entries"]
    moments = sorted([(e["created"], 1) for e in entries] + [(e["finish_at"], -1) for e in entries])
    most = running = 0
    for _, step in moments:
        running += step
        most = max(most, running)
    assert most == 4


def test_the_embedded_simulator_serves_a_run_without_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FOXAPI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(10))
    job = job_of(source, tmp_path / "out", "simulator", api={"simulate": {"latency": "constant:0.02"}})
    assert run(job).exit_status == 0
    assert len(by_id(tmp_path / "out")) == 10
    assert run(job).completed_before == 10


def test_a_simulator_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(1))
    job = job_of(source, tmp_path / "out", "simulator", api={"simulate": {"latncy": "constant:0.02"}})
    with pytest.raises(JobError, match="latncy"):
        run(job)


async def test_arun_runs_beside_other_work_of_its_callers_loop(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(20))
    tables = tables_of(source, tmp_path / "out", simulator.url)
    summary = await arun(Job.from_dict(tables))
    assert (summary.exit_status, len(by_id(tmp_path / "out"))) == (0, 20)


def test_run_takes_the_path_of_a_job_file_and_its_name_fills_the_output_path(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    (tmp_path / "captions.toml").write_text(
        f"""
        [input]
        path = "in.jsonl"
        id = "id"
        [request]
        model = "{MODEL}"
        prompt = "Say: {{{{ prompt }}}}"
        [api]
        base_url = "{simulator.url}"
        [output]
        path = "out/{{{{ job }}}}/{{{{ run_date }}}}"
        """
    )
    summary = run("captions.toml")
    folder = tmp_path / "out" / "captions" / summary.run_date
    assert by_id(folder)["r1"]["text"] == text_of("Say: question 1")
    assert by_id(folder)["r1"]["run_date"] == date.fromisoformat(summary.run_date)
    kept = load_job(folder / "_batchfox" / "job.toml")
    assert kept.request["prompt"] == "Say: {{ prompt }}"
    assert (kept.limits.in_flight, kept.retry.attempts) == (200, 4)


@pytest.mark.parametrize("name", [".", "link"])
def test_fresh_moves_the_folder_itself_by_whatever_name_it_goes(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder if name == "." else tmp_path)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(2))
    job = job_of(source, Path(name), simulate().url)
    first = run(job)
    assert run(job, fresh=True).settled == {"completed": 2}
    assert (tmp_path / "link").is_symlink()
    assert len(by_id(folder)) == len(by_id(tmp_path / f"real.old-{first.run_id}")) == 2


def test_fresh_moves_the_old_output_aside_and_starts_anew(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    job = job_of(source, tmp_path / "out", simulator.url)
    first = run(job)
    second = run(job, fresh=True)
    assert (second.exit_status, second.settled) == (0, {"completed": 5})
    assert {row["run_id"] for row in rows_of(tmp_path / "out")} == {second.run_id}
    assert {row["run_id"] for row in rows_of(tmp_path / f"out.old-{first.run_id}")} == {first.run_id}
    assert simulator.book()["totals"]["submits_received"] == 10


def test_the_schema_stays_the_same_when_a_column_changes_its_type_on_the_way(
    simulate: Simulate, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [{"id": f"r{n}", "prompt": "x", "score": None, "n": n} for n in range(50)]
    rows += [{"id": f"s{n}", "prompt": "x", "score": "half", "n": "text", "late": True} for n in range(50)]
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url, limits={"in_flight": 1})
    assert run(job).exit_status == 0
    schemas = [pq.read_schema(path) for path in parts_of(tmp_path / "out")]
    assert len(schemas) == 2
    assert schemas[0].equals(schemas[1])
    found = by_id(tmp_path / "out")
    assert found["r7"]["n"] == 7
    assert (found["s7"]["n"], found["s7"]["score"]) == (None, "half")
    assert json.loads(found["s7"]["input_extra"]) == {"n": "text", "late": True}


async def test_the_key_is_in_no_file_and_no_message_though_the_api_echoes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The API repeats the whole request, headers and all, in answers, in errors and in an HTML page."""
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)

    async def echo(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert KEY.encode() in request
        said = request.decode()
        if b"/v1/tasks/" in request:
            message = {"role": "assistant", "content": said}
            result = {"choices": [{"message": message, "finish_reason": "stop"}]}
            writer.write(http_reply(json.dumps({"status": "completed", "results": [result]}).encode()))
        elif b"refuse" in request:
            error = {"message": said, "type": "invalid_request_error", "code": KEY}
            writer.write(http_reply(json.dumps({"error": error}).encode(), "422 Unprocessable Entity"))
        elif b"page" in request:
            writer.write(http_reply(b"<html>" + request, "502 Bad Gateway"))
        else:
            writer.write(http_reply(json.dumps({"id": "task-1"}).encode()))
        await writer.drain()

    rows = [{"id": prompt, "prompt": prompt} for prompt in ("answer", "refuse", "page")]
    async with raw_server(echo) as server:
        job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", server.url, retry={"in_doubt": "hold"})
        summary = await arun(job, log_level="debug")
    found = by_id(tmp_path / "out")
    assert {name: row["status"] for name, row in found.items()} == {
        "answer": "completed",
        "refuse": "failed",
        "page": "in_doubt",
    }
    assert "Bearer [key]" in found["answer"]["text"]
    said = capfd.readouterr()
    assert "row_settled" in said.err
    assert KEY not in said.out + said.err + describe(summary, ["batchfox"])
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any(path.name == "log.jsonl" for path in files)
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path
    for row in found.values():
        assert KEY not in repr(row)


def test_what_a_rule_warns_of_is_told_once_and_the_rows_are_sent(
    simulate: Simulate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    simulator = simulate()
    messages = [{"role": "user", "content": "hello"}]
    source = write_rows(tmp_path / "in.jsonl", [{"id": f"r{n}", "messages": messages, "sync": True} for n in range(3)])
    summary = run(job_of(source, tmp_path / "out", simulator.url))
    assert summary.by_status == {"completed": 3}
    assert capfd.readouterr().err.count("rule_warned") == 1


def test_a_rows_own_column_fills_every_field_that_the_api_names(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    messages = [{"role": "user", "content": "hello"}]
    source = write_rows(tmp_path / "in.jsonl", [{"id": "a", "messages": messages, "frequency_penalty": 0.5}])
    run(job_of(source, tmp_path / "out", simulator.url))
    asked = {"model": MODEL, "messages": messages, "frequency_penalty": 0.5}
    assert [entry["digest"] for entry in simulator.book()["entries"]] == [digest_of(asked)]


def test_the_pipe_is_filled_at_once_however_long_tasks_take(simulate: Simulate, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(600))
    simulator = simulate(latency="constant:600")
    job = job_of(source, tmp_path / "out", simulator.url, limits={"in_flight": 600})

    def are_all_taken() -> bool:
        return bool(simulator.book()["totals"]["submits_accepted"] == 600)

    with once(are_all_taken, "all submits, before the first task has ended", lambda: put_forward(simulator, 600)):
        assert run(job).by_status == {"completed": 600}


def test_a_bug_in_a_request_ends_the_run_at_once_and_loses_nothing(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate(latency="constant:0.05")
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(20)), tmp_path / "out", simulator.url)
    polls = itertools.count(1)
    poll = Api.poll

    async def broken(api: Api, task_id: str, *, sync_upstream: bool) -> PollEvent:
        if next(polls) == 5:
            raise ZeroDivisionError
        return await poll(api, task_id, sync_upstream=sync_upstream)

    with monkeypatch.context() as patched:
        patched.setattr(Api, "poll", broken)
        with pytest.raises(ExceptionGroup) as raised:
            run(job)
        assert raised.group_contains(ZeroDivisionError)
    assert run(job).by_status == {"completed": 20}
