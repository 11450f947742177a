"""The state file: tasks, uploads and the book's counters in SQLite, so that they outlive the simulator's process.

A task is written in a statement of its own before any answer that names it: nine microseconds without a sync to the
disk, and a SIGKILL at any instant loses no task that a client may know of. (A power cut may: this is a rehearsal.)
Counters are written in groups, at most `FLUSH_S` late.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from batchfox.simulator.book import Counts
from batchfox.simulator.shelf import Upload
from batchfox.simulator.tasks import Task

FLUSH_S = 0.02

_VERSION = 1
_SCHEMA = """
create table task (seq integer primary key, record blob not null, is_answered integer not null default 0,
                   polls integer not null default 0, streams integer not null default 0);
create table upload (seq integer primary key, record blob not null);
create table refused (digest text primary key, number integer not null) without rowid;
create table counts (one integer primary key check (one = 1), record blob not null);
"""


class StateError(Exception):
    """The state file cannot be used; the message says why."""


class Former(msgspec.Struct, frozen=True, kw_only=True):
    """What a former life left. `numbers`: the last submit's number by digest."""

    tasks: tuple[Task, ...] = ()
    uploads: tuple[Upload, ...] = ()
    numbers: dict[str, int] = {}
    counts: Counts | None = None


class Store:
    """One open state file; only one simulator may hold it at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._touched: dict[int, Task] = {}
        self._numbers: dict[str, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        except (OSError, sqlite3.Error) as error:
            raise StateError(f"{path}: cannot be opened: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise StateError(f"{path}: no state file of a simulator, or another one holds it: {error}") from error
        except StateError:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("pragma locking_mode = exclusive")
        run("pragma journal_mode = wal")
        run("pragma synchronous = off")
        run("begin immediate")
        (version,) = run("pragma user_version").fetchone()
        if version == 0:
            if run("select count(*) from sqlite_schema").fetchone() != (0,):
                raise StateError(f"{self._path}: a database of something else")
            for statement in _SCHEMA.split(";"):
                run(statement)
            run(f"pragma user_version = {_VERSION}")
        elif version != _VERSION:
            raise StateError(f"{self._path}: version {version}, this simulator reads version {_VERSION}")
        run("commit")

    def former(self) -> Former:
        """All that the file holds."""
        run = self._connection.execute
        decode = msgspec.msgpack.Decoder(Task).decode
        tasks = []
        numbers: dict[str, int] = {}
        for record, is_answered, polls, streams in run(
            "select record, is_answered, polls, streams from task order by seq"
        ):
            task = decode(record)
            task.is_answered, task.polls, task.streams = bool(is_answered), polls, streams
            tasks.append(task)
            numbers[task.brief.digest] = max(task.number, numbers.get(task.brief.digest, 0))
        for digest, number in run("select digest, number from refused"):
            numbers[digest] = max(number, numbers.get(digest, 0))
        uploads = [
            msgspec.msgpack.decode(record, type=Upload) for (record,) in run("select record from upload order by seq")
        ]
        row = run("select record from counts").fetchone()
        counts = None if row is None else msgspec.msgpack.decode(row[0], type=Counts)
        return Former(tasks=tuple(tasks), uploads=tuple(uploads), numbers=numbers, counts=counts)

    def add_task(self, task: Task) -> None:
        """The task is in the file when this returns."""
        self._connection.execute(
            "insert into task (seq, record) values (?, ?)", (task.seq, msgspec.msgpack.encode(task))
        )

    def add_upload(self, upload: Upload) -> None:
        """The upload is in the file when this returns."""
        self._connection.execute("insert into upload (record) values (?)", (msgspec.msgpack.encode(upload),))

    def touch(self, task: Task) -> None:
        """The task's counters changed; written with the next `flush`."""
        self._touched[task.seq] = task

    def refused(self, digest: str, number: int) -> None:
        """A fault refused this submit; written with the next `flush`."""
        self._numbers[digest] = number

    def flush(self, counts: Counts) -> None:
        """Writes all counters in one transaction. Raises sqlite3.Error; then they stay for the next `flush`."""
        self._connection.execute("begin")
        try:
            self._write_counts(counts)
            self._connection.execute("commit")
        except sqlite3.Error:
            # A transaction left open would swallow the tasks that follow. SQLite may have ended it by itself.
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            raise
        self._touched.clear()
        self._numbers.clear()

    def _write_counts(self, counts: Counts) -> None:
        self._connection.executemany(
            "update task set is_answered = ?, polls = ?, streams = ? where seq = ?",
            [(task.is_answered, task.polls, task.streams, seq) for seq, task in self._touched.items()],
        )
        self._connection.executemany("insert or replace into refused values (?, ?)", list(self._numbers.items()))
        self._connection.execute("insert or replace into counts values (1, ?)", (msgspec.msgpack.encode(counts),))

    def close(self) -> None:
        """Closes the file; `flush` before."""
        self._connection.close()
