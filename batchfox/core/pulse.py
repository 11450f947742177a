"""The pulse of a run: rows and latencies of the last minutes, in bounded memory. Times are seconds."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

BEAT_S = 10.0
BEATS = 40
# Latencies kept of one beat, and behind how many of all a quantile is told.
_KEPT = 100
LEAST = 5
# Ages of running tasks that an estimate of the tail looks at; of more, each stands for several.
_MOST_AGES = 60
_TAIL_DAYS_S = 2 * 86_400.0
# Beyond the longest latency seen, the chance to run on falls by this power of time.
_FALL = 2.0


class _Beat:
    __slots__ = ("at", "latencies", "rows")

    def __init__(self, at: int) -> None:
        self.at = at
        self.rows = 0
        self.latencies: list[float] = []


class Pulse:
    """Rows that ended, and latencies of those that were answered, by beats of ten seconds."""

    def __init__(self) -> None:
        self._beats: deque[_Beat] = deque(maxlen=BEATS)

    def see(self, now: float, latency_s: float | None) -> None:
        """A row ended. `latency_s`: from its submit to its answer."""
        at = int(now / BEAT_S)
        if not self._beats or self._beats[-1].at != at:
            self._beats.append(_Beat(at))
        beat = self._beats[-1]
        beat.rows += 1
        if latency_s is not None:
            if len(beat.latencies) < _KEPT:
                beat.latencies.append(latency_s)
            else:
                beat.latencies[beat.rows % _KEPT] = latency_s

    def latencies(self) -> list[float]:
        """Of the last minutes, sorted."""
        return sorted(latency for beat in self._beats for latency in beat.latencies)

    def rates(self, now: float, most: int = 20) -> list[float]:
        """Rows a second in each whole beat until now, the oldest first; the present one aside."""
        last = int(now / BEAT_S)
        rows = {beat.at: beat.rows for beat in self._beats}
        first = max(min(rows, default=last), last - most)
        return [round(rows.get(at, 0) / BEAT_S, 3) for at in range(first, last)]

    def medians(self, most: int = 20) -> list[float]:
        """The median latency of each beat that saw any, the oldest first."""
        found = [sorted(beat.latencies) for beat in self._beats if beat.latencies]
        return [round(latencies[len(latencies) // 2], 3) for latencies in found[-most:]]


def quantile(values: Sequence[float], share: float) -> float | None:
    """Of sorted values; None of fewer than `LEAST`."""
    if len(values) < LEAST:
        return None
    return values[min(int(share * len(values)), len(values) - 1)]


def tail_s(latencies: Sequence[float], ages: Sequence[float]) -> float | None:
    """Seconds until the last of these running tasks has ended, as likely as not; None where too little is known.

    `latencies`: sorted, of tasks that ended; `ages`: how long each has run. The last of many tasks takes longer than
    most: that is the tail. A task older than any that ended may run about as long again.
    """
    if len(latencies) < LEAST:
        return None
    if not ages:
        return 0.0
    step = max(len(ages) / _MOST_AGES, 1.0)
    some = [ages[int(at * step)] for at in range(min(len(ages), _MOST_AGES))]
    each = len(ages) / len(some)
    low, high = 0.0, _TAIL_DAYS_S
    for _ in range(40):
        middle = math.sqrt(max(low, 1e-3) * high)
        if _all_ended(latencies, some, each, middle) < math.log(0.5):
            low = middle
        else:
            high = middle
        if high - low < 0.02 * high:
            break
    return high


def _all_ended(latencies: Sequence[float], ages: Sequence[float], each: float, after_s: float) -> float:
    """The logarithm of the chance that all have ended `after_s` from now."""
    total = 0.0
    for age in ages:
        runs_on = _runs_on(latencies, age + after_s) / _runs_on(latencies, age)
        total += each * math.log(max(1.0 - runs_on, 1e-12))
    return total


def _runs_on(latencies: Sequence[float], age_s: float) -> float:
    """The chance that a task takes longer than this."""
    number = len(latencies)
    longest = latencies[-1]
    if age_s < longest:
        return (number - bisect_right(latencies, age_s) + 0.5) / (number + 0.5)
    beyond: float = (max(longest, 1e-3) / max(age_s, 1e-3)) ** _FALL
    return 0.5 / (number + 0.5) * beyond
