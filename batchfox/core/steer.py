"""What may be asked of a running job: the orders of `batchfox ctl`, as lines of JSON. Nothing is carried out here."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchfox.core.job import Job
from batchfox.core.nearest import nearest
from batchfox.core.sections import Limits
from batchfox.errors import JobError, UserError

# What may change while a job runs.
STEERABLE = ("requests_per_minute", "tokens_per_minute", "in_flight", "credits", "time")
MOST_LINE = 64 << 10


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One order. `key` and `value`: of `set`, the key as a job file spells it. `row`: of `retry`."""

    do: Literal["pause", "resume", "set", "retry", "stop"]
    key: str | None = None
    value: Any = None
    row: str | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of an order. `message`: what was done, or why nothing was."""

    ok: bool
    message: str


def read_order(line: bytes) -> Order:
    """The order on a line. Raises `UserError` where it is none."""
    try:
        return msgspec.json.decode(line, type=Order)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UserError(f"this is no order that the run knows: {error}") from error


def change_limit(job: Job, key: str, value: Any) -> Limits:
    """The job's limits with this one changed. Raises `JobError` for one that cannot change now, or to that."""
    section, _, name = key.partition(".")
    if section != "limits" or name not in STEERABLE:
        known = [f"limits.{known}" for known in STEERABLE]
        raise JobError(f"{key} cannot change while the job runs{nearest(key, known)}; what can: {', '.join(known)}")
    tables = job.to_dict()
    tables["limits"][name] = value
    return Job.from_dict(tables).limits
