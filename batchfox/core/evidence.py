"""What the replies to submits tell beside the last one: how many got through in a minute, are refusals many or lone."""

from __future__ import annotations

from collections import deque
from math import sqrt

WINDOW_S = 60.0
# Refusals are many when they outnumber what got through: each raises the alarm by one, each success lowers it.
CALMING = 0.4
ALARM = 3.0
# Where some are refused by chance the alarm is slower: so much for each share of them.
NOISY_CALMING = 2.0
NOISY_ALARM = 20.0
# Noise that was found so few replies ago was none, when many are refused after all.
NOISE_TRUSTED = 200
# Noise: refusals that come whatever the pace is. Its share is what trials showed, then a moving mean over so many
# replies that may rise to so many times of it at most. Below the least it is none.
NOISE_REPLIES = 600
LEAST_NOISE = 0.0005
MOST_NOISE = 0.15
UNSURE = 1.5
# How far above its mean the number of noisy refusals may lie by chance, in standard deviations.
DEVIATIONS = 3.0


class LastMinute:
    """What got through in the last 60 s, to the second."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        self._sum = 0

    def note(self, now: float) -> None:
        """One submit got through."""
        second, count = self._seconds.pop() if self._seconds and self._seconds[-1][0] == int(now) else (int(now), 0)
        self._seconds.append((second, count + 1))
        self._sum += 1

    def count(self, now: float) -> int:
        """How many did in the 60 s before `now`."""
        while self._seconds and self._seconds[0][0] <= now - WINDOW_S:
            self._sum -= self._seconds.popleft()[1]
        return self._sum


class Refusals:
    """Are they many (the API takes hardly anything), or lone ones, and how many of those does mere chance explain?"""

    def __init__(self) -> None:
        self.noise = 0.0
        self._most = 0.0
        self._tried_refused = 0
        self._tried = 0
        self._alarm = 0.0
        self._age = 0

    @property
    def are_many(self) -> bool:
        return self._alarm >= ALARM + NOISY_ALARM * self.noise

    def note(self, *, is_refused: bool, learns: bool) -> None:
        """A reply came in. `learns`: the pace had held, so that what is refused is noise."""
        self._age += 1
        calming = CALMING + NOISY_CALMING * self.noise
        self._alarm = self._alarm + 1.0 if is_refused else max(self._alarm - calming, 0.0)
        if learns and self.noise and not self.are_many:
            self.noise += (is_refused - self.noise) / NOISE_REPLIES
            self.noise = 0.0 if self.noise < LEAST_NOISE else min(self.noise, self._most)

    def calm(self) -> None:
        """A new beginning: the API takes submits again."""
        self._alarm = 0.0

    def explain(self, refused: int, replies: int) -> None:
        """A trial showed that so many are refused whatever the pace is. Trials count together."""
        self._tried_refused += refused
        self._tried += replies
        share = self._tried_refused / self._tried
        # A trial ends with a refusal: without that one the share is right on average.
        self.noise, self._age = share - 1.0 / self._tried, 0
        self._most = min(UNSURE * share, MOST_NOISE)

    def doubt(self) -> None:
        """Many are refused: some of what was held to be noise was not."""
        self.noise = self.noise / 2.0 if self._age > NOISE_TRUSTED else 0.0
        self._tried_refused = self._tried = 0

    def by_chance(self, replies: int) -> float:
        """So many refusals among `replies` tell nothing of the pace."""
        expected = self.noise * replies
        return expected + DEVIATIONS * sqrt(expected) + 1.0 if self.noise else 0.0
