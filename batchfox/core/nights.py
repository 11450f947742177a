"""`[schedule]`: when a job runs next, what was missed, and how long a run may submit.

Times that cron names outside of the window are passed over. A night that was missed is run at once, in the window where
there is one, unless the next one comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from hashlib import blake2b
from typing import Protocol

import msgspec

from batchfox.core.crontab import Crontab
from batchfox.core.window import Window

# For so many days in a row cron may name times outside of the window alone.
_MOST_OUTSIDE = 41 * 366


class ScheduleKeys(Protocol):
    """The job file's `[schedule]`."""

    @property
    def cron(self) -> str | None: ...
    @property
    def window(self) -> str | None: ...
    @property
    def catch_up(self) -> bool: ...
    @property
    def jitter(self) -> float: ...
    @property
    def retry(self) -> Sequence[str]: ...
    @property
    def retry_nights(self) -> int: ...


class Nights(msgspec.Struct, frozen=True, kw_only=True):
    """The times of one job, in its zone. All times come back as UTC."""

    crontab: Crontab
    zone: tzinfo
    window: Window | None = None
    catch_up: bool = False
    jitter_s: float = 0.0

    @classmethod
    def of(cls, schedule: ScheduleKeys, zone: tzinfo) -> Nights:
        """`schedule` has a `cron`, and is checked."""
        return cls(
            crontab=Crontab.parse(schedule.cron or ""),
            zone=zone,
            window=None if schedule.window is None else Window.parse(schedule.window),
            catch_up=schedule.catch_up,
            jitter_s=float(schedule.jitter),
        )

    def after(self, instant: datetime) -> datetime:
        """The next scheduled time later than this moment."""
        for _ in range(_MOST_OUTSIDE):
            instant = self.crontab.after(instant, self.zone)
            if self._is_in_window(instant):
                return instant
            instant = self._skip(instant)
        raise AssertionError("no scheduled time lies in the window")

    def due(self, instant: datetime) -> datetime:
        """The latest scheduled time that is not later than this moment."""
        for _ in range(_MOST_OUTSIDE):
            instant = self.crontab.last(instant, self.zone)
            if self._is_in_window(instant):
                return instant
            instant = self._skip_back(instant)
        raise AssertionError("no scheduled time lies in the window")

    def next_start(self, now: datetime, had: datetime | None) -> datetime:
        """When to run next. `had`: the latest scheduled time that was run; None where none ever was."""
        regular = self.after(now)
        if not self.catch_up or had is None or self.due(now) <= had:
            return regular
        return min(regular, now.astimezone(UTC) if self.window is None else self.window.opens_after(now, self.zone))

    def ends_at(self, scheduled: datetime, now: datetime) -> datetime | None:
        """When the run of this time has to stop submitting, if it begins now; None: when it is done. A night that is
        caught up in a later window has that."""
        if self.window is None:
            return None
        is_late = self.catch_up and now > scheduled and self.window.is_open(now, self.zone)
        return self.window.ends_after(now if is_late else scheduled, self.zone)

    def begins_at(self, scheduled: datetime, name: str) -> datetime:
        """When the run of this time begins, a jitter later: the same whenever it is asked for this job and time."""
        draw = blake2b(f"{name}\0{scheduled.timestamp():.0f}".encode(), digest_size=8).digest()
        return scheduled + timedelta(seconds=self.jitter_s * int.from_bytes(draw) / 2**64)

    def _is_in_window(self, instant: datetime) -> bool:
        return self.window is None or self.window.is_open(instant, self.zone)

    def _skip(self, instant: datetime) -> datetime:
        """Shortly before the window opens, where it is shut now."""
        if self.window is None:
            return instant
        return max(instant, self.window.opens_after(instant, self.zone) - timedelta(minutes=1))

    def _skip_back(self, instant: datetime) -> datetime:
        """The last minute in which the window was open, before this moment outside of it."""
        assert self.window is not None
        return self.window.shut_before(instant, self.zone) - timedelta(minutes=1)


def complaint_of(schedule: ScheduleKeys) -> str | None:
    """What is wrong with `[schedule]`, with the key's path; None where nothing is."""
    if schedule.cron is None:
        for name in ("window", "catch_up", "jitter", "retry"):
            if value := getattr(schedule, name):
                return f"schedule.{name}: expected beside schedule.cron, which is missing; got {value!r}"
        return None
    try:
        crontab = Crontab.parse(schedule.cron)
    except ValueError as error:
        return f'schedule.cron: expected {error}, got "{schedule.cron}"'
    if not 0 <= schedule.jitter < 86_400:
        return f"schedule.jitter: expected less than a day, got {float(schedule.jitter)!r}"
    if not 1 <= schedule.retry_nights <= 1000:
        return f"schedule.retry_nights: expected 1 to 1,000, got {schedule.retry_nights!r}"
    if schedule.window is None:
        return None
    try:
        window = Window.parse(schedule.window)
    except ValueError as error:
        return f'schedule.window: expected {error}, got "{schedule.window}"'
    if not any(window.has(time(hour, minute)) for hour in crontab.hours for minute in crontab.minutes):
        wanted = f'a time in it at which schedule.cron = "{schedule.cron}" fires'
        return f'schedule.window: expected {wanted}, got "{schedule.window}"'
    return None
