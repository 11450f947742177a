"""How one execution of a job differs from the job."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, TypedDict

import msgspec

from batchfox.errors import UserError
from batchfox.narrowing import Where

Level = Literal["debug", "info", "warning", "error"]
Form = Literal["console", "json"]


class OptionValues(TypedDict, total=False):
    """The keywords of `run` and `arun`: the fields of `Options`."""

    limit: int | None
    retry: str | Iterable[str]
    where: str | None
    fresh: bool
    scheduled: datetime | None
    metrics_port: int | None
    log_level: Level | None
    log_format: Form
    quiet: bool


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `batchfox run` takes beside the job. Raises `UserError` for a value that cannot be.

    `limit`: take at most so many unfinished rows. `retry`: statuses whose rows get fresh attempts, as a list, or as
    text with commas. `where`: a condition on the output's columns that narrows `retry`. `fresh`: move the old output
    aside and start anew. `scheduled`: the time that the job's `[schedule]` names for this run, aware: `run_date` is its
    day, and nothing is submitted after the end of the window that it lies in. `metrics_port`: serve
    metrics on this port of loopback, 0 for a free one. `log_level`, `log_format` and `quiet`:
    what is told on stderr.
    """

    limit: int | None = None
    retry: str | Iterable[str] = ()
    where: str | None = None
    fresh: bool = False
    scheduled: datetime | None = None
    metrics_port: int | None = None
    log_level: Level | None = None
    log_format: Form = "console"
    quiet: bool = False

    def __post_init__(self) -> None:
        limit = self.limit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise UserError(f"limit: expected a whole number from 1, or None for no limit, got {limit!r}")
        scheduled = self.scheduled
        if scheduled is not None and (not isinstance(scheduled, datetime) or scheduled.utcoffset() is None):
            raise UserError(f"scheduled: expected a datetime with a time zone, or None, got {scheduled!r}")
        port = self.metrics_port
        if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65_535):
            raise UserError(f"metrics_port: expected 0 to 65535, or None, got {port!r}")
        if self.log_level not in (None, "debug", "info", "warning", "error"):
            raise UserError(f'log_level: expected "debug", "info", "warning" or "error", got {self.log_level!r}')
        if self.log_format not in ("console", "json"):
            raise UserError(f'log_format: expected "console" or "json", got {self.log_format!r}')
        msgspec.structs.force_setattr(self, "retry", _words(self.retry))
        if self.where is not None and not self.retry:
            raise UserError("--where narrows --retry: name the statuses too, such as --retry failed")

    def narrowed(self) -> Where | None:
        """`where`, parsed. Raises `UserError`."""
        return None if self.where is None else Where(self.where)

    @property
    def statuses(self) -> tuple[str, ...]:
        """`retry`, one word each."""
        return tuple(self.retry)


def _words(statuses: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(statuses, str):
        return tuple(word.strip() for word in statuses.split(",") if word.strip())
    words = tuple(statuses)
    if not all(isinstance(word, str) for word in words):
        raise UserError(f'retry: expected statuses such as "failed", got {words!r}')
    return words
