"""Tasks that always take about the same time: where exactly they end, finer than the grid of `latency.py` can say.

For each age at which a task was asked about, what is known is how many had ended by then (they were found done at that
age or earlier) and how many had not (they were found running at that age or later). The share of those that had ended
rises from 0 to 1 in a band; where the band is narrow, the plan is made on the ages within it. Times are seconds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from itertools import islice

# So many tasks that ended last are remembered; with fewer than that nothing is said.
REMEMBERED = 2048
LEAST = 48
# The band: from where this share of the tasks has ended to where all but this share has.
ODD = 0.02
# A band is narrow up to this ratio of its ends: the grid's smoothing takes in half as much on each side.
NARROW = 1.5
# The latency has changed where so many tasks in a row had ended before the band began, or still ran when it was over,
# of those that were asked then.
MOVED = 8
# At most so many ages within the band.
AGES = 48

Band = list[tuple[float, float]]


class Steady:
    """The tasks of one group that ended last: when each was last found running, when it was found done."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)

    def see(self, low_s: float, high_s: float) -> None:
        """A task ran at age `low_s` (0: it was not asked about before) and was found done at age `high_s`."""
        self._seen.append((low_s, high_s))

    def forget(self) -> None:
        """The latency has changed."""
        self._seen.clear()

    def band(self) -> Band | None:
        """Ages, ascending, each with the share of tasks that end before it: from 0 to 1. None where they spread."""
        if len(self._seen) < LEAST:
            return None
        lows, highs = sorted(low for low, _ in self._seen), sorted(high for _, high in self._seen)
        ages = sorted({age for pair in self._seen for age in pair})

        def share(age_s: float) -> float:
            return _ended(lows, highs, age_s)

        begins = max(bisect_right(ages, ODD, key=share) - 1, 0)
        ends = bisect_left(ages, 1.0 - ODD, key=share)
        if not begins < ends < len(ages) or ages[ends] > NARROW * ages[begins]:
            return None
        low_s, high_s = ages[begins], ages[ends]
        inner = [(age, share(age)) for age in ages[begins + 1 : ends : max((ends - begins - 1) // AGES, 1)]]
        return [(low_s, 0.0), *inner, (high_s, 1.0)]

    def has_left(self, band: Band) -> bool:
        """Do the tasks that ended last end before the band, or after it?"""
        begins_s, ends_s = band[0][0], band[-1][0]
        asked_before = (
            high <= begins_s for low, high in reversed(self._seen) if 0.0 < low < begins_s or high <= begins_s
        )
        asked_after = (low >= ends_s for low, high in reversed(self._seen) if high >= ends_s)
        return any(
            len(last) == MOVED and all(last)
            for last in (list(islice(asked_before, MOVED)), list(islice(asked_after, MOVED)))
        )


def _ended(lows: list[float], highs: list[float], age_s: float) -> float:
    """Of the tasks of which it is known whether they had ended at this age, the share that had. It never falls with the
    age; one that ran is added, so that a few that had ended do not stand for all."""
    ended = bisect_right(highs, age_s)
    ran = len(lows) - bisect_left(lows, age_s)
    return ended / (ended + ran + 1)


def share_at(band: Band, age_s: float) -> float:
    """The share of tasks that end before an age, evenly between the band's ages."""
    at = bisect_left(band, (age_s, -1.0))
    if at == 0:
        return 0.0
    if at == len(band):
        return 1.0
    (low_s, below), (high_s, above) = band[at - 1], band[at]
    return below + (above - below) * (age_s - low_s) / (high_s - low_s)
