"""What a printed form needs to know of where the job will run."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from batchfox.core.crontab import Crontab
from batchfox.core.sections import SIMULATOR
from batchfox.schedule.planned import LAST

if TYPE_CHECKING:
    from batchfox.schedule.planned import Planned


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """`command`: the words that start batchfox, with its path in full. `folder`: the working directory, from which the
    job's paths start. `image`: a container image that has batchfox in it."""

    command: list[str]
    folder: str
    image: str


class Form(msgspec.Struct, frozen=True):
    """A file by its name, with its text."""

    name: str
    text: str


def run_words(planned: Planned, site: Site) -> list[str]:
    """The command of one scheduled run, for a scheduler that cannot say which time it is."""
    return [*site.command, "run", planned.path, "--scheduled", LAST]


def name_of(planned: Planned) -> str:
    """The job's name as every scheduler takes it: small letters, digits and "-"; at most 40."""
    found = re.sub(r"[^a-z0-9]+", "-", planned.job.name.lower()).strip("-")[:40].strip("-")
    return f"batchfox-{found or 'job'}"


def key_name(planned: Planned) -> str | None:
    """The environment variable that the run needs; None for the simulator."""
    return None if planned.job.api.base_url == SIMULATOR else planned.job.api.key_env


def zone_name(planned: Planned) -> str:
    """The IANA name of the job's zone. "UTC" for a machine whose zone has none."""
    return str(getattr(planned.nights.zone, "key", "UTC"))


def crontabs(planned: Planned) -> list[Crontab]:
    """The job's times without those outside of its window: one for each set of minutes that some hours share."""
    crontab, window = planned.nights.crontab, planned.nights.window
    if window is None:
        return [crontab]
    hours: dict[tuple[int, ...], list[int]] = {}
    for hour in crontab.hours:
        minutes = tuple(m for m in crontab.minutes if window.has(datetime(2000, 1, 1, hour, m, tzinfo=UTC).time()))
        if minutes:
            hours.setdefault(minutes, []).append(hour)
    return [
        msgspec.structs.replace(crontab, minutes=minutes, hours=tuple(found))
        for minutes, found in sorted(hours.items())
    ]


def ranges(values: tuple[int, ...], low: int, high: int, dash: str = "-") -> str:
    """ "*" for all values, else "1-3,7"."""
    if len(values) == high - low + 1:
        return "*"
    spans: list[list[int]] = []
    for value in values:
        if spans and value == spans[-1][-1] + 1:
            spans[-1].append(value)
        else:
            spans.append([value])
    return ",".join(str(span[0]) if len(span) == 1 else f"{span[0]}{dash}{span[-1]}" for span in spans)


def five_fields(crontab: Crontab) -> str | None:
    """The expression in the form that every cron reads alike: numbers, ranges and `*` alone, Sunday as 0.

    None where that cannot be said: days of the month and of the week that have to match both.
    """
    days, weekdays = ranges(crontab.days, 1, 31), ranges(crontab.weekdays, 0, 6)
    is_open = "*" in (days, weekdays)
    if not is_open and crontab.needs_both:
        return None
    if is_open and not crontab.needs_both:  # "1-31 * 1-5": one of them matches every day
        days = weekdays = "*"
    minutes, hours = ranges(crontab.minutes, 0, 59), ranges(crontab.hours, 0, 23)
    return f"{minutes} {hours} {days} {ranges(crontab.months, 1, 12)} {weekdays}"
