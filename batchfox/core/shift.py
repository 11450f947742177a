"""Has the latency changed? Do the tasks submitted last fit a faster or slower API much better than what is known?"""

from __future__ import annotations

from itertools import accumulate
from math import log

from batchfox.core.latency import BINS, RATIO, Interval

# How many times as long tasks might take since the change.
FACTORS = (1 / 8, 1 / 4, 1 / 2.5, 1 / 1.6, 1.6, 2.5, 4.0, 8.0)
# At most so many of the last submits are looked at, and so few can tell.
WINDOW = 96
LEAST = 6
# The logarithm of how many times as likely the change must make them. One in exp(12) would be by chance, but many
# beginnings and factors are tried, again and again.
CERTAIN = 12.0
# No single task may tell more than this share of such an odd one allows.
ODD = 0.002

_SHIFTS = tuple(round(log(factor) / log(RATIO)) for factor in FACTORS)


def onset(latest: list[tuple[int, Interval]], weights: list[float]) -> int | None:
    """The serial number of the first submit after a change, or None. `latest`: the last submits, the latest first;
    `weights`: what the latency was taken for."""
    mass = [0.0, *accumulate(weights)]
    seen = [pair for _, pair in latest]
    most, since = CERTAIN, None
    for shift in _SHIFTS:
        gains = {pair: _gain(pair, mass, shift) for pair in set(seen)}
        totals = list(accumulate(map(gains.__getitem__, seen)))[LEAST:]
        if totals and (best := max(totals)) > most:
            most, since = best, latest[LEAST + totals.index(best)][0]
    return since


def _gain(seen: Interval, mass: list[float], shift: int) -> float:
    """How much more likely a task's interval is if latencies moved by `shift` bins, as a logarithm."""
    low, high = seen
    top = mass[-1] if high == BINS else mass[min(max(high - shift, 0), BINS)]
    changed = top - mass[min(max(low - shift, 0), BINS)]
    return log((changed + ODD) / (mass[high] - mass[low] + ODD))
