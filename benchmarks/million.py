"""A million rows, killed half-way and resumed: peak memory, the checkpoint's size, and how soon the resume submits.

Three processes against a server that answers at once: a run over few rows (the measure of memory), a run over all of
them that is killed (SIGKILL) once half are submitted, and its resume to the end. Peak memory is that of the whole
process (wait4), the larger of the two lives. The checkpoint is measured when the run has ended: its files' bytes a row.
The resume is timed from the start of its process to its first submit. Takes some 20 minutes; `--rows 200000` a fifth.

Exits 1 beyond a limit. The 64 kB that an empty checkpoint takes do not count.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import children
import work

LOOK_EVERY_S = 0.02
EMPTY_BYTES = 64 << 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one run over all rows showed."""

    peak_mb: float
    submits_after_s: float
    bytes_a_row: float


def start(job: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "batchfox", "run", "--quiet", str(job)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ | children.KEY)


def end(child: subprocess.Popen[bytes]) -> tuple[int, float, float]:
    """Waits for a child. Its exit status, peak memory in MB and CPU seconds."""
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime


def wait_for_submits(served: children.Served, child: subprocess.Popen[bytes], wanted: float) -> None:
    while served.usage()["submits"] < wanted:
        if child.poll() is not None:
            raise SystemExit(f"batchfox ended with exit {child.returncode} before {wanted:,.0f} rows were submitted")
        time.sleep(LOOK_EVERY_S)


def small_peak_mb(served: children.Served, folder: Path, rows: int, *, has_ids: bool) -> float:
    job = prepare(served, folder, rows, has_ids=has_ids)
    used = children.run(["-m", "batchfox", "run", "--quiet", str(job)])
    print(f"{rows:>9,} rows: {used.peak_mb:.0f} MB peak, {used.wall_s:.0f} s wall, {used.cpu_s:.0f} s CPU", flush=True)
    return used.peak_mb


def prepare(served: children.Served, folder: Path, rows: int, *, has_ids: bool) -> Path:
    folder.mkdir()
    job = folder / "job.toml"
    work.write_rows(folder / "rows.jsonl", rows)
    work.write_job(job, rows=folder / "rows.jsonl", output=folder / "out", base_url=served.base_url, has_ids=has_ids)
    return job


def half_and_half(served: children.Served, folder: Path, rows: int, *, has_ids: bool) -> Found:
    """Runs over all rows, killed half-way, resumed to the end."""
    job = prepare(served, folder, rows, has_ids=has_ids)
    before = served.usage()["submits"]
    first = start(job)
    try:
        wait_for_submits(served, first, before + rows / 2)
    finally:
        first.kill()
    _, first_mb, cpu_s = end(first)
    print(f"killed half-way: {first_mb:.0f} MB peak, {cpu_s:.0f} s CPU", flush=True)

    began_at, sent = time.monotonic(), served.usage()["submits"]
    second = start(job)
    try:
        wait_for_submits(served, second, sent + 1)
        submits_after_s = time.monotonic() - began_at
        print(f"resumed: first submit after {submits_after_s:.1f} s ({children.describe_machine()})", flush=True)
        status, second_mb, cpu_s = end(second)
    except BaseException:
        second.kill()
        raise
    if status != 0:
        raise SystemExit(f"the resume ended with exit {status}")
    print(f"ended: {second_mb:.0f} MB peak, {cpu_s:.0f} s CPU", flush=True)
    size = sum(file.stat().st_size for file in (folder / "out" / "_batchfox").glob("checkpoint.db*"))
    return Found(
        peak_mb=max(first_mb, second_mb),
        submits_after_s=submits_after_s,
        bytes_a_row=max(size - EMPTY_BYTES, 0) / rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="A million rows, killed half-way and resumed.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=10_000, metavar="ROWS")
    parser.add_argument("--ratio", type=float, default=1.10, help="peak memory, all rows to few, at most")
    parser.add_argument("--ceiling", type=float, default=250.0, metavar="MB", help="either must stay below")
    parser.add_argument("--bytes", type=float, metavar="B", help="of checkpoint a finished row (64 with ids, else 4)")
    parser.add_argument("--resume", type=float, default=5.0, metavar="S", help="to the resume's first submit, at most")
    parser.add_argument("--no-ids", action="store_true", help="rows named by position instead of by an id")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    arguments = parser.parse_args()
    has_ids = not arguments.no_ids
    most_bytes = arguments.bytes or (64.0 if has_ids else 4.0)

    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    with children.serve() as served, tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        small_mb = small_peak_mb(served, Path(name) / "small", arguments.small, has_ids=has_ids)
        found = half_and_half(served, Path(name) / "large", arguments.rows, has_ids=has_ids)
    ratio = found.peak_mb / small_mb
    print(
        f"{arguments.rows:,} rows {'with' if has_ids else 'without'} ids: peak {found.peak_mb:.0f} MB, {ratio:.2f} of "
        f"{small_mb:.0f} MB at {arguments.small:,} (at most {arguments.ratio:.2f}, {arguments.ceiling:.0f} MB); "
        f"checkpoint {found.bytes_a_row:.1f} bytes a row (below {most_bytes:.0f}); "
        f"resume submits after {found.submits_after_s:.1f} s (at most {arguments.resume:.0f})"
    )
    is_beyond = ratio > arguments.ratio or max(small_mb, found.peak_mb) >= arguments.ceiling
    sys.exit(is_beyond or found.bytes_a_row >= most_bytes or found.submits_after_s > arguments.resume)


if __name__ == "__main__":
    main()
