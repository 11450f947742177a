"""The cheapest polls for a known latency distribution (Barlow, Hunter and Proschan, "Optimum checking procedures",
1963), by dynamic programming over the grid of `latency.py`."""

from __future__ import annotations

from itertools import accumulate, pairwise

from batchfox.core.latency import BINS, GRID

# Ages that hardly any task ends below are no time to ask; beyond ages that hardly any task outlives there is no plan.
UNLIKELY = 1e-3
# Points of the plan within each bin of the distribution, which is taken as even within a bin.
FINE = 2


def _points() -> list[float]:
    found = [0.0]
    for low, high in pairwise(GRID):
        found += [low + (high - low) * part / FINE for part in range(1, FINE + 1)]
    return found


POINTS = _points()


def plan(weights: list[float], poll_price_s: float) -> list[int]:
    """For a task known to run at POINTS[i]: the point of its next poll; 0 where the plan has no opinion.

    Polling next at point j costs one poll (whenever the task outlives i) and the delay of what ends in between, plus
    what follows from j.
    """
    thin = [weight / FINE for weight in weights for _ in range(FINE)]
    mass = [0.0, *accumulate(thin)]
    moment = [0.0, *accumulate(w * (a + b) / 2 for w, a, b in zip(thin, POINTS, POINTS[1:], strict=False))]
    whole = mass[-1]
    points = BINS * FINE
    first = next((i for i in range(points) if mass[i + 1] > UNLIKELY * whole), 0)
    last = next((i for i in range(first + 1, points) if mass[i] > (1 - UNLIKELY) * whole), points)
    cost, following = [0.0] * (points + 1), [0] * (points + 1)
    for i in range(last - 1, first - 1, -1):
        below, moved = mass[i], moment[i]
        # In the order of j the cost until j only grows: where it alone is too much, no later j is better.
        least, best = float("inf"), i + 1
        asked = (whole - below) * poll_price_s + moved
        for j in range(i + 1, last + 1):
            until = asked + POINTS[j] * (mass[j] - below) - moment[j]
            if until >= least:
                break
            if until + cost[j] < least:
                least, best = until + cost[j], j
        cost[i], following[i] = least, best
    following[:first] = [following[first]] * first
    return following
