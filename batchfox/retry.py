"""`--retry`: finds finished rows by their status in the parts and marks them for fresh attempts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from batchfox.checkpoint import Checkpoint
from batchfox.core.lifecycle import EXPIRED, NO_RESULTS
from batchfox.core.outcome import STATUSES
from batchfox.core.prepare import key_of_outcome
from batchfox.errors import UserError
from batchfox.part_names import part_name

_COLUMNS = ["row_index", "row_id", "status", "error_code", "submits", "maybe_billed_twice"]
_Entry = tuple[bytes, int, int, int, int]


def check_statuses(statuses: Collection[str]) -> None:
    """Raises `UserError` for a status that does not exist, or that has nothing to retry."""
    from batchfox.core.job import nearest

    known = [status for status in STATUSES if status != "completed"]
    for status in statuses:
        if status not in known:
            raise UserError(f"--retry {status}: no such status{nearest(status, known)}; there are {', '.join(known)}")


def mark(checkpoint: Checkpoint, data: Path, statuses: Collection[str], *, has_ids: bool) -> int:
    """Marks every filed row of these statuses. Returns how many rows are now marked."""
    numbers = [number for (number,) in checkpoint.query("SELECT number FROM part WHERE is_filed ORDER BY number")]
    for number in numbers:
        entries = list(_entries(data / part_name(number), number, statuses, has_ids=has_ids))
        if entries:
            with checkpoint.transaction() as db:
                db.executemany("INSERT OR REPLACE INTO retry VALUES (?, ?, ?, ?, ?)", entries)
    return int(checkpoint.query("SELECT count(*) FROM retry")[0][0])


def _entries(path: Path, number: int, statuses: Collection[str], *, has_ids: bool) -> Iterator[_Entry]:
    from batchfox.parts import read

    for table in read(path, _COLUMNS):
        for row in table.to_pylist():
            if row["status"] not in statuses:
                continue
            unresolved = row["status"] in ("in_doubt", "timed_out") or row["error_code"] in (EXPIRED, NO_RESULTS)
            yield (
                key_of_outcome(row, has_ids=has_ids),
                number,
                row["submits"],
                int(unresolved),
                int(row["maybe_billed_twice"]),
            )
