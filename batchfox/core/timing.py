"""When to poll next, learned from the latencies seen; when to retry.

Polling is an inspection problem (Barlow, Hunter and Proschan, "Optimum checking procedures", 1963): each poll costs
something, each second between a task's end and the poll that notices it costs something, and for a known latency
distribution the cheapest schedule can be computed. What is seen of a latency is never its value but an interval, from
the last poll that found the task running to the one that found it done, or open-ended while it runs; the
distribution is fitted to those intervals (Turnbull's self-consistent estimate on a logarithmic grid).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from itertools import accumulate

import msgspec

SHORTEST_S = 0.005
LONGEST_S = 2 * 86_400.0
RATIO = 1.12
# What one poll may cost, as seconds of delay: this share of the median latency, within these bounds. At a median of
# 20 s that is one second, where (design.md) 4.4 polls with 2.0 s of delay are as good as 2.5 with 3.9.
POLL_SHARE = 0.05
LEAST_POLL_COST_S = 0.002
MOST_POLL_COST_S = 5.0

# Before anything is known: polls at these ages, then ever further apart up to `TAIL_S`.
COLD_S = (0.1, 0.3, 0.7, 1.5, 3.0, 5.0, 8.0, 12.0, 17.0, 22.0, 28.0, 35.0, 45.0)
TAIL_RATIO = 0.25
TAIL_S = 60.0

OBSERVATIONS = 400
LEARN_FROM = 12
REFIT_EVERY_S = 2.0
EARLY_SHARE = 0.04
EARLY_AT = 0.4
_ROUNDS = 25

RETRY_FIRST_S = 1.0
RETRY_MOST_S = 60.0


def _grid() -> list[float]:
    edges = [0.0, SHORTEST_S]
    while edges[-1] < LONGEST_S:
        edges.append(edges[-1] * RATIO)
    return edges


GRID = _grid()


def retry_delay_s(times: int, draw: float, asked_s: float | None = None) -> float:
    """Seconds until the next try after `times` failures in a row: doubling, jittered, at least what was asked for.

    `draw` in [0, 1). The jitter takes off up to half, so that rows that failed together do not come back together.
    """
    ceiling = min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** min(max(times - 1, 0), 16))
    delay = ceiling * (1.0 - 0.5 * draw)
    return delay if asked_s is None else max(asked_s * (1.0 + 0.1 * draw), min(delay, 1.0))


def fit(observations: list[tuple[int, int]], start: list[float] | None = None) -> list[float]:
    """The distribution over the grid's bins that the observations make most likely.

    An observation (i, j) says that the latency lies in bins i..j-1; bin k is the time from GRID[k] to GRID[k+1].
    Returns one weight a bin, summing to 1. `start`: the weights to begin from (an earlier fit makes it quicker).
    """
    bins = len(GRID) - 1
    weights = start or [1.0 / bins] * bins
    if start:  # an earlier fit must not have ruled out what is seen now
        weights = [0.9 * weight + 0.1 / bins for weight in start]
    total = len(observations)
    for _ in range(_ROUNDS):
        mass = [0.0, *accumulate(weights)]
        steps = [0.0] * (bins + 1)
        for low, high in observations:
            share = 1.0 / max(mass[high] - mass[low], 1e-300)
            steps[low] += share
            steps[high] -= share
        factor = accumulate(steps)
        weights = _smooth([weight * max(by, 0.0) / total for weight, by in zip(weights, factor, strict=False)])
    scale = sum(weights)
    return [weight / scale for weight in weights]


def _smooth(weights: list[float]) -> list[float]:
    """A step of smoothing along the grid. Inside an interval the data say nothing, and without it the estimate puts
    all of an interval's weight into one bin, which the plan would then exploit (Silverman's EMS)."""
    padded = [0.0, 0.0, *weights, 0.0, 0.0]
    return [
        (a + 4.0 * b + 6.0 * c + 4.0 * d + e) / 16.0
        for a, b, c, d, e in zip(padded, padded[1:], padded[2:], padded[3:], padded[4:], strict=False)
    ]


def median_s(weights: list[float]) -> float:
    """The median of a fitted distribution, in seconds."""
    return GRID[min(bisect_left(list(accumulate(weights)), 0.5) + 1, len(GRID) - 1)]


def plan(weights: list[float], poll_cost_s: float) -> list[int]:
    """The optimal schedule: for a task known to run at grid point i, the grid point of the next poll.

    Dynamic programming from the tail: polling next at point j costs one poll (whenever the task outlives i) and the
    delay of what ends in between, plus what follows from j. Points beyond all observed mass get 0, "no opinion".
    """
    points = len(GRID)
    bins = points - 1
    last = max((k for k in range(bins) if weights[k] > 1e-4 / bins), default=0) + 1
    mass = [0.0, *accumulate(weights)]
    middle = [(GRID[k] + GRID[k + 1]) / 2 for k in range(bins)]
    moment = [0.0, *accumulate(w * m for w, m in zip(weights, middle, strict=True))]
    cost = [0.0] * points
    following = [0] * points
    for i in range(last - 1, -1, -1):
        alive = max(mass[bins] - mass[i], 0.0) * poll_cost_s
        best, best_j = float("inf"), i + 1
        for j in range(i + 1, last + 1):
            found = alive + GRID[j] * (mass[j] - mass[i]) - (moment[j] - moment[i]) + cost[j]
            if found < best:
                best, best_j = found, j
        cost[i], following[i] = best, best_j
    return following


class Latency:
    """What is known of one group's latencies (one model and shape), and the schedule that follows from it."""

    __slots__ = ("_count", "_due_refit", "_following", "_new", "_seen", "_weights")

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque(maxlen=OBSERVATIONS)
        self._weights: list[float] | None = None
        self._following: list[int] | None = None
        self._new = 0
        self._count = 0
        self._due_refit = 0.0

    def see(self, low_s: float, high_s: float, now: float) -> None:
        """One observation: a task ran at age `low_s` and was found done at age `high_s`."""
        low = max(bisect_left(GRID, low_s), 1) - 1
        high = min(max(bisect_left(GRID, high_s), low + 1), len(GRID) - 1)
        self._seen.append((min(low, high - 1), high))
        self._new += 1
        self._count += 1
        if self._count >= LEARN_FROM and now >= self._due_refit and self._new * 8 >= min(self._count, OBSERVATIONS):
            self._refit()
            self._new = 0
            self._due_refit = now + REFIT_EVERY_S

    def _refit(self) -> None:
        self._weights = fit(list(self._seen), self._weights)
        cost = min(max(POLL_SHARE * median_s(self._weights), LEAST_POLL_COST_S), MOST_POLL_COST_S)
        self._following = plan(self._weights, cost)

    def next_age_s(self, age_s: float, *, is_early: bool = False) -> float:
        """The age at which to poll a task next that ran at age `age_s` (0: just submitted). Always later."""
        following = self._following
        if following is not None:
            at = min(bisect_left(GRID, age_s * 0.999_999), len(GRID) - 1)
            target = following[at]
            if target > at:
                planned = GRID[target] * (EARLY_AT if is_early and age_s == 0.0 else 1.0)
                return max(planned, age_s + SHORTEST_S)
        else:
            for cold_s in COLD_S:
                if cold_s > age_s * 1.05 + SHORTEST_S:
                    return cold_s
        return age_s + min(max(age_s * TAIL_RATIO, SHORTEST_S), TAIL_S)

    def export(self) -> list[list[int]]:
        """The observations, to be kept for the next run."""
        return [list(pair) for pair in self._seen]

    def restore(self, pairs: list[list[int]]) -> None:
        """Takes up what an earlier run exported; anything malformed is passed over."""
        bins = len(GRID) - 1
        kept = [(p[0], p[1]) for p in pairs if len(p) == 2 and 0 <= p[0] < p[1] <= bins]
        if len(kept) >= LEARN_FROM:
            self._seen.extend(kept)
            self._count = len(kept)
            self._refit()


class Timing:
    """All groups' latencies, and the answer to "when next?" in the run's clock."""

    def __init__(self, first_s: float | None, draw: Callable[[], float]) -> None:
        self._first_s = first_s
        self._draw = draw
        self._groups: dict[str, Latency] = {}

    def _of(self, group: str) -> Latency:
        latency = self._groups.get(group)
        if latency is None:
            latency = self._groups[group] = Latency()
        return latency

    def first_poll_s(self, group: str) -> float:
        """Seconds from the submit's reply to the first poll; a few tasks are asked early, so that a drop is seen."""
        if self._first_s is not None:
            return self._first_s
        return self._of(group).next_age_s(0.0, is_early=self._draw() < EARLY_SHARE)

    def next_poll_s(self, group: str, age_s: float) -> float:
        """Seconds from now to the next poll of a task that was found running at `age_s`."""
        return self._of(group).next_age_s(age_s) - age_s

    def see(self, group: str, low_s: float, high_s: float, now: float) -> None:
        """A task that ran at age `low_s` was found done at age `high_s`."""
        self._of(group).see(low_s, max(high_s, low_s + 1e-6), now)

    def export(self) -> bytes:
        """What was learned, for the checkpoint."""
        return msgspec.json.encode({name: latency.export() for name, latency in self._groups.items()})

    def restore(self, kept: bytes) -> None:
        """Takes up what an earlier run learned; nothing happens where it cannot be read."""
        try:
            groups = msgspec.json.decode(kept, type=dict[str, list[list[int]]])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        for name, pairs in groups.items():
            self._of(name).restore(pairs)
