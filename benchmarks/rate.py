"""Does a job's rate hold at the moment of sending, and is it used?

`limits.requests_per_minute` against `batchfox simulate`, which takes all there is. One job in four lives: it runs, is
paused and resumed (`batchfox ctl`), is stopped and started again, is killed and started again. When each submit leaves
is noted as its token is taken, right before its POST, by the clock that all processes share. Judged are the most in any
60 s and in any 1 s over all lives, and how much of the rate is used while there is work: over the first life until it
is paused, and over the last. Exits 1 beyond a limit. Takes two and a half minutes, nearly all of them waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import children

MODEL = "nemotron-3-nano-omni"
KEY = {"FOXAPI_API_KEY": "sk-benchmark"}
RUN_S, PAUSE_S, AGAIN_S, SHORT_S, LAST_S = 65.0, 3.0, 10.0, 10.0, 45.0
# Runs before `main`: notes when each token is taken. What is noted is what leaves: no POST is without a token.
NOTING = """
import sys, time
from batchfox import limiter
take = limiter.Limiter.take
async def noted(self, most=1):
    tokens = await take(self, most)
    at = time.monotonic()
    with open(sys.argv[1], "a") as file:
        file.write(f"{at}\\n" * tokens)
    return tokens
limiter.Limiter.take = noted
from batchfox.cli import main
main(sys.argv[2:])
"""


def most_in(times: list[float], span_s: float) -> int:
    """The most in any window so long."""
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= span_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def used(times: list[float], since: float, until: float, per_minute: float) -> float:
    """The share of the rate that was used, from the first submit of a span to its last."""
    inside = [at for at in times if since <= at < until]
    return (len(inside) - 1) / (inside[-1] - inside[0]) * 60.0 / per_minute


def wait_for_first(notes: Path, before: int, child: subprocess.Popen[bytes]) -> None:
    """Until a life has sent something."""
    while len(read(notes)) <= before:
        if child.poll() is not None:
            raise SystemExit(f"batchfox ended with exit {child.returncode}")
        time.sleep(0.02)


def read(notes: Path) -> list[float]:
    return [float(line) for line in notes.read_text().split()] if notes.exists() else []


class Lives:
    """One job, whose process comes and goes."""

    def __init__(self, folder: Path, url: str, per_minute: float) -> None:
        self.notes, self.output = folder / "notes", folder / "out"
        self._command = [sys.executable, "-c", NOTING, str(self.notes), "run", "--quiet"]
        self._command += ["--input", str(folder / "in.jsonl"), "--id", "id", "--output", str(self.output)]
        self._command += ["--model", MODEL, "--base-url", url, "--set", f"limits.requests_per_minute={per_minute:g}"]

    @contextlib.contextmanager
    def life(self, *, how: signal.Signals) -> Iterator[None]:
        """From its first submit; it is ended so."""
        before = len(read(self.notes))
        with subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ | KEY
        ) as child:
            try:
                wait_for_first(self.notes, before, child)
                yield
            finally:
                child.send_signal(how)

    def ctl(self, order: str) -> None:
        command = [sys.executable, "-m", "batchfox", "ctl", str(self.output), order]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def play(lives: Lives) -> tuple[list[float], tuple[float, float], tuple[float, float]]:
    """When each submit left, and the two spans in which there was work and nothing in its way."""
    with lives.life(how=signal.SIGTERM):
        began_at = time.monotonic()
        time.sleep(RUN_S)
        paused_at = time.monotonic()
        lives.ctl("pause")
        time.sleep(PAUSE_S)
        lives.ctl("resume")
        time.sleep(AGAIN_S)
    with lives.life(how=signal.SIGKILL):
        time.sleep(SHORT_S)
    with lives.life(how=signal.SIGTERM):
        last_at = time.monotonic()
        time.sleep(LAST_S)
        ended_at = time.monotonic()
    return read(lives.notes), (began_at, paused_at), (last_at, ended_at)


def main() -> None:
    parser = argparse.ArgumentParser(description="Does a job's rate hold at the moment of sending, and is it used?")
    parser.add_argument("--rpm", type=float, default=600.0, help="requests a minute")
    parser.add_argument("--used", type=float, default=0.97, help="of it, at least")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    arguments = parser.parse_args()
    rpm = arguments.rpm
    most_s = 1.05 * rpm / 60.0 + 1.0

    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    rows = int(rpm * 4)
    simulate = [sys.executable, "-m", "batchfox", "simulate", "--latency", "constant:0.2"]
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        subprocess.Popen(simulate, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as simulator,
    ):
        try:
            assert simulator.stdout is not None
            lines = (json.dumps({"id": n, "prompt": f"Question {n}: why?"}) for n in range(rows))
            (Path(name) / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            times, first, last = play(Lives(Path(name), simulator.stdout.readline().strip(), rpm))
        finally:
            simulator.terminate()
    least = min(used(times, *first, rpm), used(times, *last, rpm))
    in_minute, in_second = most_in(times, 60.0), most_in(times, 1.0)
    print(f"{len(times):,} submits in {times[-1] - times[0]:.0f} s, in three processes")
    print(f"{children.describe_machine()} at the end")
    print(
        f"{rpm:g} a minute: at most {in_minute} in 60 s (at most {rpm:g}), {in_second} in 1 s (at most {most_s:g}), "
        f"{least:.3f} used while there is work (at least {arguments.used})"
    )
    sys.exit(in_minute > rpm or in_second > most_s or least < arguments.used)


if __name__ == "__main__":
    main()
