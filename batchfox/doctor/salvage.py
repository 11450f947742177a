"""What can still be read of a checkpoint, however damaged: from a copy, row by row, around what cannot be read."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from batchfox.checkpoint import Checkpoint
from batchfox.columns import decode_types
from batchfox.core import blocks
from batchfox.core.outcome import COLUMNS, Outcome
from batchfox.core.row import key_of_id, key_of_line, key_of_position
from batchfox.group import decode_outcome, decode_record
from batchfox.kept import decode_columns
from batchfox.open_part import entry_of

_HEADER = b"SQLite format 3\0"
_SIZE_IS_VALID_FOR = slice(24, 28)  # of the header: unlike what stands at 92, the file's own size counts
_AT_ONCE = 100
_STEPS_OF_ONE = 500  # more rows than one page holds
_END = 1 << 48

# What a column's numbers stay below; times in microseconds, less than 1,142 years from 1970.
_LIMITS = {"int16": 1 << 15, "int32": 1 << 31, "int64": 1 << 63, "timestamp": 1 << 55}
ROW_COLUMNS = "key, state, record, kept, outcome, part, old_part"
# The slot, and these.
SavedRow = tuple[int, bytes, int, bytes | None, bytes, bytes | None, int | None, int | None]


class Remains:
    """What is left of a checkpoint. `is_whole`: nothing that was looked for was unreadable."""

    def __init__(self, path: Path, tmp: Path) -> None:
        """`path` is only read; the copy lies in `tmp` until `close`."""
        self._copy = tmp / "salvage.db"
        self._db: sqlite3.Connection | None = None
        self.is_whole = path.exists()
        if path.exists():
            for suffix in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(f"{path}{suffix}", f"{self._copy}{suffix}")
            self._db = self._open(tmp)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
        for suffix in ("", "-wal", "-shm"):
            self._copy.with_name(self._copy.name + suffix).unlink(missing_ok=True)

    def _open(self, tmp: Path) -> sqlite3.Connection:
        with self._copy.open("rb") as file:
            is_headed = file.read(len(_HEADER)) == _HEADER
        if is_headed:
            db = self._connect()
            if _knows_tables(db):
                self.is_whole = _is_sound(db)
                return db
            db.close()
        _give_head(self._copy, tmp / "blank.db")
        db = self._connect()
        self.is_whole = _is_sound(db)
        return db

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._copy, isolation_level=None)
        with contextlib.suppress(sqlite3.Error):
            db.execute("PRAGMA writable_schema = ON")  # a file that is too short is read as far as it goes
        return db

    def get(self, name: str) -> Any:
        """A fact of the table `meta`; None where it is not known any more."""
        found = self._query("SELECT value FROM meta WHERE name = ?", (name,))
        return found[0][0] if found else None

    def types(self) -> dict[str, Any] | None:
        """The carried columns' types, where they are sure; else the parts tell."""
        return sure_types(self.get("types")) if self.is_whole else None

    def runs(self) -> list[tuple[Any, ...]]:
        columns = "run_id, run_date, started_at, beat_at, ended_at, exit_status, is_finished, progress"
        return [row[1:] for row in self._walk("run", "rowid", columns) if self._keep(_is_run(row[1:]))]

    def parts(self) -> dict[int, tuple[int, int]]:
        """Filed or not, and rows, by number."""
        return {number: (is_filed, rows) for number, is_filed, rows in self._walk("part", "number", "is_filed, rows")}

    def blocks(self) -> list[tuple[Any, ...]]:
        return list(self._walk("block", "block", "rows, digest"))

    def retries(self) -> list[tuple[Any, ...]]:
        return self._query("SELECT key, part, submits, unresolved, doubled FROM retry", ())

    def finished(self) -> Iterator[tuple[bytes, int]]:
        """Key and status (position in STATUSES) of what was done with an id, in the order of keys, as far as it can be
        read."""
        found = self._read("SELECT key, status FROM finished ORDER BY key")
        return ((key, status) for key, status in found if isinstance(key, bytes))

    def finished_blocks(self) -> Iterator[tuple[int, bytes, bytes]]:
        """The same by position: block, done, incomplete."""
        for block, *maps in self._read("SELECT block, done, incomplete FROM finished_block ORDER BY block"):
            if all(isinstance(bits, bytes) and len(bits) == blocks.BITMAP_BYTES for bits in maps):
                yield block, maps[0], maps[1]

    def counts(self) -> dict[int, str]:
        """Of each part the number of its rows by status, as JSON."""
        return dict(self._read("SELECT number, counts FROM part"))

    def _read(self, sql: str) -> Iterator[Any]:
        """As far as it goes, without a word: what parts hold is known from them."""
        with contextlib.suppress(sqlite3.Error):
            if self._db is not None:
                yield from self._db.execute(sql)

    def rows(self) -> Iterator[SavedRow]:
        """Every row on its way that can be understood."""
        assigned = self._assigned()
        for row in self._walk("row", "slot", ROW_COLUMNS):
            if self._keep(is_understood(row)):
                yield (*row[:-2], assigned.get(row[0], row[-2]), row[-1])

    def _assigned(self) -> dict[int, int]:
        """Slots of rows on their way into a part, and its number. Versions before 3 have it in the rows themselves."""
        if self._db is None or "assigned" not in _tables(self._db):
            return {}
        found = self._walk("assigned", "slot", "part")
        return {slot: part for slot, part in found if self._keep(isinstance(part, int))}

    def _keep(self, is_good: bool) -> bool:
        self.is_whole = self.is_whole and is_good
        return is_good

    def _query(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        if self._db is None:
            return []
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error:
            self.is_whole = False
            return []

    def _walk(self, table: str, key: str, columns: str) -> Iterator[Any]:
        """The rows of a table in the order of its whole-number key. Where one cannot be read, the next key is tried,
        then ever larger steps are taken."""
        sql = f"SELECT {key}, {columns} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?"
        at, misses = -1, 0
        while self._db is not None and at < _END:
            try:
                rows = self._db.execute(sql, (at, 1 if misses else _AT_ONCE)).fetchall()
            except sqlite3.Error:
                self.is_whole = False
                misses += 1
                if misses > 1:
                    at += 1 << max(misses - _STEPS_OF_ONE, 0)
                continue
            if not rows:
                return
            before, misses = at, 0
            for row in rows:
                if row[0] > at:  # damaged pages may lead back to where the walk has been
                    at = row[0]
                    yield row
            at += at == before


def sure_types(encoded: Any) -> dict[str, Any] | None:
    """The carried columns' types as a checkpoint keeps them; None where it has none that can be understood."""
    try:
        return decode_types(encoded)
    except (OSError, TypeError, ValueError):  # Arrow's errors are of these kinds
        return None


def is_understood(row: SavedRow) -> bool:
    """Can this record be read and, where the row is settled, written to a part? Does its key name the row that it says
    it is?"""
    _, key, state, record, kept, outcome, part, old_part = row
    if not all(number is None or isinstance(number, int) for number in (part, old_part)):
        return False
    try:
        decode_columns(kept)
        if state == 3:
            settled = decode_outcome(outcome or b"")
            entry_of(key, settled)
            return _can_be_written(settled) and _is_key_of(key, settled.row_id, settled.row_index)
        known = decode_record(record or b"")
        bytes.fromhex(known.request_hash or "")
        return state in (0, 1, 2) and _is_key_of(key, known.id, known.index)
    except (msgspec.MsgspecError, OverflowError, TypeError, ValueError):
        return False


def _can_be_written(outcome: Outcome) -> bool:
    """Does each value fit its column? Raises `ValueError` or `OverflowError` for times and days that are none."""
    date.fromisoformat(outcome.run_date)
    numbers = (
        (value, _LIMITS[kind])
        for value, kind in zip(outcome.record(), COLUMNS.values(), strict=True)
        if kind in _LIMITS
    )
    return all(value is None or -limit <= value < limit for value, limit in numbers)


def _is_run(run: tuple[Any, ...]) -> bool:
    run_id, run_date, started_at, beat_at, *_, progress = run
    try:
        is_told = progress is None or isinstance(msgspec.json.decode(progress), dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return False
    words, times = (run_id, run_date), (started_at, beat_at)
    return is_told and all(isinstance(word, str) for word in words) and all(isinstance(time, float) for time in times)


def _is_key_of(key: bytes, row_id: str, index: int) -> bool:
    line = row_id.removeprefix("line:")
    is_line = line != row_id and line.isdecimal() and key == key_of_line(int(line))
    return key in (key_of_id(row_id), key_of_position(index)) or is_line


def _knows_tables(db: sqlite3.Connection) -> bool:
    return _tables(db) >= {"meta", "run", "row", "part", "block", "retry"}


def _tables(db: sqlite3.Connection) -> set[str]:
    """The names of those that it knows of."""
    try:
        return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return set()


def _is_sound(db: sqlite3.Connection) -> bool:
    """Is every page what it should be? A page that is never used is no loss."""
    try:
        return all(text == "ok" or "is never used" in text for (text,) in db.execute("PRAGMA quick_check(100000)"))
    except sqlite3.Error:
        return False


def _give_head(copy: Path, blank: Path) -> None:
    """The first page of a new checkpoint in the place of one that cannot be read: every checkpoint of this version
    begins with the same tables in the same order, so it tells where they are."""
    Checkpoint(blank).close()
    page = bytearray(blank.read_bytes()[:4096])
    blank.unlink()
    page[_SIZE_IS_VALID_FOR] = b"\xff\xff\xff\xff"
    with copy.open("r+b") as file:
        file.write(page)
