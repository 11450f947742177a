"""Parquet files → records, a small batch at a time; and what Parquet and CSV files declare of their columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from batchfox.arrow_types import carry_type, stored_type
from batchfox.errors import InputError
from batchfox.records import Record

BATCH_ROWS = 256
BATCH_BYTES = 4 << 20


def read_parquet(path: str, *, with_digest: bool) -> Iterator[Record]:
    """One record a row. Temporal and decimal values come as text that casts back to what it was."""
    size = Path(path).stat().st_size
    number = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False, memory_map=False) as file:
            total = max(file.metadata.num_rows, 1)
            rows_a_batch = _rows_a_batch(file)
            for batch in file.iter_batches(batch_size=rows_a_batch):
                for columns in plain(batch).to_pylist():
                    number += 1
                    digest = b""
                    if with_digest:
                        raw = msgspec.msgpack.encode(columns, enc_hook=str)
                        digest = blake2b(raw, digest_size=16).digest()
                    yield Record(
                        columns=columns,
                        line=number,
                        size=batch.nbytes // max(batch.num_rows, 1),
                        position=size * number // total,
                        digest=digest,
                    )
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, number, error) from error


def _rows_a_batch(file: pq.ParquetFile) -> int:
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


def _unreadable(path: str, row: int, error: Exception) -> InputError:
    where = f" beyond row {row}" if row else ""
    return InputError(f"{path}: cannot be read as Parquet{where}: {error}; mend or replace the file")


def count_rows(path: str) -> int:
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, 0, error) from error


def declared_types(files: list[str]) -> dict[str, pa.DataType]:
    """Column → type over all files: Parquet its own (the first file's where they differ), CSV text."""
    types: dict[str, Any] = {}
    for file in files:
        if file.lower().endswith(".csv"):
            with Path(file).open(encoding="utf-8-sig", errors="replace", newline="") as text:
                for name in next(csv.reader(text), []):
                    types.setdefault(name, pa.string())
            continue
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(file, 0, error) from error
        for field in schema:
            kind = field.type
            kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            types.setdefault(field.name, stored_type(kind))
    return types
