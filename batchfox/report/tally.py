"""One pass over the parts, in bounded memory: what a report says in figures, and which rows it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchfox.arrow_types import without_views
from batchfox.errors import OutputError
from batchfox.parts import say_unreadable
from batchfox.report.shapes import Shapes
from batchfox.report.timeline import RATIO, Latencies, Timeline

MOST_CAUSES = 200
MOST_MODELS = 30
ROWS_A_CAUSE = 6
_COLUMNS = [
    *("row_index", "row_id", "status", "model", "prompt_tokens", "completion_tokens", "credits", "error_code"),
    *("error_type", "error_message", "http_status", "submits", "maybe_billed_twice", "polls", "submitted_at"),
    *("finished_at", "latency_s", "media"),
]


class Place(msgspec.Struct, frozen=True, order=True):
    """A row: `rank` sorts a sample, then the part, the row group and the position in it. `row_id` to know it again."""

    rank: int
    path: Path
    group: int
    at: int
    row_id: str


class Cause(msgspec.Struct):
    """Rows that ended the same way; `places`: the first of them."""

    status: str
    code: str
    rows: int = 0
    message: str = ""
    places: list[Place] = msgspec.field(default_factory=list)


class Tally(msgspec.Struct, kw_only=True):
    """`latencies`: by model and shape. `sample`: completed rows, drawn evenly."""

    rows: int = 0
    by_status: Counter[str] = msgspec.field(default_factory=Counter)
    credits: dict[str, float] = msgspec.field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    submits: int = 0
    polls: int = 0
    maybe_billed_twice: int = 0
    causes: dict[tuple[str, str], Cause] = msgspec.field(default_factory=dict)
    latencies: dict[tuple[str, str], Latencies] = msgspec.field(default_factory=dict)
    timeline: Timeline = msgspec.field(default_factory=Timeline)
    sample: list[Place] = msgspec.field(default_factory=list)
    first_at: int | None = None
    last_at: int | None = None


def tally(paths: list[Path], shapes: Shapes, *, sample: int) -> Tally:
    """Counts the parts; `sample`: how many completed rows to draw. Raises `OutputError`."""
    found = Tally()
    for path in paths:
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                columns = [*_COLUMNS, *shapes.columns(file.schema_arrow.names)]
                for group in range(file.metadata.num_row_groups):
                    table = without_views(file.read_row_group(group, columns=columns))
                    if table.num_rows:
                        _add(found, table, shapes, path, group, sample)
        except (OSError, pa.ArrowException) as error:
            raise OutputError(f"{path}: {say_unreadable(error, path)}") from error
    return found


def _add(tally: Tally, table: pa.Table, shapes: Shapes, path: Path, group: int, sample: int) -> None:
    tally.rows += table.num_rows
    counts = table.group_by("status").aggregate([("status", "count"), ("credits", "sum")])
    for row in counts.to_pylist():
        tally.by_status[row["status"]] += row["status_count"]
        tally.credits[row["status"]] = tally.credits.get(row["status"], 0.0) + (row["credits_sum"] or 0.0)
    tally.prompt_tokens += _sum(table["prompt_tokens"])
    tally.completion_tokens += _sum(table["completion_tokens"])
    tally.submits += _sum(table["submits"])
    tally.polls += _sum(table["polls"])
    tally.maybe_billed_twice += _sum(table["maybe_billed_twice"])
    is_completed = pc.equal(table["status"], "completed")
    _add_times(tally, table, is_completed)
    _add_latencies(tally, table, shapes)
    _add_causes(tally, table, is_completed, path, group)
    _add_sample(tally, table, is_completed, path, group, sample)


def _sum(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column.cast(pa.int64())).as_py() or 0)


def _seconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.divide(column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), 1_000_000)


def _steps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.floor(pc.divide(pc.ln(pc.max_element_wise(column, 0.001)), RATIO)).cast(pa.int32())


def _add_times(tally: Tally, table: pa.Table, is_completed: pa.ChunkedArray) -> None:
    started, ended = _seconds(table["submitted_at"]), _seconds(table["finished_at"])
    bounds = [pc.min_max(times) for times in (started, ended)]
    lows = [bound["min"].as_py() for bound in bounds if bound["min"].is_valid]
    highs = [bound["max"].as_py() for bound in bounds if bound["max"].is_valid]
    if not lows:
        return
    tally.first_at = min([*lows, *([] if tally.first_at is None else [tally.first_at])])
    tally.last_at = max([*highs, *([] if tally.last_at is None else [tally.last_at])])
    line = tally.timeline
    both = pc.and_(pc.is_valid(started), pc.is_valid(ended))
    for name, times in (
        ("started", started.filter(both)),
        ("ended", ended.filter(both)),
        ("settled", ended),
        ("completed", ended.filter(is_completed)),
    ):
        for item in pc.value_counts(times).to_pylist():
            if item["values"] is not None:
                span = line.at(item["values"])
                setattr(span, name, getattr(span, name) + item["counts"])
    names = ("prompt_tokens", "completion_tokens", "credits")
    spent = pa.table({"second": ended} | {name: table[name] for name in names})
    for row in spent.group_by("second").aggregate([(name, "sum") for name in names]).to_pylist():
        if row["second"] is not None:
            span = line.at(row["second"])
            for name in names:
                setattr(span, name, getattr(span, name) + (row[f"{name}_sum"] or 0))


def _add_latencies(tally: Tally, table: pa.Table, shapes: Shapes) -> None:
    table = table.filter(pc.is_valid(table["latency_s"]))
    found = pa.table(
        {
            "second": _seconds(table["finished_at"]),
            "step": _steps(table["latency_s"]),
            "model": pc.coalesce(table["model"], "no model"),
            "shape": shapes.of(table),
        }
    )
    for row in found.group_by(["second", "step"]).aggregate([([], "count_all")]).to_pylist():
        if row["second"] is not None:
            tally.timeline.at(row["second"]).latencies.add(row["step"], row["count_all"])
    for row in found.group_by(["model", "shape", "step"]).aggregate([([], "count_all")]).to_pylist():
        key = (row["model"], row["shape"])
        if key not in tally.latencies and len(tally.latencies) >= MOST_MODELS:
            key = ("other models", "")
        tally.latencies.setdefault(key, Latencies()).add(row["step"], row["count_all"])


def _add_causes(tally: Tally, table: pa.Table, is_completed: pa.ChunkedArray, path: Path, group: int) -> None:
    position = pa.array(range(table.num_rows), pa.int64())
    names = ["row_id", "status", "error_code", "error_type", "error_message", "http_status"]
    failed = table.select(names).append_column("at", position).filter(pc.invert(is_completed))
    for batch in failed.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            cause = _cause_of(tally, row)
            cause.rows += 1
            if len(cause.places) < ROWS_A_CAUSE:
                cause.places.append(Place(len(cause.places), path, group, row["at"], row["row_id"]))
            cause.message = cause.message or (row["error_message"] or "")


def _cause_of(tally: Tally, row: dict[str, Any]) -> Cause:
    status = row["http_status"]
    code = row["error_code"] or row["error_type"] or (f"http_{status}" if status else "unknown")
    key = (row["status"], code)
    if key not in tally.causes and len(tally.causes) >= MOST_CAUSES:
        key = (row["status"], "other")
    return tally.causes.setdefault(key, Cause(*key))


def _add_sample(
    tally: Tally, table: pa.Table, is_completed: pa.ChunkedArray, path: Path, group: int, most: int
) -> None:
    """Every row has a rank that looks drawn and is the same each time; those of the lowest ranks are shown."""
    if most <= 0:
        return
    rank = pc.add(table["row_index"], 1)
    for odd in (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9):  # splitmix's way; a product wraps, as meant
        rank = pc.bit_wise_and(pc.multiply(rank, odd), 0x7FFFFFFFFFFFFFFF)
        rank = pc.bit_wise_xor(rank, pc.shift_right(rank, 31))
    found = pa.table({"rank": rank, "at": pa.array(range(table.num_rows), pa.int64()), "row_id": table["row_id"]})
    found = found.filter(is_completed)
    lowest = found.take(pc.select_k_unstable(found, k=most, sort_keys=[("rank", "ascending")]))
    places = [Place(row["rank"], path, group, row["at"], row["row_id"]) for row in lowest.to_pylist()]
    tally.sample = sorted([*tally.sample, *places])[:most]


def rows_at(places: list[Place]) -> Iterator[tuple[Place, pa.Table]]:
    """The rows at these places, whole, part by part; those that have gone meanwhile are left out."""
    for path, group in dict.fromkeys((place.path, place.group) for place in places):
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                table = without_views(file.read_row_group(group))
        except (OSError, pa.ArrowException, IndexError):
            continue
        for place in places:
            if (place.path, place.group) == (path, group) and place.at < table.num_rows:
                row = table.slice(place.at, 1)
                if row["row_id"][0].as_py() == place.row_id:
                    yield place, row
