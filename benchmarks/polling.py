"""Polls and delay of the learned schedule against the known optimum, every 5 s and doubling backoff, on a fake clock.

The real core (`Fleet`, `Watch`, `Timing`) runs rows through tasks of a known latency distribution, 64 in flight, so
that observations come late and open ones exist; no server, no waiting. A run costs its delay (from a task's end to the
poll that finds it done) plus its polls, each priced as `poll.eagerness` = 1 says: 5 % of the true median latency, at
most 5 s. The optimum is computed here by dynamic programming on a fine grid from the true distribution (Barlow, Hunter
and Proschan, 1963), with no line of the core's, and meets the same latencies. Exits 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from random import Random
from statistics import NormalDist
from typing import NamedTuple

from batchfox.core.breaker import Breaker
from batchfox.core.budget import Budget
from batchfox.core.dispatch import Fleet
from batchfox.core.event import Accepted, Answer, Answered, Running
from batchfox.core.gate import Doubts, Gate
from batchfox.core.lifecycle import Life, Policy
from batchfox.core.pace import Pace
from batchfox.core.row import key_of_position
from batchfox.core.settle import Orders
from batchfox.core.timing import Timing
from batchfox.core.watch import Watch

IN_FLIGHT = 64
LEARNED_AFTER = 200
MEASURED = 400
NEAR = 1.15  # times the optimum
COLD = 1.5  # times every 5 s
LEARN_MS = 5.0
GROUP = "model|text"


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


# Of median (about) 1 s; the two bimodal ones have their humps 15 and 5 times apart.
LAWS = (
    Law("sigma 0.3", ((1.0, 1.0, 0.3),)),
    Law("sigma 0.5", ((1.0, 1.0, 0.5),)),
    Law("sigma 0.9", ((1.0, 1.0, 0.9),)),
    Law("bimodal 1:15", ((0.7, 0.2, 0.25), (0.3, 3.0, 0.25))),
    Law("bimodal 1:5", ((0.5, 0.5, 0.3), (0.5, 2.5, 0.3))),
)
LONG_TAIL = Law("long tail", ((0.998, 1.0, 0.5), (0.002, 100.0, 0.3)))
SCALES_S = (2.0, 10.0, 20.0, 60.0, 300.0)


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


# The learned schedule: the real core on a fake clock.


class TimedTiming(Timing):
    """Measures what each observation takes, the steps of learning included, in the thread's CPU time."""

    def __init__(self, draw: Callable[[], float], eagerness: float) -> None:
        super().__init__(None, draw, eagerness)
        self.took_s: list[float] = []

    def see(self, group: str, low_s: float, high_s: float, now: float, key: bytes | None = None) -> None:
        began = time.thread_time()
        super().see(group, low_s, high_s, now, key)
        self.took_s.append(time.thread_time() - began)


class Run(NamedTuple):
    """One run: each row's polls and delay, and what learning took."""

    polls: list[int]
    delays_s: list[float]
    timing: TimedTiming

    def part(self, first: int, last: int) -> Spent:
        return Spent(last - first, sum(self.polls[first:last]), sum(self.delays_s[first:last]))


def run(latencies: list[float], seed: int, *, eagerness: float = 1.0, polls_per_s: float = math.inf) -> Run:
    """Every row's task takes as long as `latencies` says; rows are submitted in order, as tasks end."""
    draw = Random(f"watch {seed}").random
    timing = TimedTiming(draw, eagerness)
    fleet = Fleet(
        Orders(policy=Policy(), in_flight=IN_FLIGHT, run_id="run", run_date="2026-01-01"),
        gate=Gate(pace=Pace(1e6), breaker=Breaker(), budget=Budget(None), doubts=Doubts(None)),
        watch=Watch(timing, 1e6, draw),
        draw=draw,
    )
    rows = enumerate(latencies)
    ends_at = [0.0] * len(latencies)
    polls, delays_s = [0] * len(latencies), [0.0] * len(latencies)
    now = free_at = 0.0
    while True:
        for index, _ in islice(rows, fleet.room()):
            key = key_of_position(index)
            fleet.offer(Life(key=key, index=index, id=str(index), kept={}, request={}, group=GROUP))
        for life in fleet.submits(now, now, IN_FLIGHT):
            fleet.sent(life.key, now)
            fleet.receive(life.key, Accepted(task_id=life.id), now, now)
            ends_at[life.index] = now + latencies[life.index]
        due = fleet.next_poll_at()
        if due is None:
            return Run(polls, delays_s, timing)
        now = max(now, due, free_at)
        for life in fleet.polls(now, 1 if polls_per_s < math.inf else 1_000_000):
            free_at = now + 1 / polls_per_s
            is_done = now >= ends_at[life.index]
            event = Answered(answer=Answer(completion="{}")) if is_done else Running()
            if (outcome := fleet.receive(life.key, event, now, now)) is not None:
                polls[life.index] = outcome.polls
                delays_s[life.index] = now - ends_at[life.index]


def draws(law: Law, seed: int, tasks: int) -> list[float]:
    random = Random(f"latencies {seed}")
    return [law.draw(random) for _ in range(tasks)]


def total(parts: list[Spent]) -> Spent:
    return Spent(sum(p.tasks for p in parts), sum(p.polls for p in parts), sum(p.delay_s for p in parts))


# The questions.


class Report:
    """What was beyond a limit, and how long learning took."""

    def __init__(self) -> None:
        self.beyond: list[str] = []
        self.took_s: list[float] = []
        self.worst: dict[str, float] = {}

    def judge(self, what: str, name: str, ratio: float, most: float) -> str:
        self.worst[what] = max(self.worst.get(what, 0.0), ratio)
        if ratio > most:
            self.beyond.append(f"{what}, {name}: {ratio:.2f} (at most {most:.2f})")
        return f"{ratio:5.2f}{'!' if ratio > most else ' '}"

    def note(self, timing: TimedTiming) -> None:
        self.took_s += timing.took_s

    def judge_learning(self) -> str:
        """An observation in a thousand may be disturbed by the machine."""
        took_ms = sorted(1000 * took for took in self.took_s)
        longest_ms, mean_ms = took_ms[int(len(took_ms) * 0.999)], sum(took_ms) / len(took_ms)
        if longest_ms > LEARN_MS:
            self.beyond.append(f"learning from an observation: {longest_ms:.1f} ms (at most {LEARN_MS:.0f})")
        return f"learning {mean_ms:.2f} ms an observation, {longest_ms:.1f} ms the 999th of 1,000"


HEAD = f"{'latency':>22} {'price':>6} | {'polls':>5} {'delay':>7} | optimum {'polls':>5} {'delay':>7} | "


def show(name: str, price_s: float, spent: Spent, best: Spent) -> str:
    return (
        f"{name:>22} {price_s:6.3f} | {spent.polls / spent.tasks:5.2f} {spent.delay_s / spent.tasks:7.3f} |"
        f"         {best.polls / best.tasks:5.2f} {best.delay_s / best.tasks:7.3f} | "
    )


def measure_steady(report: Report, seeds: int) -> None:
    """Rows 200 to 600 of a run; and its first 200, with nothing known, against every 5 s."""
    print(f"{HEAD}cost to optimum, to every 5 s, to doubling | first {LEARNED_AFTER} to every 5 s, to optimum")
    for scale in SCALES_S:
        for unit in LAWS:
            law = unit.times(scale)
            name, price_s = f"{scale:.0f} s, {law.name}", law.poll_price_s()
            best = going_on(optimum(law, price_s))
            learned, cold, latencies, first = [], [], [], []
            for seed in range(seeds):
                drawn = draws(law, seed, LEARNED_AFTER + MEASURED + IN_FLIGHT)
                done = run(drawn, seed)
                report.note(done.timing)
                cold.append(done.part(0, LEARNED_AFTER))
                learned.append(done.part(LEARNED_AFTER, LEARNED_AFTER + MEASURED))
                first += drawn[:LEARNED_AFTER]
                latencies += drawn[LEARNED_AFTER : LEARNED_AFTER + MEASURED]
            spent, least = total(learned), spend(latencies, best)
            cost = spent.cost(price_s)
            five = cost / spend(latencies, lambda: every(5.0)).cost(price_s)
            begun = total(cold).cost(price_s)
            print(
                show(name, price_s, spent, least)
                + report.judge("to the optimum", name, cost / least.cost(price_s), NEAR)
                + report.judge("to every 5 s", name, five, 1.0)
                + f"{cost / spend(latencies, doubling).cost(price_s):5.2f}  | "
                + report.judge("cold to every 5 s", name, begun / spend(first, lambda: every(5.0)).cost(price_s), COLD)
                + f"{begun / spend(first, best).cost(price_s):5.2f}",
                flush=True,
            )


def measure_step(report: Report, seeds: int) -> None:
    """The latency changes for rows submitted from 600 on; rows 400 to 800 after that."""
    before = 600
    print(f"\n{HEAD}cost to the new optimum, {MEASURED} rows after a step | of those {MEASURED} rows")
    for old_s, new_s in ((60.0, 10.0), (10.0, 60.0)):
        for unit in LAWS:
            old, new = unit.times(old_s), unit.times(new_s)
            name, price_s = f"{old_s:.0f} to {new_s:.0f} s, {unit.name}", new.poll_price_s()
            best = going_on(optimum(new, price_s))
            learned, moving, latencies, between = [], [], [], []
            for seed in range(seeds):
                drawn = draws(old, seed, before) + draws(new, seed + 1000, 2 * MEASURED + IN_FLIGHT)
                done = run(drawn, seed)
                report.note(done.timing)
                moving.append(done.part(before, before + MEASURED))
                learned.append(done.part(before + MEASURED, before + 2 * MEASURED))
                between += drawn[before : before + MEASURED]
                latencies += drawn[before + MEASURED : before + 2 * MEASURED]
            spent, least = total(learned), spend(latencies, best)
            print(
                show(name, price_s, spent, least)
                + report.judge("after a step", name, spent.cost(price_s) / least.cost(price_s), NEAR)
                + f" | {total(moving).cost(price_s) / spend(between, best).cost(price_s):5.2f}",
                flush=True,
            )


def measure_balance(report: Report, seeds: int) -> None:
    """Other eagerness, tasks a hundred times slower now and then, and a limit of polls."""
    law = LAWS[1].times(20.0)
    print(f"\n{HEAD}cost to optimum")
    for eagerness in (0.1, 10.0):
        show_learned(report, f"eagerness {eagerness:g}", law, seeds, eagerness, math.inf)
    show_learned(report, "1 of 500 100 x slower", LONG_TAIL.times(20.0), seeds, 1.0, math.inf)
    for polls_per_s in (5.0, 2.5):
        show_learned(report, f"{polls_per_s:g} polls/s", law, seeds, 1.0, polls_per_s)


def show_learned(report: Report, name: str, law: Law, seeds: int, eagerness: float, polls_per_s: float) -> None:
    """Under a limit of polls the optimum is that of the price at which no more polls than were had are made."""
    price_s = law.poll_price_s() / eagerness
    learned, latencies = [], []
    for seed in range(seeds):
        drawn = draws(law, seed, LEARNED_AFTER + 3 * MEASURED + IN_FLIGHT)
        done = run(drawn, seed, eagerness=eagerness, polls_per_s=polls_per_s)
        report.note(done.timing)
        learned.append(done.part(LEARNED_AFTER, LEARNED_AFTER + 3 * MEASURED))
        latencies += drawn[LEARNED_AFTER : LEARNED_AFTER + 3 * MEASURED]
    spent = total(learned)
    least = spend(latencies, going_on(optimum(law, price_s)))
    while polls_per_s < math.inf and least.polls > spent.polls:
        price_s *= 1.05
        least = spend(latencies, going_on(optimum(law, price_s, points=300)))
    ratio = spent.cost(price_s) / least.cost(price_s)
    print(show(name, price_s, spent, least) + report.judge("to the optimum", name, ratio, NEAR), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="The learned polling schedule against the known optimum.")
    parser.add_argument("--seeds", type=int, default=6, help="runs per distribution, averaged")
    arguments = parser.parse_args()
    report = Report()
    began = time.perf_counter()
    measure_steady(report, arguments.seeds)
    measure_step(report, arguments.seeds)
    measure_balance(report, arguments.seeds)
    learning = report.judge_learning()
    print()
    for line in report.beyond:
        print(f"beyond its limit: {line}")
    figures = ", ".join(f"{what} {ratio:.2f}" for what, ratio in report.worst.items())
    print(f"{learning} ({time.perf_counter() - began:.0f} s)")
    print(f"cost, worst of all latencies: {figures}")
    sys.exit(bool(report.beyond))


if __name__ == "__main__":
    main()
