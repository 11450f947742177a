"""The rows that input, parts and checkpoint tell of, side by side in a database of the audit's own: on disk, sorted by
key once all are there, so that memory stays flat."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from batchfox.audit.finding import MOST_EXAMPLES
from batchfox.errors import DiskFullError, MachineError

# `hash`: of the request; in `done` its first 8 bytes, as the checkpoint keeps it. `status`: the position in STATUSES.
_ENDED = """row_index INTEGER NOT NULL, row_id TEXT NOT NULL, status INTEGER NOT NULL, hash BLOB, task_id TEXT,
            credits REAL, submits INTEGER NOT NULL, twice INTEGER NOT NULL"""
_SCHEMA = f"""
CREATE TABLE written (key BLOB NOT NULL, part INTEGER NOT NULL, {_ENDED});
CREATE TABLE replaced (key BLOB NOT NULL, finished_at INTEGER, {_ENDED});
CREATE TABLE read (key BLOB NOT NULL, row_index INTEGER NOT NULL, row_id TEXT NOT NULL, hash BLOB);
CREATE TABLE done (key BLOB PRIMARY KEY, status INTEGER, row_index INTEGER NOT NULL, hash BLOB) WITHOUT ROWID;
CREATE TABLE pending (key BLOB NOT NULL, state INTEGER NOT NULL, part INTEGER, old_part INTEGER,
                      row_index INTEGER NOT NULL, row_id TEXT NOT NULL, status INTEGER, task_id TEXT, credits REAL,
                      submits INTEGER NOT NULL, twice INTEGER NOT NULL);
CREATE INDEX pending_key ON pending (key);
CREATE TABLE recorded_part (number INTEGER PRIMARY KEY);
-- One row a key: of those in the parts, and of those of the input (the first that came).
CREATE TABLE held (key BLOB PRIMARY KEY, times INTEGER NOT NULL, part INTEGER NOT NULL, {_ENDED}) WITHOUT ROWID;
CREATE TABLE asked (key BLOB PRIMARY KEY, times INTEGER NOT NULL, row_index INTEGER NOT NULL, row_id TEXT NOT NULL,
                    hash BLOB) WITHOUT ROWID;
-- Of those pending the ones in no part yet: a run may stop between putting a part in its place and saying so.
CREATE VIEW underway AS SELECT * FROM pending p
    WHERE p.part IS NULL OR NOT EXISTS (SELECT 1 FROM held h WHERE h.key = p.key AND h.part = p.part);
"""
_ENDED_NAMES = "row_index, row_id, status, hash, task_id, credits, submits, twice"
# The first of each key: SQLite takes the other columns from the row that has the least.
_SORT = f"""
INSERT INTO held SELECT key, count(*), min(part), {_ENDED_NAMES} FROM written GROUP BY key;
INSERT INTO asked SELECT key, count(*), min(row_index), row_id, hash FROM read GROUP BY key;
"""
_CACHE_KB = 16_000


class Rolls:
    """The audit's own database. Raises `MachineError` where the disk for temporary files is in the way."""

    def __init__(self) -> None:
        with _at_the_border():
            self._db = sqlite3.connect("", isolation_level=None)
            self._db.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
            self._db.execute("PRAGMA journal_mode = OFF")  # nothing is ever taken back
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def put(self, table: str, rows: Iterable[tuple[Any, ...]], columns: int) -> None:
        """Adds rows, each with so many values."""
        with _at_the_border():
            self._db.execute("BEGIN")
            try:
                self._db.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * columns)})", rows)
            finally:
                self._db.execute("COMMIT")

    def clear(self, *tables: str) -> None:
        with _at_the_border():
            for table in tables:
                self._db.execute(f"DELETE FROM {table}")

    def forget_part(self, number: int) -> None:
        with _at_the_border():
            self._db.execute("DELETE FROM written WHERE part = ?", (number,))

    def sort(self) -> None:
        """All rows are there: one of each key from now on."""
        with _at_the_border():
            self._db.executescript(_SORT)

    def query(self, sql: str) -> list[Any]:
        with _at_the_border():
            return self._db.execute(sql).fetchall()

    def stream(self, sql: str) -> Iterator[Any]:
        """The rows of a query, a few at a time."""
        with _at_the_border():
            cursor = self._db.execute(sql)
            while rows := cursor.fetchmany(1_000):
                yield from rows

    def count(self, sql: str) -> int:
        return int(self.query(sql)[0][0])

    def find(self, what: str, columns: str, order: str) -> tuple[int, list[Any]]:
        """How many rows there are, and of the first few these columns. `what`: the query from its FROM on."""
        number = self.count(f"SELECT count(*) {what}")
        return number, self.query(f"SELECT {columns} {what} ORDER BY {order} LIMIT {MOST_EXAMPLES}") if number else []


@contextlib.contextmanager
def _at_the_border() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        where = "the folder for temporary files"
        remedy = "set SQLITE_TMPDIR to a folder on a disk with room"
        if "full" in str(error):
            raise DiskFullError(f"{where}: {error}; make room, or {remedy}, and run the same command again") from error
        raise MachineError(f"{where}: {error}; mend it, or {remedy}, and run the same command again") from error
