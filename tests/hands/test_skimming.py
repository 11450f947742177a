"""What is done is passed over without being read as rows, and whatever differs is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Simulate, by_id, job_of, rows_of, rows_with_ids, write_rows

from batchfox import run, skimming
from batchfox.core import blocks
from batchfox.errors import InputError
from batchfox.skimming import Passed, Skimmer


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

    def watched(self: Skimmer, first: int, lines: Any) -> Any:
        what = look(self, first, lines)
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
