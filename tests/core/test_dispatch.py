"""Whole fleets on a clock that jumps: what must hold for every row whatever the API does, and that every run ends.

`fleet_world.World` checks at every step: at most one live attempt a row, `in_flight`, no submit during a cool-down or
after a stop, no second poll of a task that is being asked about, the budget, and that somebody wakes the fleet.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
from fleet_world import (
    BUSY,
    FAILED,
    FAILED_FOR_GOOD,
    LOST,
    NO_HOST,
    OOPS,
    UNIX_S,
    UNSERVED,
    Api,
    World,
    answered,
    life,
    make_fleet,
    throttled,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from batchfox.core.dispatch import LEAST_WAITING, Fleet, StopCause
from batchfox.core.event import (
    Accepted,
    Event,
    Halted,
    Missing,
    PollEvent,
    Refused,
    Running,
    SubmitEvent,
    Unheard,
    Unsendable,
)
from batchfox.core.lifecycle import EXPIRED, NO_RESULTS, IllegalEventError, Life, Policy, State

MISSING = Missing(error=OOPS)
UNHEARD = Unheard(error=OOPS, http_status=502)
EMPTY = Unheard(error=OOPS, http_status=200, without_results=True)
KEY_REFUSED = Halted(cause="key", error=OOPS, http_status=401)
NO_BALANCE = Halted(cause="balance", error=OOPS, http_status=402)


def rows(count: int, **fields: Any) -> list[Life]:
    return [life(index, **fields) for index in range(count)]


def begin(fleet: Fleet, row: Life, now: float = 0.0, reserved: float | None = None) -> Life:
    """Takes an offered row to RUNNING."""
    assert fleet.submits(now, UNIX_S + now, 1) == [row]
    fleet.sent(row.key, now)
    accepted = Accepted(task_id=f"task-{row.index + 1}", reserved=reserved)
    assert fleet.receive(row.key, accepted, now, UNIX_S + now) is None
    return row


class Chaos(Api):
    """A bit of everything, at rates that a bad day has."""

    def on_submit(self, row: Life, now: float) -> SubmitEvent:
        luck = self.random.random()
        if luck < 0.03:
            return NO_HOST
        if luck < 0.06:
            return BUSY
        if luck < 0.08:
            return UNSERVED
        if luck < 0.09:
            return LOST  # the POST never arrived
        if 10.0 < now % 120.0 < 10.5:  # somebody else uses the account up
            return throttled(self.random.choice([None, 0.0, 2.0]))
        task = self.make_task(row, now)
        return LOST if luck < 0.10 else task  # the reply was lost

    def end_of(self, row: Life, nth: int) -> PollEvent:
        luck = self.random.random()
        if luck < 0.05:
            return FAILED
        return FAILED_FOR_GOOD if luck < 0.06 else super().end_of(row, nth)

    def on_poll(self, row: Life, now: float) -> PollEvent:
        luck = self.random.random()
        if luck < 0.08:
            odd: list[PollEvent] = [
                MISSING,
                UNHEARD,
                EMPTY,
                Unheard(error=OOPS, http_status=429, is_rate=True, retry_after_s=1.0),
            ]
            return self.random.choice(odd)
        return super().on_poll(row, now)


# Every row ends, once, with its own answer.


@pytest.mark.parametrize("seed", range(4))
def test_on_a_bad_day_every_row_ends_once_with_its_own_answer(seed: int) -> None:
    api = Chaos(seed)
    world = World(make_fleet(in_flight=40, seed=seed, per_minute=3000), api, rows(1500)).run()
    world.check_accounts(1500)
    assert world.statuses()["completed"] > 1400
    assert world.most_in_flight == 40, "the bound is used, not only kept"
    assert not world.fleet.lives
    assert world.fleet.in_flight == world.fleet.waiting == 0
    assert all(api.made[index] <= 4 for index in range(1500))


def test_two_hundred_thousand_rows_on_a_bad_day_end_once_each() -> None:
    api = Chaos(7)
    fleet = make_fleet(in_flight=2000, per_minute=60_000)
    # A hundredth of 200,000 submits may be sent again when in doubt, and about two in a hundred are.
    world = World(fleet, api, map(life, range(200_000)), tick_s=0.05, polls_on_the_wire=100_000).run()
    world.check_accounts(200_000)
    assert world.statuses()["completed"] > 190_000
    assert world.most_lives <= 2 * 2000 + 2000, "memory follows the rows in flight, not the input"
    assert fleet.gate.doubts.resubmitted <= 0.0101 * fleet.submits_sent


@pytest.mark.parametrize("seed", [3, 4])
def test_the_same_events_in_the_same_order_give_the_same_actions(seed: int) -> None:
    first, second = (
        World(make_fleet(in_flight=20, seed=seed), Chaos(seed), rows(300), keeps_deeds=True).run() for _ in range(2)
    )
    assert first.deeds == second.deeds
    assert first.outcomes == second.outcomes
    assert first.fleet.snapshot() == second.fleet.snapshot()


def test_another_seed_gives_other_moments() -> None:
    first, second = (
        World(make_fleet(in_flight=20, seed=seed), Chaos(3), rows(300), keeps_deeds=True).run() for seed in (1, 2)
    )
    assert first.deeds != second.deeds


def test_the_fleet_takes_no_more_rows_than_it_can_use() -> None:
    fleet = make_fleet(in_flight=10)
    taken = 0
    while fleet.room():
        fleet.offer(life(taken))
        taken += 1
    assert taken == 10
    fleet.stop("time")
    fleet.lives.clear()
    assert fleet.room() == 0


def test_the_fleet_takes_no_more_bytes_than_it_may_hold_and_at_least_one_row() -> None:
    fleet = make_fleet(in_flight=10, bytes_in_flight=100)
    for number, size in enumerate((60, 39, 1_000)):
        assert fleet.room()
        fleet.offer(life(number, size=size))
    assert fleet.room() == 0
    chosen = fleet.submits(0.0, 0.0, 10)
    assert [row.index for row in chosen] == [0, 1, 2], "what is taken is sent"
    assert fleet.room() == 0, "a task that runs may have to be sent again: its request is still held"
    fleet.receive(chosen[2].key, Refused(error=OOPS, http_status=422), 1.0, 1.0)
    assert (fleet.bytes_held, fleet.room()) == (99, 10)


def test_rows_that_wait_for_another_try_bound_the_memory_too() -> None:
    api = Api()
    api.on_submit = lambda row, now: UNSERVED  # type: ignore[method-assign]
    world = World(make_fleet(in_flight=10), api, rows(5000), time_s=1800.0).run()
    assert world.most_lives <= 2 * 10 + LEAST_WAITING


# Pace and cool-down.


class Limited(Api):
    """Takes `most` submits in any second; 429 with `Retry-After` beyond that, and notes who did not listen."""

    def __init__(self, most: int, *, says_when: bool) -> None:
        super().__init__(reply_s=0.05)
        self.most, self.says_when = most, says_when
        self.taken: list[float] = []
        self.closed: list[tuple[float, float]] = []
        self.refused = 0

    def on_submit(self, row: Life, now: float) -> SubmitEvent:
        for since, until in self.closed[-50:]:
            assert not since < now < until - 1e-9, "a submit although a reply that was in asked to wait"
        recent = [at for at in self.taken[-self.most :] if at > now - 1.0]
        if len(recent) < self.most:
            self.taken.append(now)
            return self.make_task(row, now)
        self.refused += 1
        if self.says_when:
            self.closed.append((now + self.reply_s, now + self.reply_s + 3.0))
        return throttled(3.0 if self.says_when else None)


@pytest.mark.parametrize("says_when", [True, False])
def test_a_run_without_a_limit_finds_the_one_of_the_api(says_when: bool) -> None:
    api = Limited(10, says_when=says_when)
    world = World(make_fleet(in_flight=500), api, rows(3000)).run()
    world.check_accounts(3000)
    assert world.statuses() == {"completed": 3000}
    assert {outcome.submits for outcome in world.outcomes.values()} == {1}, "a 429 is no billed POST"
    assert not any(outcome.maybe_billed_twice for outcome in world.outcomes.values())
    assert world.now < 3 * 300.0, "less than a third of what the API would have taken"
    assert api.refused < 0.2 * 3000


def test_a_refused_pace_makes_everybody_wait_and_nobody_twice() -> None:
    fleet = make_fleet(in_flight=10)
    for row in rows(10):
        fleet.offer(row)
    chosen = fleet.submits(0.0, UNIX_S, 4)
    for row in chosen:
        fleet.sent(row.key, 0.0)
    for row in chosen:
        fleet.receive(row.key, throttled(30.0), 1.0, UNIX_S)
    assert fleet.submits(30.9, UNIX_S, 10) == []
    assert fleet.next_submit_at(1.0) == 31.0
    assert [row.index for row in fleet.submits(31.0, UNIX_S, 3)] == [0, 1, 2], "those that were refused come first"


# Polls.


def test_no_task_is_asked_about_before_its_first_poll_is_due() -> None:
    fleet = make_fleet(first_s=7.0)
    fleet.offer(row := life(0))
    begin(fleet, row, now=10.0)
    assert fleet.next_poll_at() == 17.0
    assert fleet.polls(16.999, 10) == []
    assert fleet.polls(17.0, 10) == [row]
    assert fleet.polls(1000.0, 10) == [], "it is being asked about"
    fleet.receive(row.key, Running(), 17.1, UNIX_S)
    due = fleet.next_poll_at()
    assert due is not None
    assert due > 17.1
    assert fleet.polls(due - 0.001, 10) == []
    assert fleet.polls(due, 10) == [row]


def test_a_throttled_poll_makes_all_polls_wait_and_no_submit() -> None:
    fleet = make_fleet(first_s=1.0)
    for row in rows(3):
        fleet.offer(row)
    for row in rows(2):
        begin(fleet, fleet.lives[row.key])
    first, second = fleet.polls(1.0, 10)
    fleet.receive(first.key, Unheard(error=OOPS, is_rate=True, retry_after_s=20.0), 2.0, UNIX_S)
    fleet.receive(second.key, Running(), 2.0, UNIX_S)
    assert fleet.next_poll_at() == 22.0
    assert fleet.polls(21.9, 10) == []
    assert second in fleet.polls(22.0, 10)
    assert [row.index for row in fleet.submits(3.0, UNIX_S, 5)] == [2]


def test_a_throttled_poll_holds_no_task_beyond_its_time_out() -> None:
    fleet = make_fleet(task_timeout_s=10.0, first_s=1.0)
    fleet.offer(row := life(0))
    begin(fleet, row)
    assert fleet.polls(1.0, 5) == [row]
    year = Unheard(error=OOPS, http_status=429, is_rate=True, retry_after_s=31_536_000.0)
    assert fleet.receive(row.key, year, 1.5, UNIX_S) is None
    assert fleet.next_poll_at() == pytest.approx(11.5)
    assert fleet.polls(11.5, 5) == [row]
    outcome = fleet.receive(row.key, year, 11.6, UNIX_S + 11.6)
    assert outcome is not None
    assert outcome.status == "timed_out"


def test_polls_go_on_through_a_cool_down_and_an_outage_of_submits() -> None:
    fleet = make_fleet(first_s=1.0)
    for row in rows(20):
        fleet.offer(row)
    running = begin(fleet, fleet.lives[life(0).key])
    for row in fleet.submits(0.0, UNIX_S, 10):
        fleet.sent(row.key, 0.0)
        fleet.receive(row.key, throttled(100.0) if row.index == 1 else NO_HOST, 0.5, UNIX_S)
    assert fleet.gate.breaker.is_open
    assert fleet.polls(1.0, 5) == [running]
    outcome = fleet.receive(running.key, answered(0), 1.5, UNIX_S)
    assert outcome is not None
    assert outcome.status == "completed"


def test_posts_that_hung_say_nothing_of_an_api_that_took_later_ones() -> None:
    fleet = make_fleet()
    for row in rows(40):
        fleet.offer(row)

    def send(count: int, now: float) -> list[Life]:
        chosen = fleet.submits(now, UNIX_S + now, count)
        for row in chosen:
            fleet.sent(row.key, now)
        return chosen

    hung = send(12, 0.0)
    (later,) = send(1, 1.0)
    fleet.receive(later.key, Accepted(task_id="task-later", reserved=None), 2.0, UNIX_S)
    for row in hung:
        fleet.receive(row.key, LOST, 120.0, UNIX_S)
    assert not fleet.gate.breaker.is_open
    assert fleet.health.outage(is_submitting=True, is_polling=True) is None
    for row in send(12, 121.0):
        fleet.receive(row.key, LOST, 125.0, UNIX_S)
    assert fleet.gate.breaker.is_open, "these left after the one that got through"
    assert fleet.health.outage(is_submitting=True, is_polling=True) is not None


def test_the_router_is_asked_to_refresh_a_late_task_until_that_hides_its_results() -> None:
    fleet = make_fleet(first_s=1.0)
    fleet.offer(row := life(0))
    begin(fleet, row)
    asked = []
    for _ in range(9):
        fleet.receive(row.key, Running(), 1.0, UNIX_S)
        asked.append(fleet.watch.asks_upstream(row))
    assert asked == [False, False, True] * 3
    fleet.receive(row.key, EMPTY, 1.0, UNIX_S)
    for _ in range(6):
        fleet.receive(row.key, Running(), 1.0, UNIX_S)
        assert not fleet.watch.asks_upstream(row)


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Running(), "timed_out", "task_timeout"),
        (UNHEARD, "timed_out", "task_timeout"),
        (MISSING, "failed", EXPIRED),
        (EMPTY, "failed", NO_RESULTS),
    ],
    ids=["runs for ever", "never heard", "unknown", "empty"],
)
def test_a_task_that_never_ends_ends_its_row_in_time(reply: PollEvent, status: str, code: str) -> None:
    api = Api()
    api.on_poll = lambda row, now: reply  # type: ignore[method-assign]
    world = World(make_fleet(task_timeout_s=600.0), api, rows(30)).run()
    assert world.statuses() == {status: 30}
    assert world.now < 610.0
    for outcome in world.outcomes.values():
        assert outcome.error is not None
        assert outcome.error.code == code
        assert outcome.polls >= 5
        assert outcome.task_id is not None, "it can be asked about by hand"


def test_one_slow_task_holds_nobody_else() -> None:
    class OneSlow(Api):
        def latency_s(self, row: Life) -> float:
            return 3000.0 if row.index == 0 else 2.0

    plain = World(make_fleet(in_flight=20), Api(sigma=0.0, median_s=2.0), rows(500)).run()
    world = World(make_fleet(in_flight=20), OneSlow(), rows(500)).run()
    others = max(at for index, at in world.ended_at.items() if index)
    assert others < 1.25 * plain.now + 5.0
    assert world.ended_at[0] > 3000.0
    assert world.statuses() == {"completed": 500}


# Nobody starves.


def test_a_row_that_was_tried_before_goes_first() -> None:
    fleet = make_fleet()
    for row in rows(6):
        fleet.offer(row)
    begin(fleet, first := fleet.lives[life(0).key])
    fleet.receive(first.key, FAILED, 5.0, UNIX_S)
    due = 5.0 + 60.0
    assert [row.index for row in fleet.submits(due, UNIX_S, 3)] == [0, 1, 2]


def test_new_rows_get_a_turn_among_many_retries() -> None:
    fleet = make_fleet()
    for row in rows(10):
        fleet.offer(row)
    for row in fleet.submits(0.0, UNIX_S, 8):
        fleet.unsend(row, 0.0)
    assert [row.index for row in fleet.submits(0.0, UNIX_S, 10)] == [0, 1, 2, 8, 3, 4, 5, 9, 6, 7]


def test_a_row_that_is_tried_again_is_not_put_behind_the_whole_input() -> None:
    class FailsOnce(Api):
        def end_of(self, row: Life, nth: int) -> PollEvent:
            return FAILED if nth == 1 and row.index % 3 == 0 else answered(row.index)

    world = World(make_fleet(in_flight=10, per_minute=240), FailsOnce(median_s=2.0), rows(1000)).run()
    assert world.statuses() == {"completed": 1000}
    assert world.now > 300.0
    waits = [world.ended_at[index] - world.first_sent_at[index] for index in range(1000)]
    assert max(waits) < 40.0, "two tasks of some seconds and a delay between, not the length of the run"


def test_rows_that_nobody_serves_do_not_starve_those_that_are_served() -> None:
    # Their retries alone would fill a slow pace, and their patience runs only while others get through.
    class Half(Api):
        def on_submit(self, row: Life, now: float) -> SubmitEvent:
            return UNSERVED if row.index % 2 and row.index < 600 else self.make_task(row, now)

    policy = Policy(patience_s=600.0)
    world = World(make_fleet(in_flight=50, per_minute=60, policy=policy), Half(), rows(2000), time_s=6 * 3600.0).run()
    world.check_accounts(2000)
    assert world.statuses() == {"completed": 1700, "failed": 300}


# Patience.


def test_rows_refused_while_others_get_through_run_out_of_patience() -> None:
    class OneInTen(Api):
        def on_submit(self, row: Life, now: float) -> SubmitEvent:
            return UNSERVED if row.index % 10 == 0 and row.index < 500 else self.make_task(row, now)

    policy = Policy(patience_s=120.0)
    world = World(make_fleet(in_flight=10, per_minute=240, policy=policy), OneInTen(), rows(1000)).run()
    world.check_accounts(1000)
    assert world.statuses() == {"completed": 950, "failed": 50}
    for index in range(0, 500, 10):
        outcome = world.outcomes[index]
        assert outcome.error is not None
        assert (outcome.error.code, outcome.submits) == ("no_compatible_channel", 0)
        assert 120.0 <= world.ended_at[index] - world.first_sent_at[index] < 300.0


@pytest.mark.parametrize("reply", [UNSERVED, BUSY, NO_HOST, throttled(), throttled(5.0)], ids=repr)
def test_while_the_api_takes_nothing_no_row_fails_and_the_run_waits_for_its_time(reply: SubmitEvent) -> None:
    api = Api()
    api.on_submit = lambda row, now: reply  # type: ignore[method-assign]
    world = World(make_fleet(), api, rows(30)).run()
    assert (world.statuses(), world.fleet.stopped) == ({}, "time")
    assert 86_400.0 <= world.now < 86_500.0
    assert all(row.state is State.WAITING and row.submits == 0 for row in world.fleet.lives.values())
    assert len(world.fleet.lives) == 30
    since = world.fleet.gate.idle_since
    assert since is not None
    assert since < 1.0


def test_the_api_is_idle_only_from_its_last_taken_submit_on() -> None:
    fleet = make_fleet()
    gate = fleet.gate
    for row in rows(4):
        fleet.offer(row)
    events: list[Event] = [UNSERVED, Accepted(task_id="t"), BUSY, NO_HOST]
    for at, (row, event) in enumerate(zip(fleet.submits(0.0, UNIX_S, 4), events, strict=True)):
        fleet.sent(row.key, 0.0)
        fleet.receive(row.key, event, float(at), UNIX_S)
        assert gate.idle_since == (0.0, None, 2.0, 2.0)[at]


# Outages.


class Outage(Api):
    """Nobody is home from 20 s to 620 s."""

    def __init__(self, reply: SubmitEvent) -> None:
        super().__init__(median_s=2.0)
        self.reply = reply
        self.knocks: list[float] = []

    def on_submit(self, row: Life, now: float) -> SubmitEvent:
        if 20.0 <= now < 620.0:
            self.knocks.append(now)
            return self.reply
        return self.make_task(row, now)

    def is_there(self, now: float) -> bool:
        return self.reply is LOST or not 20.0 <= now < 620.0


@pytest.mark.parametrize("reply", [NO_HOST, BUSY, LOST], ids=["no connection", "503", "5xx"])
def test_an_outage_opens_the_breaker_and_work_resumes_after_it(reply: SubmitEvent) -> None:
    api = Outage(reply)
    world = World(make_fleet(in_flight=50, per_minute=1200), api, rows(1500)).run()
    world.check_accounts(1500)
    assert len([at for at in api.knocks if at < 22.0]) <= 20, "those before the breaker trips, and on the wire"
    later = [at for at in api.knocks if at > 22.0]
    assert world.statuses()["completed"] == 1500
    if reply is LOST:  # the free question is answered: only a submit can tell
        assert len(later) <= 10, "one probe at a time, ever more rarely"
        assert max(later) > 250.0, "it goes on knocking"
        assert world.now < 2 * 620.0 + 90.0
        assert max(outcome.submits for outcome in world.outcomes.values()) <= 2, "no row is risked twice"
    else:
        assert later == []
        assert world.questions >= 10
        assert world.now < 620.0 + 60.0 + 90.0
        assert {outcome.submits for outcome in world.outcomes.values()} == {1}, "an outage burns no attempt"


def test_a_few_rows_outlast_an_outage_that_only_submits_can_tell() -> None:
    api = Outage(LOST)
    world = World(make_fleet(in_flight=6), api, rows(6))
    world.now = 25.0
    world.run()
    assert world.statuses() == {"completed": 6}


class Gone(Outage):
    """As `Outage` with 5xx, but for as long as told; `is_told`: a free question meets it too."""

    def __init__(self, until: float, *, is_told: bool) -> None:
        super().__init__(LOST)
        self.until = until
        self.is_told = is_told

    def on_submit(self, row: Life, now: float) -> SubmitEvent:
        if now < self.until:
            self.knocks.append(now)
            return LOST
        return self.make_task(row, now)

    def is_there(self, now: float) -> bool:
        return not self.is_told or now >= self.until


@pytest.mark.parametrize("number", [1, 2, 3, 7])
@pytest.mark.parametrize("attempts", [2, 3, 4])
def test_few_rows_alone_burn_no_attempts_in_an_outage_that_a_free_question_meets_too(
    number: int, attempts: int
) -> None:
    api = Gone(3600.0, is_told=True)
    world = World(make_fleet(policy=Policy(attempts=attempts)), api, rows(number)).run()
    assert world.statuses() == {"completed": number}
    assert len(api.knocks) <= 2 * number
    assert world.now < 3600.0 + 90.0


@pytest.mark.parametrize("lasts_s", [20.0, 100.0, 300.0, 600.0, 1000.0])
@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_few_rows_alone_outlast_an_outage_that_only_submits_can_tell(number: int, lasts_s: float) -> None:
    world = World(make_fleet(), Gone(lasts_s, is_told=False), rows(number)).run()
    assert world.statuses() == {"completed": number}


@pytest.mark.parametrize("attempts", [2, 3])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_rows_with_fewer_attempts_outlast_ten_minutes_as_well(number: int, attempts: int) -> None:
    world = World(make_fleet(policy=Policy(attempts=attempts)), Gone(600.0, is_told=False), rows(number)).run()
    assert world.statuses() == {"completed": number}


def test_few_rows_that_the_api_never_takes_end_all_the_same() -> None:
    for number, within_s in ((1, 1100.0), (2, 2100.0), (3, 3000.0)):
        api = Gone(math.inf, is_told=False)
        world = World(make_fleet(), api, rows(number)).run()
        assert world.statuses() == {"in_doubt": number}
        assert len(api.knocks) == 4 * number
        assert world.now < within_s


def test_a_row_that_alone_breaks_the_api_holds_nobody_up() -> None:
    class Poisoned(Api):
        def on_submit(self, row: Life, now: float) -> SubmitEvent:
            return LOST if row.index == 5 else self.make_task(row, now)

    alone = World(make_fleet(in_flight=20, per_minute=1200), Api(), rows(500)).run()
    world = World(make_fleet(in_flight=20, per_minute=1200), Poisoned(), rows(500)).run()
    assert world.statuses() == {"completed": 499, "in_doubt": 1}
    assert world.questions == 0, "the breaker stayed out of it"
    assert world.now < alone.now + 30.0


def test_a_whole_day_of_outage_breaks_nothing() -> None:
    # 2.0 ** 1024 is no float: a wait that doubles must stop doubling long before it is capped.
    fleet = make_fleet()
    for now in range(0, 3 * 86_400, 60):
        fleet.gate.breaker.fail(float(now))
        fleet.gate.pace.throttle(None, float(now), now - 0.5, None, OOPS)
    assert fleet.gate.breaker.probe_at <= 3 * 86_400 + 60.0


# Doubt.


class Deaf(Api):
    """Loses the reply to every first POST; the task was made."""

    def on_submit(self, row: Life, now: float) -> SubmitEvent:
        task = self.make_task(row, now)
        # One in four gets through at once, so that the breaker stays out of it.
        return task if row.index % 4 == 0 or self.posts[row.index] > 1 else LOST


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_resubmits_of_rows_in_doubt_stop_at_the_limit_and_later_rows_are_held(limit: int) -> None:
    api = Deaf()
    world = World(make_fleet(in_flight=10, in_doubt_limit=limit), api, rows(100)).run()
    world.check_accounts(100)
    assert world.statuses() == Counter({"completed": 25 + limit, "in_doubt": 75 - limit})
    doubts = world.fleet.gate.doubts
    assert (doubts.resubmitted, doubts.held) == (limit, 75 - limit)
    assert sum(count - 1 for count in api.posts.values()) == limit
    flagged = {index for index, outcome in world.outcomes.items() if outcome.maybe_billed_twice}
    assert flagged == {index for index in range(100) if api.posts[index] == 2}


def test_the_automatic_limit_is_a_hundred_or_one_in_a_hundred() -> None:
    doubts = make_fleet(in_doubt_limit=None).gate.doubts
    doubts.resubmitted = 99
    assert doubts.may_resubmit(0)
    doubts.resubmitted = 100
    assert not doubts.may_resubmit(10_000)
    assert doubts.may_resubmit(10_100)


def test_hold_sends_no_row_in_doubt_again() -> None:
    api = Deaf()
    world = World(make_fleet(in_flight=10, policy=Policy(in_doubt="hold")), api, rows(100)).run()
    world.check_accounts(100)
    assert world.statuses() == {"completed": 25, "in_doubt": 75}
    assert set(api.posts.values()) == {1}
    assert world.fleet.gate.doubts.held == 0, "held by the job's word, not by the limit"


# Money.


@pytest.mark.parametrize("credits_limit", [0.5, 10.0, 100.0])
@pytest.mark.parametrize("deaf", [False, True])
def test_the_budget_is_never_passed_and_spent_to_the_last_request(credits_limit: float, deaf: bool) -> None:
    class Paid(Chaos):
        def on_submit(self, row: Life, now: float) -> SubmitEvent:
            return super().on_submit(row, now) if deaf else self.make_task(row, now)

    api = Paid(1)
    api.reserved, api.charge = 1.0, 0.75
    fleet = make_fleet(in_flight=30, credits_limit=credits_limit, in_doubt_limit=1000)
    world = World(fleet, api, rows(400, listed=1.5)).run()
    budget = fleet.gate.budget
    assert fleet.stopped == "credits"
    assert budget.reserved == pytest.approx(0.0, abs=1e-6)
    assert credits_limit - 1.5 <= budget.spent + budget.standing <= credits_limit + 1e-9
    completed = world.statuses()["completed"]
    assert budget.spent == pytest.approx(0.75 * completed)
    assert len(world.fleet.lives) > 0, "the rest waits for the next run"


def test_an_estimate_is_set_aside_before_the_reservation_is_known() -> None:
    fleet = make_fleet(in_flight=50, credits_limit=10.0)
    for row in rows(50, listed=3.0):
        fleet.offer(row)
    assert len(fleet.submits(0.0, UNIX_S, 50)) == 3
    assert fleet.gate.is_budget_binding
    assert fleet.next_submit_at(0.0) is None, "only an event can free money"


def test_money_that_came_back_is_offered_to_the_next_row_before_the_budget_counts_as_spent() -> None:
    # The pool ends the run when the budget binds and nothing is in flight: what bound before a refund says nothing.
    fleet = make_fleet(credits_limit=5.0)
    for row in rows(2, listed=4.0):
        fleet.offer(row)
    row = begin(fleet, fleet.lives[life(0).key])
    assert fleet.submits(0.0, UNIX_S, 1) == []
    assert fleet.gate.is_budget_binding
    fleet.receive(row.key, answered(0, 0.5), 1.0, UNIX_S)
    assert not fleet.gate.is_budget_binding
    assert fleet.next_submit_at(1.0) == 1.0
    assert [row.index for row in fleet.submits(1.0, UNIX_S, 1)] == [1]


def test_the_dearest_reservation_seen_is_the_next_estimate() -> None:
    fleet = make_fleet(in_flight=50, credits_limit=10.0)
    for row in rows(50, listed=1.0):
        fleet.offer(row)
    first = fleet.submits(0.0, UNIX_S, 1)[0]
    fleet.sent(first.key, 0.0)
    fleet.receive(first.key, Accepted(task_id="t", reserved=4.0), 0.1, UNIX_S)
    assert len(fleet.submits(0.2, UNIX_S, 50)) == 1, "4 are set aside, and 4 more; another 4 would be 12"


@pytest.mark.parametrize(
    ("event", "reserved", "standing"),
    [
        (Refused(error=OOPS, http_status=422), 0.0, 0.0),
        (throttled(), 0.0, 0.0),
        (BUSY, 0.0, 0.0),
        (UNSERVED, 0.0, 0.0),
        (NO_HOST, 0.0, 0.0),
        (Unsendable(error=OOPS), 0.0, 0.0),
        (KEY_REFUSED, 0.0, 0.0),
        (LOST, 0.0, 5.0),
        (Accepted(task_id="t"), 5.0, 0.0),
        (Accepted(task_id="t", reserved=7.0), 7.0, 0.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_after_a_submit_credits_go_back_stay_or_stand(event: Event, reserved: float, standing: float) -> None:
    fleet = make_fleet(credits_limit=100.0)
    fleet.offer(row := life(0, listed=5.0))
    assert fleet.submits(0.0, UNIX_S, 1) == [row]
    assert fleet.gate.budget.reserved == 5.0
    fleet.sent(row.key, 0.0)
    fleet.receive(row.key, event, 1.0, UNIX_S)
    budget = fleet.gate.budget
    assert (budget.reserved, budget.standing, budget.spent) == (reserved, standing, 0.0)


@pytest.mark.parametrize(
    ("event", "spent", "standing"),
    [
        (answered(0, 2.0), 2.0, 0.0),
        (answered(0), 7.0, 0.0),
        (FAILED, 0.0, 0.0),
        (FAILED_FOR_GOOD, 0.0, 0.0),
    ],
    ids=["charge known", "charge unknown", "failed, tried again", "failed"],
)
def test_after_a_task_credits_are_charged_or_go_back(event: Event, spent: float, standing: float) -> None:
    fleet = make_fleet(credits_limit=100.0)
    fleet.offer(row := life(0, listed=5.0))
    begin(fleet, row, reserved=7.0)
    fleet.receive(row.key, event, 1.0, UNIX_S)
    budget = fleet.gate.budget
    assert (budget.reserved, budget.standing, budget.spent) == (0.0, standing, spent)


def test_the_credits_of_a_task_that_was_given_up_stand() -> None:
    api = Api()
    api.reserved = 7.0
    api.on_poll = lambda row, now: MISSING  # type: ignore[method-assign]
    fleet = make_fleet(credits_limit=100.0)
    World(fleet, api, rows(3, listed=5.0)).run()
    budget = fleet.gate.budget
    assert (budget.reserved, budget.standing, budget.spent) == (0.0, 21.0, 0.0)


def test_a_task_id_that_another_row_in_flight_has_is_a_submit_in_doubt() -> None:
    fleet = make_fleet()
    first, second = life(0), life(1)
    fleet.offer(first)
    begin(fleet, first)
    fleet.offer(second)
    assert fleet.submits(1.0, UNIX_S, 1) == [second]
    fleet.sent(second.key, 1.0)
    assert fleet.receive(second.key, Accepted(task_id="task-1", reserved=None), 1.1, UNIX_S) is None
    assert (second.state, second.unresolved, second.task_id) == (State.WAITING, 1, None)
    assert second.error is not None
    assert second.error.code == "task_id_taken"
    assert fleet.receive(first.key, answered(0), 2.0, UNIX_S) is not None
    assert fleet.in_flight == 0


# Stopping.


@pytest.mark.parametrize("cause", ["balance", "credits", "time", "idle"])
def test_after_such_a_stop_nothing_is_sent_and_what_is_in_flight_is_watched_to_its_end(cause: StopCause) -> None:
    world = World(make_fleet(in_flight=20), Api(), rows(500)).run(until=6.0)
    posted = sum(world.api.posts.values())
    assert world.fleet.in_flight == 20
    world.fleet.stop(cause)
    world.run()
    assert sum(world.api.posts.values()) == posted
    assert sum(world.statuses().values()) == posted
    assert all(row.state is State.WAITING for row in world.fleet.lives.values())


@pytest.mark.parametrize("cause", ["key", "gateway", "signal", "machine"])
def test_after_such_a_stop_only_posts_on_the_wire_are_awaited(cause: StopCause) -> None:
    world = World(make_fleet(in_flight=20), Api(reply_s=1.0), rows(500)).run(until=6.0)
    world.fleet.stop(cause)
    posts = sum(world.api.posts.values())
    world.run()
    assert world.now <= 7.0
    assert world.fleet.on_the_wire == 0
    assert world.fleet.in_flight > 0
    assert sum(world.api.posts.values()) == posts
    assert world.fleet.polls(1e9, 100) == []
    assert world.fleet.next_poll_at() is None
    assert world.fleet.next_submit_at(1e9) is None


def test_the_first_cause_stays_unless_a_later_one_ends_the_watching_too() -> None:
    told: dict[tuple[StopCause, StopCause], StopCause | None] = {}
    earlier: list[StopCause] = ["credits", "key", "signal"]
    later: list[StopCause] = ["time", "gateway", "signal"]
    for first in earlier:
        for second in later:
            fleet = make_fleet()
            fleet.stop(first)
            fleet.stop(second)
            told[first, second] = fleet.stopped
    assert told == {
        ("credits", "time"): "credits",
        ("credits", "gateway"): "gateway",
        ("credits", "signal"): "signal",
        ("key", "time"): "key",
        ("key", "gateway"): "key",
        ("key", "signal"): "signal",  # the pool leaves at once at the second signal
        ("signal", "time"): "signal",
        ("signal", "gateway"): "signal",
        ("signal", "signal"): "signal",
    }


@pytest.mark.parametrize("event", [KEY_REFUSED, NO_BALANCE])
def test_a_refusal_of_the_run_stops_it_and_keeps_the_row(event: Halted) -> None:
    fleet = make_fleet()
    for row in rows(3):
        fleet.offer(row)
    row = fleet.submits(0.0, UNIX_S, 1)[0]
    fleet.sent(row.key, 0.0)
    assert fleet.receive(row.key, event, 1.0, UNIX_S) is None
    assert (fleet.stopped, fleet.stop_error) == (event.cause, OOPS)
    assert (row.state, row.submits) == (State.WAITING, 0)
    assert fleet.is_done(is_input_over=False)


def test_a_row_that_was_chosen_but_not_sent_comes_first_later() -> None:
    fleet = make_fleet(credits_limit=10.0)
    for row in rows(4, listed=5.0):
        fleet.offer(row)
    first, second = fleet.submits(0.0, UNIX_S, 2)
    for row in (first, second):
        fleet.unsend(row, 0.5)
    assert (fleet.in_flight, fleet.gate.budget.reserved, fleet.submits_sent) == (0, 0.0, 0)
    assert [row.index for row in fleet.submits(0.5, UNIX_S, 4)] == [0, 1]


def test_an_event_that_cannot_be_changes_nothing_in_the_fleet() -> None:
    fleet = make_fleet(credits_limit=10.0)
    fleet.offer(row := life(0, listed=1.0))
    begin(fleet, row)
    before = (copy.deepcopy(row), fleet.snapshot(), fleet.next_poll_at())
    with pytest.raises(IllegalEventError):
        fleet.receive(row.key, Accepted(task_id="task-2"), 1.0, UNIX_S)
    assert (row, fleet.snapshot(), fleet.next_poll_at()) == before


# What an earlier run left.


def _killed(at: float, seed: int) -> tuple[World, Api]:
    api = Chaos(seed)
    world = World(make_fleet(in_flight=20, seed=seed), api, rows(200))
    return world.run(until=at), api


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("in_doubt", ["resubmit", "hold"])
def test_a_resumed_run_asks_about_known_tasks_and_pays_for_none_of_them_again(seed: int, in_doubt: Any) -> None:
    old, api = _killed(at=5.0 + seed, seed=seed)
    left = copy.deepcopy(list(old.fleet.lives.values()))
    running = {row.index for row in left if row.state is State.RUNNING}
    sending = {row.index for row in left if row.state is State.SENDING}
    assert len(running) > 5
    fleet = make_fleet(in_flight=20, policy=Policy(in_doubt=in_doubt), seed=seed + 10)
    seen = set(old.outcomes) | {row.index for row in left}
    world = World(fleet, api, [life(index) for index in range(200) if index not in seen])
    world.outcomes.update(old.outcomes)
    made_before = Counter(api.made)
    for row in left:
        row.request = None
        outcome = fleet.adopt(row, 0.0, UNIX_S + 60.0)
        if row.index in sending:
            assert (outcome is not None) == (in_doubt == "hold")
        if outcome is not None:
            assert (outcome.status, outcome.submits) == ("in_doubt", row.submits)
            world.outcomes[row.index] = outcome
        elif row.state is State.RUNNING:
            world._live[row.index] = "watched"
    assert fleet.next_poll_at() == 0.0, "at once"
    assert fleet.submits(0.0, UNIX_S, 100) == [], "the input has not shown them yet"
    for row in left:
        if row.key in fleet.lives:
            fleet.meet(life(row.index), 0.0)
    world.run()
    for index in running:
        if not api.failed[index]:
            assert api.made[index] == made_before[index], "a task that was running was paid for again"
    world.check_accounts(200)


def test_a_resumed_row_is_estimated_as_its_request_is_now() -> None:
    fleet = make_fleet(credits_limit=10.0)
    old = life(0)
    old.request = None
    fleet.adopt(old, 0.0, UNIX_S)
    fleet.meet(life(0, listed=8.0), 0.0)
    fleet.offer(life(1, listed=8.0))
    assert [row.index for row in fleet.submits(0.0, UNIX_S, 5)] == [0], "two of them would be 16 of 10 credits"


@pytest.mark.parametrize(
    ("unresolved", "attempts", "policy", "status"),
    [
        (1, 1, Policy(), None),
        (1, 1, Policy(in_doubt="hold"), "in_doubt"),
        (1, 0, Policy(in_doubt="hold"), None),  # `--retry in_doubt`: a person has said so
        (1, 2, Policy(attempts=2), "in_doubt"),
        (0, 2, Policy(attempts=2), "failed"),
        (0, 2, Policy(attempts=3), None),
    ],
)
def test_a_row_that_waits_for_another_attempt_is_resumed_as_the_job_says_now(
    unresolved: int, attempts: int, policy: Policy, status: str | None
) -> None:
    fleet = make_fleet(policy=policy)
    old = life(0)
    old.request, old.submits, old.attempts, old.unresolved = None, 2, attempts, unresolved
    outcome = fleet.adopt(old, 0.0, UNIX_S)
    assert (outcome.status if outcome else None) == status
    assert (old.key in fleet.lives) == (status is None)
    if outcome is not None:
        assert outcome.error is not None
        assert "[retry]" in (outcome.error.message or "")


def test_a_resumed_task_gets_the_whole_time_out_and_at_least_one_poll() -> None:
    fleet = make_fleet(task_timeout_s=100.0)
    row = life(0)
    row.state, row.task_id, row.submitted_at, row.submits, row.unresolved = State.RUNNING, "t", UNIX_S, 1, 1
    row.polls = 9
    fleet.adopt(row, 50.0, UNIX_S + 5000.0)
    assert fleet.polls(50.0, 5) == [row]
    assert fleet.receive(row.key, Running(), 51.0, UNIX_S + 5001.0) is None
    at = 51.0
    outcome = None
    while outcome is None:
        due = fleet.next_poll_at()
        assert due is not None
        at = max(due, at + 0.001)
        assert fleet.polls(at, 5) == [row]
        outcome = fleet.receive(row.key, Running(), at, UNIX_S + 5000.0 + at)
    assert outcome.status == "timed_out"
    assert 150.0 <= at < 150.1
    assert outcome.polls > 10, "polls of earlier runs count on"


def test_rows_that_the_input_no_longer_has_are_ended_by_what_may_have_been_paid() -> None:
    fleet = make_fleet()
    untouched, failed, doubted = rows(3)
    failed.submits = 1
    doubted.submits = doubted.unresolved = 1
    for row in (untouched, failed, doubted):
        row.request = None
        assert fleet.adopt(row, 0.0, UNIX_S) is None
    assert fleet.is_done(is_input_over=True), "orphans aside"
    assert fleet.orphans() == [untouched, failed, doubted]
    ends = [fleet.abandon(row, UNIX_S) for row in fleet.orphans()]
    assert [end.status if end is not None else None for end in ends] == [None, "failed", "in_doubt"]
    assert not fleet.lives


# Any API at all.

_submit_events = st.sampled_from(
    [
        LOST,
        NO_HOST,
        BUSY,
        UNSERVED,
        throttled(),
        throttled(10.0),
        Refused(error=OOPS, http_status=400),
        answered(0),
        Accepted(task_id="task"),
        Accepted(task_id="task", reserved=2.0),
        NO_BALANCE,
        KEY_REFUSED,
    ]
)
_poll_events = st.sampled_from(
    [
        Running(),
        UNHEARD,
        MISSING,
        EMPTY,
        FAILED,
        FAILED_FOR_GOOD,
        answered(0, 1.5),
        KEY_REFUSED,
        Unheard(error=OOPS, is_rate=True),
        Unheard(error=OOPS, is_rate=True, retry_after_s=30.0),
    ]
)


class Scripted(Api):
    """Replies from two lists, round and round, whatever is asked."""

    def __init__(self, submits: list[SubmitEvent], polls: list[PollEvent], reply_s: float) -> None:
        super().__init__(reply_s=reply_s)
        self.submit_script, self.poll_script = submits, polls
        self.asked = 0
        self.budgets_ok = True

    def on_submit(self, row: Life, now: float) -> SubmitEvent:
        self.asked += 1
        return self.submit_script[self.asked % len(self.submit_script)]

    def on_poll(self, row: Life, now: float) -> PollEvent:
        self.asked += 1
        return self.poll_script[self.asked % len(self.poll_script)]


@settings(max_examples=60, deadline=None)
@given(
    submits=st.lists(_submit_events, min_size=1, max_size=6),
    polls=st.lists(_poll_events, min_size=1, max_size=6),
    reply_s=st.sampled_from([0.0, 0.1, 20.0]),
    in_flight=st.integers(1, 8),
    policy=st.builds(
        Policy,
        attempts=st.integers(1, 3),
        failed=st.sampled_from(["never", "transient", "always"]),
        in_doubt=st.sampled_from(["resubmit", "hold"]),
        patience_s=st.sampled_from([5.0, 300.0]),
    ),
    credits_limit=st.sampled_from([None, 5.0, 1000.0]),
    per_minute=st.sampled_from([None, 30.0, 6000.0]),
)
def test_with_any_api_the_run_ends_and_every_row_is_accounted_for(
    submits: list[SubmitEvent],
    polls: list[PollEvent],
    reply_s: float,
    in_flight: int,
    policy: Policy,
    credits_limit: float | None,
    per_minute: float | None,
) -> None:
    fleet = make_fleet(
        policy=policy,
        in_flight=in_flight,
        credits_limit=credits_limit,
        per_minute=per_minute,
        task_timeout_s=600.0,
        in_doubt_limit=5,
    )
    world = World(
        fleet, Scripted(submits, polls, reply_s), rows(25, listed=2.0), time_s=7200.0, most_turns=60_000
    ).run()
    assert world.now < 7200.0 + 600.0 + 2 * 20.0 + 1.0
    left = {row.index for row in fleet.lives.values()}
    assert not left & world.outcomes.keys()
    if fleet.stopped is None:
        assert sorted(world.outcomes) == list(range(25))
    for outcome in world.outcomes.values():
        assert outcome.submits <= policy.attempts
        assert (outcome.error is None) == (outcome.status == "completed")
    assert fleet.gate.doubts.resubmitted <= 5
    live = [row for row in fleet.lives.values() if row.state in (State.SENDING, State.RUNNING)]
    assert fleet.in_flight == len(live)
    held = sum(row.reserved if row.reserved is not None else row.estimate for row in live)
    assert fleet.gate.budget.reserved == pytest.approx(held, abs=1e-6)


_moves = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.floats(0.0, 40.0)), max_size=80)


@settings(max_examples=150, deadline=None)
@given(moves=_moves, in_flight=st.integers(1, 4), credits_limit=st.sampled_from([None, 9.0]))
def test_any_order_of_events_keeps_the_fleets_books(
    moves: list[tuple[int, int, float]], in_flight: int, credits_limit: float | None
) -> None:
    """Hands that are late, early and out of order: replies in any order, rows chosen but not sent, polls unanswered."""
    fleet = make_fleet(in_flight=in_flight, credits_limit=credits_limit, in_doubt_limit=3, task_timeout_s=200.0)
    offered, now = 0, 0.0
    chosen: list[Life] = []
    posted: list[Life] = []
    asked: list[Life] = []
    ended: dict[int, str] = {}
    submit_events: list[Event] = [LOST, NO_HOST, BUSY, UNSERVED, throttled(), answered(0)]
    submit_events += [Accepted(task_id="task", reserved=2.5), Accepted(task_id="task")]
    submit_events += [Refused(error=OOPS, http_status=400)]
    poll_events: list[Event] = [Running(), UNHEARD, MISSING, EMPTY, FAILED, FAILED_FOR_GOOD, answered(0, 1.0)]
    for what, which, step_s in moves:
        now += step_s
        if what <= 1:
            fleet.offer(life(offered, listed=3.0))
            offered += 1
        elif what <= 3:
            chosen += fleet.submits(now, UNIX_S + now, which % 4)
        elif what == 4 and chosen:
            fleet.unsend(chosen.pop(which % len(chosen)), now)
        elif what == 5 and chosen:
            posted.append(row := chosen.pop(which % len(chosen)))
            fleet.sent(row.key, now)
        elif what == 6:
            asked += fleet.polls(now, which % 4)
        elif what in (7, 8) and (crowd := posted if what == 7 else asked):
            row = crowd.pop(which % len(crowd))
            events = submit_events if what == 7 else poll_events
            event = events[which % len(events)]
            outcome = fleet.receive(row.key, event, now, UNIX_S + now)
            if outcome is not None:
                assert row.index not in ended
                ended[row.index] = outcome.status
        assert len({row.index for row in (*chosen, *posted, *asked)}) == len(chosen) + len(posted) + len(asked)
        assert fleet.in_flight <= in_flight
        assert fleet.on_the_wire == len(chosen) + len(posted)
        assert len(fleet.lives) + len(ended) == offered
        states = Counter(row.state for row in fleet.lives.values())
        assert states[State.SENDING] == fleet.on_the_wire
        assert states[State.SENDING] + states[State.RUNNING] == fleet.in_flight
        live = [row for row in fleet.lives.values() if row.state in (State.SENDING, State.RUNNING)]
        budget = fleet.gate.budget
        held = sum(row.reserved if row.reserved is not None else row.estimate for row in live)
        assert budget.reserved == pytest.approx(held, abs=1e-6)
        if credits_limit is not None:
            assert budget.spent + budget.reserved + budget.standing <= credits_limit + 1e-6
        unasked = states[State.RUNNING] - len(asked)
        assert (fleet.next_poll_at() is None) == (unasked == 0), "every running task is due or being asked about"
        due = fleet.next_submit_at(now)
        assert due is None or due >= now
        assert not fleet.is_done(is_input_over=True) or not fleet.lives
