"""When a part closes before it has all its rows: by their bytes, and by its age."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Simulate, job_of, parts_of, rows_with_ids, write_rows

from batchfox import ledger, packing, run


def rows_of_parts(folder: Path) -> list[int]:
    return [pq.read_metadata(path).num_rows for path in parts_of(folder)]


def test_by_the_bytes_of_what_rows_carry(simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB in truth. The answers alone would be 40 kB."""
    monkeypatch.setattr(ledger, "BYTES_PER_PART", 100_000)
    rows = [row | {"note": {"deep": ["x" * 10_000]}} for row in rows_with_ids(40)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    run(job_of(source, tmp_path / "out", simulate(latency="uniform:0.1,0.9").url, rows_per_part=1000))
    found = rows_of_parts(tmp_path / "out")
    assert sum(found) == 40
    assert len(found) >= 2


def test_by_its_age(simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """15 minutes in truth, from its first row: what was answered early is there while a late task runs."""
    for module in (ledger, packing):
        monkeypatch.setattr(module, "PART_AGE_S", 0.3)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    run(job_of(source, tmp_path / "out", simulate(latency="bimodal:0.05,2.5,0.2").url, rows_per_part=1000))
    found = rows_of_parts(tmp_path / "out")
    assert sum(found) == 30
    assert len(found) >= 2
