"""What one transaction of the checkpoint records, and the form in which it holds rows and outcomes."""

from __future__ import annotations

import sqlite3
from operator import attrgetter

import msgspec

from batchfox.core.lifecycle import Life, State
from batchfox.core.outcome import Outcome

STATES = {State.WAITING: 0, State.SENDING: 1, State.RUNNING: 2, State.SETTLED: 3}
# What an entry takes beside its text, roughly.
_ENTRY_BYTES = 1024


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


RECORD_FIELDS = tuple(field.name for field in msgspec.structs.fields(Record))
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
        self.size = 0  # bytes, roughly: what an entry takes beside its text is a guess

    def __bool__(self) -> bool:
        return bool(self.rows or self.records or self.outcomes or self.forgotten or self.progress or self.blocks)

    def add_row(self, life: Life, kept: bytes, old_part: int | None, outcome: Outcome | None = None) -> None:
        """A row's first record: its intent, or at once its outcome."""
        state = 3 if outcome is not None else STATES[life.state]
        record = None if outcome is not None else _record_of(life)
        payload = None if outcome is None else encode(outcome)
        self.rows.append((life.slot, life.key, state, record, kept, payload, old_part))
        self.size += _ENTRY_BYTES + len(kept) + len(record or b"") + len(payload or b"")

    def add_record(self, life: Life) -> None:
        """Where a known row stands now; only the last word of a group counts."""
        record = _record_of(life)
        self.records[life.slot] = (STATES[life.state], record, life.slot)
        self.size += _ENTRY_BYTES + len(record)

    def add_columns(self, slot: int, kept: bytes) -> None:
        """The columns of a known row, renewed."""
        self.columns[slot] = kept
        self.size += _ENTRY_BYTES + len(kept)

    def forget(self, slot: int) -> None:
        """The row leaves no trace."""
        self.forgotten.append((slot,))
        self.size += _ENTRY_BYTES

    def add_outcome(self, slot: int, outcome: Outcome) -> int:
        """Returns the payload's size in bytes."""
        payload = encode(outcome)
        self.records.pop(slot, None)
        self.outcomes.append((payload, slot))
        self.size += _ENTRY_BYTES + len(payload)
        return len(payload)

    def write(self, db: sqlite3.Connection) -> None:
        """Into the transaction that is open."""
        if self.blocks:
            rows = [(number, *entry) for number, entry in self.blocks.items()]
            db.executemany("INSERT OR REPLACE INTO block VALUES (?, ?, ?)", rows)
        if self.rows:
            sql = "INSERT INTO row (slot, key, state, record, kept, outcome, old_part) VALUES (?, ?, ?, ?, ?, ?, ?)"
            db.executemany(sql, self.rows)
        if self.records:
            db.executemany("UPDATE row SET state = ?, record = ? WHERE slot = ?", self.records.values())
        if self.outcomes:
            db.executemany("UPDATE row SET state = 3, record = NULL, outcome = ? WHERE slot = ?", self.outcomes)
        if self.columns:
            columns = [(kept, slot) for slot, kept in self.columns.items()]
            db.executemany("UPDATE row SET kept = ? WHERE slot = ?", columns)
        if self.forgotten:
            db.executemany("DELETE FROM row WHERE slot = ?", self.forgotten)
        if self.progress:
            db.execute("UPDATE run SET beat_at = ?, progress = ? WHERE run_id = ?", self.progress)


_values_of = attrgetter(*RECORD_FIELDS)


def _record_of(life: Life) -> bytes:
    return encode(_values_of(life))
