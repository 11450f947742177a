"""Finds the rows that ended as `timed_out`: their tasks are asked about once more by every later run, for free. Takes
them off the order to pay anew where nothing is learned of their tasks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from batchfox.checkpoint import Checkpoint
from batchfox.core.lifecycle import Life, State
from batchfox.core.outcome import COLUMNS, EXTRA
from batchfox.core.prepare import key_of_outcome
from batchfox.crew import read_in
from batchfox.filing import Filing

BATCH = 100
STATUS = "timed_out"


class Late(msgspec.Struct, frozen=True):
    """A row whose task was given up, as RUNNING again, and the part that holds its outcome."""

    life: Life
    part: int


class LateRows:
    """Those of one output. Everything but the first look is done in `thread`."""

    def __init__(self, connect: Callable[..., Checkpoint], thread: Executor, data: Path, *, has_ids: bool) -> None:
        """`connect`: gives connections to the checkpoint, `read_only` ones where told."""
        self._connect = connect
        self._checkpoint = connect(read_only=True)
        self._thread = thread
        self._data = data
        self._has_ids = has_ids
        self._writer: Checkpoint | None = None
        marked = "SELECT EXISTS (SELECT 1 FROM retry WHERE part >= 0)"
        self.is_at_stake = bool(self._checkpoint.query(marked)[0][0])

    def batches(self) -> AsyncIterator[list[Late]]:
        """All of them, a few at a time, from the parts that the checkpoint counts some in."""
        return read_in(self._thread, self._batches())

    def _batches(self) -> Iterator[list[Late]]:
        found = _read(self._checkpoint, self._data, self._has_ids)
        while batch := list(itertools.islice(found, BATCH)):
            yield batch

    async def unmark(self, keys: list[bytes]) -> int:
        """Takes rows off the order to pay anew, durably. Returns how many of them were on it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._delete, keys)

    def _delete(self, keys: list[bytes]) -> int:
        self._writer = self._writer or self._connect()
        with self._writer.transaction() as db:
            return db.executemany("DELETE FROM retry WHERE key = ?", [(key,) for key in keys]).rowcount


def file_late(checkpoint: Checkpoint, filing: Filing, rows_per_part: int) -> None:
    """Files what a crash left unfiled, where such rows are among it: they are looked for in parts alone."""
    while any(done.status == STATUS for done in checkpoint.unfiled().values()):
        filing.file(rows_per_part)


def _read(checkpoint: Checkpoint, data: Path, has_ids: bool) -> Iterator[Late]:
    for number, counts in checkpoint.query("SELECT number, counts FROM part WHERE is_filed ORDER BY number"):
        if STATUS not in msgspec.json.decode(counts):
            continue
        import pyarrow.compute as pc

        from batchfox import parts
        from batchfox.parquet_rows import plain

        for table in parts.read(data / parts.part_name(number)):
            late = table.filter(pc.and_(pc.equal(table["status"], STATUS), pc.is_valid(table["task_id"])))
            for batch in late.to_batches():
                carried = plain(batch.drop_columns(list(COLUMNS))).to_pylist()
                own = batch.select(list(COLUMNS)).to_pylist()
                for row, columns in zip(own, carried, strict=True):
                    yield Late(_life(row, columns, has_ids), number)


def _life(row: dict[str, Any], columns: dict[str, Any], has_ids: bool) -> Life:
    extra = columns.pop(EXTRA, None)
    kept = {name: value for name, value in columns.items() if value is not None}
    return Life(
        key=key_of_outcome(row, has_ids=has_ids),
        index=row["row_index"],
        id=row["row_id"],
        kept=kept | (msgspec.json.decode(extra) if extra else {}),
        state=State.RUNNING,
        model=row["model"],
        request_hash=row["request_hash"],
        media=row["media"] or [],
        submits=row["submits"],
        unresolved=1,
        maybe_billed_twice=row["maybe_billed_twice"],
        reserved=row["credits"],
        task_id=row["task_id"],
        submitted_at=_unix(row["submitted_at"]),
        polls=row["polls"],
        reasoning=row["reasoning"],
    )


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
