"""The ledger of a key: what the runs that use it share, in one SQLite file of the user's state folder.

It is named by a hash of the key and the API's address, so that it tells neither. A run holds a lock on a file of its
own while it lives; the lock dies with its process, and whoever looks next takes its row away.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

import msgspec

from batchfox.core.shares import Grant, Level, draw, token_share
from batchfox.durable import make_folder
from batchfox.errors import MachineError, UserError
from batchfox.locks import is_locked
from batchfox.sqlite_border import transaction
from batchfox.states import state_folder

BUSY_S = 30.0
# What an ended run took counts so long, on its clock and ours.
MINUTE_S = 61.0


class KeyLedger:
    """One run's hold on the ledger of its key, until `leave`. One thread at a time may use it."""

    def __init__(self, key: str, base_url: str, per_minute: float | None) -> None:
        """Raises `UserError` where the state folder cannot be used."""
        self.path = state_folder() / "keys" / f"{_digest(key, base_url)}.db"
        # Of this execution's lock.
        self.name = f"{self.path.stem}.{secrets.token_hex(8)}.lock"
        self._per_minute = per_minute
        try:
            make_folder(self.path.parent)
            self._lock = os.open(self.path.with_name(self.name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(
                f"{self.path.parent}: {error.strerror}; what runs of one key share is kept there"
            ) from error
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._db = self.connect()
            self._db.executescript(files("batchfox").joinpath("key_ledger.sql").read_text(encoding="utf-8"))
            with transaction(self._db):
                self._db.execute("INSERT INTO run VALUES (?, ?, 0)", (self.name, per_minute))
        except sqlite3.Error as error:
            os.close(self._lock)
            raise UserError(
                f"{self.path}: {error}; it is what runs of one key share: mend it, or remove it while none runs"
            ) from error

    def connect(self) -> sqlite3.Connection:
        """A connection of its own, in autocommit. Raises `sqlite3.Error`."""
        db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    def is_live(self, name: str) -> bool:
        """Does the execution live whose lock has this name?"""
        return name == self.name or is_locked(self.path.with_name(name))

    def lease(self, most: int, now: float) -> Grant:
        """Submits that this run may send, at most so many. Raises `MachineError`."""
        with self._border(), transaction(self._db):
            others = self._others()
            limits = [self._per_minute, *(per_minute for per_minute, _ in others)]
            free_until = max((until for _, until in others), default=0.0)
            # After a new start of the machine its clock has begun anew: nobody is free for longer than he was told.
            grant, level = draw(self._level(), limits, min(free_until, now + 1.0), most, now)
            self._db.execute("INSERT OR REPLACE INTO bucket VALUES (1, ?, ?, ?, ?)", msgspec.structs.astuple(level))
            until = grant.until if grant.submits is None else 0.0
            values = (until, self._per_minute, self.name)
            self._db.execute("UPDATE run SET free_until = ?, per_minute = ? WHERE name = ?", values)
            return grant

    def share_tokens(self, account: str, per_minute: float, taken: float, was: float, now: float) -> tuple[float, bool]:
        """As `token_share`: what this run may have from now on. `account`: of its output; `taken`: what counts now, and
        `was` what it might have until now. Raises `MachineError`."""
        with self._border(), transaction(self._db):
            sql = "SELECT account, holder, per_minute, may, at FROM tokens WHERE account != ?"
            counted = []
            for other, holder, limit, may, at in self._db.execute(sql, (account,)).fetchall():
                lives = self.is_live(holder)
                if lives or 0 <= now - at <= MINUTE_S:
                    counted.append((limit, may, lives))
                else:
                    self._db.execute("DELETE FROM tokens WHERE account = ?", (other,))
            share, is_whole = token_share(per_minute, counted)
            # What it is given less from now on, others have once it has told again: until then it may be on its way.
            values = (account, self.name, per_minute, max(taken, was, share), now)
            self._db.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?)", values)
            return share, is_whole

    def leave_tokens(self, account: str, taken: float, now: float) -> None:
        """The run ends: what it has taken counts for a minute still."""
        with contextlib.suppress(sqlite3.Error), transaction(self._db):
            self._db.execute("UPDATE tokens SET may = ?, at = ? WHERE account = ?", (taken, now, account))

    def limit(self, per_minute: float) -> None:
        """Another limit of this run, from its next lease on."""
        self._per_minute = per_minute

    def leave(self) -> None:
        """The run ends; its row goes. What cannot be written then, the next one takes away."""
        with contextlib.suppress(sqlite3.Error), transaction(self._db):
            self._db.execute("DELETE FROM run WHERE name = ?", (self.name,))
        self._db.close()
        with contextlib.suppress(OSError):
            self.path.with_name(self.name).unlink()
        os.close(self._lock)

    def _level(self) -> Level:
        row = self._db.execute("SELECT room, at, per_minute, shared_until FROM bucket").fetchone()
        return Level() if row is None else Level(room=row[0], at=row[1], per_minute=row[2], shared_until=row[3])

    def _others(self) -> list[tuple[float | None, float]]:
        """Limit and `free_until` of the other runs that live. Those that do not are taken away."""
        rows = self._db.execute("SELECT name, per_minute, free_until FROM run WHERE name != ?", (self.name,)).fetchall()
        found = []
        for name, per_minute, free_until in rows:
            path = self.path.with_name(name)
            if is_locked(path):
                found.append((per_minute, free_until))
            else:
                self._db.execute("DELETE FROM run WHERE name = ?", (name,))
                path.unlink(missing_ok=True)
        return found

    @contextlib.contextmanager
    def _border(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise MachineError(
                f"{self.path}: {error}; it is what runs of one key share: mend that, then run the same command again"
            ) from error


def account_of(root: Path) -> str:
    """What names an output (its folder) in a ledger, and tells nothing of it."""
    return blake2b(str(root.resolve()).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _digest(key: str, base_url: str) -> str:
    return blake2b(f"{base_url.rstrip('/')}\0{key}".encode(), digest_size=16, person=b"batchfox-key").hexdigest()
