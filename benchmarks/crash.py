"""SIGKILL at random instants, over and over: what was lost, doubled, wrong, or paid twice without being flagged.

Runs of several thousand rows against the simulator, faults off, latencies spread; half of the kills with ids, half
without, both halves at the same time. Each run is killed, resumed, killed again, also while it opens, recovers or
resumes, until it ends or has been killed often enough. Then the output is compared with the input and with the
simulator's book of what was billed. Exits 1 where a promise of contract.md broke.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import children
import pyarrow.parquet as pq

from batchfox.checkpoint import Checkpoint
from batchfox.core import blocks
from batchfox.core.row import key_of_id, key_of_position
from batchfox.parts import count_rows, number_of
from batchfox.simulator import Settings, SimulatorThread, answer, digest_of

KEY = {"FOXAPI_API_KEY": "sk-benchmark"}
MODEL = "nemotron-3-nano-omni"
LATENCY = "lognormal:0.3,0.5"
SENDING, RUNNING, SETTLED = 1, 2, 3  # as checkpoint.sql numbers a row's states
# One kill in four comes soon after the output is locked: while it is opened and recovered, as a rule. Seconds.
SOON_SHARE, SOON_S, LATER_S = 0.25, 0.3, 1.5
STEP_S = 0.001
# The book of the API stands still once it has not grown for so long.
QUIET_S = 0.2


@dataclass(slots=True)
class Found:
    """The figures. Those of `broken` must be 0."""

    runs: int = 0
    kills: int = 0
    kills_before_begun: int = 0
    rows: int = 0
    in_doubt: int = 0
    on_the_wire: int = 0
    paid_twice: int = 0
    flagged: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    bad_files: int = 0
    paid_though_known: int = 0
    paid_beyond_doubt: int = 0
    wrongly_flagged: int = 0
    paid_for_nobody: int = 0

    def add(self, other: Found) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def broken(self) -> dict[str, int]:
        names = [one.name for one in fields(self)]
        return {name: getattr(self, name) for name in names[names.index("lost") :] if getattr(self, name)}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the input, and what its request is known by."""

    name: str
    key: bytes
    prompt: str
    digest: str


@dataclass(frozen=True, slots=True)
class Kill:
    """What was on disk after a kill. Keys of rows."""

    at: float
    doubtful: frozenset[bytes]
    safe: frozenset[bytes]


def make_rows(path: Path, number: int, label: str, *, has_ids: bool) -> list[Row]:
    """Writes the input; no prompt of it was asked before."""
    rows = []
    with path.open("w", encoding="utf-8") as file:
        for n in range(number):
            prompt = f"{label}, question {n}"
            name = f"{label}-{n}" if has_ids else str(n)
            key = key_of_id(name) if has_ids else key_of_position(n)
            rows.append(Row(name, key, prompt, digest_of({"model": MODEL, "prompt": prompt})))
            file.write(json.dumps({"id": name, "prompt": prompt} if has_ids else {"prompt": prompt}) + "\n")
    return rows


def look(folder: Path) -> Kill:
    """Reads a copy of the checkpoint: the resume shall find it as the kill left it."""
    at = time.time()
    path = folder / "_batchfox" / "checkpoint.db"
    if not path.exists():
        return Kill(at, frozenset(), frozenset())
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / path.name
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        with contextlib.closing(Checkpoint(copy)) as checkpoint:
            states = dict(checkpoint.query("SELECT key, state FROM row"))
            finished = {key for (key,) in checkpoint.query("SELECT key FROM finished")}
            for block, done in checkpoint.query("SELECT block, done FROM finished_block"):
                first = block * blocks.ROWS_PER_BLOCK
                finished |= {key_of_position(first + n) for n in range(blocks.ROWS_PER_BLOCK) if blocks.has(done, n)}
    doubtful = frozenset(key for key, state in states.items() if state == SENDING)
    return Kill(
        at, doubtful, frozenset({key for key, state in states.items() if state in (RUNNING, SETTLED)} | finished)
    )


@dataclass(slots=True)
class Run:
    """One run over one input, from its first start to its last resume."""

    simulator: SimulatorThread
    folder: Path
    rows: list[Row]
    command: list[str]
    draw: random.Random
    found: Found = field(default_factory=Found)
    kills: list[Kill] = field(default_factory=list)
    # Tasks that were made and whose id never reached the checkpoint, by the request's digest.
    gone: Counter[str] = field(default_factory=Counter)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "err").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "batchfox", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=os.environ | KEY,
            )

    def kill(self) -> bool:
        """Starts or resumes the run and kills it at a random instant. False where it ended before."""
        begun = self._times_begun()
        child = self.start()
        try:
            while child.poll() is None and self._owner() != child.pid:
                time.sleep(STEP_S)
            is_soon = self.draw.random() < SOON_SHARE
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(self.draw.uniform(0.0, SOON_S if is_soon else LATER_S))
            is_over = child.poll() is not None
        finally:
            child.kill()
            child.wait()
        if is_over:
            self._check_status(child)
            return False
        self.found.kills += 1
        self.found.kills_before_begun += self._times_begun() == begun
        self._wait_for_the_last()
        self._note()
        return True

    def _wait_for_the_last(self) -> None:
        """Until the API has got round to all that the killed process had sent: its book stands still."""
        received, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_S:
            now_received = self.simulator.book()["totals"]["submits_received"]
            if now_received != received:
                received, since = now_received, time.monotonic()
            time.sleep(QUIET_S / 10)

    def finish(self) -> None:
        """Resumes, to the end."""
        child = self.start()
        try:
            child.wait(600)
        finally:
            child.kill()
            child.wait()
        self._check_status(child)

    def check(self) -> Found:
        """Compares input, output and book."""
        found, outs = self.found, Counter[str]()
        billed, created = self._billed(), self._created()
        rows = {row.name: row for row in self.rows}
        doubts = Counter(key for kill in self.kills for key in kill.doubtful)
        found.runs, found.rows = 1, len(rows)
        for path in sorted((self.out / "data").iterdir()):
            for out in pq.read_table(path).to_pylist():
                outs[out["row_id"]] += 1
                row = rows.get(out["row_id"])
                if row is None or not _is_right(row, out):
                    found.wrong += 1
                    continue
                found.flagged += out["maybe_billed_twice"]
                found.wrongly_flagged += out["maybe_billed_twice"] != bool(doubts[row.key])
                found.paid_beyond_doubt += not 1 <= billed[row.digest] <= min(1 + doubts[row.key], out["submits"])
        found.doubled = sum(number - 1 for number in outs.values())
        for row in self.rows:
            found.lost += row.name not in outs
            found.paid_twice += max(billed[row.digest] - 1, 0)
            for kill in self.kills:
                if row.key in kill.safe:
                    found.paid_though_known += sum(at > kill.at for at in created[row.digest])
        digests = {row.digest for row in self.rows}
        found.paid_for_nobody = sum(number for digest, number in billed.items() if digest not in digests)
        return found

    def _note(self) -> None:
        kill = look(self.out)
        billed = self._billed()
        for row in self.rows:
            if row.key in kill.doubtful:
                self.found.on_the_wire += billed[row.digest] - self.gone[row.digest]
                self.gone[row.digest] = billed[row.digest]
        self.found.in_doubt += len(kill.doubtful)
        self.kills.append(kill)
        if (self.out / "data").exists():
            paths = list((self.out / "data").iterdir())
            self.found.bad_files += sum(number_of(path.name) is None or count_rows(path) is None for path in paths)

    def _entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.simulator.book()["entries"]
        return entries

    def _billed(self) -> Counter[str]:
        return Counter(entry["digest"] for entry in self._entries())

    def _created(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {row.digest: [] for row in self.rows}
        for entry in self._entries():
            found.setdefault(entry["digest"], []).append(entry["created"])
        return found

    def _owner(self) -> int | None:
        try:
            return int((self.out / "_batchfox" / "lock").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _times_begun(self) -> int:
        try:
            return (self.out / "_batchfox" / "log.jsonl").read_bytes().count(b'"run_begun"')
        except FileNotFoundError:
            return 0

    def _check_status(self, child: subprocess.Popen[bytes]) -> None:
        if child.returncode != 0:
            said = (self.folder / "err").read_text()
            raise SystemExit(f"a run ended with {child.returncode} after {self.found.kills} kills:\n{said}")


def _is_right(row: Row, out: dict[str, Any]) -> bool:
    right = answer({"model": MODEL, "prompt": row.prompt})["choices"][0]["message"]["content"]
    return bool(out["status"] == "completed" and out["text"] == right and out["prompt"] == row.prompt)


def kill_a_run(parent: Path, rows: int, kills: int, draw: random.Random, label: str, *, has_ids: bool) -> Found:
    """One run that is killed up to so many times before it ends."""
    settings = Settings(seed=draw.getrandbits(32), latency=LATENCY)
    with tempfile.TemporaryDirectory(dir=parent) as name, SimulatorThread(settings) as simulator:
        folder = Path(name)
        made = make_rows(folder / "in.jsonl", rows, label, has_ids=has_ids)
        command = ["run", "--input", str(folder / "in.jsonl"), "--output", str(folder / "out"), "--model", MODEL]
        command += ["--base-url", simulator.url, "--quiet", *(["--id", "id"] * has_ids)]
        for setting in (
            "limits.requests_per_minute=60000",
            "output.rows_per_part=100",
            "retry.in_doubt_limit=1000000",
            "retry.attempts=100",
        ):
            command += ["--set", setting]
        run = Run(simulator, folder, made, command, draw)
        while run.found.kills < kills:
            if not run.kill():
                break
            if run.found.kills % 25 == 0:
                print(f"  {label}: {run.found.kills} kills", flush=True)
        run.finish()
        return run.check()


def kill_often(parent: Path, rows: int, kills: int, seed: int, *, has_ids: bool) -> Found:
    """As many runs, one after the other, as it takes to be killed so often."""
    draw, total = random.Random(seed), Found()
    while total.kills < kills:
        label = f"{'ids' if has_ids else 'positions'}-{total.runs}"
        found = kill_a_run(parent, rows, kills - total.kills, draw, label, has_ids=has_ids)
        total.add(found)
        if found.broken():
            print(f"  {label}: broken: {found.broken()}", flush=True)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="Kills a run at random instants and counts what that cost.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rows", type=int, default=4_000, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the instants and latencies")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the outputs go")
    arguments = parser.parse_args()

    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    total, began_at = Found(), time.monotonic()
    with ThreadPoolExecutor(2) as threads:
        halves = [
            threads.submit(kill_often, arguments.folder, arguments.rows, share, arguments.seed + at, has_ids=has_ids)
            for at, (has_ids, share) in enumerate(
                ((True, arguments.kills - arguments.kills // 2), (False, arguments.kills // 2))
            )
        ]
    for half in halves:
        total.add(half.result())
    minutes = (time.monotonic() - began_at) / 60
    soon = f"{total.kills_before_begun} of them while the output was opened or recovered"
    print(f"{total.kills} kills ({soon}), {total.rows:,} rows in {total.runs} runs, {minutes:.1f} min")
    print(
        f"lost {total.lost}, doubled {total.doubled}, wrong {total.wrong}; POSTs on the wire at the kills "
        f"{total.on_the_wire} (rows in doubt {total.in_doubt}), paid twice {total.paid_twice}, flagged {total.flagged}"
    )
    for name, number in total.broken().items():
        print(f"broken: {name.replace('_', ' ')} {number}")
    sys.exit(bool(total.broken()))


if __name__ == "__main__":
    main()
