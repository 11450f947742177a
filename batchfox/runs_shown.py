"""What `batchfox runs` says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from batchfox.checkpoint import Checkpoint
from batchfox.runs import Ran, all_runs
from batchfox.status import checkpoint_path, is_held
from batchfox.words import credit, duration, exit_means, shorten

_HEAD = ("begun", "run", "rows", "not completed", "credits", "took", "exit")
_RIGHT = (2, 3, 4, 5)


def look(folder: Path) -> list[Ran]:
    """All runs of an output, the oldest first. Raises `OutputError` where there is none."""
    path = checkpoint_path(folder)
    is_running = is_held(folder)
    with contextlib.closing(Checkpoint(path, read_only=True)) as checkpoint:
        return all_runs(folder, checkpoint, is_running=is_running)


def describe(runs: list[Ran], output: str) -> Iterator[str]:
    """A table for a person."""
    if not runs:
        yield f"{output}: no run yet"
        return
    table = [_HEAD, *map(_cells, runs)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEAD))]
    for row in table:
        cells = [
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _cells(ran: Ran) -> tuple[str, ...]:
    begun = datetime.fromtimestamp(ran.begun_at).astimezone()
    return (
        f"{begun:%Y-%m-%d %H:%M:%S}",
        ran.run_id + (" (resumed)" if ran.is_resume else ""),
        f"{ran.rows:,}",
        f"{ran.not_completed:,}",
        credit(ran.credits),
        duration(ran.duration_s),
        _say_end(ran),
    )


def _say_end(ran: Ran) -> str:
    if ran.how != "ended":
        return f"{ran.how}: the same command resumes it" if ran.how == "died" else ran.how
    status = ran.exit_status or 0
    said = shorten(ran.reason, 90) if ran.reason else exit_means(status, is_limited=ran.is_limited)
    return f"{status}: {said}".rstrip(": ")
