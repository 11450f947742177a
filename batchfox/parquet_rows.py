"""Parquet files → records, a small batch at a time; and what Parquet and CSV files declare of their columns."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from batchfox.arrow_types import bytes_type, carry_type, name_twice, stored_type
from batchfox.errors import InputError
from batchfox.records import Record, csv_header

BATCH_ROWS = 256
BATCH_BYTES = 4 << 20
BROKEN = (OSError, UnicodeDecodeError, pa.ArrowException)


def read_parquet(path: str, *, with_digest: bool) -> Iterator[Record]:
    """One record a row. Temporal and decimal values come as text that casts back to what it was."""
    size = Path(path).stat().st_size
    number = 0
    try:
        with opened(path) as file:
            total = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=rows_a_batch(file)):
                for columns, problem in rows_of(plain(batch)):
                    number += 1
                    digest = b""
                    if with_digest:
                        raw = msgspec.msgpack.encode(columns, enc_hook=str)
                        digest = blake2b(raw, digest_size=16).digest()
                    yield Record(
                        columns={} if problem else columns,
                        line=number,
                        size=batch.nbytes // max(batch.num_rows, 1),
                        position=size * number // total,
                        problem=problem,
                        digest=digest,
                    )
    except BROKEN as error:
        raise unreadable(path, number, error) from error


def opened(path: str) -> pq.ParquetFile:
    """The file, to be read as a stream. Raises `InputError` where two columns have one name, else what is `BROKEN`."""
    file = pq.ParquetFile(path, pre_buffer=False, memory_map=False)
    if name := name_twice(file.schema_arrow):
        file.close()
        raise InputError(_say_twice(path, name))
    return file


def rows_of(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The rows as Python values, each with its problem: Parquet does not see to it that text is UTF-8."""
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        for at in range(batch.num_rows):
            yield _row_of(batch.slice(at, 1))
    else:
        for columns in rows:
            yield columns, None


def _row_of(row: pa.RecordBatch) -> tuple[dict[str, Any], str | None]:
    """One row; where text in it is no UTF-8, as bytes and with its problem."""
    columns, problem = {}, None
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            columns[name] = column[0].as_py()
        except UnicodeDecodeError as error:
            columns[name] = column.cast(bytes_type(column.type))[0].as_py()
            problem = problem or f'not UTF-8: column "{name}" holds byte {error.object[error.start]:#04x}'
    return columns, problem


def _say_twice(path: str, name: str) -> str:
    return f'{path}: the name "{name}" stands there twice; rename one of these columns'


def rows_a_batch(file: pq.ParquetFile) -> int:
    """Few rows where rows are large: a batch stays within a few megabytes."""
    metadata = file.metadata
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    fitting: int = BATCH_BYTES * max(metadata.num_rows, 1) // max(size, 1)
    return max(1, min(BATCH_ROWS, fitting))


def plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch in the types that travel (`carry_type`)."""
    arrays = []
    for column in batch.columns:
        kind = column.type
        travels = carry_type(kind)
        if isinstance(kind, pa.BaseExtensionType):
            column = column.storage
        if travels != column.type:
            column = column.cast(travels)
        arrays.append(column)
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def unreadable(path: str, row: int, error: Exception) -> InputError:
    where = f" beyond row {row}" if row else ""
    return InputError(f"{path}: cannot be read as Parquet{where}: {error}; mend or replace the file")


def count_rows(path: str) -> int:
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except BROKEN as error:
        raise unreadable(path, 0, error) from error


def declared_types(files: list[str]) -> dict[str, pa.DataType]:
    """Column → type over all files: Parquet its own (the first file's where they differ), CSV text."""
    types: dict[str, Any] = {}
    for file in files:
        if file.lower().endswith(".csv"):
            types |= {name: pa.string() for name in csv_header(file) if name not in types}
            continue
        try:
            schema = pq.read_schema(file)
        except BROKEN as error:
            raise unreadable(file, 0, error) from error
        if name := name_twice(schema):
            raise InputError(_say_twice(file, name))
        for field in schema:
            kind = field.type
            kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            types.setdefault(field.name, stored_type(kind))
    return types
