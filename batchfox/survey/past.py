"""What an output has done already, for those who only look: `validate` and `run --dry-run`."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from batchfox.checkpoint import Checkpoint
from batchfox.core.blocks import Comparison
from batchfox.core.job import Job
from batchfox.core.prepare import key_of_outcome
from batchfox.core.row import Row
from batchfox.folders import Folders
from batchfox.marks import Marks
from batchfox.narrowing import Where
from batchfox.opening import refuse_change, refuse_lost
from batchfox.output import Output, refuse_unusable
from batchfox.retry import Chosen, choose, read_marked

RUNNING = "running"


@contextlib.contextmanager
def open_past(job: Job, root: Path, id_column: str | None, *, asks_stale: bool = False) -> Iterator[Past]:
    """The past of this output; an empty one where nothing was begun. `asks_stale`: as `run --retry stale`.

    Raises `OutputError` and `JobError` where a run would: a folder that it cannot use, a damaged, lost or newer
    checkpoint, a job that changed.
    """
    refuse_unusable(root, job.output.checkpoint)
    output = Output(root, job.output.checkpoint)
    with contextlib.ExitStack() as stack:
        checkpoint = None
        refuse_lost(output)
        if output.is_begun:
            path = output.checkpoint_path
            checkpoint = stack.enter_context(contextlib.closing(Checkpoint(path, read_only=True)))
            refuse_change(checkpoint, root, job, id_column, asks_stale=asks_stale)
        past = Past(checkpoint, output.folders, has_ids=id_column is not None)
        stack.callback(past.close)
        yield past


class Past:
    """How rows ended, by what the checkpoint and the parts remember; nothing where there is no checkpoint."""

    def __init__(self, checkpoint: Checkpoint | None, folders: Folders | None, *, has_ids: bool) -> None:
        self._checkpoint = checkpoint
        self._folders = folders
        self._has_ids = has_ids
        self._ended: sqlite3.Connection | None = None
        self._has_twins: bool | None = None
        self._recorded: dict[bytes, str] = {}
        known: dict[int, tuple[int, bytes]] = {}
        if checkpoint is not None:
            running = checkpoint.query("SELECT key FROM row WHERE state = 2")
            self._recorded = dict.fromkeys((key for (key,) in running), RUNNING)
            self._recorded |= {key: done.status for key, done in checkpoint.unfiled().items()}
            self._answered: dict[bytes, bytes | None] = checkpoint.unfiled_hashes() if has_ids else {}
            known = {} if has_ids else checkpoint.block_digests()
        self._comparison: Comparison | None = Comparison(known) if known else None

    def close(self) -> None:
        if self._ended is not None:
            self._ended.close()

    def compare(self, row: Row) -> None:
        """Each row in turn: without ids it must be what it was. Raises `InputError` at the end of a block that is not,
        and does not compare on."""
        comparison, self._comparison = self._comparison, None
        if comparison is not None:
            comparison.see(row.index, row.digest)
            self._comparison = comparison

    def end(self) -> None:
        """The input is over. Raises `InputError` where rows are gone."""
        if self._comparison is not None:
            self._comparison.end()

    def look_up(self, rows: Sequence[Row]) -> list[str | None]:
        """How each of these rows ended, or that its task runs; None for one that is still to be sent."""
        if self._checkpoint is None:
            return [None] * len(rows)
        keys = [row.key for row in rows]
        again = self._checkpoint.retries(keys)
        filed = self._filed(rows, keys)
        return [self._recorded.get(key) or (filed.get(key) if key not in again else None) for key in keys]

    def fitting(self, where: Where) -> Chosen | None:
        """The rows of the output that the condition fits; None where there are none at all. Raises `UserError`."""
        if self._checkpoint is None or self._folders is None:
            return None
        if (fitted := where.fit_output(self._checkpoint.get("types"))) is None:
            return None
        chosen = Chosen(self._checkpoint)
        choose(chosen, self._folders.data, fitted, has_ids=self._has_ids)
        return chosen

    def marked(self) -> frozenset[bytes]:
        """The rows that somebody marked for retry, and that have had no other outcome since."""
        if self._folders is None:
            return frozenset()
        marked, data = Marks(self._folders.root).retried(), self._folders.data
        return frozenset(
            key_of_outcome(row, has_ids=self._has_ids)
            for path in (sorted(data.glob("part-*.parquet")) if marked else ())
            for _, row in read_marked(path, marked, None)
        )

    def has_answer(self, digest: bytes) -> bool:
        """Was a row with this request answered (`[input] dedupe`)?"""
        if self._checkpoint is None:
            return False
        if self._has_twins is None:
            self._has_twins = bool(self._checkpoint.query("SELECT 1 FROM sqlite_master WHERE name = 'twin'"))
        return self._has_twins and bool(self._checkpoint.query("SELECT 1 FROM twin WHERE digest = ?", (digest,)))

    def answered(self, rows: Sequence[Row]) -> list[bytes | None]:
        """The first 8 bytes of the hash of the request that each of these rows ended with; None where it ended without
        one, or not, or has no id, so that its request cannot have changed."""
        if self._checkpoint is None or not self._has_ids:
            return [None] * len(rows)
        hashes = self._checkpoint.finished.hashes([row.key for row in rows]) | self._answered
        return [hashes.get(row.key) for row in rows]

    def _filed(self, rows: Sequence[Row], keys: list[bytes]) -> dict[bytes, str]:
        assert self._checkpoint is not None
        if self._has_ids:
            return {key: done.status for key, done in self._checkpoint.finished.ids(keys).items()}
        done = self._checkpoint.finished.positions([row.index for row in rows])
        return {row.key: self._refine(row.index, done[row.index].status) for row in rows if row.index in done}

    def _refine(self, position: int, status: str) -> str:
        """The checkpoint knows of a position only whether it is completed; the parts know how else it ended."""
        if status == "completed":
            return status
        if self._ended is None:
            self._ended = self._read_ended()
        found = self._ended.execute("SELECT status FROM ended WHERE position = ?", (position,)).fetchone()
        return str(found[0]) if found else status

    def _read_ended(self) -> sqlite3.Connection:
        """Positions that did not complete, on disk, so that memory stays flat."""
        from batchfox import parts

        db = sqlite3.connect("", isolation_level=None)
        db.execute("CREATE TABLE ended (position INTEGER PRIMARY KEY, status TEXT) WITHOUT ROWID")
        db.execute("BEGIN")
        for path in sorted(self._folders.data.glob("part-*.parquet")) if self._folders else ():
            for table in parts.read(path, ["row_index", "status"]):
                rows = zip(table["row_index"].to_pylist(), table["status"].to_pylist(), strict=True)
                ended = [row for row in rows if row[1] != "completed"]
                db.executemany("INSERT OR REPLACE INTO ended VALUES (?, ?)", ended)
        return db
