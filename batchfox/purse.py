"""The day's money of a key: what its runs have spent and set aside since midnight, in the key's ledger.

A run holds some credits more than it needs, so that not every submit has to ask. What it has held when it died counts
until the day is over, or until it is taken up again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from hashlib import blake2b

import msgspec

from batchfox.core.budget import Budget
from batchfox.errors import MachineError
from batchfox.key_ledger import KeyLedger
from batchfox.sqlite_border import transaction

QUARTER_S = 900
# What a run holds beyond its need, as a share of the day's limit at most.
SPARE_SHARE = 0.02
# How soon it is looked again whether there is money, where there was none.
AGAIN_S = 1.0
# Accounts and quarters that no day asks about any more.
OLD_S = 3 * 86_400


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """What the day's money is gone for, in credits: all runs of the key, and of that this one."""

    gone: float
    held_by_others: float


class DayPurse:
    """One run's hand in its key's ledger, with a connection of its own, used by one thread."""

    def __init__(
        self,
        ledger: KeyLedger,
        limit: float | None,
        *,
        run: str,
        gone: float,
        zone: tzinfo,
        unix: Callable[[], float],
    ) -> None:
        """`limit`: credits a day; None: nothing is limited, and what is spent is told the others. `run` names the run
        in all its executions, and `gone` is what earlier ones spent or left in doubt. Raises `MachineError`."""
        self.limit = limit
        self._zone = zone
        self._unix = unix
        self._path = ledger.path
        # Told of what makes it impossible to go on.
        self.failed: Callable[[MachineError], None] | None = None
        self._ledger = ledger
        self._name = blake2b(run.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        self._held = 0.0
        self._refused_at: float | None = None
        with self._border():
            self._db = ledger.connect()
            with self._transaction() as now:
                row = self._db.execute("SELECT told, held FROM account WHERE name = ?", (self._name,)).fetchone()
                told, held = row or (gone, 0.0)
                self._told = float(told)
                # What came to be gone since it last told of itself had been held before.
                self._held = max(held - (gone - self._told), 0.0)
                self._db.execute("DELETE FROM gone WHERE quarter < ?", (now - OLD_S,))
                self._db.execute("DELETE FROM account WHERE at < ?", (now - OLD_S,))
                self._write(gone, self._held, now)

    def cover(self, gone: float, reserved: float) -> bool:
        """May this run have so many credits gone, and so many set aside?"""
        if self.limit is None or gone - self._told + reserved <= self._held + 1e-9:
            return True
        if self._refused_at is not None and 0.0 <= self._unix() - self._refused_at < AGAIN_S:
            return False
        fits = False
        with self._told_of():
            self._db.execute("PRAGMA synchronous = FULL")
            with self._transaction() as now:
                day = self._look(now)
                left = self.limit - day.gone - day.held_by_others - (gone - self._told) - reserved
                fits = bool(left >= -1e-9)
                spare = min(self.limit * SPARE_SHARE, max(left / 2.0, 0.0))
                # What came to be gone had been held: kept beside it, it would buy the next request.
                kept = max(self._held - max(gone - self._told, 0.0), 0.0)
                self._write(gone, reserved + spare if fits else kept, now)
            self._refused_at = None if fits else now
        return fits

    def settle(self, gone: float, reserved: float) -> None:
        """Tells what is gone by now, and gives back what is held for nothing."""
        spare = 0.0 if self.limit is None else self.limit * SPARE_SHARE
        held = min(max(self._held - (gone - self._told), reserved), reserved + spare)
        if abs(gone - self._told) < 1e-12 and abs(held - self._held) < 1e-12:
            return
        with self._told_of():
            self._db.execute("PRAGMA synchronous = NORMAL")
            with self._transaction() as now:
                self._write(gone, held, now)

    def close(self, gone: float, reserved: float) -> None:
        """The run ends: it holds what its rows on the way may cost, and no more."""
        with contextlib.suppress(sqlite3.Error, OSError), self._transaction() as now:
            self._write(gone, reserved, now)
        self._db.close()

    def used(self) -> float:
        """What is gone of the day's money, or set aside, by all runs of the key. Raises `MachineError`."""
        with self._border(), self._transaction() as now:
            day = self._look(now)
            return day.gone + day.held_by_others + self._held

    def _look(self, now: float) -> Day:
        midnight = datetime.fromtimestamp(now, self._zone).replace(hour=0, minute=0, second=0, microsecond=0)
        since = midnight.astimezone(UTC).timestamp()
        (gone,) = self._db.execute("SELECT coalesce(sum(credits), 0) FROM gone WHERE quarter >= ?", (since,)).fetchone()
        rows = self._db.execute("SELECT holder, held, at FROM account WHERE name != ? AND held > 0", (self._name,))
        held = sum(held for holder, held, at in rows.fetchall() if at >= since or self._ledger.is_live(holder))
        return Day(gone=gone, held_by_others=held)

    def _write(self, gone: float, held: float, now: float) -> None:
        quarter = int(now // QUARTER_S * QUARTER_S)
        sql = "INSERT INTO gone VALUES (?, ?) ON CONFLICT (quarter) DO UPDATE SET credits = credits + excluded.credits"
        self._db.execute(sql, (quarter, gone - self._told))
        values = (self._name, self._ledger.name, gone, held, now)
        self._db.execute("INSERT OR REPLACE INTO account VALUES (?, ?, ?, ?, ?)", values)
        self._told, self._held = gone, held

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[float]:
        """Gives the time, unix seconds."""
        with transaction(self._db):
            yield self._unix()

    @contextlib.contextmanager
    def _told_of(self) -> Iterator[None]:
        """What fails here ends the run as what fails elsewhere does, and raises nothing."""
        try:
            with self._border():
                yield
        except MachineError as error:
            if self.failed is None:
                raise
            self.failed(error)

    @contextlib.contextmanager
    def _border(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise MachineError(
                f"{self._path}: {error}; it is what runs of one key share: mend that, then run the same command again"
            ) from error


@contextlib.contextmanager
def held_purse(
    ledger: KeyLedger, limit: float | None, budget: Budget, *, run: str, zone: tzinfo, unix: Callable[[], float]
) -> Iterator[DayPurse]:
    """Lets a run's budget draw on the day's money of its key, while the block runs."""
    purse = DayPurse(ledger, limit, run=run, gone=budget.spent + budget.standing, zone=zone, unix=unix)
    budget.purse = purse
    try:
        yield purse
    finally:
        purse.close(budget.spent + budget.standing, budget.reserved)
