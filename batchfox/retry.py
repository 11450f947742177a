"""`--retry`: finds finished rows by what their parts say of them, and marks them for fresh attempts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchfox.checkpoint import Checkpoint
from batchfox.core.lifecycle import EXPIRED, NO_RESULTS
from batchfox.core.outcome import MARKED, STALE, STATUSES
from batchfox.core.prepare import key_of_outcome
from batchfox.errors import UserError
from batchfox.part_names import part_name
from batchfox.stale import ASKED
from batchfox.twin_table import forget_shared

if TYPE_CHECKING:
    import pyarrow as pa

    from batchfox.marks import Marked
    from batchfox.narrowing import Fitted

_COLUMNS = ["row_index", "row_id", "status", "error_code", "submits", "maybe_billed_twice"]
_MOST_KEYS = 500
_Entry = tuple[bytes, int, int, int, int]


def check_statuses(statuses: Collection[str]) -> None:
    """Raises `UserError` for a status that does not exist, or that has nothing to retry."""
    from batchfox.core.nearest import nearest

    known = [*(status for status in STATUSES if status != "completed"), STALE, MARKED]
    for status in statuses:
        if status not in known:
            raise UserError(f"--retry {status}: no such status{nearest(status, known)}; there are {', '.join(known)}")


class Chosen:
    """Keys of rows that were chosen one by one, on the disk: memory stays flat."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """`checkpoint`: a connection whose temporary tables hold them."""
        self._checkpoint = checkpoint
        checkpoint.query("CREATE TEMP TABLE chosen (key BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, keys: list[bytes]) -> None:
        if keys:
            self._checkpoint.note("INSERT OR IGNORE INTO temp.chosen VALUES (?)", [(key,) for key in sorted(keys)])

    def among(self, keys: list[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            sql = f"SELECT key FROM temp.chosen WHERE key IN ({','.join('?' * len(some))})"
            found.update(key for (key,) in self._checkpoint.query(sql, some))
        return found


def mark(
    checkpoint: Checkpoint,
    data: Path,
    statuses: Collection[str],
    *,
    has_ids: bool,
    chosen: Chosen | None = None,
    where: Fitted | None = None,
) -> int:
    """Marks every filed row of these statuses, and those chosen, as far as `where` fits; all or none. Returns how many
    rows those are."""
    found = 0
    numbers = [number for (number,) in checkpoint.query("SELECT number FROM part WHERE is_filed ORDER BY number")]
    with checkpoint.transaction() as db:
        for number in numbers:
            entries = _entries(data / part_name(number), number, statuses, chosen, where, has_ids=has_ids)
            found += db.executemany("INSERT OR REPLACE INTO retry VALUES (?, ?, ?, ?, ?)", entries).rowcount
        if chosen is not None:
            db.execute("DELETE FROM meta WHERE name = ?", (ASKED,))
    return found


def _entries(
    path: Path, number: int, statuses: Collection[str], chosen: Chosen | None, where: Fitted | None, *, has_ids: bool
) -> Iterator[_Entry]:
    for table in read_where(path, _COLUMNS, where):
        if chosen is None:
            table = _of_statuses(table, statuses)
        rows = table.to_pylist()
        keys = [key_of_outcome(row, has_ids=has_ids) for row in rows]
        named = set() if chosen is None else chosen.among(keys)
        for key, row in zip(keys, rows, strict=True):
            if row["status"] not in statuses and key not in named:
                continue
            yield _entry(key, number, row)


def _entry(key: bytes, number: int, row: dict[str, Any]) -> _Entry:
    unresolved = row["status"] in ("in_doubt", "timed_out") or row["error_code"] in (EXPIRED, NO_RESULTS)
    return key, number, row["submits"], int(unresolved), int(row["maybe_billed_twice"])


def mark_marked(
    checkpoint: Checkpoint, data: Path, marked: Sequence[Marked], *, has_ids: bool, where: Fitted | None
) -> list[Marked]:
    """Marks, all or none, the filed rows that still have the outcome that somebody marked, as far as `where` fits.
    Returns them. An answer that was not liked is shared with no other row (`[input] dedupe`)."""
    found: list[Marked] = []
    numbers = [number for (number,) in checkpoint.query("SELECT number FROM part WHERE is_filed ORDER BY number")]
    with checkpoint.transaction() as db:
        for number in numbers:
            rows = list(read_marked(data / part_name(number), marked, where))
            entries = [_entry(key_of_outcome(row, has_ids=has_ids), number, row) for _, row in rows]
            db.executemany("INSERT OR REPLACE INTO retry VALUES (?, ?, ?, ?, ?)", entries)
            answered = [row for _, row in rows if row["status"] == "completed" and row["request_hash"] is not None]
            forget_shared(db, number, [(row["row_index"], bytes.fromhex(row["request_hash"])) for row in answered])
            found += [one for one, _ in rows]
    return found


def read_marked(path: Path, marked: Sequence[Marked], where: Fitted | None) -> Iterator[tuple[Marked, dict[str, Any]]]:
    """The rows of a part that still have the outcome that was marked, and that `where` fits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = {(one.row_index, one.row_id): one for one in marked}
    positions = pa.array(sorted({one.row_index for one in marked}), pa.int64())
    names = [*_COLUMNS, "request_hash"]
    for table in read_where(path, [*names, "finished_at"], where):
        table = table.filter(pc.is_in(table["row_index"], value_set=positions))
        moments = table["finished_at"].cast(pa.int64()).to_pylist()
        for moment, row in zip(moments, table.select(names).to_pylist(), strict=True):
            one = wanted.get((row["row_index"], row["row_id"]))
            if one is not None and one.finished_at in (None, moment):
                yield one, row


def choose(chosen: Chosen, data: Path, where: Fitted, *, has_ids: bool) -> None:
    """The rows of all parts that `where` fits."""
    for path in sorted(data.glob("part-*.parquet")):
        for table in read_where(path, _COLUMNS, where):
            chosen.add([key_of_outcome(row, has_ids=has_ids) for row in table.to_pylist()])


def read_where(path: Path, columns: list[str], where: Fitted | None) -> Iterator[pa.Table]:
    """These columns of the rows of a part that `where` fits, a few at a time."""
    from batchfox import parts

    read = columns if where is None else list(dict.fromkeys([*columns, *where.columns]))
    for table in parts.read(path, read):
        yield table if where is None else table.filter(where.expression).select(columns)


def _of_statuses(table: pa.Table, statuses: Collection[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.is_in(table["status"], value_set=pa.array(sorted(statuses), pa.string())))
