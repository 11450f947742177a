"""A Parquet file of which only the column of ids is read, and else the row groups that hold rows to be sent.

In those the batches are read one after the other, as the format has it, but only the rows that are wanted are made into
Python values.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchfox.core.row import id_text, keys_of
from batchfox.parquet_rows import BROKEN, opened, plain, rows_a_batch, rows_of, unreadable
from batchfox.records import Record
from batchfox.skimming import Line

IDS = 4096


def parquet_rows(path: str, id_column: str) -> ParquetRows | None:
    """None where the id is no column of its own. Raises `InputError`."""
    with _as_input_error(path, 0):
        file = opened(path)
    # Columns are asked for by their path: "a.b" is a column of that name, or what is in one called "a".
    paths = [file.schema.column(at).path for at in range(len(file.schema))]
    if paths.count(id_column) == 1:
        return ParquetRows(path, file, id_column)
    file.close()
    return None


@contextlib.contextmanager
def _as_input_error(path: str, row: int) -> Iterator[None]:
    """`row`: so many were read."""
    try:
        yield
    except BROKEN as error:
        raise unreadable(path, row, error) from error


class ParquetRows:
    """The rows of a file, forwards. A line is the row's number, from 1, its id, and how far the file is read."""

    def __init__(self, path: str, file: pq.ParquetFile, id_column: str) -> None:
        self._path, self._file, self._column = path, file, id_column
        self._size = Path(path).stat().st_size
        self._total = max(file.metadata.num_rows, 1)
        self._batches = file.iter_batches(batch_size=IDS, columns=[id_column], use_threads=False)
        self._ids: list[str | None] = []
        self._at = self._taken = 0
        self._wanted: _Wanted | None = None

    def take(self, most: int, most_bytes: int) -> list[Line]:
        while self._at >= len(self._ids):
            # Arrow would keep what each row group took: memory must not grow with their number.
            pa.default_memory_pool().release_unused()
            with _as_input_error(self._path, self._taken):
                batch = next(self._batches, None)
                if batch is None:
                    return []
                rows = rows_of(plain(batch.select([self._column])))
                self._ids = [None if problem else id_text(*columns.values()) for columns, problem in rows]
            self._at = 0
        ids = self._ids[self._at : self._at + most]
        first = self._taken + 1
        self._at += len(ids)
        self._taken += len(ids)
        size, total = self._size, self._total
        return [(number, text, size * number // total) for number, text in enumerate(ids, first)]

    def keys(self, lines: Sequence[Line]) -> list[bytes] | None:
        return keys_of([text for _, text, _ in lines])

    def raw(self, lines: Sequence[Line]) -> list[bytes] | None:
        return None

    def records(self, lines: Sequence[Line]) -> Iterator[Record]:
        if self._wanted is None:
            self._wanted = _Wanted(self._path)
        first = lines[0][0] - 1
        rows = self._wanted.rows(first, first + len(lines))
        for (number, _, position), (columns, problem, size) in zip(lines, rows, strict=True):
            yield Record(columns={} if problem else columns, line=number, size=size, position=position, problem=problem)

    def close(self) -> None:
        self._file.close()
        if self._wanted is not None:
            self._wanted.close()


class _Wanted:
    """Whole rows, forwards: row groups in which none is wanted are not read."""

    def __init__(self, path: str) -> None:
        self._path = path
        with _as_input_error(path, 0):
            self._file = opened(path)
        self._rows_a_batch = rows_a_batch(self._file)
        metadata = self._file.metadata
        counts = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._ends = list(itertools.accumulate(counts))
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._ends_at = 0  # the row after those of the row group whose batches are read
        self._batch: pa.RecordBatch | None = None
        self._first = 0  # the batch's first row

    def rows(self, start: int, end: int) -> Iterator[tuple[dict[str, Any], str | None, int]]:
        """Columns, problem and size of the rows from `start` until before `end`."""
        while start < end:
            with _as_input_error(self._path, start):
                batch = self._seek(start)
                at = start - self._first
                some = batch.slice(at, min(end, self._first + batch.num_rows) - start)
                found = list(rows_of(plain(some)))
                size = batch.nbytes // batch.num_rows
            for columns, problem in found:
                yield columns, problem, size
            start += len(found)

    def _seek(self, row: int) -> pa.RecordBatch:
        """The batch that holds the row, which is in this one or beyond."""
        if row >= self._ends_at:
            group = bisect.bisect_right(self._ends, row)
            self._batches = self._file.iter_batches(
                batch_size=self._rows_a_batch, row_groups=[group], use_threads=False
            )
            self._ends_at = self._ends[group]
            self._first, self._batch = self._ends[group - 1] if group else 0, None
        while self._batch is None or row >= self._first + self._batch.num_rows:
            self._first += 0 if self._batch is None else self._batch.num_rows
            self._batch = next(self._batches)
        return self._batch

    def close(self) -> None:
        self._file.close()
