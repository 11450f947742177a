"""Peak memory of `batchfox run` over a small and a large input: it must not grow with the number of rows.

Peak resident memory of the whole process (wait4), once over each input, made on the fly; the server answers at once
and is a process of its own. Exits 1 where the larger run takes more than the allowed share above the smaller, or
either is above the ceiling.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import children
import work


def peak_mb(served: children.Served, parent: Path, rows: int, *, has_ids: bool) -> float:
    """Peak memory of a run over `rows` rows, MB of 2^20 bytes."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        work.write_rows(folder / "rows.jsonl", rows)
        job = folder / "job.toml"
        work.write_job(
            job, rows=folder / "rows.jsonl", output=folder / "out", base_url=served.base_url, has_ids=has_ids
        )
        used = children.run(["-m", "batchfox", "run", str(job)])
    print(
        f"{rows:>9,} rows: {used.peak_mb:6.1f} MB peak, {used.wall_s:5.1f} s wall, {used.cpu_s:5.1f} s CPU", flush=True
    )
    return used.peak_mb


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of a run over a small and a large input.")
    parser.add_argument("--small", type=int, default=10_000, metavar="ROWS")
    parser.add_argument("--large", type=int, default=200_000, metavar="ROWS")
    parser.add_argument("--ratio", type=float, default=1.15, help="large to small, at most")
    parser.add_argument("--ceiling", type=float, default=250.0, metavar="MB", help="either must stay below")
    parser.add_argument("--no-ids", action="store_true", help="rows named by position instead of by an id")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    arguments = parser.parse_args()

    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    with children.serve() as served:
        small, large = (
            peak_mb(served, arguments.folder, rows, has_ids=not arguments.no_ids)
            for rows in (arguments.small, arguments.large)
        )
    ratio = large / small
    print(
        f"peak memory: {small:.0f} MB at {arguments.small:,} rows, {large:.0f} MB at {arguments.large:,}: "
        f"ratio {ratio:.2f} (at most {arguments.ratio:.2f}), ceiling {arguments.ceiling:.0f} MB"
    )
    sys.exit(ratio > arguments.ratio or max(small, large) >= arguments.ceiling)


if __name__ == "__main__":
    main()
