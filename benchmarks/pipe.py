"""Is the pipe kept full, and does it stay cheap when it is wide?

**full**: tasks take exactly 1 s, 500 are in flight, 60,000 rows, a limit (1,000 a second) that does not bind. The rows
cannot take less than N/500 + 1 s; the figure is that over what they took. Start and end of the process are taken off
by a run over one row, whose second of latency is put back.

**wide**: tasks of 60 s, 20,000 in flight, submitted over 60 s, beside 2,000 in flight at a tenth of the pace: CPU a
row, memory a row in flight (both less those of a run over one row), and how late polls leave (99th percentile, as the
log's `run_ended` tells). Steady state: each width's output has first had `LEARNED` rows, from which the schedule of
polls is learned, in a run that is not measured.

Polls go by the learned schedule (`poll.first = "auto"`); `--first 1.0` takes it out of the full
half. Exits 1 beyond a limit. Takes some twelve minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import children
import work

LEARNED = 300
ROUNDS_OF_ROWS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Width:
    """A run at one width."""

    cpu_us: float
    memory_kb: float
    late_s: float


def prepare(
    served: children.Served, folder: Path, rows: int, in_flight: int, per_minute: float, first: str = '"auto"'
) -> Path:
    """Writes input and job."""
    folder.mkdir()
    job = folder / "job.toml"
    work.write_rows(folder / "rows.jsonl", rows)
    work.write_job(
        job,
        rows=folder / "rows.jsonl",
        output=folder / "out",
        base_url=served.base_url,
        in_flight=in_flight,
        per_minute=per_minute,
        first=first,
    )
    return job


def run(job: Path, *options: str) -> children.Used:
    return children.run(["-m", "batchfox", "run", "--quiet", str(job), *options])


def ended(job: Path) -> dict[str, Any]:
    """What the log says of the last execution's end."""
    lines = (job.parent / "out" / "_batchfox" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    told: dict[str, Any] = json.loads(lines[-1])
    assert told["event"] == "run_ended", told
    return told


def fullness(folder: Path, rows: int, in_flight: int, latency_s: float, first: str) -> float:
    """How near a run comes to the least time that its rows can take."""
    with children.serve(latency_s) as served:
        start = run(prepare(served, folder / "one", 1, in_flight, 60_000.0, first))
        job = prepare(served, folder / "full", rows, in_flight, 60_000.0, first)
        before = served.usage()
        used = run(job)
        after = served.usage()
    told = ended(job)
    wall_s = used.wall_s - (start.wall_s - latency_s)
    full = (rows / in_flight + latency_s) / wall_s
    share = (after["cpu_s"] - before["cpu_s"]) / used.wall_s
    print(
        f"full: {rows:,} rows, {in_flight} in flight, {latency_s:g} s: {wall_s:.1f} s wall ({used.wall_s:.1f} s with "
        f"start and end), {used.cpu_s:.1f} s CPU, {told['polls'] / rows:.2f} polls a row, p99 late "
        f"{told['polls_late_p99_s'] * 1e3:.0f} ms, server {share:.0%} of a core: {full:.3f}",
        flush=True,
    )
    return full


def width(folder: Path, in_flight: int, latency_s: float) -> Width:
    """A run so wide, its tasks submitted over the latency, twice as many rows as fit."""
    rows, per_minute = ROUNDS_OF_ROWS * in_flight + LEARNED, in_flight / latency_s * 60.0
    with children.serve() as served:
        start = run(prepare(served, folder / f"one-{in_flight}", 1, in_flight, per_minute))
    with children.serve(latency_s) as served:
        job = prepare(served, folder / f"wide-{in_flight}", rows, in_flight, per_minute)
        run(job, "--limit", str(LEARNED))
        used = run(job)
    told = ended(job)
    rows -= LEARNED
    found = Width(
        cpu_us=(used.cpu_s - start.cpu_s) / rows * 1e6,
        memory_kb=(used.peak_mb - start.peak_mb) * 1024 / in_flight,
        late_s=told["polls_late_p99_s"],
    )
    print(
        f"wide: {in_flight:,} in flight, {rows:,} rows, {latency_s:g} s: {used.wall_s:.0f} s wall, "
        f"{found.cpu_us:.0f} µs CPU a row, {used.peak_mb:.0f} MB peak ({found.memory_kb:.1f} kB a row in flight), "
        f"{told['polls'] / rows:.2f} polls a row, p99 late {found.late_s * 1e3:.0f} ms",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Is the pipe kept full, and does it stay cheap when it is wide?")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--in-flight", type=int, default=500, metavar="N")
    parser.add_argument("--first", default='"auto"', metavar="TOML", help="poll.first of the full half, such as 1.0")
    parser.add_argument("--fullness", type=float, default=0.97, help="at least")
    parser.add_argument("--narrow", type=int, default=2_000, metavar="N", help="in flight")
    parser.add_argument("--wide", type=int, default=20_000, metavar="N", help="in flight; 0: leave that half away")
    parser.add_argument("--latency", type=float, default=60.0, metavar="S", help="of the wide half's tasks")
    parser.add_argument("--ratio", type=float, default=1.25, help="CPU and memory a row, wide to narrow, at most")
    parser.add_argument("--late", type=float, default=0.1, metavar="S", help="a poll, 99th percentile, below")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    arguments = parser.parse_args()

    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    is_beyond = False
    said: list[str] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        if arguments.rows:
            full = fullness(Path(name), arguments.rows, arguments.in_flight, 1.0, arguments.first)
            is_beyond = full < arguments.fullness
            said.append(f"fullness {full:.3f} (at least {arguments.fullness})")
        if arguments.wide:
            narrow, wide = (
                width(Path(name), number, arguments.latency) for number in (arguments.narrow, arguments.wide)
            )
            cpu, memory = wide.cpu_us / narrow.cpu_us, wide.memory_kb / narrow.memory_kb
            is_beyond = is_beyond or max(cpu, memory) > arguments.ratio or wide.late_s >= arguments.late
            said.append(
                f"{arguments.wide:,} to {arguments.narrow:,} in flight: CPU {cpu:.2f}, memory {memory:.2f} a row (at "
                f"most {arguments.ratio}), polls late {wide.late_s * 1e3:.0f} ms "
                f"(p99, below {arguments.late * 1e3:.0f})"
            )
    print(f"{children.describe_machine()} at the end")
    print("; ".join(said))
    sys.exit(is_beyond)


if __name__ == "__main__":
    main()
