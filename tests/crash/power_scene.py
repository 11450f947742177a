"""A run of batchfox under the power shim, and what must hold of the disk that a cut at any instant leaves."""

from __future__ import annotations

import bisect
import contextlib
import functools
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import GUARD_S, MODEL, by_id, environment, job_of, parts_of, superseded_rows, write_rows
from power import Disk, Kind, Luck, Op, read_journal, shim_environment

import batchfox
from batchfox.checkpoint import Checkpoint
from batchfox.core.row import key_of_id, key_of_position
from batchfox.parts import number_of
from batchfox.simulator import Settings, SimulatorThread, answer, digest_of
from batchfox.simulator.tasks import Task

ROWS_PER_PART = 20
LIMITS = {"requests_per_minute": 60_000, "in_flight": 20}
RETRY = {"in_doubt_limit": 100_000, "attempts": 100}
MAIN = "from batchfox.cli import main; main()"


def request_of(row: dict[str, Any]) -> dict[str, Any]:
    return {"model": MODEL, "prompt": row["prompt"]}


class Known(NamedTuple):
    """What a checkpoint knows. Keys of rows."""

    intents: frozenset[bytes] = frozenset()  # on record as sent, or beyond
    safe: frozenset[bytes] = frozenset()  # the task's id or the answer is known: never to be paid for again
    kept: frozenset[bytes] = frozenset()  # the row or its outcome is on record, be it that of an earlier run
    filed: frozenset[bytes] = frozenset()  # the row's outcome is in a part
    parts: frozenset[int] = frozenset()
    filed_parts: frozenset[int] = frozenset()


class Recording(NamedTuple):
    """A finished run: what it did to the disk, and what it sent when, by the simulator's book."""

    disk: Disk  # as it was when the run began; to be replayed once
    ops: list[Op]
    sent: list[tuple[float, bytes]]

    def sent_before(self, at: float) -> set[bytes]:
        return {key for _, key in self.sent[: bisect.bisect_left(self.sent, (at, b""))]}


class Scene:
    """One job, the folder that stands for a disk, and a simulator that outlives every cut. The rows have ids or none of
    them has. `output`: where on the disk the job writes."""

    def __init__(
        self, folder: Path, shim: Path, rows: list[dict[str, Any]], *, output: str = "out", **settings: Any
    ) -> None:
        self._folder = folder
        self._shim = shim
        self._rows = rows
        self._output = output
        self._id = "id" if "id" in rows[0] else None
        self.disk = folder / "disk"
        self.disk.mkdir()
        self._source = write_rows(folder / "in.jsonl", rows)
        self._state = folder / "simulator.db"
        self._settings = Settings(**({"latency": "constant:0.05"} | settings))
        self._port = 0
        self._keys = [key_of_id(row["id"]) if self._id else key_of_position(n) for n, row in enumerate(rows)]
        self._key_of = {digest_of(request_of(row)): key for row, key in zip(rows, self._keys, strict=True)}
        self.failed: set[str] = set()

    @property
    def output(self) -> Path:
        return self.disk / self._output

    def change_api(self, **changes: Any) -> None:
        """Other settings for the simulators that are started from now on."""
        self._settings = msgspec.structs.replace(self._settings, **changes)

    @contextlib.contextmanager
    def _simulator(self, state: Path) -> Iterator[SimulatorThread]:
        """Always on the same port: an unfinished run keeps to its API."""
        with SimulatorThread(self._settings, state=state, port=self._port) as simulator:
            self._port = int(simulator.url.rpartition(":")[2])
            yield simulator

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """`batchfox run` to its end, without the shim."""
        return self._run(options, MAIN, {})[0]

    def record(self, *options: str, before: str = "", killed: str = "") -> Recording:
        """The same under the shim. `before`: code that runs first in the child, to make it careless. `killed`: a run
        goes before and is killed at this sync ("2 .db-wal"); what it did not sync still is not when the next begins."""
        disk = Disk(self.disk)
        journal = self._folder / "journal"
        begun = time.time()
        env = shim_environment(self._shim, self.disk, journal)
        if killed:
            done, _ = self._run(options, MAIN, env | {"POWER_KILL": killed})
            assert done.returncode == -signal.SIGKILL, done.stderr
        done, entries = self._run(options, f"{before}\n{MAIN}", env)
        assert done.returncode == 0, done.stderr
        sent = [(entry["created"], self._key_of[entry["digest"]]) for entry in entries if entry["created"] >= begun]
        return Recording(disk, read_journal(journal), sorted(sent))

    def _run(
        self, options: tuple[str, ...], code: str, env: dict[str, str]
    ) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
        with self._simulator(self._state) as simulator:
            command = [sys.executable, "-c", code, "run", "--input", str(self._source), "--output", str(self.output)]
            command += ["--model", MODEL, "--base-url", simulator.url, "--quiet", *options]
            command += ["--id", self._id] if self._id else []
            tables = (("limits", LIMITS), ("retry", RETRY), ("output", {"rows_per_part": ROWS_PER_PART}))
            for table, values in tables:
                for name, value in values.items():
                    command += ["--set", f"{table}.{name}={value}"]
            done = subprocess.run(
                command, env=environment(**env), capture_output=True, text=True, timeout=GUARD_S, check=False
            )
            return done, simulator.book()["entries"]

    # Instants.

    def instants(self, recording: Recording) -> Iterator[tuple[int, float, Known]]:
        """Replays a recording: before each operation, and after the last, its number, the time until which it had not
        begun, and what was acknowledged by then. The recording's disk is at that operation."""
        disk, ops = recording.disk, recording.ops
        acknowledged = Known()
        for number, op in enumerate(ops):
            yield number, op.begun, acknowledged
            disk.do(op)
            if op.kind is Kind.SYNC_FILE and op.path.endswith("checkpoint.db-wal"):
                acknowledged = self._committed(disk)
        yield len(ops), ops[-1].ended, acknowledged

    def _committed(self, disk: Disk) -> Known:
        """What the checkpoint says when nothing is forgotten."""
        with tempfile.TemporaryDirectory(dir=scratch()) as folder:
            whole = disk.cut(Path(folder) / "disk", Luck(0, kept=1.0, named=1.0))
            return self._look(whole / self._output, read_only=True)

    # After a cut.

    def check_cut(self, disk: Path, at: float, recording: Recording, acknowledged: Known) -> Known:
        """What must hold before anything is mended. Returns what the checkpoint knows."""
        output = disk / self._output
        known = self._look(output)
        unknown = recording.sent_before(at) - known.intents
        assert not unknown, f"{len(unknown)} rows were POSTed before their intent was on disk"
        assert acknowledged.intents <= known.intents, "an intent that was acknowledged is gone"
        assert acknowledged.safe <= known.safe, "a task or an answer that was acknowledged is gone"
        assert acknowledged.kept <= known.kept, "a row that was acknowledged is gone"
        self._check_parts(output, known)
        return known

    def _look(self, output: Path, *, read_only: bool = False) -> Known:
        """What the checkpoint knows; a damaged one fails."""
        path = output / "_batchfox" / "checkpoint.db"
        if not path.exists():
            return Known()
        with contextlib.closing(Checkpoint(path, read_only=read_only)) as checkpoint:
            assert checkpoint.query("PRAGMA integrity_check") == [("ok",)], "the checkpoint is damaged"
            states = dict(checkpoint.query("SELECT key, state FROM row"))
            if self._id:
                finished = {key: done.status for key, done in checkpoint.finished.ids(self._keys).items()}
            else:
                by_index = checkpoint.finished.positions(list(range(len(self._keys))))
                finished = {self._keys[index]: done.status for index, done in by_index.items()}
            parts = dict(checkpoint.query("SELECT number, is_filed FROM part"))
        completed = {key for key, status in finished.items() if status == "completed"}
        return Known(
            intents=frozenset(states.keys() | completed),
            safe=frozenset({key for key, state in states.items() if state >= 2} | completed),
            kept=frozenset(states.keys() | finished.keys()),
            filed=frozenset(finished.keys() - states.keys()),
            parts=frozenset(parts),
            filed_parts=frozenset(number for number, is_filed in parts.items() if is_filed),
        )

    def _check_parts(self, output: Path, known: Known) -> None:
        """Every part is whole and known, those filed are there, and no filed row is missing."""
        paths = parts_of(output)
        numbers = {number_of(path.name) for path in paths}
        assert numbers <= known.parts, "a part is there that the checkpoint does not know"
        assert known.filed_parts <= numbers, "a filed part is gone"
        there: set[bytes] = set()
        for path in paths:
            try:
                there |= {self._keys[index] for index in _positions_in(path.read_bytes())}
            except (OSError, pa.ArrowException) as error:
                raise AssertionError(f"{path.name} is not whole: {error}") from error
        assert known.filed <= there, "filed rows are gone"

    def resume(self, disk: Path, at: float, known: Known, *, retry: str | None = None) -> int:
        """The same command on what the cut left, with an API that remembers. Returns how often was paid twice."""
        state = disk.with_name(f"{disk.name}.simulator.db")
        self._forget_after(at, state)
        output = disk / self._output
        with self._simulator(state) as simulator:
            begun = time.time()
            tables: dict[str, dict[str, Any]] = {"input": {"id": self._id}, "limits": LIMITS, "retry": RETRY}
            job = job_of(self._source, output, simulator.url, rows_per_part=ROWS_PER_PART, **tables)
            summary = batchfox.run(job, quiet=True, retry=retry or ())
            assert summary.exit_status == 0, summary
            entries = simulator.book()["entries"]
        again = {self._key_of[entry["digest"]] for entry in entries if entry["created"] >= begun} & known.safe
        assert not again, f"{len(again)} tasks were paid for again although they were known"
        return self._check_output(output, Counter(entry["digest"] for entry in entries))

    def _forget_after(self, at: float, target: Path) -> None:
        """The simulator's memory as it was at that instant."""
        shutil.copyfile(self._state, target)
        with contextlib.closing(sqlite3.connect(target)) as db, db:
            records = db.execute("SELECT seq, record FROM task").fetchall()
            late = [(seq,) for seq, record in records if msgspec.msgpack.decode(record, type=Task).created >= at]
            db.executemany("DELETE FROM task WHERE seq = ?", late)

    def _check_output(self, output: Path, billed: Counter[str]) -> int:
        found = by_id(output)
        names = [row["id"] if self._id else str(number) for number, row in enumerate(self._rows)]
        assert found.keys() == set(names)
        paid_twice = 0
        for name, row in zip(names, self._rows, strict=True):
            out, request = found[name], request_of(row)
            number = billed[digest_of(request)]
            assert out["status"] == "completed", out
            assert out["text"] == answer(request)["choices"][0]["message"]["content"], out
            assert out["prompt"] == row["prompt"]
            assert 1 <= number <= out["submits"], out
            assert out["maybe_billed_twice"] or number == 1, f"paid {number} times and not flagged: {out}"
            paid_twice += number - 1
        assert all(number_of(path.name) is not None for path in (output / "data").iterdir())
        assert not list((output / "_batchfox" / "tmp").iterdir())
        old = superseded_rows(output)
        assert sorted(row["row_id"] for row in old) == sorted(self.failed)
        assert {row["status"] for row in old} <= {"failed"}
        return paid_twice


@functools.lru_cache(maxsize=64)
def _positions_in(part: bytes) -> list[int]:
    """Which rows are in a part, every column of which can be read."""
    positions: list[int] = pq.read_table(pa.BufferReader(part))["row_index"].to_pylist()
    return positions


def scratch() -> Path | None:
    """A folder in memory, where there is room: hundreds of states are built and opened, and need no real disk."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and shutil.disk_usage(folder).free > 256 << 20 else None
