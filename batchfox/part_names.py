"""What parts are called. Apart from `parts.py`, so that who only looks for them does not pay for pyarrow."""

from __future__ import annotations

import re
from pathlib import Path

from batchfox.errors import OutputError
from batchfox.paths import say_no_output

_NAME = re.compile(r"part-(\d{5,})\.parquet")


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def number_of(name: str) -> int | None:
    """The number in a part's file name; None for any other file."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def parts_so_far(folder: Path) -> list[Path]:
    """The parts of an output, by number; none where a run has just begun. Raises `OutputError` where there is no
    output."""
    data = folder / "data"
    if not data.is_dir():
        raise OutputError(say_no_output(folder, data))
    return sorted(path for path in data.iterdir() if number_of(path.name) is not None)


def part_paths(folder: Path) -> list[Path]:
    """The parts of an output, by number. Raises `OutputError` where there is no output, or no part yet."""
    paths = parts_so_far(folder)
    if not paths:
        raise OutputError(f"{folder}: no part is written yet; parts appear while the run goes on and at its end")
    return paths
