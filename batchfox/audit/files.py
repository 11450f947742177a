"""Findings about files: the parts and what was replaced, beside what is on record of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batchfox.audit.finding import MOST_EXAMPLES, Finding
from batchfox.audit.recorded import Recorded
from batchfox.audit.written import Written
from batchfox.folders import Folders
from batchfox.part_names import part_name
from batchfox.words import count


def check_files(folders: Folders, written: Written, recorded: Recorded) -> Iterator[Finding]:
    """What is wrong with files, as wholes."""
    data, repair = str(folders.data), f"`batchfox doctor {folders.root} --repair`"
    again = "has their rows sent, and paid for, again"
    yield from _say(
        "part_unreadable",
        data,
        [f"{part_name(number)}: {why}" for number, why in sorted(written.unreadable.items())],
        "cannot be read to the end: altered, or cut short",
        f"put good copies back; or {repair} {again}",
    )
    filed = recorded.filed
    gone = sorted(filed.keys() - written.parts.keys() - written.unreadable.keys())
    yield from _say(
        "part_gone",
        data,
        [
            f"{part_name(number)} ({count(filed[number].rows, 'row')})"
            for number in gone
            if not written.is_foreign(number)
        ],
        "on record and gone",
        f"put them back; or {repair} {again}",
    )
    yield from _say(
        "part_altered",
        data,
        list(_altered(written, recorded)),
        "other than on record: rows were added, taken out or changed by hand",
        f"put the right files back; or {repair} goes by what is there now",
    )
    yield from _say(
        "part_unknown",
        data,
        list(_unknown(written, recorded)),
        "on no record of this output: foreign, or the checkpoint is older",
        f"move what is foreign out of data/; or {repair} takes it up",
    )
    yield from _say(
        "file_foreign",
        data,
        [f"{name}: {why}" for name, why in sorted(written.foreign.items())],
        "in data/ and none of this output's",
        "move them out of data/; nothing touches them",
        noun="file",
    )
    yield from _check_replaced(folders.superseded, written)


def _altered(written: Written, recorded: Recorded) -> Iterator[str]:
    for number, record in sorted(recorded.filed.items()):
        part = written.parts.get(number)
        if part is None or number in recorded.swapping:
            continue
        on_record = {status: rows for status, rows in record.counts.items() if rows}
        if part.rows != record.rows or part.counts != on_record:
            yield f"{part_name(number)} holds {_say_counts(part.counts)}, on record are {_say_counts(on_record)}"


def _unknown(written: Written, recorded: Recorded) -> Iterator[str]:
    unknown = sorted(written.parts.keys() - recorded.parts.keys())
    if unknown == [0] and not recorded.parts and written.parts[0].rows == 0:
        return  # what an output without rows holds
    for number in unknown:
        yield f"{part_name(number)} ({count(written.parts[number].rows, 'row')})"


def _check_replaced(folder: Path, written: Written) -> Iterator[Finding]:
    yield from _say(
        "replaced_unreadable",
        str(folder),
        [f"{name}: {why}" for name, why in sorted(written.replaced_unreadable.items())],
        "cannot be read; outcomes that a retry replaced were in it",
        "put good copies back; the rows themselves have newer outcomes",
        noun="file",
    )


def _say(kind: str, where: str, places: list[str], what: str, then: str, noun: str = "part") -> Iterator[Finding]:
    if places:
        said = f"{count(len(places), noun)} {what}"
        yield Finding(kind=kind, number=len(places), what=said, examples=places[:MOST_EXAMPLES], where=where, next=then)


def _say_counts(counts: dict[str, int]) -> str:
    told = ", ".join(f"{rows:,} {status}" for status, rows in sorted(counts.items()) if rows)
    return told or "no rows"
