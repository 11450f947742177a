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
from pathlib import Path
from typing import Any

import msgspec

from batchfox.core.lifecycle import Life
from batchfox.core.outcome import STATUSES
from batchfox.errors import OutputError
from batchfox.finished import Done, Finished
from batchfox.group import RECORD_FIELDS, STATES, Group, Record, decode_outcome, decode_record
from batchfox.kept import decode_columns
from batchfox.sqlite_border import at_the_border, damaged

VERSION = 3
# What makes of a version the next one. Each only adds: what an older version wrote stays as it is.
_STEPS = {
    1: """
    CREATE TABLE upload (
        digest BLOB NOT NULL, suffix TEXT NOT NULL, url TEXT NOT NULL, uploaded_at REAL NOT NULL,
        PRIMARY KEY (digest, suffix)
    ) WITHOUT ROWID
    """,
    2: """
    CREATE TABLE assigned (slot INTEGER PRIMARY KEY, part INTEGER NOT NULL);
    INSERT INTO assigned SELECT slot, part FROM row WHERE part IS NOT NULL
    """,
}
# How a reader, which may not write, sees what an older version wrote.
_AS_ASSIGNED = "CREATE TEMP VIEW assigned AS SELECT slot, part FROM row WHERE part IS NOT NULL"
_STATE_OF = {number: state for state, number in STATES.items()}
_MOST_KEYS = 512
# Fewer free pages (of 4 kB) than these are left where they are.
LEAST_FREE_PAGES = 256
# So long a connection waits for another one that writes.
_BUSY_MS = 30_000
# A group up to this size is written, not synced, by the event loop itself: what it takes is less than to wake a thread
# for each statement.
_SMALL_BYTES = 256 * 1024
# Of each connection; what a million finished keys would fill, and ten thousand would not.
_CACHE_KB = 4000
# In the table `retry`: the row's outcome is in no part any more (`doctor --repair`).
NO_PART = -1
_UNFILED = "SELECT key, outcome FROM row WHERE state = 3"
_RUNNING = "SELECT key, record FROM row WHERE state = 2"


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
        self.finished = Finished(self.query)
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
        self._busy_ms = 0
        self._wait_for_others(_BUSY_MS)
        db.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        if read_only:
            if version == 0:
                self._show_as_empty()
            elif version < 3:
                db.execute(_AS_ASSIGNED)
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
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

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

    def begin(self, group: Group) -> bool:
        """Writes a group into a transaction that `commit` ends. It neither syncs nor waits: False where that cannot be
        done at once (another connection writes, much is to be written, the disk is full), and nothing has begun."""
        if group.size > _SMALL_BYTES:
            return False
        self._wait_for_others(0)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            group.write(self._db)
        except sqlite3.Error:
            self._roll_back()
            return False
        return True

    def commit(self, group: Group, *, has_begun: bool = False) -> None:
        """Records a group, durably when it returns. `has_begun`: by `begin`."""
        if not has_begun:
            self._wait_for_others(_BUSY_MS)
            with self.transaction() as db:
                group.write(db)
            return
        with at_the_border(self.path):
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                self._roll_back()
                raise

    def _wait_for_others(self, most_ms: int) -> None:
        if most_ms != self._busy_ms:
            self._db.execute(f"PRAGMA busy_timeout = {most_ms}")
            self._busy_ms = most_ms

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")

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
            outcomes = ((key, decode_outcome(outcome)) for key, outcome in self.stream(_UNFILED))
            return {key: Done(status=outcome.status, row_index=outcome.row_index) for key, outcome in outcomes}

    def unfiled_hashes(self) -> dict[bytes, bytes | None]:
        """The same keys: the first 8 bytes of their request's hash."""
        with at_the_border(self.path):
            hashes = ((key, decode_outcome(outcome).request_hash) for key, outcome in self.stream(_UNFILED))
            return {key: bytes.fromhex(text)[:8] if text else None for key, text in hashes}

    def running_hashes(self) -> dict[bytes, bytes]:
        """Keys of rows whose task runs: the first 8 bytes of their request's hash."""
        with at_the_border(self.path):
            records = ((key, decode_record(record)) for key, record in self.query(_RUNNING))
            return {key: bytes.fromhex(known.request_hash)[:8] for key, known in records if known.request_hash}

    def last_slot(self) -> int:
        return int(self.query("SELECT coalesce(max(slot), 0) FROM row")[0][0])

    # What is marked for fresh attempts, what was read, what is filed.

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
        return {number: (rows, digest) for number, rows, digest in self.query("SELECT block, rows, digest FROM block")}

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
    return {name: getattr(record, name) for name in RECORD_FIELDS}
