"""The rate that the runs of a key share: it holds over every sliding minute, whoever comes, goes or dies."""

from __future__ import annotations

import bisect
import heapq
import itertools
import random

import pytest

from batchfox.core.bucket import bucket
from batchfox.core.shares import KEEPS_S, Grant, Level, draw

LIMITS = [0.5, 1, 7, 60, 61, 90, 600, 3_000]


class Runs:
    """Runs that send all they may, as late as they may, on one clock."""

    def __init__(self, seed: int) -> None:
        self.draws = random.Random(seed)
        self.level = Level()
        self.now = 1_000.0
        self.live: dict[int, tuple[float | None, float]] = {}  # limit, free until
        self.locals: dict[int, tuple[float, float]] = {}  # each run's own limiter: what is in it, when
        self.sent: list[float] = []
        self.names = itertools.count()
        self.due: list[tuple[float, int]] = []

    def join(self, limit: float | None) -> int:
        name = next(self.names)
        self.live[name] = (limit, 0.0)
        self.locals[name] = (0.0, self.now)
        heapq.heappush(self.due, (self.now, name))
        return name

    def step(self) -> None:
        self.now, name = heapq.heappop(self.due)
        if name not in self.live:
            return
        limit, _ = self.live[name]
        others = [entry for other, entry in self.live.items() if other != name]
        most = self.draws.choice([1, 3, 10_000])
        limits = [limit, *(own for own, _ in others)]
        grant, self.level = draw(self.level, limits, max((until for _, until in others), default=0.0), most, self.now)
        self.live[name] = (limit, grant.until if grant.submits is None else 0.0)
        heapq.heappush(self.due, (self._send(name, limit, grant), name))

    def _send(self, name: int, limit: float | None, grant: Grant) -> float:
        """Sends what was granted as soon, or as late, as its own limiter lets it, and returns when it asks again."""
        if grant.submits == 0:
            return self.now + grant.wait_s
        if limit is None:
            return grant.until
        (capacity, per_s), left = bucket(limit), grant.submits
        room, at = self.locals[name]
        start = self.now + (0.0 if left is None or self.draws.random() < 0.8 else self.draws.random() * KEEPS_S)
        room, at = min(room + (start - at) * per_s, capacity), start
        while left is None or left > 0:
            wait_s = max(1.0 - room, 0.0) / per_s
            if at + wait_s >= grant.until:
                break
            room, at = min(room + wait_s * per_s, capacity) - 1.0, at + wait_s
            self.sent.append(at)
            left = None if left is None else left - 1
        else:
            grant = Grant(submits=0, until=at)
        self.locals[name] = (min(room + (grant.until - at) * per_s, capacity), grant.until)
        return grant.until


def most_in_a_minute(times: list[float]) -> int:
    times = sorted(times)
    return max(bisect.bisect_left(times, at + 60.0) - place for place, at in enumerate(times))


@pytest.mark.parametrize("limit", LIMITS)
def test_the_limit_holds_over_every_minute_and_is_used(limit: float) -> None:
    runs = Runs(seed=int(limit * 2))
    first = runs.join(limit)
    began = runs.now
    changes = [
        (began + 80, "join"),
        (began + 100, "join"),
        (began + 200, "die"),
        (began + 260, "die"),
        (began + 340, "end"),
    ]
    while changes:
        if runs.due[0][0] < changes[0][0]:
            runs.step()
            continue
        at, what = changes.pop(0)
        runs.now = at
        if what == "join":
            runs.join(limit)
        elif what == "die":  # the youngest; what it drew and did not send is lost
            del runs.live[max(runs.live)]
    assert first in runs.live
    assert most_in_a_minute(runs.sent) <= max(limit, 1)
    used = len(runs.sent) / ((runs.now - began) * limit / 60)
    assert used > (0.85 if limit >= 7 else 0.5)  # they dawdle, and lose what they drew


def test_the_lowest_limit_binds_those_without_one_while_it_is_there() -> None:
    runs = Runs(seed=1)
    runs.join(None)
    free, level = draw(Level(), [None], 0.0, 10, 50.0)
    assert free.submits is None
    # Who comes with a limit waits until the others have asked again, and then all go by it.
    waits, level = draw(level, [60, None], free.until, 10, 50.1)
    assert waits.submits == 0
    assert waits.wait_s == pytest.approx(free.until - 50.1)
    none_yet, level = draw(level, [None, 60], 0.0, 10, free.until)
    assert none_yet.submits == 0
    one, level = draw(level, [None, 60], 0.0, 10, free.until + 1.1)
    assert one.submits == 1
    # When it has gone they go free, a minute later where one of them has a limit.
    alone, _ = draw(level, [None], 0.0, 10, free.until + 2.0)
    assert alone.submits is None
    still, level = draw(level, [6_000], 0.0, 10, free.until + 60.0)
    assert still.submits is not None
    later, _ = draw(level, [6_000], 0.0, 10, free.until + 65.0)
    assert later.submits is None


def test_a_clock_that_began_anew_gives_no_burst() -> None:
    level = Level(room=5.0, at=1_000_000.0, per_minute=600, shared_until=1_000_060.0)
    grant, _ = draw(level, [600, 600], 0.0, 100, 12.0)
    assert grant.submits == 0
