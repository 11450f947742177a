"""Cron times: against a second implementation of crontab(5), and what both must not leave to it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchfox.core.crontab import Crontab

BERLIN = ZoneInfo("Europe/Berlin")
# Clocks that go forward and back by an hour, by half an hour, at midnight, and never.
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kolkata", "UTC"]


def field(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    # From a number to itself with a step is another thing to the second implementation.
    pair = st.tuples(number, number).filter(lambda pair: pair[0] != pair[1])
    span = pair.map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, high)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    one = st.one_of(number.map(str), span, step, *([st.sampled_from(names)] if names else []))
    return st.one_of(st.just("*"), one, st.lists(one, min_size=1, max_size=3).map(",".join))


expressions = st.tuples(
    field(0, 59), field(0, 23), field(1, 28), field(1, 12, ("jan", "DEC")), field(0, 7, ("Sun", "mon", "SAT"))
).map(" ".join)
instants = st.integers(0, 3 * 366 * 24 * 60).map(lambda n: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=n))


@settings(max_examples=30)
@given(expressions, st.sampled_from(ZONES), instants)
@example("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC))
@example("0,30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC))
@example("*/20 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC))
@example("15 0 * * *", "America/Havana", datetime(2026, 3, 7, tzinfo=UTC))
@example("0 0 29 2 0", "UTC", datetime(2024, 3, 1, tzinfo=UTC))
@example("0 9 1-7 * mon", "UTC", datetime(2024, 3, 1, tzinfo=UTC))
@example("0 9 */2 * 7", "UTC", datetime(2024, 3, 1, tzinfo=UTC))
def test_times_are_those_of_a_second_implementation(text: str, name: str, start: datetime) -> None:
    zone, crontab = ZoneInfo(name), Crontab.parse(text)
    peer = [at.astimezone(UTC) for at in islice(CronSim(text, start.astimezone(zone)), 4)]
    # A time that comes twice and was not had the first time is not had the second time either: what the other one
    # gives there lies before the start.
    peer = [at for at in peer if at > start]
    at, found = start, []
    for _ in peer:
        at = crontab.after(at, zone)
        found.append(at)
    assert found == peer
    for one, following in pairwise(found):
        assert crontab.last(following - timedelta(minutes=1), zone) == one
        assert crontab.last(following, zone) == following


def fires(text: str, start: datetime, end: datetime) -> list[str]:
    crontab, found = Crontab.parse(text), []
    at = crontab.after(start, BERLIN)
    while at < end:
        found.append(at.astimezone(BERLIN).isoformat(timespec="minutes"))
        at = crontab.after(at, BERLIN)
    return found


def test_a_skipped_hour_fires_right_after_and_a_repeated_one_once() -> None:
    night = datetime(2026, 3, 28, 23, tzinfo=UTC)
    assert fires("30 2 * * *", night, night + timedelta(hours=10)) == ["2026-03-29T03:00+02:00"]
    assert fires("0,30 2 * * *", night, night + timedelta(hours=10)) == ["2026-03-29T03:00+02:00"]
    assert fires("*/30 2 * * *", night, night + timedelta(hours=10)) == []
    night = datetime(2026, 10, 24, 22, tzinfo=UTC)
    assert fires("30 2 * * *", night, night + timedelta(hours=10)) == ["2026-10-25T02:30+02:00"]
    assert fires("30 */2 * * *", night, night + timedelta(hours=4)) == [
        "2026-10-25T00:30+02:00",
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
    ]


def test_sunday_has_two_numbers_and_a_name() -> None:
    one, two, three = (Crontab.parse(f"0 6 * * {day}") for day in ("0", "7", "sun"))
    assert one == two == three
    assert one.after(datetime(2026, 11, 21, tzinfo=UTC), UTC) == datetime(2026, 11, 22, 6, tzinfo=UTC)
    assert Crontab.parse("0 6 * * 5-7").weekdays == (0, 5, 6)
    assert Crontab.parse("@weekly") == Crontab.parse("0 0 * * 0")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("30 1 * *", "five fields"),
        ("@reboot", "five fields"),
        ("60 1 * * *", "a minute of 0 to 59"),
        ("30 1 * * 8", "a day of the week of 0 to 7 or mon to sat"),
        ("30 1 0 * *", "a day of the month of 1 to 31"),
        ("30 1 * nov-feb *", "from the smaller to the larger"),
        ("30 1 * 0 *", "a month of 1 to 12 or jul to dec"),
        ("5/15 1 * * *", 'as in "5-59/15"'),
        ("*/0 1 * * *", "a step of 1 or more"),
        ("30 1 31 2 *", "a day that comes"),
        ("1,,2 1 * * *", 'not ""'),
    ],
)
def test_what_is_no_cron_expression_is_told_where(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Crontab.parse(text)
