"""Does a row stay as cheap where twenty thousand tasks run at once, and do polls still leave in time?

**wide**: tasks of 60 s, 20,000 in flight, submitted over 60 s. **narrow**: 2,000 in flight, tasks of 6 s, so that as
many rows pass in a second. Of both CPU a row, memory a row in flight (less those of a run over one row), and how late
polls leave (99th percentile of the whole run, as the log's `run_ended` tells). Each width's output has first had 300
rows, from which the schedule of polls is learned, in a run that is not measured. Exits 1 beyond a limit. Takes four
and a half minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import children
from pipe import ended, prepare, run

LEARNED = 300
ROUNDS_OF_ROWS = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Width:
    """A run at one width."""

    cpu_us: float
    memory_kb: float
    late_s: float


def measure(folder: Path, in_flight: int, latency_s: float, rows: int) -> Width:
    """A run so wide, its tasks submitted over the latency."""
    per_minute = in_flight / latency_s * 60.0
    with children.serve() as served:
        start = run(prepare(served, folder / f"one-{in_flight}", 1, in_flight, per_minute))
    with children.serve(latency_s) as served:
        job = prepare(served, folder / f"wide-{in_flight}", rows + LEARNED, in_flight, per_minute)
        run(job, "--limit", str(LEARNED))
        used = run(job)
    told = ended(job)
    found = Width(
        cpu_us=(used.cpu_s - start.cpu_s) / rows * 1e6,
        memory_kb=(used.peak_mb - start.peak_mb) * 1024 / in_flight,
        late_s=told["polls_late_p99_s"],
    )
    print(
        f"{in_flight:,} in flight, {rows:,} rows, {latency_s:g} s: {used.wall_s:.0f} s wall, "
        f"{found.cpu_us:.0f} µs CPU a row, {used.peak_mb:.0f} MB peak ({found.memory_kb:.1f} kB a row in flight), "
        f"{told['polls'] / rows:.2f} polls a row, p99 late {found.late_s * 1e3:.0f} ms",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Do rows stay cheap, and polls in time, at 20,000 in flight?")
    parser.add_argument("--narrow", type=int, default=2_000, metavar="N", help="in flight")
    parser.add_argument("--wide", type=int, default=20_000, metavar="N", help="in flight")
    parser.add_argument("--latency", type=float, default=60.0, metavar="S", help="of the wide run's tasks")
    parser.add_argument("--ratio", type=float, default=1.25, help="CPU and memory a row, wide to narrow, at most")
    parser.add_argument("--late", type=float, default=0.1, metavar="S", help="a poll, 99th percentile, below")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    arguments = parser.parse_args()

    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    rows = int(ROUNDS_OF_ROWS * arguments.wide)
    latency_s = arguments.latency * arguments.narrow / arguments.wide
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        narrow = measure(Path(name), arguments.narrow, latency_s, rows // 3)
        wide = measure(Path(name), arguments.wide, arguments.latency, rows)
    cpu, memory = wide.cpu_us / narrow.cpu_us, wide.memory_kb / narrow.memory_kb
    print(f"{children.describe_machine()} at the end")
    print(
        f"{arguments.wide:,} to {arguments.narrow:,} in flight: CPU {cpu:.2f}, memory {memory:.2f} a row (at most "
        f"{arguments.ratio}), polls late {wide.late_s * 1e3:.0f} ms (p99, below {arguments.late * 1e3:.0f})"
    )
    sys.exit(max(cpu, memory) > arguments.ratio or wide.late_s >= arguments.late)


if __name__ == "__main__":
    main()
