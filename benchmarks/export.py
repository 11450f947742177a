"""What `batchfox export` of a million rows takes: `python benchmarks/export.py [--rows N] [--folder DIR]`.

Makes the output as `view.py` does (kept in DIR, where one is named), writes it in each form by the command, as a
process of its own, and prints the peak of its memory, its time, and what it wrote. Exits 1 where one takes more than
the limit.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from children import HERE, describe_machine, run

LIMIT_MB = 400.0
# Form → what the file is called.
FORMS = {
    "parquet": "all.parquet",
    "jsonl": "all.jsonl",
    "csv": "all.csv",
    "excel": "excel.csv",
    "openai-batch": "batch.jsonl",
    "datasets": "dataset",
}


def make(folder: Path, rows: int) -> None:
    """The output, by another process: what this one holds would count as its children's."""
    code = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import view; "
    code += "view.make_output(pathlib.Path(sys.argv[2]), int(sys.argv[3]))"
    run(["-c", code, str(HERE), str(folder), str(rows)])


def size_of(target: Path) -> int:
    files = target.rglob("*") if target.is_dir() else [target]
    return sum(file.stat().st_size for file in files if file.is_file())


def measure(folder: Path, target: Path, form: str) -> float:
    """Prints what one form takes; returns the peak in MB."""
    used = run(["-m", "batchfox", "export", str(folder), str(target), "--format", form])
    print(
        f"{form:13} {used.peak_mb:5.0f} MB at most  {used.wall_s:6.1f} s  {used.cpu_s:6.1f} s of processor  "
        f"{size_of(target) / 1e6:7,.0f} MB written",
        flush=True,
    )
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    return used.peak_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--format", choices=FORMS, action="append", help="only this one; repeatable")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "output"
        if not (folder / "data").is_dir():
            make(folder, given.rows)
        print(describe_machine())
        peaks = [measure(folder, Path(temporary) / FORMS[form], form) for form in given.format or FORMS]
    print(f"at most {max(peaks):.0f} MB; the limit is {LIMIT_MB:g} MB")
    raise SystemExit(max(peaks) > LIMIT_MB)


if __name__ == "__main__":
    main()
