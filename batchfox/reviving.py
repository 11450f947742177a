"""Fresh attempts for one row that ended, in the run that goes on: what `--retry` does when a run begins, for a row that
a person names meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from batchfox.checkpoint import Again, Checkpoint
from batchfox.core.lifecycle import EXPIRED, NO_RESULTS, Life, State
from batchfox.core.prepare import Invalid, Preparer, key_of_outcome
from batchfox.core.row import Row, key_of_id, key_of_line, key_of_position
from batchfox.errors import UserError
from batchfox.part_names import part_name
from batchfox.paths import STDIN
from batchfox.source import open_with_ids

if TYPE_CHECKING:
    from batchfox.core.job import Job
    from batchfox.core.secret import Secret
    from batchfox.feed import Feed
    from batchfox.pool import Pool

_COLUMNS = [
    *("row_index", "row_id", "status", "error_code", "submits", "maybe_billed_twice", "request_hash", "finished_at")
]
_WHERE = {
    State.WAITING: "it waits to be sent",
    State.SENDING: "its POST is on the wire",
    State.RUNNING: "its task runs",
}


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a part: its key, how it ended and when (unix), and what was paid for it."""

    key: bytes
    index: int
    status: str
    finished_at: float
    request_hash: str | None
    again: Again


class Reviver:
    """Of one execution. `connect` opens a connection to the checkpoint; `thread` is where files are read."""

    def __init__(
        self,
        job: Job,
        *,
        pool: Pool,
        feed: Feed,
        preparer: Preparer,
        connect: Callable[[], Checkpoint],
        thread: Executor,
        data: Path,
        secret: Secret,
        id_column: str | None,
        began_at: float,
    ) -> None:
        """`began_at`: when this execution began (unix)."""
        self._job = job
        self._pool = pool
        self._feed = feed
        self._preparer = preparer
        self._connect = connect
        self._thread = thread
        self._data = data
        self._secret = secret
        self._has_ids = id_column is not None
        self._began_at = began_at
        self._turn = asyncio.Lock()

    async def retry(self, row_id: str) -> str:
        """Gives the row fresh attempts, and says so. Raises `UserError` that says why not."""
        async with self._turn:
            if STDIN in self._job.input.paths:
                raise UserError("the input is standard input, which is read once: no row of it can be made anew")
            if not self._pool.looks.is_over:
                raise UserError("tasks that an earlier run gave up are being asked about first: try again in a minute")
            self._refuse_live(row_id)
            for key in self._keys(row_id):
                recorded = self._pool.ledger.unfiled.get(key)
                if recorded is not None and recorded.status == "completed":
                    raise UserError(_say_completed(row_id))
                await self._pool.file_row(key)
            loop = asyncio.get_running_loop()
            ended = await loop.run_in_executor(self._thread, self._find_ended, row_id)
            if ended is None:
                raise UserError(
                    f"no row {row_id} has ended in this output: it may be unknown, or its turn has not come yet"
                )
            if ended.status == "completed":
                raise UserError(_say_completed(row_id))
            if ended.status == "timed_out":
                raise UserError(
                    f"row {row_id} timed out, and its task may have its answer by now: the next run asks for it, free, "
                    "and `batchfox run --retry timed_out` pays anew only where there is none"
                )
            row = await loop.run_in_executor(self._thread, self._find_row, ended.key)
            if row is None:
                raise UserError(f"row {row_id} ended as {ended.status}, and the input no longer has it")
            life = self._prepare(row, ended)
            self._refuse_live(row_id)
            await loop.run_in_executor(self._thread, self._mark, ended)
            self._refuse_live(row_id, marked=True)
            self._feed.take_again(ended.key, ended.index, ended.status, is_own=ended.finished_at >= self._began_at)
            self._pool.begin(life, ended.again)
            paid = f"{ended.again.submits} submitted before" if ended.again.submits else "never submitted before"
            return f"row {row_id} ({ended.status}, {paid}) gets fresh attempts in this run"

    def _keys(self, row_id: str) -> list[bytes]:
        """Under which keys a row of this name may be known."""
        number = row_id.removeprefix("line:")
        is_number = number.isascii() and number.isdigit() and len(number) < 18
        if not self._has_ids:
            return [key_of_position(int(row_id))] if is_number and number == row_id else []
        return [key_of_id(row_id), *([key_of_line(int(number))] if is_number and number != row_id else [])]

    def _refuse_live(self, row_id: str, *, marked: bool = False) -> None:
        """Raises `UserError` where the row is on its way, or the run is."""
        if self._pool.is_over or self._pool.fleet.stopped is not None:
            next_run = "it is marked, and the next run takes it" if marked else "use `batchfox run --retry` after it"
            raise UserError(f"the run is stopping, row {row_id} is not sent any more: {next_run}")
        life = next((life for life in self._pool.fleet.lives.values() if life.id == row_id), None)
        if life is not None:
            raise UserError(f"row {row_id} has not ended: {_WHERE.get(life.state, life.state.name.lower())}")

    def _prepare(self, row: Row, ended: Ended) -> Life:
        prepared = self._preparer.prepare(row)
        if isinstance(prepared, Invalid):
            raise UserError(f"row {row.id} still cannot be sent: {prepared.error.message}")
        if not self._has_ids and prepared.request_hash != ended.request_hash:
            raise UserError(
                f"row {row.id} is another request now than the one that ended as {ended.status}, and without ids the "
                "input must not change below what is done: put it back, or name the rows by an id"
            )
        return prepared

    def _find_ended(self, row_id: str) -> Ended | None:
        """In the thread: the row's outcome, in the newest part that has one of this name."""
        checkpoint = self._connect()
        try:
            sql = "SELECT number FROM part WHERE is_filed ORDER BY number DESC"
            numbers = [number for (number,) in checkpoint.query(sql)]
        finally:
            checkpoint.close()
        for number in numbers:
            for row in _rows_named(self._data / part_name(number), row_id):
                return _ended(row, number, has_ids=self._has_ids)
        return None

    def _find_row(self, key: bytes) -> Row | None:
        """In the thread: the row as the input has it now. It is read from its beginning."""
        source = open_with_ids(self._job, with_digest=False, secret=self._secret)
        return next((row for batch in source.batches() for row in batch if row.key == key), None)

    def _mark(self, ended: Ended) -> None:
        """In the thread: should this run not come to the row, the next one does."""
        again = ended.again
        checkpoint = self._connect()
        try:
            with checkpoint.transaction() as db:
                values = (ended.key, again.part, again.submits, again.unresolved, int(again.maybe_billed_twice))
                db.execute("INSERT OR REPLACE INTO retry VALUES (?, ?, ?, ?, ?)", values)
        finally:
            checkpoint.close()


def _say_completed(row_id: str) -> str:
    return f"row {row_id} is completed and keeps its answer; where its request changed, `batchfox run --retry stale`"


def _rows_named(path: Path, row_id: str) -> Iterator[dict[str, Any]]:
    """The rows of a part that have this `row_id`."""
    import pyarrow.compute as pc

    from batchfox import parts

    for table in parts.read(path, _COLUMNS):
        yield from table.filter(pc.equal(table["row_id"], row_id)).to_pylist()


def _ended(row: dict[str, Any], part: int, *, has_ids: bool) -> Ended:
    unresolved = row["status"] in ("in_doubt", "timed_out") or row["error_code"] in (EXPIRED, NO_RESULTS)
    return Ended(
        key=key_of_outcome(row, has_ids=has_ids),
        index=row["row_index"],
        status=row["status"],
        finished_at=0.0 if row["finished_at"] is None else row["finished_at"].timestamp(),
        request_hash=row["request_hash"],
        again=Again(
            part=part,
            submits=row["submits"],
            unresolved=int(unresolved),
            maybe_billed_twice=bool(row["maybe_billed_twice"]),
        ),
    )
