"""What parts are called. Apart from `parts.py`, so that who only looks for them does not pay for pyarrow."""

from __future__ import annotations

import re

_NAME = re.compile(r"part-(\d{5,})\.parquet")


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def number_of(name: str) -> int | None:
    """The number in a part's file name; None for any other file."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None
