"""Which rows a run gives fresh attempts: those of the statuses that `--retry` names, those that somebody marked, and
those that are stale."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from batchfox.core.carry import Carry
from batchfox.core.outcome import MARKED, STALE
from batchfox.core.prepare import Preparer
from batchfox.marks import Marks
from batchfox.narrowing import Fitted, Where
from batchfox.retry import Chosen, mark, mark_marked
from batchfox.stale import ASKED, Found, find_stale, refuse_stale

if TYPE_CHECKING:
    from pathlib import Path

    from batchfox.assembly import Workshop
    from batchfox.checkpoint import Checkpoint
    from batchfox.core.job import Job
    from batchfox.core.render import Renderer
    from batchfox.core.rulebook import RuleBook
    from batchfox.filing import Filing
    from batchfox.log import Log
    from batchfox.options import Options
    from batchfox.source import Source

KEPT = "changed, and cannot be sent as they are now: they keep their answers; `batchfox validate` names them"
NOTHING = "no row of these statuses fits: none gets fresh attempts, and the run goes on with what is not done"


async def mark_rows(
    job: Job,
    options: Options,
    shop: Workshop,
    source: Source,
    filing: Filing,
    data: Path,
    renderer: Renderer,
    book: RuleBook,
    log: Log,
) -> Found:
    """Marks them in the checkpoint. Stale rows also by the order of an execution that did not come to it. Returns what
    was found of these. Raises `UserError`."""
    checkpoint, has_ids = shop.checkpoint, source.id_column is not None
    statuses, marked = [status for status in options.statuses if status not in (STALE, MARKED)], 0
    if statuses:
        marked = mark(checkpoint, data, statuses, has_ids=has_ids, where=_fitted(options.where, checkpoint))
    if MARKED in options.statuses:
        where = _fitted(options.where, checkpoint)
        marked += _take_marked(Marks(data.parent), checkpoint, data, where, log, has_ids=has_ids)
    order = checkpoint.get(ASKED)
    if order is None:
        _say_nothing_fits(log, options, marked)
        return Found()
    refuse_stale(job.input.paths, source.id_column)
    while filing.file(job.output.rows_per_part):
        pass  # what a crash left unfiled may be stale too
    preparer = Preparer(Carry([], ()), renderer, book, secret=source.secret)
    chosen, stop = Chosen(shop.connect(read_only=True)), threading.Event()
    connection = shop.connect(read_only=True)

    def find() -> tuple[Found, int]:
        found, stale = find_stale(connection, source.batches(), preparer, chosen.add, stop), 0
        if not stop.is_set():
            stale = mark(checkpoint, data, (), has_ids=has_ids, chosen=chosen, where=_fitted(order, checkpoint))
        return found, stale

    try:
        found, stale = await asyncio.get_running_loop().run_in_executor(shop.thread("stale"), find)
    finally:
        stop.set()
    _say_nothing_fits(log, options, marked + stale)
    log.info("stale_rows_found", rows=found.stale)
    if found.kept:
        log.warning("stale_rows_kept", rows=found.kept, note=KEPT)
    return found


def _say_nothing_fits(log: Log, options: Options, marked: int) -> None:
    if options.where is not None and marked == 0:
        log.warning("where_fits_nothing", where=options.where, retry=",".join(options.statuses), note=NOTHING)


def _take_marked(
    marks: Marks, checkpoint: Checkpoint, data: Path, where: Fitted | None, log: Log, *, has_ids: bool
) -> int:
    """The rows that were marked for retry in `batchfox view`; returns how many those are. Their marks go once the
    checkpoint has taken them over; a crash in between retries no row twice, for a mark is of one outcome."""
    marked = marks.retried()
    taken = mark_marked(checkpoint, data, marked, has_ids=has_ids, where=where)
    marks.put(marked if where is None else taken, None)
    log.info("marked_rows_taken", rows=len(taken))
    if not taken:
        log.warning(
            "no_marked_rows",
            note="no row is marked for retry, or has the outcome that was; `batchfox view DIR` marks rows",
        )
    elif marks.trouble:
        log.warning("marks_kept", note=marks.trouble)
    return len(taken)


def _fitted(text: str | None, checkpoint: Checkpoint) -> Fitted | None:
    return Where(text).fit_output(checkpoint.get("types")) if text else None
