"""The part that closes next, as far as it is written: row groups of recorded outcomes, and what is kept of each row.

It is known to this process alone. What a crash leaves of it is a file in `tmp/` that nobody asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchfox import parts
from batchfox.core.outcome import STATUSES, Outcome
from batchfox.twin_table import SHORT, Shared

ROWS_PER_TABLE = 1_000
BYTES_PER_TABLE = 8 << 20
# What stays known of a filed row: key, status (position in STATUSES), position in the input, 8 bytes of the hash.
Entry = tuple[bytes, int, int, bytes | None]
# A recorded row: slot, key, outcome, carried columns, and the bytes of these two as they are recorded.
RecordedRow = tuple[int, bytes, Outcome, dict[str, Any], int]


class OpenPart:
    """Belongs to one thread. `slots`: of the rows written so far; `entries`, `shared`: what the checkpoint keeps of
    them, and where the answers are that other rows may get. `misfits` is told of columns whose values do not fit."""

    def __init__(self, path: Path, types: dict[str, pa.DataType], *, misfits: Callable[[set[str]], None]) -> None:
        self.path = path
        self.slots: list[int] = []
        self.entries: list[Entry] = []
        self.shared: list[Shared] = []
        self._types = types
        self._misfits = misfits
        self._file = parts.PartFile(path, parts.schema_of(types))

    def add(self, rows: Iterable[RecordedRow]) -> None:
        """Writes rows, in small tables. What cannot be written closes the file."""
        records: list[tuple[Any, ...]] = []
        kepts: list[dict[str, Any]] = []
        size = 0
        for slot, key, outcome, kept, its_size in rows:
            self.slots.append(slot)
            self.entries.append(entry_of(key, outcome))
            self.shared += shared_of(outcome)
            records.append(outcome.record())
            kepts.append(kept)
            size += its_size
            if len(records) >= ROWS_PER_TABLE or size >= BYTES_PER_TABLE:
                self._write(records, kepts)
                records, kepts, size = [], [], 0
        if records:
            self._write(records, kepts)

    def _write(self, records: list[tuple[Any, ...]], kepts: list[dict[str, Any]]) -> None:
        table, misfits = parts.build(records, kepts, self._types)
        self._misfits(misfits)
        self._file.add(table)

    def close(self) -> int:
        """Ends the file and syncs it. Returns its rows."""
        return self._file.close()

    def give_up(self) -> None:
        """Closes the file as it is and deletes it."""
        self._file.give_up()
        self.path.unlink(missing_ok=True)


def entry_of(key: bytes, outcome: Outcome) -> Entry:
    short = bytes.fromhex(outcome.request_hash)[:8] if outcome.request_hash else None
    return key, STATUSES.index(outcome.status), outcome.row_index, short


def shared_of(outcome: Outcome) -> list[Shared]:
    """What is kept of an answer that other rows may get."""
    if outcome.twin is None or outcome.status != "completed" or outcome.request_hash is None:
        return []
    return [(outcome.twin, outcome.row_index, bytes.fromhex(outcome.request_hash)[:SHORT])]
