"""Known ids by the million: what a nightly run pays for the rows that it does not send.

A run over few rows makes an output. A million more ids (`--rows`) are then put among the finished ones of its
checkpoint, by the table's own means and as nights would have filed them: ten thousand at a time, each in the order of
its keys. Then the job runs over all of them and 1,000 new rows: first with the new rows at the end of the input
(every known row stands where it ended), then with 1,000 others at its beginning (none does). Deciding is the CPU time
of the whole process, all threads, less that of the same run over few rows, by the rows known; the disk is the
checkpoint's files when the run has ended; memory is the peak of the process. `--format`: of the input. Takes some two
minutes; `--rows 10000000` 20 and 4 GB of disk.

Exits 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import children
import work

NEW = 1_000
GROUP = 10_000
FEW = 10_000
ROW_GROUP = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """What one run over a grown input took."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    disk_mb: float


def row(number: int) -> dict[str, str]:
    return {
        "image_id": f"fox-{number:08d}",
        "title": f"Fox number {number}",
        "url": f"https://images.example.org/{number:08d}.jpg",
    }


def write_input(path: Path, *spans: range) -> None:
    """The rows of these numbers, in the form that the file's name says."""
    numbers = itertools.chain(*spans)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, pa.string()) for name in row(0)])
        with pq.ParquetWriter(path, schema) as writer:
            while group := [row(number) for number in itertools.islice(numbers, ROW_GROUP)]:
                writer.write_table(pa.Table.from_pylist(group, schema))
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.writer(file)
            writer.writerow(row(0))
            writer.writerows(row(number).values() for number in numbers)
        else:
            file.writelines(json.dumps(row(number)) + "\n" for number in numbers)


def groups(rows: int) -> Iterator[list[tuple[bytes, int, int, bytes]]]:
    """What is kept of finished rows, as `filing.py` keeps it."""
    from batchfox.core.row import key_of_id

    for first in range(0, rows, GROUP):
        numbers = range(first, min(first + GROUP, rows))
        yield sorted((key_of_id(f"fox-{n:08d}"), 0, n, n.to_bytes(8, "big")) for n in numbers)


def build(checkpoint: Path, rows: int) -> None:
    """Puts the ids of the first `rows` rows among the finished ones."""
    began_at = time.monotonic()
    db = sqlite3.connect(checkpoint, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -2000000")
    for group in groups(rows):
        db.execute("BEGIN")
        db.executemany("INSERT OR REPLACE INTO finished VALUES (?, ?, ?, ?)", group)
        db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    print(f"built in {time.monotonic() - began_at:.0f} s")


def prepare(served: children.Served, folder: Path, rows: int, form: str) -> None:
    """An output that knows `rows` ids, and a job over their input."""
    folder.mkdir()
    job, source, output = folder / "job.toml", folder / f"rows.{form}", folder / "out"
    work.write_job(job, rows=source, output=output, base_url=served.base_url)
    write_as_a_child(source, range(GROUP))
    children.run(["-m", "batchfox", "run", "--quiet", str(job)])
    if rows > GROUP:
        used = children.run([__file__, "--build", str(output / "_batchfox" / "checkpoint.db"), "--rows", str(rows)])
        print(f"{rows:,} ids {used.output.strip()}", flush=True)


def write_as_a_child(source: Path, *spans: range) -> None:
    """A child's peak memory begins at its parent's, so that Arrow is not loaded here."""
    told = [f"{span.start}:{span.stop}" for span in spans]
    children.run([__file__, "--write", str(source), *told])


def night(served: children.Served, folder: Path, rows: int, form: str, *, at_beginning: bool) -> Night:
    """A run over `rows` rows that are known and 1,000 that are new."""
    known, new = range(rows), range(rows, rows + NEW)
    write_as_a_child(folder / f"rows.{form}", *((new, known) if at_beginning else (known, new)))
    before = served.usage()["submits"]
    used = children.run(["-m", "batchfox", "run", "--quiet", str(folder / "job.toml")])
    sent = served.usage()["submits"] - before
    if sent != NEW:
        raise SystemExit(f"{sent:,.0f} rows were sent instead of {NEW:,}")
    size = sum(file.stat().st_size for file in (folder / "out" / "_batchfox").glob("checkpoint.db*"))
    found = Night(wall_s=used.wall_s, cpu_s=used.cpu_s, peak_mb=used.peak_mb, disk_mb=size / 1e6)
    where = "at the beginning" if at_beginning else "at the end"
    print(
        f"{form}: {rows:>10,} known, {NEW:,} new {where}: {found.wall_s:.1f} s wall, {found.cpu_s:.1f} s CPU, "
        f"{found.peak_mb:.0f} MB peak, {found.disk_mb:.0f} MB of checkpoint ({children.describe_machine()})",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Known ids by the million, and what deciding costs.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--micros", type=float, default=30.0, metavar="US", help="of CPU a known row, at most")
    parser.add_argument(
        "--disk", type=float, default=64.0, metavar="B", help="bytes of checkpoint a known row, at most"
    )
    parser.add_argument("--ratio", type=float, default=1.15, help="peak memory, all rows to few, at most")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    parser.add_argument("--format", choices=["jsonl", "parquet", "csv"], default="jsonl", help="of the input")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("spans", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write_input(arguments.write, *(range(*map(int, span.split(":"))) for span in arguments.spans))
        return
    if arguments.build is not None:
        build(arguments.build, arguments.rows)
        return
    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    is_beyond = False
    with children.serve() as served, tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        sizes = {"few": FEW, "many": arguments.rows}
        for size, rows in sizes.items():
            prepare(served, Path(name) / size, rows, arguments.format)
        for at_beginning in (False, True):
            few, many = (
                night(served, Path(name) / size, rows + NEW * at_beginning, arguments.format, at_beginning=at_beginning)
                for size, rows in sizes.items()
            )
            is_beyond |= judge(arguments, few, many, at_beginning=at_beginning)
    sys.exit(is_beyond)


def judge(arguments: argparse.Namespace, few: Night, many: Night, *, at_beginning: bool) -> bool:
    """Prints the figures. Is one beyond its limit?"""
    rows = arguments.rows - FEW
    micros, wall = (many.cpu_s - few.cpu_s) / rows * 1e6, (many.wall_s - few.wall_s) / rows * 1e6
    disk, ratio = many.disk_mb * 1e6 / arguments.rows, many.peak_mb / few.peak_mb
    where = "beginning" if at_beginning else "end"
    print(
        f"{arguments.format}: {arguments.rows:,} known ids, new rows at the {where}: {micros:.1f} µs CPU a row "
        f"({wall:.1f} µs wall; at most {arguments.micros:.0f}); {disk:.1f} bytes a row ({many.disk_mb:.0f} MB; "
        f"at most {arguments.disk:.0f}); peak {many.peak_mb:.0f} MB, {ratio:.2f} of that of few rows (at most "
        f"{arguments.ratio:.2f})",
        flush=True,
    )
    return bool(micros > arguments.micros or disk > arguments.disk or ratio > arguments.ratio)


if __name__ == "__main__":
    main()
