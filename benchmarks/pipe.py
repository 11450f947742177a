"""Is the pipe kept full?

Tasks take exactly 1 s, 500 are in flight, 60,000 rows, a limit (1,000 a second) that does not bind. The rows cannot
take less than N/500 + 1 s; the figure is that over what they took. Start and end of the process are taken off by a run
over one row, whose second of latency is put back. Polls go by the learned schedule (`poll.first = "auto"`), which knows
nothing at first; `--first 1.0` takes it out. Exits 1 below the goal. Takes two and a half minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import children
import work


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
    """A run of the job, in a process of its own."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Is the pipe kept full?")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--in-flight", type=int, default=500, metavar="N")
    parser.add_argument("--first", default='"auto"', metavar="TOML", help="poll.first, such as 1.0")
    parser.add_argument("--goal", type=float, default=0.97, help="at least")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    arguments = parser.parse_args()

    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        full = fullness(Path(name), arguments.rows, arguments.in_flight, 1.0, arguments.first)
    print(f"{children.describe_machine()} at the end")
    print(f"full: {full:.3f} (at least {arguments.goal})")
    sys.exit(full < arguments.goal)


if __name__ == "__main__":
    main()
