"""When a part closes before it has all its rows: by their bytes, and by its age."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Simulate, job_of, parts_of, rows_of, rows_with_ids, write_rows

from batchfox import ledger, packing, run
from batchfox.finished import Done
from batchfox.ledger import Unfiled


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


def test_rows_are_written_to_their_part_before_it_closes(simulate: Simulate, tmp_path: Path) -> None:
    """Half of a small part at a time, from the second part on."""
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(160))
    url = simulate(latency="constant:0.2").url
    run(job_of(source, tmp_path / "out", url, rows_per_part=20, limits={"in_flight": 8}))
    assert sum(rows_of_parts(tmp_path / "out")) == 160
    groups = [pq.read_metadata(path).num_row_groups for path in parts_of(tmp_path / "out")]
    assert groups[0] == 1
    assert max(groups[1:]) == 2
    assert len({row["id"] for row in rows_of(tmp_path / "out")}) == 160
    assert list((tmp_path / "out" / "_batchfox" / "tmp").iterdir()) == []


@pytest.mark.parametrize(("rows_per_part", "groups"), [(10_000, [1_000] * 9), (1_500, [750]), (7, [3, 3]), (1, [])])
def test_groups_are_of_a_thousand_rows_or_half_a_part(rows_per_part: int, groups: list[int]) -> None:
    unfiled = Unfiled({}, rows_per_part, 0.0)
    taken = []
    for number in range(rows_per_part):
        unfiled.add(b"%d" % number, Done(status="completed", row_index=number), 1, 0.0, slot=number + 1)
        if unfiled.is_full():
            break
        if unfiled.has_group():
            taken.append(unfiled.take_group())
    written = [slot for group in taken for slot in group]
    assert written == list(range(1, len(written) + 1))
    assert [len(group) for group in taken] == groups
    unfiled.filed([b"%d" % number for number in range(rows_per_part)], 1.0)
    assert not unfiled.has_group()
