"""Every kind of input through a whole run."""

from __future__ import annotations

import csv
import gzip
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import (
    GUARD_S,
    MODEL,
    Simulate,
    by_id,
    environment,
    job_of,
    log_events,
    parts_of,
    rows_with_ids,
    write_rows,
)

from batchfox import run
from batchfox.core.outcome import COLUMNS
from batchfox.errors import InputError, JobError
from batchfox.export import export
from batchfox.simulator import answer

ROWS = rows_with_ids(30)
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def as_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=7)


def as_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "prompt"])
        writer.writeheader()
        writer.writerows(ROWS)


KINDS: dict[str, Callable[[Path], Any]] = {
    "in.jsonl": lambda path: path.write_bytes(LINES),
    "in.ndjson": lambda path: path.write_bytes(LINES.replace(b"\n", b"\r\n\r\n")),
    "in.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "in.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(LINES)),
    "in.parquet": as_parquet,
    "in.csv": as_csv,
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("has_ids", [True, False], ids=["ids", "positions"])
def test_every_kind_of_file_is_read_answered_and_resumed(
    simulate: Simulate, tmp_path: Path, name: str, has_ids: bool
) -> None:
    simulator = simulate()
    KINDS[name](tmp_path / name)
    job = job_of(tmp_path / name, tmp_path / "out", simulator.url, input={"id": "id" if has_ids else None})
    assert run(job, limit=12).by_status == {"completed": 12}
    assert run(job).by_status == {"completed": 30}
    assert simulator.book()["totals"]["submits_received"] == 30
    found = by_id(tmp_path / "out")
    for number, row in enumerate(ROWS):
        out = found[row["id"] if has_ids else str(number)]
        assert out["text"] == answer({"model": MODEL, "prompt": row["prompt"]})["choices"][0]["message"]["content"]
        assert (out["id"], out["row_index"]) == (row["id"], number)


def test_a_folder_and_a_list_are_read_in_order(simulate: Simulate, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_rows(folder / "b.jsonl", rows_with_ids(5, first=5))
    pq.write_table(pa.Table.from_pylist(rows_with_ids(5)), folder / "a.parquet")
    (folder / "_hidden.jsonl").write_text("no row\n")
    (folder / "notes.txt").write_text("no input\n")
    more = write_rows(tmp_path / "more.jsonl", rows_with_ids(5, first=10))
    job = job_of(folder, tmp_path / "out", simulate().url, input={"path": [str(folder), str(more)]})
    assert run(job).by_status == {"completed": 15}
    assert {name: row["row_index"] for name, row in by_id(tmp_path / "out").items()} == {f"r{n}": n for n in range(15)}


def test_an_output_inside_the_input_folder_is_no_input(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    as_parquet(tmp_path / "in.parquet")
    job = job_of(tmp_path, tmp_path / "results" / "out", simulator.url)
    assert run(job).by_status == {"completed": 30}
    assert run(job).duplicates == 0
    assert run(job_of(tmp_path, tmp_path / "other", simulator.url)).by_status == {"completed": 30}
    own = job_of(tmp_path / "results" / "out" / "data", tmp_path / "results" / "out", simulator.url)
    with pytest.raises(InputError, match="this job's own output"):
        run(own)
    assert simulator.book()["totals"]["submits_received"] == 60


def test_a_content_that_is_text_in_one_row_and_blocks_in_the_next_is_no_trouble(
    simulate: Simulate, tmp_path: Path
) -> None:
    contents: list[Any] = ["hello", [{"type": "text", "text": "hello"}], "again"]
    rows: list[dict[str, Any]] = [
        {"id": f"r{n}", "messages": [{"role": "user", "content": c}]} for n, c in enumerate(contents)
    ]
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url)
    assert run(job).by_status == {"completed": 3}
    found = by_id(tmp_path / "out")
    for row in rows:
        assert json.loads(found[row["id"]]["completion"]) == answer({"model": MODEL, "messages": row["messages"]})
        assert json.loads(found[row["id"]]["messages"]) == row["messages"]


def test_parquet_columns_keep_their_types(simulate: Simulate, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int32()),
            "prompt": ["a", "b", "c"],
            "when": pa.array([0, None, 10**12], pa.timestamp("ms", tz="UTC")),
            "tags": pa.array([["x"], [], None], pa.list_(pa.string())),
            "deep": pa.array([{"a": 1}, {"a": None}, None], pa.struct([("a", pa.int16())])),
            "price": pa.array([None, None, None], pa.decimal128(9, 2)),
            "raw": pa.array([b"\0", b"\xff", b""], pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    job = job_of(tmp_path / "in.parquet", tmp_path / "out", simulate().url)
    assert run(job).by_status == {"completed": 3}
    schema = pq.read_schema(parts_of(tmp_path / "out")[0])
    for name in ("id", "when", "tags", "deep", "price"):
        assert schema.field(name).type == table.schema.field(name).type
    assert "raw" not in schema.names, "binary columns do not travel unless they are named"
    found = by_id(tmp_path / "out")
    for row in table.drop(["raw"]).to_pylist():
        assert {name: found[str(row["id"])][name] for name in row} == row


def test_binary_columns_and_data_uris_do_not_travel_unless_named(simulate: Simulate, tmp_path: Path) -> None:
    url = simulate().url
    kinds = {"b": pa.binary(), "large": pa.large_binary(), "fixed": pa.binary(2), "view": pa.binary_view()}
    cells = {name: pa.array([None, b"\0\xff", None], kind) for name, kind in kinds.items()}
    entry = pa.struct([("a", pa.int8()), ("raw", pa.binary())])
    cells["deep"] = pa.array([None, [{"a": 1, "raw": b"x"}], []], pa.list_(entry))
    table = pa.table({"id": ["a", "b", "c"], "prompt": ["x"] * 3, "n": [1, None, 3]} | cells)
    pq.write_table(table, tmp_path / "in.parquet")
    assert run(job_of(tmp_path / "in.parquet", tmp_path / "out", url)).by_status == {"completed": 3}
    carried = pq.read_schema(parts_of(tmp_path / "out")[0]).names[len(COLUMNS) :]
    assert carried == ["id", "prompt", "n", "input_extra"], "a null cell of a binary column makes no column either"
    named = job_of(tmp_path / "in.parquet", tmp_path / "named", url, input={"keep": ["*", "large", "deep"]})
    assert run(named).by_status == {"completed": 3}
    found = by_id(tmp_path / "named")
    assert [found[name]["large"] for name in "abc"] == [None, b"\0\xff", None]
    assert [found[name]["deep"] for name in "abc"] == [None, [{"a": 1, "raw": b"x"}], []]
    picture = "DATA:image/png;BASE64,AAAA"
    uris: dict[str, dict[str, Any]] = {"a": {"u": picture, "v": picture}, "b": {"u": "text", "v": [picture]}}
    rows = [{"id": name, "prompt": "x"} | columns for name, columns in uris.items()]
    assert run(job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "uris", url)).by_status == {"completed": 2}
    found = by_id(tmp_path / "uris")
    assert (found["a"]["u"], found["b"]["u"], "v" in found["a"]) == (None, "text", False)


def test_standard_input_is_read_and_resumed(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()

    def piped(lines: bytes, *more: str) -> subprocess.CompletedProcess[str]:
        command = ["run", "--input", "-", "--output", "out", "--model", MODEL, "--base-url", simulator.url, *more]
        return subprocess.run(
            [sys.executable, "-m", "batchfox", *command, "--quiet"],
            input=lines.decode(),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(),
            timeout=GUARD_S,
            check=False,
        )

    first = piped(LINES, "--limit", "10")
    assert (first.returncode, first.stderr) == (0, "")
    refused = piped(LINES.replace(b"question 3", b"question x"))
    assert refused.returncode == 2
    assert "the input changed" in refused.stderr
    assert simulator.book()["totals"]["submits_received"] == 10
    assert piped(LINES).returncode == 0
    assert simulator.book()["totals"]["submits_received"] == 30
    assert len(by_id(tmp_path / "out")) == 30


def test_an_archive_that_breaks_off_is_told_and_the_rows_before_it_are_kept(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows = rows_with_ids(2_000)
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), compresslevel=1)
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(whole[: len(whole) * 2 // 3])
    job = job_of(source, tmp_path / "out", simulator.url, rows_per_part=500)
    with pytest.raises(InputError, match="cannot be read beyond line"):
        run(job)
    sent = simulator.book()["totals"]["submits_accepted"]
    assert 0 < sent < 2_000
    source.write_bytes(whole)
    assert run(job).by_status == {"completed": 2_000}
    assert simulator.book()["totals"]["submits_accepted"] == 2_000, "nothing was paid for twice"


def test_ids_of_several_types_compare_as_text(simulate: Simulate, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": 1}, {"id": "1"}, {"id": 1.5}, {"id": True}, {"id": "ü/\n"}, {"id": ""}]
    source = write_rows(tmp_path / "in.jsonl", [row | {"prompt": "x"} for row in rows])
    summary = run(job_of(source, tmp_path / "out", simulate().url))
    assert (summary.by_status, summary.duplicates) == ({"completed": 4, "invalid": 1}, 1)
    assert by_id(tmp_path / "out").keys() == {"1", "1.5", "true", "ü/\n", "line:6"}


def test_what_does_not_fit_the_first_part_is_kept_as_json_and_told_once_a_column(
    simulate: Simulate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [
        {"n": 1},
        {"n": 2},
        {"n": 10**30},
        {"n": "x", "new": [1, 2**70]},
        {"n": "y", "new": 1},
    ]
    rows = [row | {"id": str(number), "prompt": "x"} for number, row in enumerate(rows)]
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url)
    run(job, limit=2)
    assert "column_misfit" not in capsys.readouterr().err
    run(job)
    found = by_id(tmp_path / "out")
    assert [found[str(number)]["n"] for number in range(5)] == [1, 2, None, None, None]
    extra = [found[str(number)]["input_extra"] for number in range(2, 5)]
    assert [json.loads(text) for text in extra] == [{"n": 10**30}, {"n": "x", "new": [1, 2**70]}, {"n": "y", "new": 1}]
    said = capsys.readouterr().err
    assert said.count("column_misfit") == 2
    assert "[warning" in said
    assert "int64" in said


def test_nan_travels_in_a_column_and_is_refused_in_a_request(simulate: Simulate, tmp_path: Path) -> None:
    lines = [
        '{"id": "a", "prompt": "x", "score": 0.5, "tags": [1]}',
        '{"id": "b", "prompt": "x", "score": NaN, "tags": [Infinity, null]}',
        '{"id": "c", "prompt": "x", "score": 1, "tags": -Infinity, "temperature": NaN}',
        '{"id": "d", "score": 1, "prompt": NaN}',
        '{"id": "e", "score": 1, "messages": [{"role": "user", "content": "x", "weight": Infinity}]}',
        '{"id": "f", "prompt": "x", "max_tokens": NaN}',
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(lines))
    assert run(job_of(source, tmp_path / "out", simulate().url)).by_status == {"completed": 2, "invalid": 4}
    found = by_id(tmp_path / "out")
    assert math.isnan(found["b"]["score"])
    assert [found[name]["tags"] for name in "abc"] == ["[1]", '["Infinity",null]', "-Infinity"]
    reasons = {name: found[name]["error_message"] for name in "cdef"}
    assert "temperature: found NaN" in reasons["c"]
    assert "prompt: found NaN" in reasons["d"]
    assert "messages[0].weight: found Infinity" in reasons["e"]
    assert "max_tokens: found NaN" in reasons["f"]


BATCH_LINE: dict[str, Any] = {"body": {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}}


def test_batch_lines_name_their_id_and_broken_bodies_are_told(simulate: Simulate, tmp_path: Path) -> None:
    rows = [{"custom_id": "a", "body": "no object"}, {"custom_id": "b"} | BATCH_LINE, {"custom_id": "c", "body": None}]
    source = write_rows(tmp_path / "in.jsonl", rows)
    with pytest.raises(JobError, match=r"no column of the first 3 rows; the id of a line .* --id custom_id"):
        run(job_of(source, tmp_path / "out", simulate().url, input={"id": "chat_id"}))
    summary = run(job_of(source, tmp_path / "out", simulate().url, input={"id": None}))
    assert summary.by_status == {"completed": 1, "invalid": 2}
    found = by_id(tmp_path / "out")
    assert found["b"]["status"] == "completed"
    assert 'body: found "no object"; allowed: an object' in found["a"]["error_message"]
    assert "body: found nothing; allowed: an object" in found["c"]["error_message"]


def test_a_line_without_the_id_says_which_column_it_may_be(simulate: Simulate, tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "x"}, {"idd": "b", "prompt": "x"}, {"custom_id": "c"} | BATCH_LINE]
    run(job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url))
    found = by_id(tmp_path / "out")
    assert 'missing id: no column "id" (did you mean "idd"?)' in found["line:2"]["error_message"]
    assert "--id custom_id" in found["line:3"]["error_message"]


def test_content_that_is_not_sent_and_columns_named_in_vain_are_warnings_once(
    simulate: Simulate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"messages": [{"role": "user", "content": "y"}]} for row in rows_with_ids(120)]
    job = job_of(
        write_rows(tmp_path / "in.jsonl", rows),
        tmp_path / "out",
        simulate().url,
        input={"keep": ["id", "promt"]},
        request={"prompt": "{{ prompt }}"},
    )
    assert run(job).by_status == {"completed": 120}
    said = capsys.readouterr().err
    assert said.count("column_passed_over") == said.count("column_missed") == 1
    assert "[request] has prompt" in said
    assert 'did you mean "prompt"' in said


def test_a_column_of_the_input_never_takes_the_place_of_another(tmp_path: Path, simulate: Simulate) -> None:
    rows = [{"id": "a", "prompt": "p", "text": "mine", "input_text": "other", "Text": "third"}]
    job = job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url)
    assert run(job).exit_status == 0
    row = by_id(tmp_path / "out")["a"]
    assert (row["input_text"], row["input_input_text"]) == ("mine", "other")
    assert json.loads(row["input_extra"]) == {"input_Text": "third"}, "equal up to case"
    assert log_events(tmp_path / "out").count("column_misfit") == 1


VIEWS = {
    "note": pa.array(["x", "y", None], pa.string_view()),
    "blob": pa.array([b"x", b"y", None], pa.binary_view()),
    "tags": pa.array([["x"], [None], None], pa.list_(pa.string_view())),
    "deep": pa.array([{"a": "x"}, {"a": None}, None], pa.struct([("a", pa.string_view())])),
}


def as_views(tmp_path: Path) -> Path:
    """Parquet as DataFusion, arrow-rs and delta-rs write it."""
    named = {"id": ["a", "b", "c"], "prompt": ["p", "q", "r"]}
    pq.write_table(pa.table(named | VIEWS), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


@pytest.mark.parametrize("is_begun_with_views", [False, True])
def test_views_are_stored_as_what_they_are_views_of(
    tmp_path: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch, is_begun_with_views: bool
) -> None:
    simulator = simulate(faults={"stuck": 0.4, "refuse_options": 0.4}, seed=3)
    keep = {"keep": ["*", "blob"]}
    watch = {"task_timeout": "0.2s", "first": 0.1}
    job = job_of(as_views(tmp_path), tmp_path / "out", simulator.url, input=keep, poll=watch)
    with monkeypatch.context() as patch:
        if is_begun_with_views:  # as versions before this one did
            patch.setattr("batchfox.parquet_rows.stored_type", lambda kind: kind)
        ended = run(job).by_status
    assert sum(ended.values()) == 3
    simulator.control(faults={})
    unfinished = tuple(status for status in ended if status != "completed")
    assert unfinished
    assert run(job, retry=unfinished).by_status == {"completed": 3}
    assert export(tmp_path / "out", tmp_path / "all.parquet") == 3
    table = pq.read_table(tmp_path / "all.parquet")
    for name, array in VIEWS.items():
        assert table[name].to_pylist() == array.to_pylist()
        assert "view" not in str(table[name].type)
