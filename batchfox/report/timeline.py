"""What happened when, in bounded memory: counts by the second, by ever longer spans where there are too many of those.

Time without any event is left out, so that nights between runs do not flatten the rest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import msgspec

MOST_SPANS = 2000
MOST_BINS = 120
IDLE_S = 900
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
# Latencies are counted in steps of 4 %: a quantile is off by half of that at most.
RATIO = math.log(1.04)


class Latencies:
    """A histogram of latencies, in seconds."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, step: int, rows: int) -> None:
        self.counts[step] += rows

    def quantile(self, share: float) -> float | None:
        """Seconds; None without any."""
        left = share * self.counts.total()
        for step in sorted(self.counts):
            left -= self.counts[step]
            if left <= 0:
                return math.exp((step + 0.5) * RATIO)
        return None

    def merge(self, other: Latencies) -> None:
        self.counts.update(other.counts)


class Span(msgspec.Struct):
    """What happened in one stretch of time."""

    started: int = 0
    ended: int = 0
    completed: int = 0
    settled: int = 0
    throttles: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    credits: float = 0.0
    latencies: Latencies = msgspec.field(default_factory=Latencies)

    def merge(self, other: Span) -> None:
        for name in self.__struct_fields__:
            if name != "latencies":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latencies.merge(other.latencies)


class Bin(msgspec.Struct, frozen=True):
    """One point of a chart over time. `in_flight`: at its end. `starts_at`: unix seconds."""

    starts_at: float
    lasts_s: float
    span: Span
    in_flight: int


class Timeline:
    """Spans by time. `started` and `ended` count rows whose submit and end are both known; `settled` all that ended."""

    def __init__(self) -> None:
        self.width_s = 1
        self._spans: dict[int, Span] = {}

    def at(self, second: int) -> Span:
        """The span of a second (unix), to be added to. Not to be kept: spans are merged as they become many."""
        key = second // self.width_s
        found = self._spans.get(key)
        if found is None:
            if len(self._spans) >= MOST_SPANS:
                self._widen()
                return self.at(second)
            found = self._spans[key] = Span()
        return found

    def _widen(self) -> None:
        self.width_s *= 2
        old, self._spans = self._spans, {}
        for key, span in old.items():
            known = self._spans.get(key // 2)
            if known is None:
                self._spans[key // 2] = span
            else:
                known.merge(span)

    def bins(self) -> list[Bin | None]:
        """In order, about `MOST_BINS` of them; None where time was left out."""
        stretches = list(self._stretches())
        seconds = sum(stop - start for start, stop in stretches) * self.width_s
        least = max(seconds / MOST_BINS, self.width_s)
        step_s = next((step for step in _STEPS_S if step >= least), _STEPS_S[-1] * math.ceil(least / _STEPS_S[-1]))
        keys = max(1, round(step_s / self.width_s))
        found: list[Bin | None] = []
        in_flight = 0
        for start, stop in stretches:
            if found:
                found.append(None)
            for first in range(start, stop, keys):
                span = Span()
                for key in range(first, min(first + keys, stop)):
                    if (known := self._spans.get(key)) is not None:
                        span.merge(known)
                in_flight += span.started - span.ended
                lasts_s = (min(first + keys, stop) - first) * self.width_s
                found.append(Bin(first * self.width_s, lasts_s, span, in_flight))
        return found

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Keys from, and up to, which something happened without a long pause."""
        keys = sorted(self._spans)
        idle = max(IDLE_S // self.width_s, 10)
        gaps = [(after - before, before, after) for before, after in pairwise(keys)]
        longest = sorted((gap for gap in gaps if gap[0] > idle), reverse=True)[: MOST_BINS // 4]
        start = keys[0] if keys else 0
        for _, before, after in sorted(longest, key=lambda gap: gap[1]):
            yield start, before + 1
            start = after
        if keys:
            yield start, keys[-1] + 1
