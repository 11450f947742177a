"""A job with its times: `[schedule]` read against the zones that this machine knows."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from pathlib import Path

import msgspec

from batchfox.core.job import Job
from batchfox.core.nights import Nights
from batchfox.errors import JobError, UserError
from batchfox.history import zone_named
from batchfox.output import resolve_path

LAST = "last"


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A job file that has a schedule. `path` as the user wrote it."""

    path: str
    job: Job
    nights: Nights

    @property
    def place(self) -> Path:
        """What names the job in files: the path in full."""
        return Path(self.path).absolute()

    @property
    def output(self) -> str:
        """What names its output, whatever day it is: two jobs with the same never run at once."""
        path = resolve_path(self.job.output.path, run_date="{{ run_date }}", job_name=self.job.name)
        return str(Path(path).resolve())


def zone_of(job: Job) -> tzinfo:
    """The job's zone, else the machine's. Raises `JobError`, and `UserError` where the machine's cannot be told."""
    if job.schedule.timezone is not None:
        return zone_named(job.schedule.timezone)
    from tzlocal import get_localzone

    try:
        return get_localzone()
    except (KeyError, ValueError, OSError) as error:
        raise UserError(
            f"this machine's time zone cannot be told ({error}): name one in [schedule] timezone"
        ) from error


def plan(path: str, job: Job) -> Planned:
    """Raises `JobError` where the job has no times, or a zone that is none."""
    if job.schedule.cron is None:
        raise JobError(f'{path}: no [schedule] cron says when to run it; it takes one such as cron = "30 1 * * *"')
    try:
        zone = zone_of(job)
    except JobError as error:
        raise JobError(f"{path}: {error}") from error
    return Planned(path=path, job=job, nights=Nights.of(job.schedule, zone))


def ends_at(job: Job, scheduled: datetime, now: datetime) -> float | None:
    """When the run of this time has to stop submitting (unix), if it begins now; None where the job has no window."""
    if job.schedule.cron is None or job.schedule.window is None:
        return None
    end = Nights.of(job.schedule, zone_of(job)).ends_at(scheduled, now)
    return None if end is None else end.timestamp()


def read_time(text: str, planned: Planned, now: datetime) -> datetime:
    """What `--scheduled` says: a time as in "2026-01-31T01:30+01:00", or "last". Raises `UserError`."""
    if text == LAST:
        return planned.nights.due(now)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f'--scheduled {text}: expected "last", or a time such as 2026-01-31T01:30+01:00') from error
    return (found if found.utcoffset() is not None else found.replace(tzinfo=planned.nights.zone)).astimezone(UTC)
