"""When to poll next, learned from the latencies seen; when to retry.

Polling is an inspection problem: each poll costs something, each second between a task's end and the poll that notices
it costs something, and for a known latency distribution the cheapest schedule can be computed. `latency.py` learns the
distribution, `steady.py` says more of one that is narrow, `plan.py` computes the schedule, `shift.py` notices that the
latency has changed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import msgspec

from batchfox.core.latency import (
    BINS,
    OBSERVATIONS,
    RATIO,
    SHORTEST_S,
    Interval,
    Sample,
    fit,
    interval,
    median_s,
    quantile_s,
)
from batchfox.core.plan import POINTS, even, plan, steadied
from batchfox.core.shift import WINDOW, onset
from batchfox.core.steady import MOVED, Band, Steady

# What one poll may cost, as seconds of delay: this share of the median latency, within these bounds. At a median of
# 20 s that is one second, where (design.md) 4.4 polls with 2.0 s of delay are as good as 2.5 with 3.9.
POLL_SHARE = 0.05
LEAST_POLL_PRICE_S = 0.002
MOST_POLL_PRICE_S = 5.0

# Before anything is known: polls at these ages, then ever further apart up to `TAIL_S`.
COLD_S = (0.1, 0.3, 0.7, 1.1, 1.6, 3.0, 5.0, 8.0, 12.0, 17.0, 22.0, 28.0, 35.0, 45.0)
TAIL_RATIO = 0.25
TAIL_S = 60.0

LEARN_FROM = 12
# A fit is due after so many seconds times what is known, and after this share of the median latency, since only tasks
# begun meanwhile show what the last plan was worth; after so many seconds at most. And once an eighth of it is new.
FIT_EVERY_S = 3.0
FIT_PER_SEEN_S = 0.002
FIT_SHARE = 0.1
# A change of the latency is looked for after so long, once so many tasks ended.
CHECK_EVERY_S = 0.5
CHECK_PER_SEEN = 8
EARLY_SHARE = 0.04
EARLY_AT = 0.4
# Where the ages at which most tasks end are within such a ratio, so many tasks are asked at any of these ages: only
# that tells where exactly they end.
TRIED_SHARE = 0.04
TRIED_WITHIN = 3.0
TRIED_FROM = 0.05
# Where a band is known: from so much below it, since it may have begun earlier all along.
TRIED_BELOW = 1.02
VERSION = 2

RETRY_FIRST_S = 1.0
RETRY_MOST_S = 60.0


def retry_delay_s(times: int, draw: float, asked_s: float | None = None) -> float:
    """Seconds until the next try after `times` failures in a row: doubling, jittered, at least what was asked for.

    `draw` in [0, 1). The jitter takes off up to half, so that rows that failed together do not come back together.
    """
    ceiling = min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** min(max(times - 1, 0), 16))
    delay = ceiling * (1.0 - 0.5 * draw)
    return delay if asked_s is None else max(asked_s * (1.0 + 0.1 * draw), min(delay, 1.0))


def poll_price_s(median: float, eagerness: float) -> float:
    """What one poll costs, in seconds of delay, where the median latency is this."""
    return min(max(POLL_SHARE * median, LEAST_POLL_PRICE_S), MOST_POLL_PRICE_S) / eagerness


class Latency:
    """What is known of one group's latencies (one model and shape), and the schedule that follows from it."""

    __slots__ = (
        "_band",
        "_due_check",
        "_due_fit",
        "_eagerness",
        "_following",
        "_has_changed",
        "_is_plan_due",
        "_new",
        "_points",
        "_steady",
        "_tried_from_s",
        "_unchecked",
        "_weights",
        "sample",
    )

    def __init__(self, eagerness: float = 1.0) -> None:
        self.sample = Sample()
        self._eagerness = eagerness
        self._weights: list[float] | None = None
        self._following: list[int] | None = None
        self._points = POINTS
        self._steady = Steady()
        self._band: Band | None = None
        self._tried_from_s: float | None = None
        self._new = 0
        self._unchecked = 0
        self._due_fit = self._due_check = 0.0
        self._has_changed = self._is_plan_due = False

    def see(self, low_s: float, high_s: float, now: float, key: bytes | None = None) -> None:
        """One observation: a task ran at age `low_s` and was found done at age `high_s`. It brings about one step of
        learning at most: each takes milliseconds, in which the caller's loop stands still."""
        self.sample.end(key, interval(low_s, high_s))
        self._steady.see(low_s, high_s)
        self._new += 1
        self._unchecked += 1
        if self._is_plan_due:
            self._plan()
        elif self._is_fit_due(now):
            self._fit(now)
        elif self._unchecked >= CHECK_PER_SEEN and now >= self._due_check:
            self._look_for_a_step(now)

    def _is_fit_due(self, now: float) -> bool:
        known = self.sample.count
        if self._has_changed:
            return True
        return known >= LEARN_FROM and now >= self._due_fit and self._new * 8 >= min(known, OBSERVATIONS)

    def _look_for_a_step(self, now: float) -> None:
        self._unchecked, self._due_check = 0, now + CHECK_EVERY_S
        if (since := self._changed_since()) is not None:
            self.sample.forget_before(since)
            self._steady.forget()
            self._weights, self._has_changed = None, True

    def _changed_since(self) -> int | None:
        """The serial number of the first submit after a change of the latency; None where there was none."""
        if self._weights is None:
            return None
        if self._band is None:
            return onset(self.sample.latest(WINDOW), self._weights)
        return self.sample.latest(MOVED)[-1][0] if self._steady.has_left(self._band) else None

    def _fit(self, now: float) -> None:
        self._weights = fit(self.sample.counts(), self._weights)
        self._has_changed, self._is_plan_due, self._new = False, True, 0
        rest_s = max(FIT_PER_SEEN_S * self.sample.count, FIT_SHARE * median_s(self._weights))
        self._due_fit = now + min(rest_s, FIT_EVERY_S)

    def _plan(self) -> None:
        assert self._weights is not None
        price_s = poll_price_s(median_s(self._weights), self._eagerness)
        self._points, shares = POINTS, even(self._weights)
        self._band = self._steady.band()
        if self._band is not None:
            self._points, shares = steadied(shares, self._band)
        self._following = plan(self._points, shares, price_s)
        self._tried_from_s = self._trying()
        self._is_plan_due = False

    def _trying(self) -> float | None:
        """From what age on tasks are asked to learn where exactly they end; None where they spread too far for that."""
        assert self._weights is not None
        if self._band is not None:
            return self._band[0][0] / TRIED_BELOW
        low_s, high_s = (quantile_s(self._weights, share) for share in (TRIED_FROM, 1.0 - TRIED_FROM))
        return low_s if high_s <= TRIED_WITHIN * low_s else None

    @property
    def is_planned(self) -> bool:
        """False while too little was seen."""
        return self._following is not None

    def first_age_s(self, draw: float) -> float:
        """The age at which to poll a task first, with `draw` in [0, 1): as planned, but for the few that are asked to
        learn from: early, where a drop of the latency shows, or about where tasks end."""
        planned = self.next_age_s(0.0)
        if self._following is None:
            return planned
        if draw < EARLY_SHARE:
            return max(planned * EARLY_AT, SHORTEST_S)
        since = self._tried_from_s
        if since is not None and since < planned and draw < EARLY_SHARE + TRIED_SHARE:
            return max(since + (planned - since) * (draw - EARLY_SHARE) / TRIED_SHARE, SHORTEST_S)
        return planned

    def next_age_s(self, age_s: float) -> float:
        """The age at which to poll a task next that ran at age `age_s` (0: just submitted). Always later."""
        following, points = self._following, self._points
        if following is not None:
            at = min(bisect_left(points, age_s * 0.999_999), len(points) - 1)
            target = following[at]
            if target > at:
                return max(points[target], age_s + SHORTEST_S)
        else:
            for cold_s in COLD_S:
                if cold_s > age_s * 1.05 + SHORTEST_S:
                    return cold_s
        return age_s + min(max(age_s * TAIL_RATIO, SHORTEST_S), TAIL_S)

    def restore(self, seen: list[Interval]) -> None:
        """Takes up what an earlier run exported."""
        for pair in seen:
            self.sample.end(None, pair)
        if len(seen) >= LEARN_FROM:
            self._fit(0.0)
            self._plan()


class Kept(msgspec.Struct, frozen=True):
    """What was learned, as the checkpoint keeps it: by group the ends of the intervals, one after the other."""

    version: int
    ratio: float
    groups: dict[str, msgspec.Raw]


def _intervals(kept: msgspec.Raw) -> list[Interval]:
    """A group's observations; none, where they are no such list. What is no interval of the grid is passed over."""
    try:
        edges = msgspec.json.decode(kept, type=list[int])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    pairs = zip(edges[::2], edges[1::2], strict=False)
    return [(low, high) for low, high in pairs if 0 <= low < high <= BINS][-OBSERVATIONS:]


class Timing:
    """All groups' latencies, and the answer to "when next?" in the run's clock."""

    def __init__(self, first_s: float | None, draw: Callable[[], float], eagerness: float = 1.0) -> None:
        self._first_s = first_s
        self._draw = draw
        self._eagerness = eagerness
        self._groups: dict[str, Latency] = {}

    def _of(self, group: str) -> Latency:
        latency = self._groups.get(group)
        if latency is None:
            latency = self._groups[group] = Latency(self._eagerness)
        return latency

    def has_learned(self, group: str) -> bool:
        """Are the polls of this group planned by what was seen?"""
        return self._of(group).is_planned

    def begin(self, group: str, key: bytes) -> None:
        """A task is watched from now on; it comes back through `see` or `give_up`."""
        self._of(group).sample.begin(key)

    def first_poll_s(self, group: str) -> float:
        """Seconds from the submit's reply to the first poll; a few tasks are asked early, so that a drop is seen."""
        if self._first_s is not None:
            return self._first_s
        return self._of(group).first_age_s(self._draw())

    def next_poll_s(self, group: str, age_s: float, key: bytes | None = None) -> float:
        """Seconds from now to the next poll of a task that was found running at `age_s`."""
        latency = self._of(group)
        if key is not None:
            latency.sample.stay(key, age_s)
        return latency.next_age_s(age_s) - age_s

    def see(self, group: str, low_s: float, high_s: float, now: float, key: bytes | None = None) -> None:
        """A task that ran at age `low_s` was found done at age `high_s`."""
        self._of(group).see(low_s, max(high_s, low_s + 1e-6), now, key)

    def give_up(self, group: str, key: bytes) -> None:
        """A task is watched no longer; nothing happens where it was seen to end."""
        self._of(group).sample.give_up(key)

    def export(self) -> bytes:
        """What was learned, for the checkpoint."""
        groups = {
            name: msgspec.Raw(msgspec.json.encode([edge for pair in latency.sample.export() for edge in pair]))
            for name, latency in self._groups.items()
        }
        return msgspec.json.encode(Kept(VERSION, RATIO, groups))

    def restore(self, kept: bytes) -> None:
        """Takes up what an earlier run learned; nothing happens where it cannot be read or is of another kind."""
        try:
            known = msgspec.json.decode(kept, type=Kept)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if known.version == VERSION and known.ratio == RATIO:
            for name, edges in known.groups.items():
                self._of(name).restore(_intervals(edges))
