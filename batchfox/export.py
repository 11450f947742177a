"""The results as one file in input order, in bounded memory.

The positions of all rows (8 bytes each) are read and sorted first; then the output is written range by range, each
range gathered from the parts, and only from those row groups, that hold rows of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from batchfox.arrow_types import without_views
from batchfox.core.job import nearest
from batchfox.core.outcome import STATUSES
from batchfox.durable import whole_or_not
from batchfox.errors import OutputError, UserError
from batchfox.parts import number_of, say_unreadable
from batchfox.paths import OWN_FOLDER, say_no_output

BYTES_A_RANGE = 32 << 20
MOST_ROWS_A_RANGE = 50_000
FORMATS = (".parquet", ".jsonl", ".csv")


class _Group(msgspec.Struct, frozen=True, kw_only=True):
    """One row group of a part, and the positions in it."""

    path: Path
    number: int
    low: int
    high: int


def export(folder: Path, target: Path, *, columns: Sequence[str] = (), statuses: Sequence[str] = ()) -> int:
    """Writes `target` (by its suffix `.parquet`, `.jsonl` or `.csv`), whole or not at all. Returns its rows.

    `columns` and `statuses` choose; empty means all. Raises `UserError` or `OutputError`.
    """
    suffix = target.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f'{target}: unknown format "{suffix}"; there are {", ".join(FORMATS)}')
    for status in statuses:
        if status not in STATUSES:
            raise UserError(f"--status {status}: no such status{nearest(status, STATUSES)}")
    paths = part_paths(folder)
    refuse_target(target)
    schema = _schema_of(paths, columns)
    rows = 0
    with whole_or_not(target) as temporary, _writer(temporary, suffix, schema) as write:
        for table in in_order(paths, schema.names, statuses):
            write(table)
            rows += table.num_rows
    return rows


def refuse_target(target: Path) -> None:
    """Raises `UserError` for a file among the parts or the records of an output: it would be in the way of the next
    run."""
    folder = target.absolute().parent.resolve()
    for place in (folder, *folder.parents):
        if place.name in ("data", OWN_FOLDER) and (place.parent / OWN_FOLDER).is_dir():
            raise UserError(f"{target}: lies in an output ({place}), where nothing but its own files may be")


def part_paths(folder: Path) -> list[Path]:
    """The parts of an output, by number. Raises `OutputError` where there is no output."""
    data = folder / "data"
    if not data.is_dir():
        raise OutputError(say_no_output(folder, data))
    paths = sorted(path for path in data.iterdir() if number_of(path.name) is not None)
    if not paths:
        raise OutputError(f"{folder}: no part is written yet; parts appear while the run goes on and at its end")
    return paths


def _schema_of(paths: list[Path], columns: Sequence[str]) -> pa.Schema:
    try:
        schema = without_views(pq.read_schema(paths[-1]).empty_table()).schema
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise OutputError(f"{paths[-1]}: {say_unreadable(error, paths[-1])}") from error
    for name in columns:
        if name not in schema.names:
            raise UserError(
                f"--column {name}: no such column{nearest(name, schema.names)}; there are {', '.join(schema.names)}"
            )
    return pa.schema([schema.field(name) for name in columns]) if columns else schema.remove_metadata()


def in_order(paths: list[Path], columns: list[str], statuses: Sequence[str] = ()) -> Iterator[pa.Table]:
    """All rows in input order, in tables of at most a few tens of megabytes."""
    groups, positions, size = _survey(paths)
    if not len(positions):
        return
    rows_a_range = max(1, min(MOST_ROWS_A_RANGE, BYTES_A_RANGE * len(positions) // max(size, 1)))
    wanted = [*dict.fromkeys([*columns, "row_index", "finished_at", "status"])]
    for start in range(0, len(positions), rows_a_range):
        low = positions[start].as_py()
        if start and positions[start - 1].as_py() == low:
            low += 1  # equal positions (of different nights' inputs) stay in one range
        high = positions[min(start + rows_a_range, len(positions)) - 1].as_py()
        if low > high:
            continue
        table = _gather([group for group in groups if group.low <= high and group.high >= low], wanted, low, high)
        if statuses:
            table = table.filter(pc.is_in(table["status"], value_set=pa.array(statuses)))
        table = table.sort_by([("row_index", "ascending"), ("finished_at", "ascending")])
        yield table.select(columns)


def _survey(paths: list[Path]) -> tuple[list[_Group], pa.Array, int]:
    groups: list[_Group] = []
    chunks: list[pa.Array] = []
    size = 0
    for path in paths:
        with _open(path) as file:
            for number in range(file.metadata.num_row_groups):
                index = file.read_row_group(number, columns=["row_index"])["row_index"].combine_chunks()
                if not len(index):
                    continue
                bounds = pc.min_max(index)
                groups.append(_Group(path=path, number=number, low=bounds["min"].as_py(), high=bounds["max"].as_py()))
                chunks.append(index)
                size += file.metadata.row_group(number).total_byte_size
    positions = pa.concat_arrays(chunks) if chunks else pa.array([], pa.int64())
    return groups, positions.take(pc.sort_indices(positions)), size


def _gather(groups: list[_Group], columns: list[str], low: int, high: int) -> pa.Table:
    tables = []
    for path in dict.fromkeys(group.path for group in groups):
        with _open(path) as file:
            for group in groups:
                if group.path == path:
                    table = without_views(file.read_row_group(group.number, columns=columns))
                    index = table["row_index"]
                    tables.append(table.filter(pc.and_(pc.greater_equal(index, low), pc.less_equal(index, high))))
    return pa.concat_tables(tables)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    """A part, to be read: what was damaged is noticed. Raises `OutputError` where it cannot be read."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            yield file
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise OutputError(f"{path}: {say_unreadable(error, path)}") from error


@contextlib.contextmanager
def _writer(path: Path, suffix: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    if suffix == ".parquet":
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            yield lambda table: writer.write_table(table.cast(schema))
    elif suffix == ".csv":
        flat = pa.schema([pa.field(field.name, pa.string()) for field in schema])
        with pa.csv.CSVWriter(path, flat) as writer:
            yield lambda table: writer.write_table(_flatten(table, flat))
    else:
        with path.open("wb") as file:
            yield lambda table: _write_lines(file, table)


def _flatten(table: pa.Table, flat: pa.Schema) -> pa.Table:
    """Every value as text: lists and objects as JSON, times in ISO form."""
    arrays = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        del name
        kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            values = [None if value is None else _to_json(value).decode() for value in column.to_pylist()]
            arrays.append(pa.array(values, pa.string()))
        else:
            arrays.append(column.cast(pa.string()))
    return pa.Table.from_arrays(arrays, schema=flat)


def _write_lines(file: IO[bytes], table: pa.Table) -> None:
    """One JSON object a row; `completion` as the object it is."""
    for row in table.to_pylist():
        if row.get("completion") is not None:
            row["completion"] = _as_object(row["completion"])
        file.write(_to_json(row) + b"\n")


def _as_object(text: str) -> Any:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return msgspec.Raw(text.encode())


def _to_json(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=str)
