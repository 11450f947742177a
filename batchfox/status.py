"""What a run is doing or did, read from its folder: works while it runs and after it died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from batchfox.checkpoint import Checkpoint
from batchfox.core.outcome import STATUSES
from batchfox.errors import OutputError


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A look at an output. Counts are rows; `figures` the run's own, as of its last beat (unix seconds)."""

    output: str
    is_running: bool
    run_id: str | None = None
    run_date: str | None = None
    started_at: float | None = None
    beat_at: float | None = None
    ended_at: float | None = None
    exit_status: int | None = None
    is_finished: bool = False
    parts: int = 0
    by_status: dict[str, int]
    recorded: int = 0
    in_flight: int = 0
    in_doubt_now: int = 0
    waiting: int = 0
    figures: dict[str, Any] = msgspec.field(default_factory=dict)


def look(folder: Path) -> Status:
    """Reads the checkpoint of an output without disturbing a run. Raises `OutputError` where there is none."""
    path = checkpoint_path(folder)
    with contextlib.closing(Checkpoint(path, read_only=True)) as checkpoint:
        runs = checkpoint.query("SELECT * FROM run ORDER BY started_at DESC LIMIT 1")
        states = dict(checkpoint.query("SELECT state, count(*) FROM row GROUP BY state"))
        parts = checkpoint.query("SELECT count(*) FROM part WHERE is_filed")[0][0]
        by_status = checkpoint.counts()
        for done in checkpoint.unfiled().values():
            by_status[done.status] = by_status.get(done.status, 0) + 1
    run: dict[str, Any] = {}
    if runs:
        names = ("run_id", "run_date", "started_at", "beat_at", "ended_at", "exit_status", "is_finished")
        run = dict(zip(names, runs[0], strict=False))
        run["is_finished"] = bool(run["is_finished"])
        run["figures"] = msgspec.json.decode(runs[0][7]) if runs[0][7] else {}
    is_running = is_held(folder)
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


def checkpoint_path(folder: Path) -> Path:
    """Where the checkpoint of an output is. Raises `OutputError` that says what is missing."""
    own = folder / "_batchfox"
    if not own.is_dir():
        raise OutputError(f"{folder}: no output of batchfox (there is no folder {own})")
    path = own / "checkpoint.db"
    if not path.exists() and (job := own / "job.toml").exists():
        import tomllib

        elsewhere = tomllib.loads(job.read_text(encoding="utf-8")).get("output", {}).get("checkpoint")
        path = Path(elsewhere) if elsewhere else path
    if not path.exists():
        raise OutputError(f"{path}: the checkpoint is missing; the parts in {folder / 'data'} are still whole")
    return path


def is_held(folder: Path) -> bool:
    """Does a live run hold this output?"""
    try:
        handle = os.open(folder / "_batchfox" / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def describe(status: Status, now_unix_s: float | None = None) -> str:
    """A few lines for a person."""
    from batchfox.show import EXIT_MEANS, duration

    now = time.time() if now_unix_s is None else now_unix_s
    figures = status.figures
    if status.run_id is None:
        return f"{status.output}: no run yet"
    if status.is_running:
        state = f"running for {duration(now - (status.started_at or now))}"
    elif status.ended_at is None:
        state = f"died (last sign of life {duration(now - (status.beat_at or now))} ago); the same command resumes it"
    else:
        state = f"ended with exit {status.exit_status}: {EXIT_MEANS.get(status.exit_status or 0, '')}"
    lines = [f"{status.output}: run {status.run_id} {state}"]
    lines += [f"  {name:<10} {rows:>9,}" for name, rows in status.by_status.items()]
    lines.append(f"  {status.parts:,} parts written, {status.recorded:,} outcomes recorded for the next one")
    lines.append(
        f"  {status.in_flight:,} tasks in flight, {status.waiting:,} rows waiting for another attempt"
        + (f", {status.in_doubt_now:,} submits in doubt" if status.in_doubt_now else "")
    )
    if figures:
        lines.append(
            f"  {figures['submits']:,} submits, {figures['polls']:,} polls, {figures['throttles']:,} times throttled, "
            f"pace {figures['per_minute']:,.0f}/min, credits {figures['credits_spent']:,.4g}"
        )
    return "\n".join(lines)
