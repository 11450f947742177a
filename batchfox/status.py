"""What a run is doing or did, read from its folder: works while it runs and after it died."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from batchfox.checkpoint import Checkpoint
from batchfox.core.outcome import STATUSES
from batchfox.core.vitals import Shown
from batchfox.errors import JobError, OutputError
from batchfox.locks import is_locked
from batchfox.paths import say_no_output
from batchfox.words import count, credit, duration, exit_means, outage_words, tail_words

_COLUMNS = ("run_id", "run_date", "started_at", "beat_at", "ended_at", "exit_status", "is_finished")


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A look at an output. Counts are rows; times are unix seconds.

    `figures` are a whole run's as of its last beat, those under `here` of its last execution alone. `figures_of` says
    which run's: where the last one ended without anything to do, they are those of the run before it.
    """

    output: str
    is_running: bool
    run_id: str | None = None
    run_date: str | None = None
    started_at: float | None = None
    beat_at: float | None = None
    ended_at: float | None = None
    exit_status: int | None = None
    is_finished: bool = False
    is_limited: bool = False
    parts: int = 0
    by_status: dict[str, int]
    recorded: int = 0
    in_flight: int = 0
    in_doubt_now: int = 0
    waiting: int = 0
    figures_of: str | None = None
    figures: dict[str, Any] = msgspec.field(default_factory=dict)


def look(folder: Path) -> Status:
    """Reads the checkpoint of an output without disturbing a run. Raises `OutputError` where there is none."""
    path = checkpoint_path(folder)
    is_running = is_held(folder)  # asked first: a run that ends meanwhile has written its end before it lets go
    with contextlib.closing(Checkpoint(path, read_only=True)) as checkpoint:
        run = _last_run(checkpoint)
        states = dict(checkpoint.query("SELECT state, count(*) FROM row GROUP BY state"))
        parts = checkpoint.query("SELECT count(*) FROM part WHERE is_filed")[0][0]
        by_status = checkpoint.counts()
        for done in checkpoint.unfiled().values():
            by_status[done.status] = by_status.get(done.status, 0) + 1
    return Status(
        output=str(folder),
        is_running=is_running,
        parts=parts,
        by_status={status: by_status[status] for status in STATUSES if by_status.get(status)},
        recorded=states.get(3, 0),
        in_flight=states.get(2, 0) + (states.get(1, 0) if is_running else 0),
        in_doubt_now=0 if is_running else states.get(1, 0),
        waiting=states.get(0, 0),
        **run,
    )


def _last_run(checkpoint: Checkpoint) -> dict[str, Any]:
    """The last run, with its figures; with those of an earlier one where it ended and had nothing to do."""
    sql = f"SELECT {', '.join(_COLUMNS)}, progress FROM run ORDER BY rowid DESC LIMIT 100"
    runs = checkpoint.query(sql)
    if not runs:
        return {}
    run: dict[str, Any] = dict(zip(_COLUMNS, runs[0], strict=False))
    figures = [(row[0], checkpoint.figures(row[-1])) for row in runs]
    run["is_finished"] = bool(run["is_finished"])
    run["is_limited"] = bool(figures[0][1].get("fed", {}).get("is_limited")) and run["ended_at"] is not None
    shown = figures[0]
    if run["ended_at"] is not None and not _has_worked(shown[1]):
        shown = next((earlier for earlier in figures if _has_worked(earlier[1])), shown)
    run["figures_of"], run["figures"] = shown
    return run


def _has_worked(figures: dict[str, Any]) -> bool:
    """Did a run send, ask or settle anything?"""
    return bool(figures.get("submits") or figures.get("polls") or figures.get("by_status"))


def checkpoint_path(folder: Path) -> Path:
    """Where the checkpoint of an output is. Raises `OutputError` that says what is missing."""
    own = folder / "_batchfox"
    if not own.is_dir():
        raise OutputError(say_no_output(folder, own))
    path = own / "checkpoint.db"
    if not path.exists() and (elsewhere := _checkpoint_elsewhere(own / "job.toml")) is not None:
        path = elsewhere
    if not path.exists():
        raise OutputError(
            f"{path}: the checkpoint is missing; the parts in {folder / 'data'} are still whole, and "
            f"`batchfox doctor {folder} --repair` makes it anew from them"
        )
    return path


def _checkpoint_elsewhere(path: Path) -> Path | None:
    """`output.checkpoint`, as the job on record says; None where it does not say, or cannot be read."""
    from batchfox.jobfile import load_job

    try:
        elsewhere = load_job(path).output.checkpoint
    except JobError:
        return None
    return Path(elsewhere) if elsewhere else None


def is_held(folder: Path) -> bool:
    """Does a live run hold this output? One that begins at this instant tries again (see `output.hold`)."""
    try:
        return is_locked(folder / "_batchfox" / "lock")
    except OSError:
        return False


def shown_of(status: Status) -> Shown | None:
    """What the run's own display shows beside its figures, where it runs or died; None after its end, which `describe`
    tells, and for a run of an older batchfox."""
    shown = status.figures.get("shown")
    if shown is None or status.ended_at is not None or status.figures_of != status.run_id:
        return None
    try:
        return msgspec.convert(shown, Shown)
    except msgspec.ValidationError:  # of another version
        return None


def describe(status: Status, now_unix_s: float | None = None) -> str:
    """A few lines for a person."""
    return "\n".join(_lines(status, time.time() if now_unix_s is None else now_unix_s))


def _lines(status: Status, now: float) -> Iterator[str]:
    if status.run_id is None:
        yield f"{status.output}: no run yet"
        return
    yield f"{status.output}: run {status.run_id} {_state(status, now)}"
    for name, rows in status.by_status.items():
        yield f"  {name:<10} {rows:>9,}"
    yield f"  {count(status.parts, 'part')} written, {count(status.recorded, 'outcome')} recorded for the next one"
    doubts = f", {count(status.in_doubt_now, 'submit')} in doubt" if status.in_doubt_now else ""
    waiting = count(status.waiting, "row")
    yield f"  {count(status.in_flight, 'task')} in flight, {waiting} waiting for another attempt{doubts}"
    if status.figures:
        yield _used(status)
    if status.is_running and (tail := status.figures.get("tail")) is not None:
        yield f"  {tail_words(tail)}"
    outage = status.figures.get("outage")
    if outage is not None and status.figures_of == status.run_id:
        yield f"  {outage_words(outage, now if status.is_running else status.beat_at or now)}"


def _state(status: Status, now: float) -> str:
    if status.is_running:
        return f"running for {duration(now - (status.started_at or now))}"
    if status.ended_at is None:
        return f"died (last sign of life {duration(now - (status.beat_at or now))} ago); the same command resumes it"
    means = exit_means(status.exit_status or 0, is_limited=status.is_limited)
    idle = "; there was nothing left to do" if status.figures_of != status.run_id else ""
    return f"ended with exit {status.exit_status}: {means}{idle}"


def _used(status: Status) -> str:
    """What the run has sent and spent, its resumes included."""
    figures = status.figures
    whose = "this run" if status.figures_of == status.run_id else f"the run before, {status.figures_of}"
    pace = f", pace {figures['per_minute']:,.0f}/min" if status.is_running else ""
    return (
        f"  {whose}: {count(figures['submits'], 'submit')}, {count(figures['polls'], 'poll')}, "
        f"{count(figures['throttles'], 'time')} throttled{pace}, {credit(figures['credits_spent'])} credits"
    )
