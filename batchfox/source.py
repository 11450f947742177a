"""The input: JSONL, Parquet, CSV, folders of media → rows, streaming, each with the place where a person would look.

Nothing is held but the batch at hand, so a 20 GB file starts as fast as a small one. What cannot be read as a row is
a row all the same, with its `problem`; what cannot be read as a file is an `InputError`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchfox.core.complaint import printable
from batchfox.core.nearest import nearest
from batchfox.core.render import BATCH_HINT, is_batch_line
from batchfox.core.row import Row, id_text, key_of_id, key_of_line, key_of_position
from batchfox.core.secret import NO_SECRET, Secret
from batchfox.media_rows import read_media
from batchfox.output import own_outputs
from batchfox.paths import STDIN, kind_of, list_files, refuse_own_output
from batchfox.reading_ahead import Ahead
from batchfox.records import Record, read_csv, read_jsonl
from batchfox.skimmed_lines import CsvLines, JsonLines
from batchfox.skimming import Passed, Reading, Skimmer

if TYPE_CHECKING:
    import pyarrow as pa

    from batchfox.core.job import Job

BATCH_ROWS = 256
BATCH_BYTES = 1 << 20


def open_source(
    paths: Sequence[str], *, id_column: str | None, with_digest: bool, secret: Secret = NO_SECRET
) -> Source:
    """The rows of these paths: files, globs, folders, or "-" for standard input (JSONL).

    Raises `InputError` that says which path is wrong, and what there is instead.
    """
    return Source(list_files(paths), id_column=id_column, with_digest=with_digest, secret=secret)


def open_with_ids(job: Job, *, with_digest: bool, secret: Secret = NO_SECRET) -> Source:
    """The job's input; lines in the OpenAI batch form bring their id along. Raises `InputError`."""
    files = list_files(job.input.paths)
    refuse_own_output(files, own_outputs(job))
    wanted = job.input.id
    source = Source(files, id_column=wanted, with_digest=with_digest and wanted is None, secret=secret)
    if wanted is None and source.is_batch_form():
        source = source.with_id("custom_id")
    return source


class Source:
    """The input. `id_column`: the column that names a row, None where position does. `secret`: where an id holds it by
    mistake, the row is named without it, everywhere and in every run."""

    def __init__(
        self, files: list[str], *, id_column: str | None, with_digest: bool, secret: Secret = NO_SECRET
    ) -> None:
        self._files = files
        self.secret = secret
        self.id_column = id_column
        self._with_digest = with_digest
        self._peeked: list[Record] = []
        self._stdin: Iterator[Record] | None = None
        self._bytes_read = 0
        self._rows_read = 0
        self._bytes_total = sum(
            Path(file).stat().st_size for file in files if file != STDIN and kind_of(file) != "media"
        )
        self._types: dict[str, pa.DataType] | bool | None = False

    def with_id(self, column: str) -> Source:
        """The same input with this column as the id; what was peeked at is not lost."""
        self.id_column = column
        self._with_digest = False
        return self

    def is_batch_form(self) -> bool:
        """Is the first readable row a line of the OpenAI batch form (`custom_id`, `body`)? One whose body is no object
        does not tell."""
        for file in self._files:
            records = self._records(file)
            for record in itertools.islice(records, 100):
                if file == STDIN:
                    self._peeked.append(record)
                columns = record.columns
                if record.problem is None and not ("custom_id" in columns and "body" in columns):
                    return False
                if is_batch_line(columns):
                    return True
        return False

    def batches(self) -> Iterator[list[Row]]:
        """All rows from the first, a few at a time. Standard input can be read once."""
        for batch in self.skimmed(None):
            assert not isinstance(batch, Passed)
            yield batch

    def skimmed(self, skimmer: Skimmer | None) -> Iterator[list[Row] | Passed]:
        """The same, with what the skimmer passes over in between."""
        batch: list[Row] = []
        size = index = lines_before = 0
        self._bytes_read = 0
        for file in self._files:
            line = read_before = 0
            for record in self._skim(file, index, skimmer) if skimmer else self._records(file):
                line = record.line
                self._bytes_read += record.position - read_before
                read_before = record.position
                if isinstance(record, Passed):
                    if batch:
                        yield batch
                        batch, size = [], 0
                    index += record.rows
                    self._rows_read = index
                    yield record
                    continue
                batch.append(self._row(record, index, lines_before + line, file))
                index += 1
                self._rows_read = index
                size += record.size
                if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
            lines_before += line
        if batch:
            yield batch

    def _skim(self, file: str, index: int, skimmer: Skimmer) -> Iterator[Record | Passed]:
        """The records of a file whose first row is at `index`; lines that are done are passed over."""
        reading = self._reading(file)
        if reading is None:
            yield from self._records(file)
            return
        with contextlib.closing(reading):
            while True:
                taken, is_looked_at = skimmer.take(index, reading)
                if not taken:
                    return
                looked = skimmer.look(index, taken, reading) if is_looked_at else None
                index += len(taken)
                for some in [taken] if looked is None else looked:
                    if isinstance(some, Passed):
                        yield some
                    else:
                        yield from reading.records(some)

    def _reading(self, file: str) -> Reading | None:
        """The file, where what is done can be told without reading it as rows."""
        kind = "" if file == STDIN else kind_of(file)
        if kind == "jsonl":
            lines = JsonLines(file, self.id_column, with_digest=self._with_digest)
            return lines if self.id_column is None else Ahead(lines)
        if self.id_column is None:
            return None
        if kind == "csv":
            return Ahead(CsvLines(file, self.id_column))
        if kind == "parquet":
            from batchfox.skimmed_parquet import parquet_rows

            return parquet_rows(file, self.id_column)
        return None

    def _records(self, file: str) -> Iterator[Record]:
        if file == STDIN:
            if self._stdin is None:
                self._stdin = read_jsonl(file, with_digest=True)
            peeked, self._peeked = self._peeked, []
            return itertools.chain(peeked, self._stdin)
        kind = kind_of(file)
        if kind == "parquet":
            from batchfox.parquet_rows import read_parquet

            return read_parquet(file, with_digest=self._with_digest)
        if kind == "media":
            return read_media(file, with_digest=self._with_digest)
        read = read_csv if kind == "csv" else read_jsonl
        return read(file, with_digest=self._with_digest)

    def _row(self, record: Record, index: int, line_overall: int, file: str) -> Row:
        problem = record.problem
        shown = "standard input" if file == STDIN else printable(f"{file}{record.name}") if record.name else file
        place = shown if record.name else f"{shown} line {record.line}"
        if self.id_column is None:
            row_id, key = str(index), key_of_position(index)
        else:
            text = None if problem else id_text(record.columns.get(self.id_column))
            if text is None:
                row_id, key = f"line:{line_overall}", key_of_line(line_overall)
                problem = problem or _say_no_id(self.id_column, record.columns)
            else:
                if self.secret.is_in(text):
                    text = self.secret.hide(text)
                row_id, key = text, key_of_id(text)
        return Row(
            index=index,
            id=row_id,
            key=key,
            columns=record.columns,
            line=0 if record.name else record.line,
            file=shown,
            problem=None if problem is None else f"{place}: {problem}",
            digest=record.digest if self._with_digest else b"",
        )

    @property
    def types(self) -> dict[str, pa.DataType] | None:
        """The columns' Arrow types as far as the files declare them; None where only rows can tell."""
        if self._types is False:
            declared = [file for file in self._files if kind_of(file) in ("parquet", "csv")]
            self._types = None
            if declared:
                from batchfox.parquet_rows import declared_types

                self._types = declared_types(declared)
        return self._types if isinstance(self._types, dict) else None

    @property
    def binary_columns(self) -> frozenset[str]:
        """The columns whose declared type holds bytes, at whatever depth."""
        if not self.types:
            return frozenset()
        from batchfox.arrow_types import holds_binary

        return frozenset(name for name, kind in self.types.items() if holds_binary(kind))

    def total_rows(self) -> int | None:
        """Exact where every file says so (Parquet), else None."""
        if any(kind_of(file) != "parquet" for file in self._files):
            return None
        from batchfox.parquet_rows import count_rows

        return sum(count_rows(file) for file in self._files)

    def expected_rows(self) -> int | None:
        """As many as there are if the rest is like what is read; None where nothing tells."""
        share = self.progress()
        return None if not share or not self._rows_read else int(self._rows_read / share)

    def progress(self) -> float | None:
        """The share of the input's bytes that is read; None for standard input."""
        if STDIN in self._files or not self._bytes_total:
            return None
        return min(self._bytes_read / self._bytes_total, 1.0)


def _say_no_id(column: str, columns: dict[str, Any]) -> str:
    if column in columns:
        return f'missing id: column "{column}" holds no text or number'
    hint = f"; {BATCH_HINT}" if is_batch_line(columns) else nearest(column, columns)
    return f'missing id: no column "{column}"{hint}'
