"""The cheapest polls for a known latency distribution (Barlow, Hunter and Proschan, "Optimum checking procedures",
1963), by dynamic programming over ages: those of the grid of `latency.py`, and finer ones in the band of `steady.py`
where there is one."""

from __future__ import annotations

from itertools import accumulate, pairwise

from batchfox.core.latency import GRID
from batchfox.core.steady import Band, share_at

# Ages that hardly any task ends below are no time to ask; beyond ages that hardly any task outlives there is no plan.
UNLIKELY = 1e-3
# Points of the plan within each bin of the distribution, which is taken as even within a bin.
FINE = 2
# Where nearly all tasks end in a band, this share may end at any age that the grid holds likely.
UNSTEADY = 0.02


def _points() -> list[float]:
    found = [0.0]
    for low, high in pairwise(GRID):
        found += [low + (high - low) * part / FINE for part in range(1, FINE + 1)]
    return found


POINTS = _points()


def even(weights: list[float]) -> list[float]:
    """The share of tasks that end in the bin below each of `POINTS`, from the weights of the grid's bins."""
    return [weight / FINE for weight in weights for _ in range(FINE)]


def steadied(shares: list[float], band: Band) -> tuple[list[float], list[float]]:
    """The points, and the shares of tasks below each, where nearly all tasks end in a band: `shares` (of `POINTS`) are
    what is known of the others."""
    mass = [0.0, *accumulate(shares)]
    grid = list(zip(POINTS, mass, strict=True))
    points = sorted({*POINTS, *(age for age, _ in band)})
    below = [UNSTEADY * share_at(grid, point) + (1 - UNSTEADY) * mass[-1] * share_at(band, point) for point in points]
    below[-1] = mass[-1]
    return points, [high - low for low, high in pairwise(below)]


def plan(points: list[float], shares: list[float], poll_price_s: float) -> list[int]:
    """For a task known to run at points[i]: the point of its next poll; 0 where the plan has no opinion. `shares`: of
    the tasks that end between each point and the next.

    Polling next at point j costs one poll (whenever the task outlives i) and the delay of what ends in between, plus
    what follows from j.
    """
    mass = [0.0, *accumulate(shares)]
    moment = [0.0, *accumulate(w * (a + b) / 2 for w, a, b in zip(shares, points, points[1:], strict=False))]
    whole = mass[-1]
    top = len(points) - 1
    first = next((i for i in range(top) if mass[i + 1] > UNLIKELY * whole), 0)
    last = next((i for i in range(first + 1, top) if mass[i] > (1 - UNLIKELY) * whole), top)
    cost, following = [0.0] * (top + 1), [0] * (top + 1)
    for i in range(last - 1, first - 1, -1):
        below, moved = mass[i], moment[i]
        # In the order of j the cost until j only grows: where it alone is too much, no later j is better.
        least, best = float("inf"), i + 1
        asked = (whole - below) * poll_price_s + moved
        for j in range(i + 1, last + 1):
            until = asked + points[j] * (mass[j] - below) - moment[j]
            if until >= least:
                break
            if until + cost[j] < least:
                least, best = until + cost[j], j
        cost[i], following[i] = least, best
    following[:first] = [following[first]] * first
    return following
