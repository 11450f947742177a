"""How many calls in how long: what arrived, for the book, and what is let through, for the refusals."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Protocol

MINUTE_S = 60.0


class Window:
    """Counts arrivals in the last `span_s` seconds and remembers the most it saw."""

    def __init__(self, span_s: float, *, most: int = 0) -> None:
        self._span_s = span_s
        self._arrivals: deque[float] = deque()
        self.most = most

    def note(self, now: float) -> None:
        """One arrival."""
        self._arrivals.append(now)
        while self._arrivals[0] <= now - self._span_s:
            self._arrivals.popleft()
        self.most = max(self.most, len(self._arrivals))


class Limiter(Protocol):
    """Lets calls through or says how long to wait."""

    def take(self, now: float) -> float:
        """0.0 where the call is let through, else the seconds until the next one would be."""


class Unlimited:
    """Lets everything through."""

    def take(self, now: float) -> float:
        """Always 0.0."""
        return 0.0


class SlidingWindow:
    """At most `rpm` calls in any 60 seconds. `earlier`: what was let through before, oldest first."""

    def __init__(self, rpm: int, earlier: Iterable[float] = ()) -> None:
        self._rpm = rpm
        self._let_through = deque(earlier)

    def take(self, now: float) -> float:
        """A refused call is not counted."""
        while self._let_through and self._let_through[0] <= now - MINUTE_S:
            self._let_through.popleft()
        # A rate that was lowered leaves more in the window than it allows: the wait is for the surplus too.
        surplus = len(self._let_through) - self._rpm
        if surplus >= 0:
            return max(self._let_through[surplus] + MINUTE_S - now, 1e-3)
        self._let_through.append(now)
        return 0.0


class Bucket:
    """`burst` calls at once, refilled at `rpm`."""

    def __init__(self, rpm: int, burst: int, now: float) -> None:
        self._a_second = rpm / MINUTE_S
        self._burst = burst
        self._level = float(burst)
        self._as_of = now

    def take(self, now: float) -> float:
        """A refused call takes nothing out."""
        self._level = min(self._burst, self._level + max(0.0, now - self._as_of) * self._a_second)
        self._as_of = now
        if self._level < 1:
            return (1 - self._level) / self._a_second
        self._level -= 1
        return 0.0


def whole_seconds(wait_s: float) -> int:
    """A wait as `Retry-After` says it: rounded up, at least 1."""
    return max(1, math.ceil(wait_s))
