"""What is known of a latency distribution: observations as they are had, and the distribution that explains them.

What is seen of a task's latency is never its value but an interval: from the last poll that found the task running to
the one that found it done; and it is open-ended while the task runs. The sample is a cohort, the tasks submitted last,
whether they have ended or not: of those submitted together the fast ones end first, so the ended alone would look fast.
The distribution is Turnbull's self-consistent estimate on a logarithmic grid, with a step of smoothing in each round
(Silverman's EMS), and drawn a little towards a broad prior. Times are seconds; an observation (i, j) says that the
latency lies between GRID[i] and GRID[j].
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from heapq import heappush, heappushpop, nlargest
from itertools import accumulate, chain

SHORTEST_S = 0.005
LONGEST_S = 2 * 86_400.0
RATIO = 1.06

# So many tasks that have ended are remembered, those submitted last.
OBSERVATIONS = 400
# The prior: so many observations' worth, falling off on both sides of a guess of the median by these powers of time.
PRIOR_WEIGHT = 1.0
PRIOR_RISE = 1.0
PRIOR_FALL = 1.5
# Rounds of a fit, and of one that begins at an earlier fit; how much of the prior that beginning is mixed with.
ROUNDS_FIRST = 20
ROUNDS = 12
FRESH = 0.1
# Fitted is at least what lies within so many times the guess of the median.
REACH = 50.0
# Smoothing: the width in bins of a moving average, applied twice.
_WIDTH = 5


def _grid() -> list[float]:
    edges = [0.0, SHORTEST_S]
    while edges[-1] < LONGEST_S:
        edges.append(edges[-1] * RATIO)
    return edges


GRID = _grid()
BINS = len(GRID) - 1

Interval = tuple[int, int]
Counts = Mapping[Interval, int]


def nearest(age_s: float) -> int:
    """The grid point nearest to an age."""
    at = min(bisect_left(GRID, age_s), BINS)
    return at - 1 if at and age_s - GRID[at - 1] < GRID[at] - age_s else at


def interval(low_s: float, high_s: float) -> Interval:
    """The observation "between `low_s` and `high_s`", one bin wide at least."""
    low = min(nearest(low_s), BINS - 1)
    return low, max(nearest(high_s), low + 1)


class Sample:
    """The tasks of one group that were submitted last: those that ended, those that run."""

    __slots__ = ("_closed", "_open", "_serial", "count")

    def __init__(self) -> None:
        self._closed: list[tuple[int, int, int]] = []  # a heap of (serial, low, high): the oldest submit on top
        self._open: dict[bytes, tuple[int, int]] = {}
        self._serial = 0
        self.count = 0

    def begin(self, key: bytes) -> None:
        """A task was submitted."""
        self._serial += 1
        self._open[key] = (self._serial, 0)

    def stay(self, key: bytes, age_s: float) -> None:
        """A task was found running at this age."""
        if (known := self._open.get(key)) is not None:
            self._open[key] = (known[0], min(nearest(age_s), BINS - 1))

    def end(self, key: bytes | None, seen: Interval) -> None:
        """A task was found done (or was given up: it is open for ever). A `key` that is not known is a new task."""
        known = None if key is None else self._open.pop(key, None)
        if known is None:
            self._serial += 1
        self._keep(self._serial if known is None else known[0], seen)

    def give_up(self, key: bytes) -> None:
        """Nothing more will be seen of a task: all that is known is how old it got."""
        known = self._open.pop(key, None)
        if known is not None and known[1] > 0:
            self._keep(known[0], (known[1], BINS))

    def _keep(self, serial: int, seen: Interval) -> None:
        self.count += 1
        keep = heappush if len(self._closed) < OBSERVATIONS else heappushpop
        keep(self._closed, (serial, *seen))

    def counts(self) -> Counter[Interval]:
        """How often each interval was seen, open ones among them."""
        oldest = self._closed[0][0] if len(self._closed) == OBSERVATIONS else 0
        found = Counter((low, high) for _, low, high in self._closed)
        found.update((low, BINS) for serial, low in self._open.values() if low and serial >= oldest)
        return found

    def latest(self, most: int) -> list[tuple[int, Interval]]:
        """The last `most` submits that something is known of, the latest first, each with its serial number."""
        closed = ((serial, (low, high)) for serial, low, high in self._closed)
        running = ((serial, (low, BINS)) for serial, low in self._open.values() if low)
        return nlargest(most, chain(closed, running))

    def forget_before(self, serial: int) -> None:
        """Forgets what was submitted earlier."""
        self._closed = [entry for entry in self._closed if entry[0] >= serial]
        self._closed.sort()
        for key, (its_serial, _) in self._open.items():
            if its_serial < serial:
                self._open[key] = (its_serial, 0)
        self.count = len(self._closed)

    def export(self) -> list[Interval]:
        """What ended, in the order of submission."""
        return [(low, high) for _, low, high in sorted(self._closed)]


def fit(counts: Counts, start: list[float] | None = None) -> list[float]:
    """The weights of the grid's bins, summing to 1, that explain the observations best.

    `start`: the weights of an earlier fit, which makes it quicker.
    """
    guess = guess_s(counts)
    first, last = _reach(counts, guess)
    total = sum(counts.values())
    drawn = PRIOR_WEIGHT / (total + PRIOR_WEIGHT)
    before = prior(guess)
    pull = [weight * drawn for weight in before[first:last]]
    weights = before[first:last]
    if start is not None:
        weights = [(1 - FRESH) * w + FRESH * p for w, p in zip(start[first:last], weights, strict=True)]
    seen = [(max(low, first) - first, min(high, last) - first, times) for (low, high), times in counts.items()]
    scale = (1 - drawn) / total
    for _ in range(ROUNDS_FIRST if start is None else ROUNDS):
        weights = [weight + p for weight, p in zip(_smooth(_share_out(seen, weights, scale)), pull, strict=True)]
    weights = [weight * drawn for weight in before[:first]] + weights + [weight * drawn for weight in before[last:]]
    whole = sum(weights)
    return [weight / whole for weight in weights]


def _reach(counts: Counts, guess: float) -> tuple[int, int]:
    """The bins that are fitted: all that was seen to end, and far around. The others keep the prior's weight."""
    least = min(high for _, high in counts)
    most = max(max(low + 1, high if high < BINS else 0) for low, high in counts)
    return max(min(nearest(guess / REACH), least - _WIDTH), 0), min(max(nearest(guess * REACH), most + _WIDTH), BINS)


def _share_out(seen: list[tuple[int, int, int]], weights: list[float], scale: float) -> list[float]:
    """A round of Turnbull's estimate: each observation spread over its bins in proportion to their weights."""
    mass = [0.0, *accumulate(weights)]
    steps = [0.0] * len(mass)
    for low, high, times in seen:
        likelier = times * scale / max(mass[high] - mass[low], 1e-300)
        steps[low] += likelier
        steps[high] -= likelier
    return [weight * by if by > 0.0 else 0.0 for weight, by in zip(weights, accumulate(steps), strict=False)]


def _smooth(weights: list[float]) -> list[float]:
    """A moving average, twice. Inside an interval the data say nothing, and without this the estimate puts all of an
    interval's weight into one bin, which the plan would then exploit."""
    margin = [0.0] * (_WIDTH - 1)
    sums = [0.0, *accumulate([*margin, *weights, *margin])]
    once = [(after - before) / _WIDTH for before, after in zip(sums, sums[_WIDTH:], strict=False)]
    sums = [0.0, *accumulate(once)]
    return [(after - before) / _WIDTH for before, after in zip(sums, sums[_WIDTH:], strict=False)]


def guess_s(counts: Counts) -> float:
    """A rough median: that of the middles of what has ended."""
    middles = sorted((GRID[low] + GRID[high], times) for (low, high), times in counts.items() if high < BINS)
    half, so_far = sum(times for _, times in middles) / 2, 0
    for doubled_s, times in middles:
        so_far += times
        if so_far >= half:
            return doubled_s / 2
    return max((GRID[low] for low, _ in counts), default=1.0) or 1.0


def prior(median_s: float) -> list[float]:
    """Broad weights around a guess: what is assumed where nothing was seen."""
    tops = [edge / median_s for edge in GRID[1:]]
    weights = [top**PRIOR_RISE if top < 1.0 else top**-PRIOR_FALL for top in tops]
    whole = sum(weights)
    return [weight / whole for weight in weights]


def quantile_s(weights: list[float], share: float) -> float:
    """The age before which this share of the tasks of a fitted distribution ends."""
    mass = [0.0, *accumulate(weights)]
    at = min(max(bisect_left(mass, share), 1), BINS)
    part = (share - mass[at - 1]) / max(mass[at] - mass[at - 1], 1e-300)
    return GRID[at - 1] + min(max(part, 0.0), 1.0) * (GRID[at] - GRID[at - 1])


def median_s(weights: list[float]) -> float:
    """The median of a fitted distribution."""
    return quantile_s(weights, 0.5)
