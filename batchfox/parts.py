"""One Parquet part: temporary file, sync, rename, sync of the folder.

A reader of `data/` sees a part whole or not at all. Source of the steps: restic's local backend and design.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchfox import columns
from batchfox.arrow_types import without_views
from batchfox.core.outcome import COLUMNS, EXTRA
from batchfox.durable import rename
from batchfox.errors import DiskFullError, MachineError, OutputError
from batchfox.part_names import number_of as number_of
from batchfox.part_names import part_name as part_name
from batchfox.reserve import FULL, remedy

_ARROW = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "int16": pa.int16(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date32": pa.date32(),
    "list<string>": pa.list_(pa.string()),
}
_OWN_TYPES = {name: _ARROW[kind] for name, kind in COLUMNS.items()}
_RUN_DATE = list(COLUMNS).index("run_date")
# Columns whose values hardly ever repeat: a dictionary of them costs time and room, and helps nobody.
_UNIQUE = frozenset(
    {
        *("row_index", "row_id", "text", "reasoning", "task_id", "completion"),
        *("submitted_at", "finished_at", "latency_s", "request_hash"),
    }
)


def schema_of(types: dict[str, pa.DataType]) -> pa.Schema:
    """The output's schema: its own columns, the carried ones, `input_extra`."""
    fields = [pa.field(name, kind) for name, kind in (_OWN_TYPES | types).items()]
    return pa.schema([*fields, pa.field(EXTRA, pa.string())])


def build(
    records: list[tuple[Any, ...]], kept: list[dict[str, Any]], types: dict[str, pa.DataType]
) -> tuple[pa.Table, set[str]]:
    """A table of outcomes (`Outcome.record()`) and their carried columns; also the columns that did not fit."""
    own = []
    for number, (values, kind) in enumerate(zip(zip(*records, strict=True), _OWN_TYPES.values(), strict=True)):
        if number == _RUN_DATE:
            dates = {text: date.fromisoformat(text) for text in set(values)}
            values = tuple(dates[text] for text in values)
        own.append(pa.array(values, kind))
    carried, extra, misfits = columns.fit(kept, types)
    arrays = [*own, *carried, pa.array(extra, pa.string())]
    return pa.Table.from_arrays(arrays, schema=schema_of(types)), misfits


@contextlib.contextmanager
def _at_the_border(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(f"{path}: {error.strerror}; the output folder must be writable") from error
        reason = error.strerror or str(error)
        if error.errno in FULL:
            raise DiskFullError(f"{path}: {reason}; {remedy(error)}, then run the same command again") from error
        raise MachineError(f"{path}: {reason}; mend it, then run the same command again") from error


class PartFile:
    """A Parquet file that is being written, a row group a table. Not yet in place: see `put_in_place`. What cannot be
    written closes it."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        repeating = [name for name in schema.names if name not in _UNIQUE]
        with _at_the_border(path):
            self._file = path.open("wb")
            self._writer = pq.ParquetWriter(
                self._file, schema, compression="zstd", write_page_checksum=True, use_dictionary=repeating
            )

    def add(self, table: pa.Table) -> None:
        if table.num_rows:
            with self._or_closed():
                self._writer.write_table(table)
                self.rows += table.num_rows

    def close(self) -> int:
        """Ends the file and syncs it. Returns its rows."""
        with self._or_closed():
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return self.rows

    def give_up(self) -> None:
        """Closes it as it is: no Parquet yet."""
        with contextlib.suppress(OSError):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def _or_closed(self) -> Iterator[None]:
        try:
            with _at_the_border(self.path):
                yield
        except BaseException:
            self.give_up()
            raise


def write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Writes and syncs a Parquet file, a row group a table. Returns its rows. Not yet in place: see `put_in_place`."""
    file = PartFile(path, schema)
    try:
        with _at_the_border(path):
            for table in tables:
                file.add(table)
        return file.close()
    except BaseException:
        file.give_up()
        raise


def put_in_place(temporary: Path, final: Path) -> None:
    """Renames a synced file to its name and syncs the folder: it is there for good when this returns."""
    with _at_the_border(final):
        rename(temporary, final)


def count_rows(path: Path) -> int | None:
    """Rows by the footer; None where the file is missing, cut short or no Parquet."""
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (OSError, UnicodeDecodeError, pa.ArrowException):
        return None


def read(path: Path, names: list[str] | None = None, rows: int = 2_000) -> Iterator[pa.Table]:
    """A part's rows in small tables, in bounded memory. Raises `OutputError` where it cannot be read."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=rows, columns=names):
                yield without_views(pa.Table.from_batches([batch]))
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise OutputError(f"{path}: {say_unreadable(error, path)}") from error


def say_unreadable(error: Exception, path: Path) -> str:
    """Why a part cannot be read, on one line, and what next."""
    reason = " ".join(str(error).split())
    return f"cannot be read as Parquet: {reason}; `batchfox doctor {path.parent.parent}` says what can be done"
