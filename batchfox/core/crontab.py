"""When a cron expression fires: what crontab(5) and cron(8) say, no more.

0 and 7 are Sunday. Where neither the day of the month nor the day of the week begins with `*`, a day needs to match one
of them; else both. A time that is skipped when clocks go forward fires once, right after; one that comes twice when
they go back fires the first time only. Where the minute or the hour begins with `*` neither is done: such a job goes by
the time that passes. Why so: docs/decisions/0017-schedule.md.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo

import msgspec

_MONTHS = [name.lower() for name in calendar.month_abbr]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# Name of the field, its lowest and highest value, names for values.
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("a minute", 0, 59, []),
    ("an hour", 0, 23, []),
    ("a day of the month", 1, 31, []),
    ("a month", 1, 12, _MONTHS),
    ("a day of the week", 0, 7, _DAYS),
)
_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
# A 29 February that is a certain day of the week comes after 40 years at the latest.
_FAR_DAYS = 41 * 366


class Crontab(msgspec.Struct, frozen=True, kw_only=True):
    """The five fields. `needs_both`: a day has to match `days` and `weekdays` (0 is Sunday), not just one of them.
    `by_elapsed`: the minute or the hour begins with `*`."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    needs_both: bool
    by_elapsed: bool

    @classmethod
    def parse(cls, text: str) -> Crontab:
        """Raises `ValueError` that says which field is wrong and what is expected."""
        fields = _NICKNAMES.get(text.strip().lower(), text).split()
        if len(fields) != 5:
            raise ValueError(
                "five fields (minute, hour, day of the month, month, day of the week), as in "
                f'"30 1 * * *", or one of {", ".join(_NICKNAMES)}'
            )
        minutes, hours, days, months, weekdays = map(_values, fields, range(5))
        found = cls(
            minutes=minutes,
            hours=hours,
            days=days,
            months=months,
            weekdays=tuple(sorted({day % 7 for day in weekdays})),
            needs_both=fields[2].startswith("*") or fields[4].startswith("*"),
            by_elapsed=fields[0].startswith("*") or fields[1].startswith("*"),
        )
        if next(found._dates(date(2000, 1, 1), 1), None) is None:
            raise ValueError("a day that comes: this one is in no month")
        return found

    def after(self, instant: datetime, zone: tzinfo) -> datetime:
        """The first time later than `instant` (aware), as UTC: times of one zone compare by what clocks show."""
        instant = instant.astimezone(UTC)
        for day in self._dates(instant.astimezone(zone).date() - _DAY, 1):
            for fire in self._fires(day, zone):
                if fire > instant:
                    return fire
        raise AssertionError(f"no day comes after {instant}")

    def last(self, instant: datetime, zone: tzinfo) -> datetime:
        """The latest time that is not later than `instant` (aware), as UTC."""
        instant = instant.astimezone(UTC)
        for day in self._dates(instant.astimezone(zone).date() + _DAY, -1):
            for fire in reversed(self._fires(day, zone)):
                if fire <= instant:
                    return fire
        raise AssertionError(f"no day comes before {instant}")

    def matches_day(self, day: date) -> bool:
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((in_month and in_week) if self.needs_both else (in_month or in_week))

    def _dates(self, day: date, step: int) -> Iterator[date]:
        """The days on which it fires, from this one on."""
        for _ in range(_FAR_DAYS):
            if self.matches_day(day):
                yield day
            day += step * _DAY

    def _fires(self, day: date, zone: tzinfo) -> list[datetime]:
        """The times of a day, in order."""
        if not self.by_elapsed:
            walls = (datetime.combine(day, time(hour, minute)) for hour in self.hours for minute in self.minutes)
            return sorted({to_instant(wall, zone) for wall in walls})
        at = to_instant(datetime.combine(day, time()), zone)
        end = datetime.combine(day + _DAY, time(), zone).replace(fold=1).astimezone(UTC)
        found = []
        while at < end:
            local = at.astimezone(zone)
            if local.minute in self.minutes and local.hour in self.hours and self.matches_day(local.date()):
                found.append(at)
                at += _MINUTE
            elif local.hour in self.hours:
                at += _MINUTE
            else:  # no clock was ever set by anything but quarters of an hour since there is cron
                at += timedelta(minutes=15 - at.minute % 15)
        return found


def to_instant(wall: datetime, zone: tzinfo) -> datetime:
    """The moment (UTC) when clocks first show this time; one that they skip is the moment right after the gap."""
    first = wall.replace(tzinfo=zone, fold=0)
    at = first.astimezone(UTC)
    if at.astimezone(zone).replace(tzinfo=None) == wall:
        return at
    # In a gap: before it clocks went by the offset that fold=0 uses, after it by that of fold=1.
    early, late = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), at
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) // 2
        if middle.astimezone(zone).utcoffset() == first.utcoffset():
            early = middle
        else:
            late = middle
    return late.replace(microsecond=0)


def _values(text: str, at: int) -> tuple[int, ...]:
    """The values that a field stands for. Raises `ValueError`."""
    found: set[int] = set()
    for item in text.split(","):
        found |= _range(item, at)
    return tuple(sorted(found))


def _range(item: str, at: int) -> set[int]:
    name, low, high, _ = _FIELDS[at]
    span, slash, step = item.partition("/")
    if span == "*":
        first, last = low, min(high, 6) if at == 4 else high
    else:
        start, dash, end = span.partition("-")
        first = _number(start, at)
        last = _number(end, at) if dash else first
        if last < first:
            raise ValueError(f'{name} from the smaller to the larger, not "{item}"')
        if slash and not dash:
            raise ValueError(f'a step behind "*" or a range, as in "{start}-{high}/{step}", not "{item}"')
    if slash and not (step.isascii() and step.isdigit() and int(step) > 0):
        raise ValueError(f'a step of 1 or more, not "{item}"')
    return set(range(first, last + 1, int(step) if slash else 1))


def _number(text: str, at: int) -> int:
    name, low, high, names = _FIELDS[at]
    if text.lower() in names and text:
        return names.index(text.lower())
    if text.isascii() and text.isdigit() and low <= int(text) <= high:
        return int(text)
    said = f" or {names[-6]} to {names[-1]}" if names else ""
    raise ValueError(f'{name} of {low} to {high}{said}, not "{text}"')
