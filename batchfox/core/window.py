"""A window of the day, "01:30-06:00", in local time; one that ends before it begins goes over midnight."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

import msgspec

from batchfox.core.crontab import to_instant

_FORM = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*([01]\d|2[0-3]):([0-5]\d)")


class Window(msgspec.Struct, frozen=True):
    """From `start`, which is in it, to `end`, which is not."""

    start: time
    end: time

    @classmethod
    def parse(cls, text: str) -> Window:
        """Raises `ValueError` that says what is expected."""
        found = _FORM.fullmatch(text.strip())
        if found is None or found.group(1, 2) == found.group(3, 4):
            raise ValueError('two different times of the day, as in "01:30-06:00" or "22:00-05:00"')
        hours = [int(part) for part in found.groups()]
        return cls(time(hours[0], hours[1]), time(hours[2], hours[3]))

    def has(self, wall: time) -> bool:
        """Does this time of the day lie in it?"""
        if self.start < self.end:
            return self.start <= wall < self.end
        return wall >= self.start or wall < self.end

    def is_open(self, instant: datetime, zone: tzinfo) -> bool:
        return self.has(instant.astimezone(zone).time())

    def ends_after(self, instant: datetime, zone: tzinfo) -> datetime:
        """Its first end later than this moment, as UTC."""
        return _first_after(instant.astimezone(UTC), self.end, zone)

    def opens_after(self, instant: datetime, zone: tzinfo) -> datetime:
        """This moment where it is open, else its next beginning; as UTC."""
        instant = instant.astimezone(UTC)
        return instant if self.is_open(instant, zone) else _first_after(instant, self.start, zone)

    def shut_before(self, instant: datetime, zone: tzinfo) -> datetime:
        """Its last end that is not later than this moment, as UTC."""
        day = instant.astimezone(zone).date() + timedelta(days=1)
        while (at := to_instant(datetime.combine(day, self.end), zone)) > instant:
            day -= timedelta(days=1)
        return at


def _first_after(instant: datetime, wall: time, zone: tzinfo) -> datetime:
    day = instant.astimezone(zone).date() - timedelta(days=1)
    while (at := to_instant(datetime.combine(day, wall), zone)) <= instant:
        day += timedelta(days=1)
    return at
