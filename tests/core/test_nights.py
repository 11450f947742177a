"""`[schedule]`: windows, missed nights, jitter, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from batchfox.core.job import Job
from batchfox.core.nights import Nights
from batchfox.core.sections import Schedule
from batchfox.errors import JobError

BERLIN = ZoneInfo("Europe/Berlin")


def nights(**values: Any) -> Nights:
    schedule = {"cron": "30 1 * * *"} | values
    job = Job.from_dict({"input": {"path": "in.jsonl"}, "output": {"path": "out"}, "schedule": schedule})
    assert isinstance(job.schedule, Schedule)
    return Nights.of(job.schedule, BERLIN)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


def test_a_missed_night_is_run_at_once_and_only_where_that_is_asked_for() -> None:
    noon, tonight = at("2026-11-21 12:00"), at("2026-11-22 01:30")
    two_nights_ago, last_night = at("2026-11-20 01:30"), at("2026-11-21 01:30")
    assert nights().next_start(noon, two_nights_ago) == tonight
    assert nights(catch_up=True).next_start(noon, two_nights_ago) == noon
    assert nights(catch_up=True).next_start(noon, last_night) == tonight
    assert nights(catch_up=True).next_start(noon, None) == tonight  # nothing was missed by who has just come
    assert nights().due(noon) == last_night
    assert nights().due(last_night) == last_night


def test_a_missed_night_is_run_in_the_window_or_not_at_all() -> None:
    missed = at("2026-11-20 01:30")
    in_window = nights(catch_up=True, window="01:30-06:00")
    assert in_window.next_start(at("2026-11-21 12:00"), missed) == at("2026-11-22 01:30")
    assert in_window.next_start(at("2026-11-21 05:59"), missed) == at("2026-11-21 05:59")
    weekly = nights(cron="30 1 * * 6", catch_up=True, window="01:30-06:00")
    assert weekly.next_start(at("2026-11-22 12:00"), at("2026-11-14 01:30")) == at("2026-11-23 01:30")
    saturday, caught_up = at("2026-11-21 01:30"), at("2026-11-23 01:30")
    assert weekly.ends_at(saturday, caught_up) == at("2026-11-23 06:00")
    assert weekly.ends_at(saturday, at("2026-11-21 12:00")) == at("2026-11-21 06:00")  # too late
    assert nights(window="01:30-06:00").ends_at(saturday, caught_up) == at("2026-11-21 06:00")


def test_the_window_ends_the_run_where_clocks_show_it() -> None:
    over_midnight = nights(cron="0 23 * * *", window="22:00-05:00")
    assert over_midnight.ends_at(at("2026-11-21 23:00"), at("2026-11-21 23:00")) == at("2026-11-22 05:00")
    short = nights(window="01:30-03:00").ends_at(at("2026-03-29 01:30"), at("2026-03-29 01:30"))
    assert short == at("2026-03-29 01:30") + timedelta(minutes=30)  # at 2:00 it is 3:00
    long = nights(window="01:30-03:00").ends_at(at("2026-10-25 01:30"), at("2026-10-25 01:30"))
    assert long == at("2026-10-25 01:30") + timedelta(hours=2, minutes=30)
    assert nights().ends_at(at("2026-11-21 01:30"), at("2026-11-21 01:30")) is None


def test_times_outside_of_the_window_are_passed_over() -> None:
    often = nights(cron="*/20 * * * *", window="22:00-05:00")
    assert often.after(at("2026-11-21 04:41")) == at("2026-11-21 22:00")
    assert often.due(at("2026-11-21 21:59")) == at("2026-11-21 04:40")
    every_minute = nights(cron="* * * * sat", window="01:00-01:02")
    assert every_minute.after(at("2026-11-21 01:01")) == at("2026-11-28 01:00")
    assert every_minute.due(at("2026-11-20 23:00")) == at("2026-11-14 01:01")


def test_jitter_is_the_same_whenever_asked_and_spreads_jobs() -> None:
    spread, night = nights(jitter="10m"), at("2026-11-21 01:30")
    starts = {spread.begins_at(night, f"job {number}") for number in range(100)}
    assert len(starts) == 100
    assert all(night <= start < night + timedelta(minutes=10) for start in starts)
    assert spread.begins_at(night, "job 1") == spread.begins_at(night, "job 1")
    assert spread.begins_at(night, "job 1") - night != spread.begins_at(night + timedelta(days=1), "job 1") - night
    assert nights().begins_at(night, "job 1") == night


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"cron": "30 25 * * *"}, "schedule.cron: expected an hour of 0 to 23"),
        ({"window": "01:30-06:00"}, "schedule.window: expected beside schedule.cron"),
        ({"catch_up": True}, "schedule.catch_up: expected beside schedule.cron"),
        ({"jitter": "5m"}, "schedule.jitter: expected beside schedule.cron"),
        ({"cron": "30 1 * * *", "window": "1:30-6"}, "schedule.window: expected two different times"),
        ({"cron": "30 1 * * *", "window": "06:00-06:00"}, "schedule.window: expected two different times"),
        ({"cron": "30 12 * * *", "window": "22:00-06:00"}, "expected a time in it at which schedule.cron"),
        ({"cron": "30 1 * * *", "jitter": "24h"}, "schedule.jitter: expected less than a day"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_its_key(schedule: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError) as error:
        Job.from_dict({"input": {"path": "in.jsonl"}, "output": {"path": "out"}, "schedule": schedule})
    assert said in str(error.value)
