"""What the parts hold: every file of `data/` read to its end, every column, page checksums and all; and what was
replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from batchfox import parts
from batchfox.audit.finding import MOST_EXAMPLES
from batchfox.audit.rolls import Rolls
from batchfox.core.outcome import STATUSES
from batchfox.core.prepare import key_of_outcome
from batchfox.doctor.census import carried_types
from batchfox.errors import OutputError
from batchfox.folders import Folders
from batchfox.words import shorten

# Told now and then how far it is: what is read, and rows so far.
Tell = Callable[[str, int], None]

_COLUMNS = [
    *("row_index", "row_id", "status", "error_code", "request_hash", "task_id", "credits", "submits"),
    *("maybe_billed_twice", "finished_at"),
]
_STATUS = {status: number for number, status in enumerate(STATUSES)}
ROWS_AT_ONCE = 1_000
_Identity = tuple[int, int, int]


class Part(msgspec.Struct, frozen=True):
    """A part that could be read: its rows, and how many of each status."""

    rows: int
    counts: dict[str, int]


class Written:
    """The files of `data/`. `parts`: whole ones by number; `unreadable`: why, by number; `foreign`: why, by name;
    `unsound`: rows that no run writes, by part, and the first of them. Of `superseded/`: `replaced_unreadable`."""

    def __init__(
        self, rolls: Rolls, folders: Folders, *, has_ids: bool, types: dict[str, pa.DataType] | None, tell: Tell
    ) -> None:
        self.parts: dict[int, Part] = {}
        self.unreadable: dict[int, str] = {}
        self.foreign: dict[str, str] = {}
        self.replaced_unreadable: dict[str, str] = {}
        self.unsound: dict[int, tuple[int, list[str]]] = {}
        self._rolls = rolls
        self._folders = folders
        self._has_ids = has_ids
        self._types = types
        self._tell = tell
        self._met: dict[int, _Identity | None] = {}

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts.values())

    def read(self) -> None:
        """Reads every part that was not read yet, or is another file by now."""
        self.foreign = {name: why for name, why in self.foreign.items() if parts.number_of(name) is not None}
        for path in sorted(self._folders.data.iterdir()):
            number = parts.number_of(path.name)
            if number is None:
                self.foreign[path.name] = "its name is not that of a part"
            elif self._met.get(number) != (identity := _identity(path)):
                self._take(path, number)
                self._met[number] = identity

    def is_as_read(self, number: int) -> bool:
        """Is this part still the file that was read? (Or still not there?)"""
        return self._met.get(number) == _identity(self._folders.data / parts.part_name(number))

    def is_foreign(self, number: int) -> bool:
        return parts.part_name(number) in self.foreign

    def _take(self, path: Path, number: int) -> None:
        if number in self._met:
            self._rolls.forget_part(number)
            self.foreign.pop(path.name, None)
            for known in (self.parts, self.unreadable, self.unsound):
                known.pop(number, None)
        try:
            types = carried_types(pq.read_schema(path))
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            self.unreadable[number] = _first_line(error)
            return
        if types is None or (self._types is not None and list(types.items()) != list(self._types.items())):
            self.foreign[path.name] = "its columns are not those of this output"
            return
        try:
            self._count(path, number)
        except OutputError as error:
            self._rolls.forget_part(number)
            self.unsound.pop(number, None)
            self.unreadable[number] = _first_line(error.__cause__ or error)

    def _count(self, path: Path, number: int) -> None:
        counts: Counter[str] = Counter()
        before = self.rows
        for table in parts.read(path, rows=ROWS_AT_ONCE):
            rows = table.select(_COLUMNS).to_pylist()
            counts.update(str(row["status"]) for row in rows)
            self._rolls.put("written", self._entries(rows, number, path.name), 10)
            self._tell("reading the parts", before + counts.total())
        self.parts[number] = Part(counts.total(), dict(counts))

    def _entries(self, rows: list[dict[str, Any]], number: int, name: str) -> Iterator[tuple[Any, ...]]:
        for row in rows:
            entry = _ended(row)
            key = None if entry is None else _key(row, self._has_ids)
            if entry is None or key is None:
                self._note_unsound(number, f"{name}: row_id {row['row_id']}, status {row['status']}")
                continue
            yield key, number, *entry

    def _note_unsound(self, number: int, place: str) -> None:
        rows, examples = self.unsound.get(number, (0, []))
        if rows < MOST_EXAMPLES:
            examples.append(shorten(place))
        self.unsound[number] = (rows + 1, examples)

    def read_replaced(self) -> None:
        """Reads the outcomes that newer ones replaced."""
        for path in sorted(self._folders.superseded.glob("*.parquet")):
            try:
                for table in parts.read(path, _COLUMNS):
                    self._rolls.put("replaced", self._replaced(table), 10)
            except (OutputError, KeyError, pa.ArrowException) as error:
                self.replaced_unreadable[path.name] = _first_line(error.__cause__ or error)

    def _replaced(self, table: pa.Table) -> Iterator[tuple[Any, ...]]:
        moments = table["finished_at"].cast(pa.int64()).to_pylist()
        for row, moment in zip(table.select(_COLUMNS).to_pylist(), moments, strict=True):
            entry, key = _ended(row), _key(row, self._has_ids)
            if entry is not None and key is not None:
                yield key, moment, *entry


def _ended(row: dict[str, Any]) -> tuple[Any, ...] | None:
    """What the rolls keep of an output row, but its key; None for one that no run writes."""
    status, row_hash = _STATUS.get(row["status"]), _bytes_of(row["request_hash"])
    needed = (row["row_index"], row["row_id"], status, row["submits"], row["maybe_billed_twice"])
    if any(value is None for value in needed) or row["row_index"] < 0 or (status == 0 and row_hash is None):
        return None
    values = (row["row_index"], row["row_id"], status, row_hash, row["task_id"], row["credits"], row["submits"])
    return *values, int(row["maybe_billed_twice"])


def _key(row: dict[str, Any], has_ids: bool) -> bytes | None:
    """None where nothing names the row; without ids its position does, in both columns."""
    if not has_ids and row["row_id"] != str(row["row_index"]):
        return None
    try:
        return key_of_outcome(row, has_ids=has_ids)
    except (ValueError, OverflowError, AttributeError, TypeError):
        return None


def _bytes_of(text: str | None) -> bytes | None:
    try:
        return bytes.fromhex(text) if text else None
    except ValueError:
        return text.encode() if text else None  # no hash: it will be equal to none


def _identity(path: Path) -> _Identity | None:
    """Tells one file from another that is renamed over it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["it cannot be read"])[0]
