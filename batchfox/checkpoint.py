"""The checkpoint: SQLite, the durable memory of an output. It records and tells; it decides nothing.

One `Checkpoint` holds one connection and belongs to one thread at a time. Writes come in groups, one transaction with
full sync each (`commit`), so the price of durability is shared. WAL mode does not work across hosts, so an output on a
network file system keeps its checkpoint elsewhere (`[output] checkpoint`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from importlib.resources import files
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from batchfox.core import blocks
from batchfox.core.lifecycle import Life, State
from batchfox.core.outcome import STATUSES, Outcome
from batchfox.errors import OutputError
from batchfox.kept import decode_columns
from batchfox.sqlite_border import at_the_border, damaged

VERSION = 2
# What makes of a version the next one. Each only adds: what an older version wrote stays as it is.
_STEPS = {
    1: """
    CREATE TABLE upload (
        digest BLOB NOT NULL, suffix TEXT NOT NULL, url TEXT NOT NULL, uploaded_at REAL NOT NULL,
        PRIMARY KEY (digest, suffix)
    ) WITHOUT ROWID
    """,
}
_STATES = {State.WAITING: 0, State.SENDING: 1, State.RUNNING: 2, State.SETTLED: 3}
_STATE_OF = {number: state for state, number in _STATES.items()}
_MOST_KEYS = 512
# Fewer free pages (of 4 kB) than these are left where they are.
LEAST_FREE_PAGES = 256
# Of each connection; what a million finished keys would fill, and ten thousand would not.
_CACHE_KB = 4000
# In the table `retry`: the row's outcome is in no part any more (`doctor --repair`).
NO_PART = -1
_UNFILED = "SELECT key, outcome FROM row WHERE state = 3"
_RUNNING = "SELECT key, record FROM row WHERE state = 2"


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What of a `Life` outlives the process, the kept columns aside."""

    index: int
    id: str
    group: str
    model: str | None
    request_hash: str | None
    media: list[str]
    submits: int
    attempts: int
    unresolved: int
    maybe_billed_twice: bool
    estimate: float
    reserved: float | None
    task_id: str | None
    submitted_at: float | None
    polls: int
    # Later than the other fields, and left out by older versions. What the stream of its task told:
    reasoning: str | None = None
    is_told: bool = False
    unfetched_at: float | None = None


_record_fields = tuple(field.name for field in msgspec.structs.fields(Record))
encode = msgspec.msgpack.Encoder(enc_hook=str).encode
decode_record = msgspec.msgpack.Decoder(Record).decode
decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


class Group:
    """What one transaction records, in this order: blocks, new rows, records, outcomes, renewed columns, progress."""

    def __init__(self) -> None:
        self.blocks: dict[int, tuple[int, bytes]] = {}
        self.rows: list[tuple[int, bytes, int, bytes | None, bytes, bytes | None, int | None]] = []
        self.records: dict[int, tuple[int, bytes, int]] = {}
        self.outcomes: list[tuple[bytes, int]] = []
        self.columns: dict[int, bytes] = {}
        self.forgotten: list[tuple[int]] = []
        self.progress: tuple[float, bytes, str] | None = None

    def __bool__(self) -> bool:
        return bool(self.rows or self.records or self.outcomes or self.forgotten or self.progress or self.blocks)

    def add_row(self, life: Life, kept: bytes, old_part: int | None, outcome: Outcome | None = None) -> None:
        """A row's first record: its intent, or at once its outcome."""
        state = 3 if outcome is not None else _STATES[life.state]
        record = None if outcome is not None else _record_of(life)
        payload = None if outcome is None else encode(outcome)
        self.rows.append((life.slot, life.key, state, record, kept, payload, old_part))

    def add_record(self, life: Life) -> None:
        """Where a known row stands now; only the last word of a group counts."""
        self.records[life.slot] = (_STATES[life.state], _record_of(life), life.slot)

    def add_outcome(self, slot: int, outcome: Outcome) -> int:
        """Returns the payload's size in bytes."""
        payload = encode(outcome)
        self.records.pop(slot, None)
        self.outcomes.append((payload, slot))
        return len(payload)


_values_of = attrgetter(*_record_fields)


def _record_of(life: Life) -> bytes:
    return encode(_values_of(life))


class Done(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A finished key: how it ended, and at which position of the input."""

    status: str
    row_index: int


class Again(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A finished row that gets fresh attempts: where its outcome is (or `NO_PART`), and what was paid so far."""

    part: int
    submits: int
    unresolved: int
    maybe_billed_twice: bool


class Checkpoint:
    """The SQLite file of one output."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Opens, or creates, the checkpoint; `is_blank`: nothing was in it.

        Raises `OutputError` for a newer version, `DamagedError` for a damaged file.
        """
        self.path = path
        self.is_blank = False
        with at_the_border(path):
            _refuse_lost_head(path)
            if read_only:
                uri = f"{path.resolve().as_uri()}?mode=ro{_as_it_lies(path)}"
                self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
            else:
                if not path.exists():
                    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
                self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
            try:
                self._prepare(read_only)
            except BaseException:
                self._db.close()
                raise

    def _prepare(self, read_only: bool) -> None:
        if read_only and self.path.with_name(f"{self.path.name}-journal").exists():
            self.is_blank = True  # a rollback journal is there only while a checkpoint is created
            self._show_as_empty()
            return
        db = self._db
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise OutputError(
                f"{self.path}: written by a newer batchfox (checkpoint version {version}, this one knows {VERSION}); "
                "upgrade batchfox to go on with this output"
            )
        self.is_blank = version == 0
        db.execute("PRAGMA busy_timeout = 30000")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        if read_only:
            if version == 0:
                self._show_as_empty()
            return
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise OutputError(
                f"{self.path}: this file system does not take SQLite's write-ahead log; "
                'set [output] checkpoint = "/a/local/path/checkpoint.db"'
            )
        db.execute("PRAGMA synchronous = FULL")
        if version == 0:
            db.executescript(f"BEGIN;\n{_schema()}\nPRAGMA user_version = {VERSION};\nCOMMIT;")
        for former in range(version or VERSION, VERSION):
            db.executescript(f"BEGIN IMMEDIATE;\n{_STEPS[former]};\nPRAGMA user_version = {former + 1};\nCOMMIT;")

    def _show_as_empty(self) -> None:
        """For a reader of a file that is being created, or whose creation a crash cut: nothing is recorded yet."""
        self._db.close()
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.executescript(_schema())

    def refuse_damage(self) -> None:
        """Looks at every page (about 3 ms a megabyte). Raises `DamagedError` where one is not what it should be."""
        found = self.query("PRAGMA quick_check(1)")
        if found != [("ok",)]:
            raise damaged(self.path, " ".join(str(found[0][0]).split()))

    def close(self) -> None:
        self._db.close()

    def give_back_room(self) -> None:
        """Gives back the pages of rows that are filed by now, where they are most of the file. Where the disk or
        another process is in the way, nothing happens: the room is used again by later rows."""
        pages, free = (self.query(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count"))
        if free >= LEAST_FREE_PAGES and free * 4 >= pages:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("VACUUM")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, synced when it returns."""
        with at_the_border(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def query(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        with at_the_border(self.path):
            return self._db.execute(sql, tuple(values)).fetchall()

    def stream(self, sql: str, values: Iterable[Any] = ()) -> Iterator[Any]:
        """The rows of a query, a few at a time: memory stays flat."""
        with at_the_border(self.path):
            cursor = self._db.execute(sql, tuple(values))
            while rows := cursor.fetchmany(100):
                yield from rows

    def figures(self, progress: bytes | None) -> dict[str, Any]:
        """A run's figures, as its record holds them. Raises `DamagedError`."""
        try:
            found = msgspec.json.decode(progress) if progress else {}
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
            raise damaged(self.path, "the figures of a run cannot be understood") from error
        if not isinstance(found, dict):
            raise damaged(self.path, "the figures of a run cannot be understood")
        return found

    def note(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Puts rows into a temporary table of this connection, which a read-only one may have too."""
        with at_the_border(self.path):
            self._db.execute("BEGIN")
            try:
                self._db.executemany(sql, rows)
            finally:
                self._db.execute("COMMIT")

    def commit(self, group: Group) -> None:
        """Records a group, durably when it returns."""
        with self.transaction() as db:
            if group.blocks:
                rows = [(number, *entry) for number, entry in group.blocks.items()]
                db.executemany("INSERT OR REPLACE INTO block VALUES (?, ?, ?)", rows)
            if group.rows:
                sql = "INSERT INTO row (slot, key, state, record, kept, outcome, old_part) VALUES (?, ?, ?, ?, ?, ?, ?)"
                db.executemany(sql, group.rows)
            if group.records:
                db.executemany("UPDATE row SET state = ?, record = ? WHERE slot = ?", group.records.values())
            if group.outcomes:
                db.executemany("UPDATE row SET state = 3, record = NULL, outcome = ? WHERE slot = ?", group.outcomes)
            if group.columns:
                columns = [(kept, slot) for slot, kept in group.columns.items()]
                db.executemany("UPDATE row SET kept = ? WHERE slot = ?", columns)
            if group.forgotten:
                db.executemany("DELETE FROM row WHERE slot = ?", group.forgotten)
            if group.progress:
                db.execute("UPDATE run SET beat_at = ?, progress = ? WHERE run_id = ?", group.progress)

    # Facts about the output.

    def get(self, name: str) -> Any:
        found = self.query("SELECT value FROM meta WHERE name = ?", (name,))
        return found[0][0] if found else None

    def put(self, **values: Any) -> None:
        with self.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    # Rows that an earlier run left.

    def unfinished(self) -> Iterator[tuple[Life, int | None]]:
        """Every row that is neither settled nor forgotten, with the part its new outcome will replace a row of."""
        rows = self.query("SELECT slot, key, state, record, kept, old_part FROM row WHERE state < 3 ORDER BY slot")
        for slot, key, state, record, kept, old_part in rows:
            with at_the_border(self.path):
                known, columns = decode_record(record), decode_columns(kept)
            yield Life(slot=slot, key=key, state=_STATE_OF[state], kept=columns, **_fields(known)), old_part

    def unfiled(self) -> dict[bytes, Done]:
        """Keys whose outcome is recorded but not filed."""
        with at_the_border(self.path):
            outcomes = ((key, decode_outcome(outcome)) for key, outcome in self.query(_UNFILED))
            return {key: Done(status=outcome.status, row_index=outcome.row_index) for key, outcome in outcomes}

    def unfiled_hashes(self) -> dict[bytes, bytes | None]:
        """The same keys: the first 8 bytes of their request's hash."""
        with at_the_border(self.path):
            hashes = ((key, decode_outcome(outcome).request_hash) for key, outcome in self.query(_UNFILED))
            return {key: bytes.fromhex(text)[:8] if text else None for key, text in hashes}

    def running_hashes(self) -> dict[bytes, bytes]:
        """Keys of rows whose task runs: the first 8 bytes of their request's hash."""
        with at_the_border(self.path):
            records = ((key, decode_record(record)) for key, record in self.query(_RUNNING))
            return {key: bytes.fromhex(known.request_hash)[:8] for key, known in records if known.request_hash}

    def last_slot(self) -> int:
        return int(self.query("SELECT coalesce(max(slot), 0) FROM row")[0][0])

    # What is finished.

    def finished_ids(self, keys: list[bytes]) -> dict[bytes, Done]:
        """Of these keys of rows with ids, the finished ones."""
        return {key: Done(status=STATUSES[status], row_index=row_index) for key, status, row_index in self.ends(keys)}

    def ends(self, keys: list[bytes]) -> list[tuple[bytes, int, int]]:
        """The same, as key, place of its status in `STATUSES`, and position in the input."""
        found: list[tuple[bytes, int, int]] = []
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            marks = ",".join("?" * len(some))
            found += self.query(f"SELECT key, status, row_index FROM finished WHERE key IN ({marks})", some)
        return found

    def hashes(self, keys: list[bytes]) -> dict[bytes, bytes | None]:
        """Of these keys of rows with ids, the finished ones: the first 8 bytes of their request's hash, None for a
        row that made no request."""
        found: dict[bytes, bytes | None] = {}
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            found |= self.query(f"SELECT key, hash FROM finished WHERE key IN ({','.join('?' * len(some))})", some)
        return found

    def finished_positions(self, indices: list[int]) -> dict[int, Done]:
        """Of these positions of an input without ids, the finished ones (as completed or failed, no finer)."""
        found: dict[int, Done] = {}
        bitmaps: dict[int, Any] = {}
        for index in indices:
            block, at = blocks.place(index)
            if block not in bitmaps:
                bitmaps[block] = self.bitmaps(block)
            maps = bitmaps[block]
            if maps and blocks.has(maps[0], at):
                status = "failed" if blocks.has(maps[1], at) else "completed"
                found[index] = Done(status=status, row_index=index)
        return found

    def bitmaps(self, block: int) -> tuple[bytes, bytes] | None:
        """Of a block of an input without ids: what is finished, and what of that did not complete."""
        rows = self.query("SELECT done, incomplete FROM finished_block WHERE block = ?", (block,))
        return rows[0] if rows else None

    def retries(self, keys: list[bytes]) -> dict[bytes, Again]:
        """Of these keys, those that `--retry` named and whose new outcome is not filed yet."""
        found: dict[bytes, Again] = {}
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            sql = (
                f"SELECT key, part, submits, unresolved, doubled FROM retry WHERE key IN ({','.join('?' * len(some))})"
            )
            for key, part, submits, unresolved, doubled in self.query(sql, some):
                found[key] = Again(part=part, submits=submits, unresolved=unresolved, maybe_billed_twice=bool(doubled))
        return found

    def block_digests(self) -> dict[int, tuple[int, bytes]]:
        """Rows read and their digest, by block, as an earlier run left them."""
        return {number: (rows, digest) for number, rows, digest in self.query("SELECT * FROM block")}

    def counts(self) -> dict[str, int]:
        """Rows in the output's parts, by status."""
        total = dict.fromkeys(STATUSES, 0)
        with at_the_border(self.path):
            for (text,) in self.query("SELECT counts FROM part WHERE is_filed"):
                for status, number in msgspec.json.decode(text).items():
                    total[status] += number
        return {status: number for status, number in total.items() if number}


def _refuse_lost_head(path: Path) -> None:
    """An empty file with a write-ahead log beside it was cut: SQLite would throw the log away, and with it the rest."""
    log = path.with_name(f"{path.name}-wal")
    if path.exists() and path.stat().st_size == 0 and log.exists() and log.stat().st_size > 0:
        raise damaged(path, "the file is empty, and its write-ahead log is not")


def _as_it_lies(path: Path) -> str:
    """Where nothing can be written nobody writes, and SQLite must not try to either."""
    is_at_rest = not path.with_name(f"{path.name}-wal").exists() and not os.access(path.parent, os.W_OK)
    return "&immutable=1" if is_at_rest else ""


def _schema() -> str:
    return files("batchfox").joinpath("checkpoint.sql").read_text()


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _record_fields}
