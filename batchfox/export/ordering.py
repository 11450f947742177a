"""The rows of an output in input order, in bounded memory.

The positions of all rows (8 bytes each) are read and sorted first; then the rows come range by range, each range
gathered from the parts, and only from those row groups, that hold rows of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchfox.arrow_types import without_views
from batchfox.errors import OutputError
from batchfox.parts import say_unreadable

BYTES_A_RANGE = 16 << 20
MOST_ROWS_A_RANGE = 20_000


class _Group(msgspec.Struct, frozen=True, kw_only=True):
    """One row group of a part, and the positions in it."""

    path: Path
    number: int
    low: int
    high: int


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
