"""What the parts of an output really hold: every file read to its end, every row counted, from the files alone."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from batchfox import parts
from batchfox.arrow_types import stored_type
from batchfox.core import blocks
from batchfox.core.outcome import EXTRA, STATUSES
from batchfox.core.prepare import key_of_outcome
from batchfox.errors import OutputError

_SCHEMA = """
CREATE TABLE seen (key BLOB NOT NULL, part INTEGER NOT NULL, status INTEGER NOT NULL, row_index INTEGER NOT NULL,
                   hash BLOB, row_id TEXT NOT NULL);
"""
_COLUMNS = ("row_index", "row_id", "status", "error_code", "request_hash")
_RUN_COLUMNS = ("run_id", "run_date", "submitted_at", "finished_at", "submits", "polls", "credits")

# What comes of a row with a status that there is not, or without what every row has.
_NOT_OURS = (AttributeError, OverflowError, TypeError, ValueError, sqlite3.IntegrityError)

# What the checkpoint keeps of a finished row: key, status (position in STATUSES), position in the input, hash.
Known = tuple[bytes, int, int, bytes | None]


class Part(msgspec.Struct, frozen=True):
    """A part that is whole: its rows, and how many of each status."""

    rows: int
    counts: dict[str, int]


class RunTrace(msgspec.Struct):
    """What the parts tell of a run. Times are unix seconds."""

    run_date: str
    first: float
    last: float
    submits: int = 0
    polls: int = 0
    credits: float = 0.0


class Census:
    """The files of `data/`. `parts`: whole ones by number; `unreadable`: why, by number; `foreign`: names of files that
    are no parts of this output. `types`: those of the carried columns, where they are known; else the first part's."""

    def __init__(self, data: Path, *, has_ids: bool, types: dict[str, pa.DataType] | None = None) -> None:
        self.parts: dict[int, Part] = {}
        self.unreadable: dict[int, str] = {}
        self.foreign: dict[str, str] = {}
        self.runs: dict[str, RunTrace] = {}
        self.types = types
        self._has_ids = has_ids
        self._db = sqlite3.connect("", isolation_level=None)  # on disk, so that memory stays flat
        self._db.executescript(_SCHEMA)
        for path in sorted(data.iterdir()):
            self._take(path)
        self._db.execute("CREATE INDEX by_key ON seen (key, part)")

    def close(self) -> None:
        self._db.close()

    def _take(self, path: Path) -> None:
        number = parts.number_of(path.name)
        if number is None:
            self.foreign[path.name] = "its name is not that of a part"
            return
        try:
            schema = pq.read_schema(path)
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            self.unreadable[number] = _first_line(error)
            return
        types = carried_types(schema)
        if types is None or (self.types is not None and list(types.items()) != list(self.types.items())):
            self.foreign[path.name] = "its columns are not those of this output"
            return
        self._db.execute("BEGIN")
        try:
            self.parts[number] = self._count(path, number)
        except OutputError as error:
            self._db.execute("ROLLBACK")
            self.unreadable[number] = _first_line(error.__cause__ or error)
            return
        self._db.execute("COMMIT")
        if self.types is None and self.parts[number].rows:
            self.types = types

    def _count(self, path: Path, number: int) -> Part:
        """Reads a part to its end, every column. Raises `OutputError` where it cannot be read."""
        counts: Counter[str] = Counter()
        runs: dict[str, RunTrace] = {}
        for table in parts.read(path):
            rows = table.select(_COLUMNS).to_pylist()
            entries = ((*_known(row, self._has_ids), number, row["row_id"]) for row in rows)
            sql = "INSERT INTO seen (key, status, row_index, hash, part, row_id) VALUES (?, ?, ?, ?, ?, ?)"
            try:
                self._db.executemany(sql, entries)
                _trace(table.select(_RUN_COLUMNS), runs)
            except _NOT_OURS as error:
                before = counts.total()
                where = f"rows {before:,} to {before + len(rows) - 1:,}"
                raise OutputError(f"{path}: one of its {where} is none that batchfox writes: {error}") from None
            counts.update(row["status"] for row in rows)
        for run_id, trace in runs.items():
            _merge(self.runs, run_id, trace)
        return Part(counts.total(), dict(counts))

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts.values())

    def known(self, numbers: set[int] | None = None) -> Iterator[Known]:
        """What the checkpoint should keep of each row, ordered by key. `numbers`: of these parts alone."""
        if numbers is None:
            numbers = set(self.parts)
        marks = ",".join(str(number) for number in sorted(numbers))
        sql = f"SELECT key, status, row_index, hash FROM seen WHERE part IN ({marks}) ORDER BY key"
        yield from self._db.execute(sql)

    def bitmaps(self, numbers: set[int] | None = None) -> Iterator[tuple[int, bytes, bytes]]:
        """Block, rows done, those of them that did not complete: of an input without ids."""
        block, done, incomplete = -1, bytearray(), bytearray()
        for _, status, row_index, _ in self.known(numbers):  # a position's key is in the order of positions
            its_block, at = blocks.place(row_index)
            if its_block != block:
                if done:
                    yield block, bytes(done), bytes(incomplete)
                block, done, incomplete = its_block, bytearray(blocks.BITMAP_BYTES), bytearray(blocks.BITMAP_BYTES)
            blocks.mark(done, at)
            blocks.mark(incomplete, at, status != 0)
        if done:
            yield block, bytes(done), bytes(incomplete)

    def parts_with(self, key: bytes) -> set[int]:
        """The parts that hold a row of this key."""
        return {number for (number,) in self._db.execute("SELECT part FROM seen WHERE key = ?", (key,))}

    def duplicates(self) -> tuple[int, list[tuple[str, list[int]]]]:
        """How many rows stand there more than once; of the first five, the id and the parts."""
        twice = "FROM seen GROUP BY key HAVING count(*) > 1"
        number = self._db.execute(f"SELECT count(*) FROM (SELECT 1 {twice})").fetchone()[0]
        found = self._db.execute(f"SELECT min(row_id), group_concat(part) {twice} ORDER BY min(row_index) LIMIT 5")
        return number, [(row_id, sorted(int(part) for part in names.split(","))) for row_id, names in found]


def carried_types(schema: pa.Schema) -> dict[str, pa.DataType] | None:
    """The types of the carried columns by a part's schema; None where it is no part's."""
    own = parts.schema_of({})
    number = len(own) - 1
    if len(schema) <= number or schema.names[-1] != EXTRA:
        return None
    if any(not schema.field(at).equals(own.field(at)) for at in range(number)):
        return None
    return {field.name: stored_type(field.type) for field in list(schema)[number:-1]}


def _known(row: dict[str, Any], has_ids: bool) -> Known:
    short = bytes.fromhex(row["request_hash"])[:8] if row["request_hash"] else None
    return key_of_outcome(row, has_ids=has_ids), STATUSES.index(row["status"]), row["row_index"], short


def _trace(table: pa.Table, runs: dict[str, RunTrace]) -> None:
    for row in table.to_pylist():
        finished = row["finished_at"].timestamp()
        begun = row["submitted_at"].timestamp() if row["submitted_at"] else finished
        used = (row["submits"], row["polls"], row["credits"] or 0.0)
        trace = RunTrace(row["run_date"].isoformat(), begun, finished, *used)
        _merge(runs, row["run_id"], trace)


def _merge(runs: dict[str, RunTrace], run_id: str, trace: RunTrace) -> None:
    known = runs.setdefault(run_id, RunTrace(trace.run_date, trace.first, trace.last))
    known.first, known.last = min(known.first, trace.first), max(known.last, trace.last)
    known.submits += trace.submits
    known.polls += trace.polls
    known.credits += trace.credits


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
