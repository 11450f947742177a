"""A bounded look at an input: rows of up to 20 of its files, evenly spread, each from its beginning."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from batchfox.core.glance import Glance
from batchfox.core.row import Row
from batchfox.errors import InputError
from batchfox.paths import STDIN, list_files
from batchfox.source import open_source

MOST_ROWS = 2000
MOST_FILES = 20
MOST_BYTES = 128 << 20


class Sample(msgspec.Struct, kw_only=True):
    """What was looked at. `is_whole`: that is all there is. `unread`: rows that cannot be read, `problem` the first."""

    glance: Glance
    files: list[str]
    is_whole: bool
    unread: int = 0
    problem: str = ""


def take_sample(path: str) -> Sample:
    """Raises `InputError` for what is no input, and for one without a row that can be read."""
    files = _list(path)
    step = -(-len(files) // MOST_FILES)
    chosen = files[::step]
    sample = Sample(glance=Glance(), files=files, is_whole=step == 1)
    for file in chosen:
        rows = itertools.chain.from_iterable(open_source([file], id_column=None, with_digest=False).batches())
        _look(sample, rows, most=max(1, MOST_ROWS // len(chosen)), most_bytes=MOST_BYTES // len(chosen))
    if not sample.glance.rows:
        why = f"none of its rows can be read, the first: {sample.problem}" if sample.unread else "it has no rows"
        raise InputError(f"{path}: {why}; there is nothing to make a job of")
    return sample


def _look(sample: Sample, rows: Iterator[Row], *, most: int, most_bytes: int) -> None:
    for number, row in enumerate(rows):
        if number >= most or most_bytes <= 0:
            sample.is_whole = False
            return
        if row.problem is not None:
            sample.unread += 1
            sample.problem = sample.problem or row.problem
            continue
        sample.glance.see(row.columns)
        most_bytes -= weigh(row)


def weigh(row: Row) -> int:
    """Roughly how many bytes a row is."""
    return sum(len(value) for value in row.columns.values() if isinstance(value, (str, bytes, list)))


def _list(path: str) -> list[str]:
    if path == STDIN:
        raise InputError("standard input can be read only once, by the run: name a file to look at")
    return list_files([path])
