"""Child processes, and what each used. Nothing heavy is imported here: a child's peak memory begins at its parent's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KEY = {"FOXAPI_API_KEY": "none"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What a child used, all of its threads counted, from its start to its end."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    output: str


def run(command: Sequence[str], *, core: int | None = None) -> Used:
    """Runs a Python command (module or script and its arguments) to its end, all its threads on `core` where one is
    named. Raises `SystemExit` where it failed."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began_at = time.monotonic()
        with _kept_to(core):
            child = subprocess.Popen(
                [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=os.environ | KEY
            )
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()
            raise
        wall_s = time.monotonic() - began_at
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode()
        if child.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}: exit {child.returncode}\n{text}\n{errors.read().decode()}")
    return Used(wall_s=wall_s, cpu_s=used.ru_utime + used.ru_stime, peak_mb=used.ru_maxrss / 1024, output=text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A server in a process of its own."""

    base_url: str

    def usage(self) -> dict[str, float]:
        """`cpu_s`, `submits` and `polls` since it started."""
        with urllib.request.urlopen(f"{self.base_url}/__usage", timeout=10) as reply:
            report: dict[str, float] = json.load(reply)
            return report


@contextlib.contextmanager
def serve(latency_s: float = 0.0, *, core: int | None = None) -> Iterator[Served]:
    """`server.py`, for as long as the block lasts, on one core where one is named."""
    command = [sys.executable, str(HERE / "server.py"), "--latency", str(latency_s)]
    with _kept_to(core):
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with server as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield Served(base_url=f"http://127.0.0.1:{int(child.stdout.readline())}")
        finally:
            child.stdin.close()


def two_cores() -> tuple[int, int] | None:
    """One core for a contestant and another for the server, where there are two and a process can be kept to one."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[-1], cores[0]) if len(cores) > 1 else None


@contextlib.contextmanager
def _kept_to(core: int | None) -> Iterator[None]:
    """A process that is begun meanwhile stays on this core."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe_machine() -> str:
    """Cores, load and Python, in a line."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, load {os.getloadavg()[0]:.2f}, Python {sys.version.split()[0]}, {sys.platform}"


def file_system(folder: Path) -> str:
    """The type of the file system that holds a folder, "?" where that cannot be told."""
    best, found = "", "?"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, place, kind, *_ = line.split()
            if folder.resolve().is_relative_to(place) and len(place) >= len(best):
                best, found = place, kind
    return found
