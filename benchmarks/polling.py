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
from collections.abc import Callable
from itertools import islice
from random import Random
from typing import NamedTuple

from schedules import Law, Spent, doubling, every, going_on, optimum, spend, total

from batchfox.core.breaker import Breaker
from batchfox.core.budget import Budget
from batchfox.core.dispatch import Fleet
from batchfox.core.event import Accepted, Answer, Answered, Running
from batchfox.core.gate import Doubts, Gate
from batchfox.core.lifecycle import Life, Policy
from batchfox.core.paces import Paces
from batchfox.core.row import key_of_position
from batchfox.core.settle import Orders
from batchfox.core.timing import Timing
from batchfox.core.watch import Watch

IN_FLIGHT = 64
LEARNED_AFTER = 200
MEASURED = 400
NEAR = 1.15  # times the optimum
EQUAL = 1.25  # times the optimum: trying where tasks end costs a poll of each twentieth
COLD = 1.5  # times every 5 s
LEARN_MS = 5.0
GROUP = "model|text"


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
        Orders(policy=Policy(), in_flight=IN_FLIGHT, bytes_in_flight=1 << 30, run_id="run", run_date="2026-01-01"),
        gate=Gate(pace=Paces(1e6), breaker=Breaker(), budget=Budget(None), doubts=Doubts(None)),
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


def measure_equal(report: Report, seeds: int) -> None:
    """Tasks that always take the same time, to a hundredth: the optimum is one poll each, as they end. it takes
    some hundred rows until that is known; rows 3,000 to 6,000."""
    print(f"\n{HEAD}cost to optimum")
    for median_s in (1.0, 20.0):
        law = Law("equal", ((1.0, median_s, 0.003),))
        price_s = law.poll_price_s()
        done = [run(draws(law, seed, 6_000), seed) for seed in range(min(seeds, 2))]
        for one in done:
            report.note(one.timing)
        spent = total([one.part(3_000, 6_000) for one in done])
        latencies = [latency for seed in range(min(seeds, 2)) for latency in draws(law, seed, 6_000)[3_000:]]
        least = spend(latencies, going_on(optimum(law, price_s)))
        ratio = spent.cost(price_s) / least.cost(price_s)
        name = f"{median_s:.0f} s, equal"
        print(show(name, price_s, spent, least) + report.judge("equal, to the optimum", name, ratio, EQUAL), flush=True)


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
    measure_equal(report, arguments.seeds)
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
