"""How soon a command is there: help, the first rows of a large input, the resume of a run that has nothing left to do.

**help**: `batchfox --help`, the quickest of ten. **large**: `run --limit 10` over an input of 20 GB (a hole after its
first 20,000 rows, so that it takes no room) beside the same without the hole, the quickest of three each. **resume**:
the same job again over 100,000 finished rows, the quickest of five; what is done is passed over by its ids or, with
`--no-ids`, by the digests of its raw lines. Wall time of the whole process; CPU beside it, since of wall time others on
the machine take their share. Exits 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import children
import work


def quickest(command: list[str], times: int) -> children.Used:
    used = [children.run(command) for _ in range(times)]
    best = min(used, key=lambda one: one.wall_s)
    print(
        f"{' '.join(command[:3])}: {best.wall_s * 1e3:.0f} ms wall, {min(one.cpu_s for one in used) * 1e3:.0f} ms CPU, "
        f"quickest of {times} (slowest {max(one.wall_s for one in used) * 1e3:.0f} ms), {best.peak_mb:.0f} MB",
        flush=True,
    )
    return best


def finished_job(folder: Path, rows: int, *, has_ids: bool) -> Path:
    """The job of a run that is over; its server is gone."""
    job = folder / "job.toml"
    work.write_rows(folder / "rows.jsonl", rows)
    with children.serve() as served:
        work.write_job(
            job, rows=folder / "rows.jsonl", output=folder / "out", base_url=served.base_url, has_ids=has_ids
        )
        children.run(["-m", "batchfox", "run", "--quiet", str(job)])
    return job


def begun(folder: Path, size: int) -> float:
    """Seconds of a run over the first ten rows of an input of so many bytes, or as it is."""
    folder.mkdir()
    work.write_rows(folder / "rows.jsonl", 20_000)
    if size:
        os.truncate(folder / "rows.jsonl", size)
    job = folder / "job.toml"
    with children.serve() as served:
        work.write_job(job, rows=folder / "rows.jsonl", output=folder / "out", base_url=served.base_url)
        return quickest(["-m", "batchfox", "run", "--quiet", "--limit", "10", "--fresh", str(job)], 3).wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description="How soon a command is there.")
    parser.add_argument("--help-goal", type=float, default=0.150, metavar="S")
    parser.add_argument("--resume-goal", type=float, default=1.5, metavar="S")
    parser.add_argument("--large-goal", type=float, default=1.25, metavar="RATIO")
    parser.add_argument("--rows", type=int, default=100_000, help="finished ones")
    parser.add_argument("--no-ids", action="store_true", help="rows named by position instead of by an id")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    arguments = parser.parse_args()

    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    helped = quickest(["-m", "batchfox", "--help"], 10)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        large = begun(Path(name) / "large", 20 << 30) / begun(Path(name) / "small", 0)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        job = finished_job(Path(name), arguments.rows, has_ids=not arguments.no_ids)
        quickest(["-m", "batchfox", "status", str(Path(name) / "out")], 5)
        resumed = quickest(["-m", "batchfox", "run", "--quiet", str(job)], 5)
    print(f"{children.describe_machine()} at the end")
    print(
        f"help {helped.wall_s * 1e3:.0f} ms (below {arguments.help_goal * 1e3:.0f}); first rows of 20 GB "
        f"in {large:.2f} of a small input's time (at most {arguments.large_goal:.2f}); resume of {arguments.rows:,} "
        f"finished rows {resumed.wall_s:.2f} s (below {arguments.resume_goal:.1f})"
    )
    is_beyond = helped.wall_s >= arguments.help_goal or resumed.wall_s >= arguments.resume_goal
    sys.exit(is_beyond or large > arguments.large_goal)


if __name__ == "__main__":
    main()
