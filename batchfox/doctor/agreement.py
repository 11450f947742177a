"""Do the parts of an output agree with each other, and with the checkpoint?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from batchfox import parts
from batchfox.checkpoint import Checkpoint
from batchfox.doctor.census import Census, Known
from batchfox.doctor.remark import Remark
from batchfox.words import count

AGAIN = "are sent, and paid for, again by the next run"


def say_files(data: Path, census: Census) -> Iterator[Remark]:
    """What is wrong with the files by themselves."""
    for name, why in sorted(census.foreign.items()):
        yield Remark(
            what=f"does not belong here: {why}", where=str(data / name), next="move it out of data/; nothing touches it"
        )
    for number, why in sorted(census.unreadable.items()):
        yield Remark(
            what=f"cannot be read ({why})",
            where=str(data / parts.part_name(number)),
            next="put back a good copy; or --repair moves it to _batchfox/damaged/, and the next run sends the rows "
            "that were in it again, which are paid for again",
            is_mendable=True,
        )
    number, examples = census.duplicates()
    if number:
        named = "; ".join(
            f"{row_id} in {', '.join(parts.part_name(part) for part in places)}" for row_id, places in examples
        )
        yield Remark(
            what=f"{count(number, 'row')} stand there more than once ({named})",
            where=str(data),
            next="one of the files is a copy: move it out of data/",
            is_in_the_way=True,
        )


def compare(data: Path, checkpoint: Checkpoint, census: Census, *, has_ids: bool) -> Iterator[Remark]:
    """Do the records agree with the files? What a crash may leave half done is passed over: the next run ends it."""
    recorded = {number: row for number, *row in checkpoint.query("SELECT number, is_filed, rows, counts FROM part")}
    filed = {number for number, (is_filed, _, _) in recorded.items() if is_filed}
    swapping = {part for (part,) in checkpoint.query("SELECT DISTINCT old_part FROM assigned JOIN row USING (slot)")}
    found = [*_find_gone(data, recorded, filed, census), *_compare_parts(data, recorded, filed - swapping, census)]
    yield from found
    if not found and not swapping - {None}:
        yield from _compare_keys(checkpoint, census, filed, has_ids=has_ids)


def _find_gone(data: Path, recorded: dict[int, list[Any]], filed: set[int], census: Census) -> Iterator[Remark]:
    for number in sorted(filed - census.parts.keys() - census.unreadable.keys()):
        rows = recorded[number][1]
        yield Remark(
            what=f"was filed with {count(rows, 'row')} and is gone",
            where=str(data / parts.part_name(number)),
            next=f"put it back; or --repair forgets these rows, which then {AGAIN}",
            is_mendable=True,
        )


def _compare_parts(data: Path, recorded: dict[int, list[Any]], filed: set[int], census: Census) -> Iterator[Remark]:
    for number in sorted(filed & census.parts.keys()):
        part, (_, rows, counts) = census.parts[number], recorded[number]
        if part.rows != rows or part.counts != _without_zeros(msgspec.json.decode(counts)):
            yield Remark(
                what=f"holds {_say_counts(part.counts)}, on record are {_say_counts(msgspec.json.decode(counts))}",
                where=str(data / parts.part_name(number)),
                next=f"put back the right file; or --repair goes by this one: rows that are not in it {AGAIN}",
                is_mendable=True,
            )
    lone = len(census.parts) == 1 and not recorded
    for number in sorted(census.parts.keys() - recorded.keys()):
        if lone and number == 0 and census.parts[number].rows == 0:
            continue
        yield Remark(
            what=f"no record names this part of {count(census.parts[number].rows, 'row')}: the checkpoint is older",
            where=str(data / parts.part_name(number)),
            next="where it is from another output, move it out of data/; else --repair takes it up again",
            is_mendable=True,
        )


def _compare_keys(checkpoint: Checkpoint, census: Census, filed: set[int], *, has_ids: bool) -> Iterator[Remark]:
    """Row by row: does the checkpoint know as done exactly what is in the parts?"""
    if has_ids:
        known = checkpoint.stream("SELECT key, status, row_index, hash FROM finished ORDER BY key")
        differing = _count_differences(known, census.known(filed))
    else:
        maps = checkpoint.query("SELECT block, done, incomplete FROM finished_block ORDER BY block")
        differing = sum(a != b for a, b in itertools.zip_longest(maps, census.bitmaps(filed)))
    if differing:
        yield Remark(
            what=f"{count(differing, 'entry', 'entries')} of what is done differ from what is in the parts",
            where=str(checkpoint.path),
            next="--repair goes by the parts",
            is_mendable=True,
        )


def _count_differences(known: Iterator[Known], found: Iterator[Known]) -> int:
    """Of two streams in the order of their keys: entries that stand in one alone, or differ."""
    differing = 0
    ours, theirs = next(known, None), next(found, None)
    while ours is not None or theirs is not None:
        if ours == theirs:
            ours, theirs = next(known, None), next(found, None)
            continue
        differing += 1
        first = min(entry[0] for entry in (ours, theirs) if entry is not None)
        if ours is not None and ours[0] == first:
            ours = next(known, None)
        if theirs is not None and theirs[0] == first:
            theirs = next(found, None)
    return differing


def _without_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {status: rows for status, rows in counts.items() if rows}


def _say_counts(counts: dict[str, int]) -> str:
    told = ", ".join(f"{rows:,} {status}" for status, rows in sorted(counts.items()) if rows)
    return f"{count(sum(counts.values()), 'row')}{f' ({told})' if told else ''}"
