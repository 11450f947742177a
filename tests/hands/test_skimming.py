"""What is done is passed over without being read as rows, and whatever differs is read."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Simulate, by_id, eventually, job_of, rows_of, rows_with_ids, write_rows

from batchfox import run, skimmed_parquet, skimming
from batchfox.core import blocks
from batchfox.core.row import key_of_id
from batchfox.errors import InputError
from batchfox.parquet_rows import rows_of as made_rows
from batchfox.reading_ahead import Ahead
from batchfox.skimmed_lines import JsonLines
from batchfox.skimming import Line, Passed, Skimmer


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skimming, "LINES", 16)
    monkeypatch.setattr(skimming, "PAUSE", 16)
    monkeypatch.setattr("batchfox.source.BATCH_ROWS", 16)


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were passed over, look by look."""
    found: list[int] = []
    look = Skimmer.look

    def watched(self: Skimmer, first: int, lines: Any, reading: Any) -> Any:
        what = look(self, first, lines, reading)
        found.append(sum(some.rows for some in what or () if isinstance(some, Passed)))
        return what

    monkeypatch.setattr(Skimmer, "look", watched)
    return found


def test_with_ids_only_what_is_in_its_place_is_passed_over(
    passed: list[int], simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate()
    rows = rows_with_ids(200)
    del rows[150]["prompt"]  # invalid
    source = tmp_path / "in.jsonl"
    job = job_of(write_rows(source, rows), tmp_path / "out", simulator.url)
    assert run(job).exit_status == 3
    assert passed == []

    again = run(job)
    assert (again.exit_status, again.completed_before, again.by_status) == (3, 199, {"completed": 199, "invalid": 1})
    assert sum(passed) >= 168

    moved = [*rows[:40], {"id": "new", "prompt": "what?"}, *rows[40:], *rows_with_ids(10, first=200), rows[0]]
    write_rows(source, moved)
    passed.clear()
    third = run(job)
    assert third.settled == {"completed": 11}
    assert third.exit_status == 3
    assert sum(passed) > 150, "what follows the new row is elsewhere, and known all the same"
    assert (third.completed_before, third.duplicates) == (199, 1)
    assert len(by_id(tmp_path / "out")) == 211
    assert simulator.book()["totals"]["submits_received"] == 210


def write_as(kind: str, path: Path, rows: list[dict[str, Any]]) -> None:
    """The rows as a file of this kind, with what only that kind can get wrong."""
    if kind == "jsonl":
        write_rows(path, rows)
    elif kind == "parquet":
        strings, ids = pa.array([row.get("prompt") for row in rows]), pa.array([row["id"] for row in rows])
        broken = pa.array([b"\xff" if row["id"] == "r30" else b"fine" for row in rows])
        words = pa.StringArray.from_buffers(len(broken), *broken.buffers()[1:])  # not UTF-8, as Parquet lets one write
        numbers = pa.array([Decimal(at) for at in range(len(rows))])
        table = pa.table({"note": words, "n": numbers, "prompt": strings, "id": ids.dictionary_encode(), "id.x": ids})
        pq.write_table(table, path, row_group_size=30)
    else:
        lines = [f"{row['id'] or ''},é{at},{row.get('prompt', '')}" for at, row in enumerate(rows)]
        lines[30], lines[90] = lines[30] + ",too many", '"two\nlines"' + lines[90]
        path.write_text("id,note,prompt\n\n" + "\n".join(lines) + '\n"r7"x,no csv\n', encoding="utf-8")


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_every_kind_of_file_gives_what_reading_all_rows_gives(
    kind: str, passed: list[int], simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    first: list[dict[str, Any]] = rows_with_ids(200)
    del first[150]["prompt"]
    first[140]["id"] = None
    more = {"id": "new", "prompt": "what?"}
    second = [*first[:110], more, *first[115:], *rows_with_ids(10, first=200), *first[:3], more, *first[100:180]]
    made: list[int] = []
    monkeypatch.setattr(skimmed_parquet, "IDS", 48)

    def counted(batch: pa.RecordBatch) -> Any:
        made.append(batch.num_rows)
        return made_rows(batch)

    monkeypatch.setattr(skimmed_parquet, "rows_of", counted)
    found = {}
    for way in ("skimmed", "slow"):
        if way == "slow":
            monkeypatch.setattr("batchfox.feed.skimmer_of", lambda *_: None)
        source, output = tmp_path / f"{way}.{kind}", tmp_path / f"out-{way}"
        runs = []
        for rows in (first, first, second, second):
            write_as(kind, source, rows)
            passed.clear()
            made.clear()
            summary = run(job_of(source, output, simulator.url))
            runs.append((summary.exit_status, summary.settled, summary.completed_before, summary.duplicates))
            assert (sum(passed) > (200 if rows is second else 90)) == (way == "skimmed" and len(runs) > 1)
        shown = ["row_id", "row_index", "status", "text", "error_message", "prompt_tokens", "note"]
        table = [[str(row.get(name)).replace(way, "") for name in shown] for row in rows_of(output)]
        found[way] = (runs, sorted(table))
        if kind == "parquet" and way == "skimmed":
            assert 200 < sum(made) < 500, "the ids of 300 rows, and of the others 100 that are looked at first"
    assert found["skimmed"] == found["slow"]
    assert [settled for _, settled, *_ in found["slow"][0][2:]] != [{}, {}]


def test_without_ids_whole_blocks_are_passed_over_and_a_changed_one_is_refused(
    passed: list[int], simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "ROWS_PER_BLOCK", 40)
    monkeypatch.setattr(blocks, "BITMAP_BYTES", 5)
    monkeypatch.setattr(blocks, "FULL", b"\xff" * 5)
    rows = [{"prompt": f"question {n}"} for n in range(150)]
    rows[50] = {"note": "no prompt"}  # invalid
    source = write_rows(tmp_path / "in.jsonl", rows)
    simulator = simulate()
    job = job_of(source, tmp_path / "out", simulator.url, input={"id": None})
    assert run(job).exit_status == 3

    again = run(job)
    assert (again.exit_status, again.completed_before) == (3, 149)
    assert passed == [40, 40], "not the first, which is looked at, nor the last, which is no whole block"

    write_rows(source, [*rows, {"prompt": "more"}])
    assert run(job).settled == {"completed": 1}
    assert len(rows_of(tmp_path / "out")) == 151

    rows[60] = {"prompt": "another question"}
    write_rows(source, rows)
    with pytest.raises(InputError, match="the input changed: rows 40 to 79"):
        run(job)
    assert run(job_of(write_rows(source, []), tmp_path / "b", simulator.url)).exit_status == 0


def test_a_retry_reads_every_row(passed: list[int], simulate: Simulate, tmp_path: Path) -> None:
    rows = rows_with_ids(100)
    del rows[70]["prompt"]
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulate().url)
    assert run(job).exit_status == 3
    rows[70]["prompt"] = "what?"
    write_rows(source, rows)
    assert run(job, retry="invalid").exit_status == 0
    assert passed == []
    assert run(job).completed_before == 100
    assert sum(passed) > 50


class Watched(JsonLines):
    """Lines that note who takes them; `before` is called by the thread that takes ahead."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "id", with_digest=False)
        self.takers: list[str] = []
        self.before: Callable[[], object] = int
        self._lock = threading.Lock()

    def take(self, most: int, most_bytes: int) -> list[Line]:
        assert self._lock.acquire(blocking=False), "two threads at once"
        try:
            name = threading.current_thread().name
            self.takers.append(name)
            if name.startswith("ahead"):
                self.before()
            return super().take(most, most_bytes)
        finally:
            self._lock.release()


def passes(reading: Ahead) -> Iterator[tuple[list[Line], list[bytes] | None]]:
    with contextlib.closing(reading):
        while lines := reading.take(16, 1 << 20):
            yield lines, reading.keys(lines) if lines[0][0] % 5 else None


def test_lines_taken_ahead_come_once_in_order_and_what_breaks_breaks_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    rows = rows_with_ids(200)
    whole = gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    path.write_bytes(whole)
    watched = Watched(str(path))
    seen = list(passes(Ahead(watched)))
    assert [line for lines, _ in seen for line, *_ in lines] == list(range(1, 201))
    looked = [(lines, keys) for lines, keys in seen if keys is not None]
    assert len(looked) > 8
    for lines, keys in looked:
        assert keys == [key_of_id(rows[line - 1]["id"]) for line, *_ in lines]
    ahead = [name.startswith("ahead") for name in watched.takers]
    assert ahead == [False, *(keys is not None for _, keys in seen)], "what was not looked at has nothing beside it"

    path.write_bytes(gzip.compress(json.dumps(rows[0]).encode() + b"\n", mtime=0) + whole[:30])
    reading = Ahead(Watched(str(path)))
    first = reading.take(1, 1 << 20)
    assert reading.keys(first) == [key_of_id(rows[0]["id"])]
    with pytest.raises(InputError, match="cannot be read beyond line 1"):
        reading.take(16, 1 << 20)
    reading.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_a_pass_that_is_given_up_may_be_collected_by_the_thread_that_reads_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", wrong.append)
    watched = Watched(str(write_rows(tmp_path / "in.jsonl", rows_with_ids(100))))
    given_up, collected = threading.Event(), threading.Event()

    def collect() -> None:
        given_up.wait(20.0)
        gc.collect()
        collected.set()

    watched.before = collect
    pass_ = passes(Ahead(watched))
    next(pass_)
    gc.disable()
    try:
        cell: list[object] = [pass_]
        cell.append(cell)
        del pass_, cell
        given_up.set()
        assert collected.wait(20.0)
    finally:
        gc.enable()
    eventually(lambda: not any(thread.name.startswith("ahead") for thread in threading.enumerate()), "the thread ends")
    assert not wrong
