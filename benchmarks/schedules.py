"""Latency distributions that are known, and schedules of polls to compare with: the optimum, fixed gaps, backoff."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random
from statistics import NormalDist
from typing import NamedTuple


class Law(NamedTuple):
    """A latency distribution: a mixture of log-normals (share, median in seconds, sigma)."""

    name: str
    parts: tuple[tuple[float, float, float], ...]

    def times(self, factor: float) -> Law:
        return Law(self.name, tuple((share, median * factor, sigma) for share, median, sigma in self.parts))

    def cdf(self, at_s: float) -> float:
        if at_s <= 0.0:
            return 0.0
        return sum(share * NormalDist(math.log(med), sigma).cdf(math.log(at_s)) for share, med, sigma in self.parts)

    def draw(self, random: Random) -> float:
        _, median, sigma = random.choices(self.parts, [share for share, _, _ in self.parts])[0]
        return median * math.exp(random.gauss(0.0, sigma))

    def quantile(self, share: float) -> float:
        low, high = 1e-4, 1e6
        for _ in range(60):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.cdf(middle) < share else (low, middle)
        return low

    def poll_price_s(self) -> float:
        """What a poll costs at eagerness 1, in seconds of delay (docs/job-file.md)."""
        return min(0.05 * self.quantile(0.5), 5.0)


class Spent(NamedTuple):
    """Polls and delay of some tasks, summed."""

    tasks: int = 0
    polls: int = 0
    delay_s: float = 0.0

    def plus(self, polls: int, delay_s: float) -> Spent:
        return Spent(self.tasks + 1, self.polls + polls, self.delay_s + delay_s)

    def cost(self, price_s: float) -> float:
        """A task."""
        return (self.polls * price_s + self.delay_s) / self.tasks


# Schedules that learn nothing: the ages at which a task is asked about.


def optimum(law: Law, price_s: float, points: int = 800) -> list[float]:
    """The ages of the cheapest schedule for `law`. Dynamic programming from the tail: polling next at point j costs a
    poll whenever the task outlives i, and the delay of what ends in between."""
    low, top = law.quantile(1e-4), 1.5 * law.quantile(1 - 1e-7)
    ages = [0.0, *(low * (top / low) ** (k / points) for k in range(points + 1))]
    below = [law.cdf(age) for age in ages]
    area = [0.0]  # of the distribution function up to each age
    for a, b in pairwise(ages):
        area.append(area[-1] + sum(law.cdf(a + (b - a) * (k + 0.5) / 4) for k in range(4)) * (b - a) / 4)
    cost, following = [0.0] * len(ages), [0] * len(ages)
    for i in range(len(ages) - 2, -1, -1):
        cost[i] = math.inf
        for j in range(i + 1, len(ages)):
            step = price_s * (1 - below[i]) + area[j] - area[i] - below[i] * (ages[j] - ages[i])
            if step > cost[i]:
                break
            if step + cost[j] < cost[i]:
                cost[i], following[i] = step + cost[j], j
    found, at = [], 0
    while at < len(ages) - 1:
        at = following[at]
        found.append(ages[at])
    return found


def every(gap_s: float) -> Iterator[float]:
    age = 0.0
    while True:
        age += gap_s
        yield age


def doubling() -> Iterator[float]:
    """Backoff as people write it: gaps of 1, 2, 4, … up to 30 s."""
    age, gap = 0.0, 1.0
    while True:
        age += gap
        gap = min(2 * gap, 30.0)
        yield age


def spend(latencies: list[float], schedule: Callable[[], Iterator[float]]) -> Spent:
    spent = Spent()
    for ends in latencies:
        for polls, age in enumerate(schedule(), 1):
            if age >= ends:
                spent = spent.plus(polls, age - ends)
                break
    return spent


def going_on(ages: list[float]) -> Callable[[], Iterator[float]]:
    """A finite schedule, with the gaps of `every` a tenth of its last age beyond (once in millions of tasks)."""

    def schedule() -> Iterator[float]:
        yield from ages
        yield from (ages[-1] + further for further in every(ages[-1] / 10))

    return schedule


def total(parts: list[Spent]) -> Spent:
    return Spent(sum(p.tasks for p in parts), sum(p.polls for p in parts), sum(p.delay_s for p in parts))
