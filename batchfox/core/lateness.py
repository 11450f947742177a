"""How late things happen: a histogram of delays, small however many they are."""

from __future__ import annotations

from bisect import bisect_left

RATIO = 1.2
SHORTEST_S = 0.001
BOUNDS = [SHORTEST_S * RATIO**step for step in range(80)]


class Lateness:
    """Delays in seconds. A share of them is told to the next bound above, a fifth too much at most."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0

    def see(self, delay_s: float) -> None:
        self._counts[bisect_left(BOUNDS, delay_s)] += 1
        self._total += 1

    def within_s(self, share: float) -> float:
        """So late is this share of them at most; 0 where there were none."""
        wanted = share * self._total
        seen = 0
        for bound, number in zip([*BOUNDS, float("inf")], self._counts, strict=True):
            seen += number
            if seen and seen >= wanted:
                return bound
        return 0.0
