"""`batchfox schedule --list`: when each job runs next, and how its last scheduled run ended."""

from __future__ import annotations

from datetime import datetime

import msgspec

from batchfox.output import own_outputs
from batchfox.schedule.memory import Memory, Night
from batchfox.schedule.planned import Planned
from batchfox.status import is_held
from batchfox.words import duration, exit_means


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One job: `next` and `last` are scheduled times in the job's zone, ISO 8601; `outcome` in words."""

    job: str
    next: str
    last: str | None
    exit_status: int | None
    outcome: str


def listed(planned: Planned, now: datetime) -> Listed:
    memory = Memory(planned.place)
    night = memory.last()
    zone = planned.nights.zone
    start = planned.nights.next_start(now, memory.had())
    return Listed(
        job=planned.path,
        next=start.astimezone(zone).isoformat(timespec="minutes"),
        last=None if night is None else night.scheduled_at.astimezone(zone).isoformat(timespec="minutes"),
        exit_status=None if night is None else night.exit_status,
        outcome=_outcome(night, is_running=any(map(is_held, own_outputs(planned.job)))),
    )


def lines(found: list[Listed]) -> list[str]:
    """A table for people."""
    rows = [("job", "next run", "last run", "outcome")]
    rows += [(one.job, one.next, one.last or "-", one.outcome) for one in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _outcome(night: Night | None, *, is_running: bool) -> str:
    if night is None:
        return "never run"
    if night.is_passed:
        return "its window was over before its turn came: waits for the next run"
    if night.ended_at is None or night.exit_status is None:
        return "running" if is_running else "killed; resumable"
    means = exit_means(night.exit_status)
    return f"exit {night.exit_status}{f', {means}' if means else ''}, after {duration(night.ended_at - night.began_at)}"
