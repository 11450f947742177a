"""Which run this is: a new one, or the resume of one that did not finish."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from batchfox.checkpoint import Checkpoint
from batchfox.core.job import Job
from batchfox.errors import JobError, UserError
from batchfox.runs import note_begin


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `before`: its figures when an earlier execution of it ended, empty for a new one. `is_limited`: that
    execution came to its end, at `--limit`."""

    run_id: str
    run_date: str
    started_at: float
    is_resume: bool = False
    is_limited: bool = False
    before: dict[str, Any] = msgspec.field(default_factory=dict)


def run_date_of(job: Job, unix_s: float) -> str:
    """The day on which a run begins, in the job's time zone, else the machine's. Raises `JobError`, and `UserError`
    for a clock that is off by thousands of years."""
    zone = None if job.schedule.timezone is None else zone_named(job.schedule.timezone)
    try:
        return datetime.fromtimestamp(unix_s, UTC).astimezone(zone).date().isoformat()
    except (ValueError, OverflowError, OSError) as error:
        raise UserError(
            f"the machine's clock says {unix_s:.0f} s since 1970, which is no day of the calendar: set the clock; "
            "times in the output and run_date come from it"
        ) from error


def zone_named(name: str) -> ZoneInfo:
    """Raises `JobError`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise JobError(f'schedule.timezone: expected an IANA name such as "Europe/Berlin", got "{name}"') from error


def unfinished_run(checkpoint: Checkpoint) -> Run | None:
    """The last run, where it did not finish. (The last by the order of their records: a clock may be set back.)"""
    sql = "SELECT run_id, run_date, started_at, exit_status, is_finished, progress FROM run ORDER BY rowid DESC LIMIT 1"
    rows = checkpoint.query(sql)
    if not rows or rows[0][4]:
        return None
    run_id, run_date, started_at, exit_status, _, progress = rows[0]
    return Run(
        run_id=run_id,
        run_date=run_date,
        started_at=started_at,
        is_resume=True,
        is_limited=exit_status in (0, 3),
        before=checkpoint.figures(progress),
    )


def tokens_of_last_minute(checkpoint: Checkpoint, unix_s: float) -> tuple[float, float]:
    """How many seconds ago the last run was last heard of, and the tokens that it had sent within a minute then."""
    rows = checkpoint.query("SELECT beat_at, progress FROM run ORDER BY rowid DESC LIMIT 1")
    if not rows or not rows[0][1]:
        return 0.0, 0.0
    tokens = checkpoint.figures(rows[0][1]).get("tokens_of_minute", 0.0)
    return max(unix_s - rows[0][0], 0.0), tokens


def begin_run(checkpoint: Checkpoint, job: Job, unix_s: float, *, day_of: float | None = None) -> Run:
    """The unfinished run, taken up again; else a new one, on record from now on. `day_of`: the moment whose day is its
    `run_date`, where that is not now."""
    run = unfinished_run(checkpoint)
    if run is None:
        stamp = datetime.fromtimestamp(unix_s, UTC).strftime("%Y%m%d-%H%M%S")
        run_id = f"{stamp}-{secrets.token_hex(2)}"
        run = Run(run_id=run_id, run_date=run_date_of(job, unix_s if day_of is None else day_of), started_at=unix_s)
        with checkpoint.transaction() as db:
            sql = "INSERT INTO run (run_id, run_date, started_at, beat_at) VALUES (?, ?, ?, ?)"
            db.execute(sql, (run.run_id, run.run_date, unix_s, unix_s))
            note_begin(db, run.run_id, unix_s, is_resume=False)
    else:
        with checkpoint.transaction() as db:
            sql = "UPDATE run SET ended_at = NULL, exit_status = NULL, beat_at = ? WHERE run_id = ?"
            db.execute(sql, (unix_s, run.run_id))
            note_begin(db, run.run_id, unix_s, is_resume=True)
    return run


def end_run(
    checkpoint: Checkpoint, run: Run, *, unix_s: float, exit_status: int, is_finished: bool, progress: dict[str, Any]
) -> None:
    """Puts the end of an execution on record."""
    with checkpoint.transaction() as db:
        sql = (
            "UPDATE run SET ended_at = ?, beat_at = ?, exit_status = ?, is_finished = ?, progress = ? WHERE run_id = ?"
        )
        db.execute(sql, (unix_s, unix_s, exit_status, is_finished, msgspec.json.encode(progress), run.run_id))
