"""A server's rate limiter and a client that obeys `Pace`, on a clock that jumps from event to event.

The client sends whenever its bucket (as limiter.py computes it) has a token; a submit reaches the server half a
latency later, its reply comes the other half after that.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import pairwise
from random import Random
from typing import NamedTuple, Protocol

from batchfox.core.bucket import Drip
from batchfox.core.pace import Pace
from batchfox.simulator.rates import Bucket as SimulatorBucket
from batchfox.simulator.rates import SlidingWindow


class Hidden(Protocol):
    """A server's limiter: 0.0 where the submit is let through, else the true seconds until the next would be."""

    def take(self, now: float) -> float: ...


class Fixed:
    """At most `most` in each span of `span_s`, counted from the clock's full spans."""

    def __init__(self, most: int, span_s: float) -> None:
        self.most, self.span_s = most, span_s
        self._span, self._count = -1, 0

    def take(self, now: float) -> float:
        span = math.floor(now / self.span_s)
        if span != self._span:
            self._span, self._count = span, 0
        if self._count >= self.most:
            return (span + 1) * self.span_s - now
        self._count += 1
        return 0.0


class Sliding:
    """At most `most` in any `span_s`."""

    def __init__(self, most: int, span_s: float) -> None:
        self.most, self.span_s = most, span_s
        self._taken: deque[float] = deque()

    def take(self, now: float) -> float:
        while self._taken and self._taken[0] <= now - self.span_s:
            self._taken.popleft()
        if len(self._taken) >= self.most:
            return self._taken[len(self._taken) - self.most] + self.span_s - now
        self._taken.append(now)
        return 0.0


def hidden(kind: str, per_minute: int, now: float, before: Hidden | None = None) -> Hidden:
    """A limiter of that kind. `before`: the one whose limit is changed to this."""
    match kind:
        case "minute":  # the simulator's own
            earlier = before._let_through if isinstance(before, SlidingWindow) else ()
            return SlidingWindow(per_minute, list(earlier))
        case "bucket":  # the simulator's own
            return SimulatorBucket(per_minute, 10, now)
        case "small bucket":
            return SimulatorBucket(per_minute, max(1, per_minute // 600), now)
        case "fixed minute":
            return Fixed(per_minute, 60.0)
        case "second":
            return Sliding(max(per_minute // 60, 1), 1.0)
        case _:
            raise AssertionError(kind)


class Sent(NamedTuple):
    """A submit as the server saw it."""

    at: float
    is_taken: bool


class World:
    """`retry_after`: the reply's header by the true wait. `chance`: the share of submits refused whatever the pace.
    `stall_s`: so long in each second the server stands still, and what came meanwhile arrives at once.
    """

    def __init__(
        self,
        pace: Pace,
        kind: str,
        per_minute: int,
        *,
        latency_s: float = 0.05,
        retry_after: Callable[[float], float | None] = lambda wait_s: 1.0,
        chance: float = 0.0,
        stall_s: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.pace, self.kind, self.per_minute = pace, kind, per_minute
        self.limit = hidden(kind, per_minute, 0.0)
        self.latency_s, self.retry_after, self.chance = latency_s, retry_after, chance
        self.stall_s = stall_s
        self.random = Random(seed)
        self.now = 0.0
        self.log: list[Sent] = []
        self.trace: list[tuple[float, float, str]] = []
        self._per_minute = 0.0
        self._drip = Drip()
        self._replies: list[tuple[float, float, float | None, bool]] = []

    def change(self, per_minute: int) -> None:
        """The server's limit is another one from now on."""
        self.per_minute = per_minute
        self.limit = hidden(self.kind, per_minute, self.now, self.limit)

    def _ready_at(self) -> float:
        """When the bucket has a token and nobody is asked to wait."""
        pace = self.pace
        if self._per_minute != pace.per_minute:
            self._per_minute = pace.per_minute
            self._drip.resize(pace.per_minute, self.now)
        if pace.resumes_at > self.now:
            self._drip.calm(pace.resumes_at)
        return self._drip.ready_at(self.now)

    def run(self, until: float) -> World:
        while True:
            ready = self._ready_at()
            reply = self._replies[0][0] if self._replies else math.inf
            following = min(ready, reply)
            if following > until:
                self.now = until
                return self
            self.now = following
            if reply <= ready:
                self._deliver()
            else:
                self._send()

    def _send(self) -> None:
        now = self.now
        self._drip.take(now)
        at = now + self.latency_s / 2
        at = max(at, math.floor(at) + self.stall_s)
        if self.random.random() < self.chance:
            wait_s: float | None = 1.0
            is_taken = False
        else:
            true_s = self.limit.take(at)
            is_taken = true_s <= 0.0
            wait_s = None if is_taken else self.retry_after(true_s)
        self.log.append(Sent(at, is_taken))
        heappush(self._replies, (at + self.latency_s / 2, now, wait_s, is_taken))

    def _deliver(self) -> None:
        _, sent_at, wait_s, is_taken = heappop(self._replies)
        before = self.pace.per_s
        if is_taken:
            self.pace.accept(self.now, sent_at)
        else:
            self.pace.throttle(self.now, sent_at, wait_s)
        if self.pace.per_s != before:
            self.trace.append((self.now, self.pace.per_s, "" if is_taken else "429"))

    def between(self, since: float, until: float) -> list[Sent]:
        return [sent for sent in self.log if since <= sent.at < until]

    def used(self, since: float, until: float, chance: float = 0.0) -> float:
        """The share of what the limit allowed that was let through."""
        taken = sum(sent.is_taken for sent in self.between(since, until))
        return taken / (self.per_minute / 60.0 * (until - since))

    def refused(self, since: float, until: float) -> float:
        """The share of submits that was refused."""
        sent = self.between(since, until)
        return sum(not one.is_taken for one in sent) / max(len(sent), 1)

    def longest_gap(self, since: float, until: float) -> float:
        times = [since, *(sent.at for sent in self.between(since, until)), until]
        return max(later - earlier for earlier, later in pairwise(times))
