"""Rows a second, and the CPU that batchfox adds to a bare aiohttp loop, in microseconds a row.

Both at 64 in flight against the same server in a process of its own, alternating, median of the rounds, the
contestant with all its threads on one core, the server on another (`--any-core`: wherever they like). CPU is that
of the whole process, all threads, user and system (wait4), less that of the same command over a single row: what
start-up, imports and closing cost is not counted, everything that comes with rows is. batchfox reads a JSONL file,
renders templates, checks the rules, records with full sync and writes Parquet, as `batchfox run` does for anybody.

Exits 1 where the added CPU is above the goal, or the server was too busy for the figure to mean anything.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import children
import work

MOST_SERVER_SHARE = 0.70


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Per row, start-up taken off. `server_share`: of one core, while the rows ran."""

    cpu_us: float
    wall_us: float
    server_share: float

    @property
    def rows_per_s(self) -> float:
        return 1e6 / self.wall_us


class Bench:
    """The two contestants over the same number of rows."""

    def __init__(
        self, served: children.Served, folder: Path, rows: int, *, has_ids: bool, core: int | None = None
    ) -> None:
        self._served = served
        self._core = core
        self._folder = folder
        self._rows = rows
        self._has_ids = has_ids
        for number in (1, rows):
            work.write_rows(folder / f"{number}.jsonl", number)

    def bare(self) -> Cost:
        return self._cost(self._run_bare)

    def batchfox(self, checkpoint: Path | None = None) -> Cost:
        return self._cost(lambda rows: self._run_batchfox(rows, checkpoint))

    def _cost(self, run: Callable[[int], children.Used]) -> Cost:
        start = run(1)
        server_before = self._served.usage()["cpu_s"]
        used = run(self._rows)
        server_s = self._served.usage()["cpu_s"] - server_before
        rows, wall_s = self._rows - 1, used.wall_s - start.wall_s
        return Cost(
            cpu_us=(used.cpu_s - start.cpu_s) / rows * 1e6,
            wall_us=wall_s / rows * 1e6,
            server_share=server_s / wall_s,
        )

    def _run_bare(self, rows: int) -> children.Used:
        return children.run(
            [str(children.HERE / "bare.py"), self._served.base_url, "--rows", str(rows)], core=self._core
        )

    def _run_batchfox(self, rows: int, checkpoint: Path | None) -> children.Used:
        job, output = self._folder / "job.toml", self._folder / "out"
        base_url = self._served.base_url
        work.write_job(
            job,
            rows=self._folder / f"{rows}.jsonl",
            output=output,
            base_url=base_url,
            has_ids=self._has_ids,
            checkpoint=checkpoint,
        )
        before = self._served.usage()
        used = children.run(["-m", "batchfox", "run", str(job)], core=self._core)
        after = self._served.usage()
        asked = (after["submits"] - before["submits"], after["polls"] - before["polls"])
        if asked != (rows, rows):
            raise SystemExit(f"{rows} rows took {asked[0]:.0f} submits and {asked[1]:.0f} polls, not one each")
        shutil.rmtree(output)
        if checkpoint is not None:
            for file in checkpoint.parent.glob(f"{checkpoint.name}*"):
                file.unlink()
        return used


def show(name: str, costs: list[Cost]) -> None:
    """One line: CPU, wall and speed as medians, the CPU of each round, the server's share at its highest."""
    cpu = median(cost.cpu_us for cost in costs)
    each = " ".join(f"{cost.cpu_us:.0f}" for cost in costs)
    wall = median(cost.wall_us for cost in costs)
    print(
        f"{name:<22} {cpu:6.0f} µs CPU a row, {wall:6.0f} µs wall, {1e6 / wall:6.0f} rows/s"
        f"   (rounds: {each}; server {max(cost.server_share for cost in costs):.0%} of a core)",
        flush=True,
    )


def show_sync_price(bench: Bench, memory_folder: Path, rounds: int) -> None:
    """The same with the checkpoint in memory, where a sync costs nothing: what is left away is the price of syncing."""
    if children.file_system(memory_folder) != "tmpfs":
        print(f"price of syncing: not measured, {memory_folder} is no tmpfs")
        return
    on_disk: list[Cost] = []
    in_memory: list[Cost] = []
    for _ in range(rounds):
        on_disk.append(bench.batchfox())
        with tempfile.TemporaryDirectory(dir=memory_folder) as folder:
            in_memory.append(bench.batchfox(checkpoint=Path(folder) / "checkpoint.db"))
    show("checkpoint on disk", on_disk)
    show("checkpoint in memory", in_memory)
    pairs = list(zip(on_disk, in_memory, strict=True))
    cpu = median(disk.cpu_us - memory.cpu_us for disk, memory in pairs)
    wall = median(disk.wall_us - memory.wall_us for disk, memory in pairs)
    print(f"price of syncing: {cpu:.0f} µs CPU and {wall:.0f} µs wall a row")


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU that batchfox adds to a bare aiohttp loop, µs a row.")
    parser.add_argument("--goal", type=float, default=100.0, metavar="µS", help="CPU µs added a row, at most")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-ids", action="store_true", help="rows named by position instead of by an id")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    parser.add_argument("--any-core", action="store_true", help="threads wherever the system puts them")
    parser.add_argument("--sync-price", action="store_true", help="also measure with the checkpoint in memory")
    parser.add_argument("--memory-folder", type=Path, default=Path("/dev/shm"), help="a tmpfs, for --sync-price")
    arguments = parser.parse_args()

    cores = None if arguments.any_core else children.two_cores()
    mine, its = cores or (None, None)
    where = "each on a core of its own" if cores else "on any core"
    disk = children.file_system(arguments.folder)
    print(f"{children.describe_machine()}; contestant and server {where}; output on {disk}", flush=True)
    bare: list[Cost] = []
    batchfox: list[Cost] = []
    with children.serve(core=its) as served, tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        bench = Bench(served, Path(folder), arguments.rows, has_ids=not arguments.no_ids, core=mine)
        for _ in range(arguments.rounds):
            bare.append(bench.bare())
            batchfox.append(bench.batchfox())
        show("bare loop", bare)
        show("batchfox", batchfox)
        if arguments.sync_price:
            show_sync_price(bench, arguments.memory_folder, arguments.rounds)
    print(f"{children.describe_machine()} at the end")

    pairs = list(zip(bare, batchfox, strict=True))
    added = [ours.cpu_us - theirs.cpu_us for theirs, ours in pairs]
    speed = median(ours.rows_per_s / theirs.rows_per_s for theirs, ours in pairs)
    busiest = max(cost.server_share for cost in (*bare, *batchfox))
    is_void = busiest >= MOST_SERVER_SHARE
    if is_void:
        print(f"void: the server used {busiest:.0%} of a core, {MOST_SERVER_SHARE:.0%} at most")
    least = min(cost.cpu_us for cost in batchfox) - min(cost.cpu_us for cost in bare)
    print(f"rows/s, batchfox to bare: {speed:.2f}; CPU added between the quietest round of each: {least:.0f} µs a row")
    print(
        f"CPU added: {median(added):.0f} µs a row, median of {len(added)} "
        f"({min(added):.0f} to {max(added):.0f}); goal: at most {arguments.goal:.0f}"
    )
    sys.exit(is_void or median(added) > arguments.goal)


if __name__ == "__main__":
    main()
