"""What `batchfox run` makes of a rate limit that nobody told it: how much is used, refused, and how fast it follows.

Each scenario is the real command against `batchfox simulate`, both processes of their own, all scenarios at once. The
simulator's book is read every second. Where the limit changes, it doubles and is later halved again. Where hardly
any are refused, and by chance, three seeds run, and the one whose use is the median is judged. Exits 1 where a bound
broke.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import children

KEY = {"FOXAPI_API_KEY": "sk-benchmark"}
MODEL = "nemotron-3-nano-omni"
LATENCY = "constant:0.2"

# Seconds since the first submit: measured from, the limit doubles, the limit is halved, the end.
BEGIN_S, DOUBLE_S, HALVE_S, END_S = 60, 110, 180, 240
# A limit counts as used from the first span of so long on that uses this share of it.
SPAN_S, USED = 10, 0.9
MOST_DOUBLE_S = 60
CALM_S = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """`simulate`: options of the simulator. `hidden`: submits a minute that it takes, or that the job allows. `seeds`:
    how many runs, each of a seed of its own."""

    name: str
    hidden: int
    simulate: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    is_changing: bool = False
    least_used: float = 0.9
    most_refused: float | None = 0.02
    seeds: int = 1

    @property
    def until_s(self) -> int:
        """How long the limit stays as it is."""
        return DOUBLE_S if self.is_changing else END_S


BUCKET = ("--rate-limit", "bucket")
SCENARIOS = (
    Scenario(
        name="bucket of 600, Retry-After 1 s",
        hidden=600,
        simulate=(*BUCKET, "--rpm", "600", "--retry-after-seconds", "1"),
        is_changing=True,
    ),
    Scenario(
        name="bucket of 6,000, Retry-After 1 s",
        hidden=6_000,
        simulate=(*BUCKET, "--rpm", "6000", "--retry-after-seconds", "1"),
        is_changing=True,
    ),
    Scenario(name="sliding minute of 600, the true wait", hidden=600, simulate=("--rpm", "600"), least_used=0.8),
    Scenario(
        name="bucket of 600, Retry-After 30 s",
        hidden=600,
        simulate=(*BUCKET, "--rpm", "600", "--retry-after-seconds", "30"),
        least_used=0.8,
    ),
    Scenario(
        name="bucket of 600, job says 6,000",
        hidden=600,
        simulate=(*BUCKET, "--rpm", "600", "--retry-after-seconds", "1"),
        settings=("limits.requests_per_minute=6000",),
    ),
    Scenario(
        name="job says 600, 1 % refused by chance",
        hidden=600,
        simulate=("--fault", "refuse_429=0.01"),
        settings=("limits.requests_per_minute=600",),
        least_used=0.7,
        most_refused=None,
        seeds=3,
    ),
    Scenario(
        name="job says 600, 5 % refused by chance",
        hidden=600,
        simulate=("--fault", "refuse_429=0.05"),
        settings=("limits.requests_per_minute=600",),
        least_used=0.5,
        most_refused=None,
    ),
)


class Look(NamedTuple):
    """The simulator's book at a moment."""

    at: float
    taken: int
    refused: int


@dataclass(slots=True)
class Found:
    """One scenario's figures."""

    looks: list[Look] = field(default_factory=list)
    error: str | None = None

    def _span(self, since: float, until: float) -> tuple[Look, Look]:
        inside = [look for look in self.looks if since <= look.at <= until]
        return inside[0], inside[-1]

    def used(self, hidden: int, since: float, until: float) -> float:
        first, last = self._span(since, until)
        return (last.taken - first.taken) / (hidden / 60.0 * (last.at - first.at))

    def refused(self, since: float, until: float) -> float:
        first, last = self._span(since, until)
        refused = last.refused - first.refused
        return refused / max(refused + last.taken - first.taken, 1)

    def used_after(self, hidden: int, since: float, until: float) -> float | None:
        """How long after `since` the limit was used; None: never before `until`."""
        for at in range(int(until - since) - SPAN_S):
            if self.used(hidden, since + at, since + at + SPAN_S) >= USED:
                return float(at)
        return None


def call(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30) as reply:
        found: dict[str, Any] = json.load(reply)
        return found


def look_at(url: str) -> Look:
    totals = call(f"{url}/__book?entries=0")["totals"]
    return Look(time.monotonic(), totals["submits_accepted"], totals["submits_refused"].get("429", 0))


def play(scenario: Scenario, seed: int, folder: Path, found: Found) -> None:
    """One run of a scenario, from the first submit to the end."""
    rows = int(scenario.hidden / 60 * END_S * 2.5)
    lines = (json.dumps({"id": n, "prompt": f"Question {n}: why?"}) for n in range(rows))
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    batchfox = [sys.executable, "-m", "batchfox"]
    simulate = [*batchfox, "simulate", "--latency", LATENCY, "--seed", str(seed), *scenario.simulate]
    with subprocess.Popen(simulate, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as simulator:
        assert simulator.stdout is not None
        url = simulator.stdout.readline().strip()
        command = [*batchfox, "run", "--input", str(folder / "in.jsonl"), "--id", "id", "--output", str(folder / "out")]
        command += ["--model", MODEL, "--base-url", url, "--quiet", "--set", "limits.in_flight=1000"]
        for setting in scenario.settings:
            command += ["--set", setting]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | KEY,
        ) as runner:
            try:
                watch(scenario, url, found)
                if runner.poll() is not None:
                    found.error = f"the run ended early, with status {runner.returncode}"
            finally:
                runner.terminate()
                runner.wait()
                simulator.terminate()


def watch(scenario: Scenario, url: str, found: Found) -> None:
    changes = {DOUBLE_S: 2 * scenario.hidden, HALVE_S: scenario.hidden} if scenario.is_changing else {}
    deadline = time.monotonic() + 60.0
    while look_at(url).taken == 0:
        if time.monotonic() > deadline:
            found.error = "no submit within a minute"
            return
        time.sleep(0.1)
    began_at = time.monotonic()
    for second in range(1, END_S + 1):
        time.sleep(max(began_at + second - time.monotonic(), 0.0))
        look = look_at(url)
        found.looks.append(look._replace(at=look.at - began_at))
        if second in changes:
            call(f"{url}/__control", {"rpm": changes[second]})


def judge(scenario: Scenario, runs: list[Found]) -> tuple[str, list[str]]:
    """The figures of the run whose use is the median, in words, and the bounds that broke."""
    if error := next((found.error for found in runs if found.error is not None), None):
        return error, [f"{scenario.name}: {error}"]
    until = scenario.until_s
    runs = sorted(runs, key=lambda found: found.used(scenario.hidden, BEGIN_S, until))
    found = runs[len(runs) // 2]
    used, refused = found.used(scenario.hidden, BEGIN_S, until), found.refused(BEGIN_S, until)
    said, broken = [f"{used:.2f} used, {refused:.2%} refused"], []
    if len(runs) > 1:
        least, most = (found.used(scenario.hidden, BEGIN_S, until) for found in (runs[0], runs[-1]))
        said.append(f"median of {len(runs)} seeds ({least:.2f} to {most:.2f})")
    if used < scenario.least_used:
        broken.append(f"used {used:.2f}, not {scenario.least_used}")
    if scenario.most_refused is not None and refused >= scenario.most_refused:
        broken.append(f"refused {refused:.2%}")
    if scenario.is_changing:
        after = found.used_after(2 * scenario.hidden, DOUBLE_S, HALVE_S)
        calm = found.refused(HALVE_S + CALM_S, END_S)
        said.append(f"doubled: used after {'never' if after is None else f'{after:.0f} s'}")
        said.append(f"halved: {calm:.2%} refused from {CALM_S} s on")
        if after is None or after > MOST_DOUBLE_S:
            broken.append("a doubled limit was not used within a minute")
        if calm >= 0.02:
            broken.append(f"{calm:.2%} refused after the limit was halved")
    return "; ".join(said), [f"{scenario.name}: {what}" for what in broken]


def main() -> None:
    parser = argparse.ArgumentParser(description="How a hidden rate limit is found and followed, and what is refused.")
    parser.add_argument("--only", type=int, metavar="N", help="the Nth scenario alone, from 1")
    arguments = parser.parse_args()
    chosen = SCENARIOS if arguments.only is None else SCENARIOS[arguments.only - 1 : arguments.only]
    print(children.describe_machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        played: list[tuple[Scenario, list[Found]]] = []
        threads: list[threading.Thread] = []
        for number, scenario in enumerate(chosen):
            runs = [Found() for _ in range(scenario.seeds)]
            for seed, found in enumerate(runs):
                folder = Path(name) / f"{number}-{seed}"
                folder.mkdir()
                threads.append(threading.Thread(target=play, args=(scenario, seed, folder, found)))
                threads[-1].start()
            played.append((scenario, runs))
        for thread in threads:
            thread.join()
    broken: list[str] = []
    least = 1.0
    for scenario, runs in played:
        said, wrong = judge(scenario, runs)
        print(f"{scenario.name:<38} {said}")
        broken += wrong
        used = [found.used(scenario.hidden, BEGIN_S, DOUBLE_S) for found in runs if found.error is None]
        least = min([least, *used])
    for what in broken:
        print(f"broken: {what}")
    print(f"{len(played)} scenarios, {len(broken)} bounds broken; the least use of a limit after a minute: {least:.2f}")
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
