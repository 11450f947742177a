"""What `run --dry-run` prints: the first requests that a run would send, and nothing is sent."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from batchfox.core.job import Job
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import MARKED, STALE
from batchfox.core.prepare import Invalid
from batchfox.core.prices import refuse_unpriced
from batchfox.core.row import Row
from batchfox.opening import output_root
from batchfox.output import refuse_unusable
from batchfox.retry import Chosen, check_statuses
from batchfox.stale import is_stale, refuse_stale
from batchfox.survey.forecast import ask_prices
from batchfox.survey.past import Past, open_past
from batchfox.survey.surveyor import Surveyor

if TYPE_CHECKING:
    from batchfox.options import Options

MOST_ROWS = 3


def preview(job: Job, options: Options) -> list[str]:
    """The first requests as JSON, or why a row makes none; local media as their paths.

    Raises what a run would before its first submit, as far as it shows in the job, the output and the rows up to the
    last one printed. A key is not needed.
    """
    check_statuses(options.statuses)
    surveyor = Surveyor(job)
    if (job.limits.credits is not None or job.limits.credits_per_day is not None) and (
        listed := ask_prices(job)
    ).prices:
        refuse_unpriced(job, listed.prices)
    root = output_root(job, time.time())
    id_column = surveyor.source.id_column
    with contextlib.ExitStack() as stack:
        if options.fresh:
            refuse_unusable(root, job.output.checkpoint)
            past = Past(None, None, has_ids=id_column is not None)
        else:
            asks_stale = STALE in options.statuses
            if asks_stale:
                refuse_stale(job.input.paths, id_column)
            past = stack.enter_context(open_past(job, root, id_column, asks_stale=asks_stale))
        where = options.narrowed()
        fitting = None if where is None else past.fitting(where)
        marked = past.marked() if MARKED in options.statuses else frozenset()
        most = min(MOST_ROWS, options.limit or MOST_ROWS)
        rows = itertools.islice(_unfinished(surveyor, past, options.statuses, marked, fitting), most)
        return [_show(surveyor, row) for row in rows]


def _unfinished(
    surveyor: Surveyor, past: Past, again: tuple[str, ...], marked: frozenset[bytes], fitting: Chosen | None
) -> Iterator[Row]:
    """Rows that a run would take: those no run ended, and those of the statuses in `again`, or with a key in `marked`,
    that are among `fitting`; duplicates aside."""
    seen: set[bytes] = set()
    for batch in surveyor.batches():
        for row, before, answered in zip(batch, past.look_up(batch), past.answered(batch), strict=True):
            past.compare(row)
            if row.key in seen:
                continue
            is_again = before in again or row.key in marked or (STALE in again and _is_stale(surveyor, row, answered))
            if is_again and fitting is not None:
                is_again = bool(fitting.among([row.key]))
            if before is None or is_again:
                seen.add(row.key)
                yield row
    past.end()


def _is_stale(surveyor: Surveyor, row: Row, answered: bytes | None) -> bool:
    if answered is None:
        return False
    prepared = surveyor.prepare(row, with_files=False)
    return isinstance(prepared, Life) and is_stale(prepared, answered)


def _show(surveyor: Surveyor, row: Row) -> str:
    prepared = surveyor.prepare(row)
    said: dict[str, Any] = {"row_id": row.id}
    if isinstance(prepared, Life):
        said["request"] = prepared.request
    elif isinstance(prepared, Invalid):
        said |= {"status": "invalid", "reason": prepared.error.message}
    else:
        said |= {"status": "invalid", "reason": "; ".join(complaint.message for complaint in prepared)}
    said = surveyor.source.secret.hide_in(said)
    return msgspec.json.format(msgspec.json.encode(said), indent=2).decode()
