"""`run --pilot N`: a sample of rows first, its answers beside their inputs, what all will cost, and then a question.

The pilot is an execution of the same run that takes these rows alone; the next one passes over them, so nothing is paid
twice. Why so: docs/decisions/0019-steering-and-display.md.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from batchfox.core.job import Job
from batchfox.core.lifecycle import Life
from batchfox.core.pilot import Extrapolation, Sampler, Tried, extrapolate
from batchfox.core.prepare import Invalid, key_of_outcome
from batchfox.core.row import Row
from batchfox.core.shape import media_of
from batchfox.errors import UserError
from batchfox.opening import output_root
from batchfox.options import Options
from batchfox.paths import STDIN
from batchfox.survey.past import Past, open_past
from batchfox.survey.surveyor import Surveyor
from batchfox.words import count, credit, shorten

_COLUMNS = [
    *("row_index", "row_id", "status", "text", "error_code", "error_message", "credits", "latency_s", "request_hash")
]
_UNSENDABLE = "cannot be sent"
_SHOWN = 300


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the sample. `asks`: what is asked, in a line."""

    key: bytes
    index: int
    row_id: str
    kind: str
    asks: str


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a pilot, and how many rows there are to be sent of each kind."""

    chosen: list[Chosen]
    rows: dict[str, int]
    has_ids: bool

    @property
    def keys(self) -> frozenset[bytes]:
        return frozenset(one.key for one in self.chosen)

    @property
    def left(self) -> int:
        """Rows that are left after the pilot."""
        return sum(self.rows.values()) - len(self.chosen)


def draw_sample(job: Job, options: Options, most: int) -> Sample:
    """Reads the whole input and picks at most so many of the rows that are not done. Raises what a run would before its
    first submit, and `UserError` for standard input, which can be read once."""
    if STDIN in job.input.paths:
        raise UserError("--pilot reads the input twice, and standard input can be read once; put it in a file")
    surveyor = Surveyor(job)
    id_column = surveyor.source.id_column
    sampler: Sampler[Chosen] = Sampler(most)
    with contextlib.ExitStack() as stack:
        past = Past(None, None, has_ids=id_column is not None)
        if not options.fresh:
            past = stack.enter_context(open_past(job, output_root(job, time.time()), id_column, asks_stale=False))
        for batch in surveyor.batches():
            for row, before in zip(batch, past.look_up(batch), strict=True):
                past.compare(row)
                if before is None:
                    one = _choose(surveyor, row)
                    sampler.see(one.kind, one)
        past.end()
    unique = {one.key: one for found in sampler.choose().values() for one in found}
    return Sample(
        chosen=sorted(unique.values(), key=lambda one: one.index), rows=sampler.rows, has_ids=id_column is not None
    )


def _choose(surveyor: Surveyor, row: Row) -> Chosen:
    prepared = surveyor.prepare(row, with_files=False)
    if not isinstance(prepared, Life):
        found = [prepared.error.message] if isinstance(prepared, Invalid) else [each.message for each in prepared]
        asks = shorten("; ".join(why for why in found if why), _SHOWN)
        return Chosen(key=row.key, index=row.index, row_id=row.id, kind=_UNSENDABLE, asks=asks)
    asks = surveyor.source.secret.hide(_asks(prepared.request or {}))
    return Chosen(key=row.key, index=row.index, row_id=row.id, kind=prepared.group.replace("|", ", "), asks=asks)


def _asks(request: dict[str, Any]) -> str:
    """The text of a request, and its media by name."""
    said = [request["prompt"]] if isinstance(request.get("prompt"), str) else []
    for message in request.get("messages") or []:
        content = message.get("content") if isinstance(message, dict) else None
        blocks = [{"text": content}] if isinstance(content, str) else content if isinstance(content, list) else []
        said += [block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)]
    media = [shorten(str(medium.value), 60) for medium in media_of(request)]
    return shorten(" ".join([*said, *(f"[{medium}]" for medium in media)]), _SHOWN)


def read_ends(data: Path, sample: Sample) -> dict[bytes, dict[str, Any]]:
    """How the rows of the sample ended, by key: the columns of their output rows."""
    from batchfox import parts

    wanted, found = set(sample.keys), dict[bytes, dict[str, Any]]()
    for path in sorted(data.glob("part-*.parquet"), reverse=True):
        for table in parts.read(path, _COLUMNS):
            for row in table.to_pylist():
                if (key := key_of_outcome(row, has_ids=sample.has_ids)) in wanted:
                    found[key] = row
        if len(found) == len(wanted):
            break
    return found


def judge(sample: Sample, ends: dict[bytes, dict[str, Any]]) -> Extrapolation:
    """What the pilot says of all rows."""
    tried = [
        Tried(kind=one.kind, status=end["status"], credits=end["credits"])
        for one in sample.chosen
        if (end := ends.get(one.key)) is not None
    ]
    return extrapolate(tried, sample.rows)


def describe(sample: Sample, ends: dict[bytes, dict[str, Any]], found: Extrapolation) -> Iterator[str]:
    """The answers beside their inputs, and what they say of all rows."""
    for one in sample.chosen:
        end = ends.get(one.key)
        yield f"{one.row_id} ({one.kind})"
        yield f"  asked:    {one.asks}"
        yield f"  {_answer(end)}"
    yield f"pilot: {count(found.tried, 'row')}, {found.failed:,} did not complete"
    kinds = ", ".join(f"{rows:,} {kind}" for kind, rows in sample.rows.items())
    yield f"all {found.rows:,} rows that are to be sent ({kinds}):"
    share, low, high = found.failures
    yield f"  not completed: {share:.1%} (95 %: {low:.1%} to {high:.1%}), some {round(share * found.rows):,} rows"
    if found.credits is None:
        yield "  credits: not known, as too few of these rows say what they cost"
    else:
        expected, least, most = found.credits
        rough = "; rough: few rows" if found.is_rough else ""
        yield f"  credits: {credit(expected)} (95 %: {credit(least)} to {credit(most)}{rough}), the pilot's included"


def _answer(end: dict[str, Any] | None) -> str:
    if end is None:
        return "answered: not yet; the next run goes on with it"
    cost = "" if end["credits"] is None else f" [{credit(end['credits'])} credits]"
    if end["status"] == "completed":
        return f"answered: {shorten(end['text'] or '(no text)', _SHOWN)}{cost}"
    why = ": ".join(word for word in (end["error_code"], end["error_message"]) if word)
    return f"{end['status']}: {shorten(why, _SHOWN)}{cost}"
