"""Passing over what is done without reading it as rows: most of an input that grew, or of a run that is resumed.

With ids those rows are passed over whose id is that of a row that ended, here or elsewhere in the input: of a line of
JSON or CSV only the id is taken, of Parquet only its column is read. Without ids it is a whole block of JSON lines, all
of which has ended and whose raw lines have the digest on record. Whatever differs in the least is read as rows, and
decided as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from batchfox.checkpoint import Checkpoint
from batchfox.core import blocks
from batchfox.core.row import key_of_position
from batchfox.records import Record

LINES = 512
LINES_BYTES = 1 << 20
BLOCK_BYTES = 16 << 20
# After lines that are hardly done, this many lines are read as rows: a new input is not looked at twice.
PAUSE = 16 * LINES

# A row as a file is read forwards: its line, what is known of it until it is a record, and how far the file is read.
Line = tuple[int, Any, int]
# Of a row that ended: its key, the place of its status in `STATUSES` (0: completed), and the position where it ended.
Met = tuple[bytes, int, int]


class Passed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Rows from `first` on that ended as earlier runs have it; keys of those that did not complete. `line` and
    `position`: of the last one, in its file. `met`: key of each, whether it is completed, and the position where it
    ended; empty where all ended where they stand. `repeated`: so many of them were met before in this pass."""

    first: int
    rows: int
    incomplete: list[bytes]
    line: int
    position: int
    met: list[Met] = []
    repeated: int = 0


class Reading(Protocol):
    """A file, read forwards, of which not all need be made into records."""

    def take(self, most: int, most_bytes: int) -> list[Line]:
        """The next lines, so many or so large at most; none at the file's end."""

    def keys(self, lines: Sequence[Line]) -> list[bytes] | None:
        """The keys of these lines' ids, empty for one that is to be read as a row; None where that cannot be told."""

    def raw(self, lines: Sequence[Line]) -> list[bytes] | None:
        """The bytes of these lines, whose digests their block has; None where one has none."""

    def records(self, lines: Sequence[Line]) -> Iterator[Record]:
        """These lines as records. They are the last that were taken, or some of them; no line is asked for twice."""

    def close(self) -> None: ...


class Skimmer:
    """Looks at lines in the reading thread. `is_on`: the first rows are read, whatever is known of them."""

    def __init__(self, checkpoint: Checkpoint, id_column: str | None) -> None:
        self._checkpoint = checkpoint
        self._has_ids = id_column is not None
        self._resumes_at = 0
        self.is_on = False
        # Were the lines looked at last all completed, and where they stand? Then the next may be, too: see `ends`.
        self._are_in_place = False
        self._digests = {} if self._has_ids else checkpoint.block_digests()

    def take(self, index: int, reading: Reading) -> tuple[list[Line], bool]:
        """The next lines, the first of which is the row at `index`: are they to be looked at?"""
        if self._has_ids:
            pause = max(self._resumes_at - index, 0)
            most = LINES if self.is_on and not pause else max(1, min(pause, LINES))
            return reading.take(most, LINES_BYTES), self.is_on and not pause
        block, at = blocks.place(index)
        is_whole = at == 0 and self._digests.get(block, (0, b""))[0] == blocks.ROWS_PER_BLOCK
        if not self.is_on or index < self._resumes_at or not is_whole:
            return reading.take(1, LINES_BYTES), False
        return reading.take(blocks.ROWS_PER_BLOCK, BLOCK_BYTES), True

    def look(self, first: int, lines: Sequence[Line], reading: Reading) -> list[Passed | Sequence[Line]] | None:
        """These lines in their order, as passed over or to be read as rows; None: all are to be read."""
        if self._has_ids:
            keys = reading.keys(lines)
            found = None if keys is None else self._look_at_keys(first, lines, keys)
        else:
            texts = reading.raw(lines)
            found = None if texts is None else self._look_at_block(first, lines, texts)
        if found is None:
            self._resumes_at = first + (PAUSE if self._has_ids else len(lines))
        return found

    def _look_at_keys(
        self, first: int, lines: Sequence[Line], keys: list[bytes]
    ) -> list[Passed | Sequence[Line]] | None:
        if self._are_in_place:
            if self._checkpoint.finished.are_completed_in_place(keys, first):
                line, _, position = lines[-1]
                return [Passed(first=first, rows=len(lines), incomplete=[], line=line, position=position)]
            self._are_in_place = False
        ends = {end[0]: end for end in self._checkpoint.finished.ends(keys)}
        met = [ends.get(key) for key in keys]
        if met.count(None) * 2 > len(met):
            return None
        wanted = enumerate(met, first)
        self._are_in_place = all(end is not None and end[1:] == (0, place) for place, end in wanted)
        found: list[Passed | Sequence[Line]] = []
        start = 0
        while start < len(lines):
            end = start + 1
            is_new = met[start] is None
            while end < len(lines) and (met[end] is None) is is_new:
                end += 1
            found.append(lines[start:end] if is_new else _pass(first + start, lines[end - 1], met[start:end]))
            start = end
        return found

    def _look_at_block(
        self, first: int, lines: Sequence[Line], texts: list[bytes]
    ) -> list[Passed | Sequence[Line]] | None:
        block = first // blocks.ROWS_PER_BLOCK
        maps = self._checkpoint.finished.bitmaps(block)
        if len(texts) != blocks.ROWS_PER_BLOCK or maps is None or maps[0] != blocks.FULL:
            return None
        digest = blake2b(digest_size=16)
        for text in texts:
            digest.update(blake2b(text, digest_size=16).digest())
        if digest.digest() != self._digests[block][1]:
            return None
        marked = (at for at, byte in enumerate(maps[1]) if byte)
        places = (at * 8 + bit for at in marked for bit in range(8) if blocks.has(maps[1], at * 8 + bit))
        incomplete = [key_of_position(first + place) for place in places]
        line, _, position = lines[-1]
        return [Passed(first=first, rows=len(lines), incomplete=incomplete, line=line, position=position)]


def _pass(first: int, last: Line, met: Sequence[Met | None]) -> Passed:
    """Rows from `first` on, all of which have ended."""
    ended = [end for end in met if end is not None]
    is_in_place = all(place == at for at, (_, _, place) in enumerate(ended, first))
    return Passed(
        first=first,
        rows=len(ended),
        incomplete=[key for key, status, _ in ended if status],
        line=last[0],
        position=last[2],
        met=[] if is_in_place else ended,
    )


def skimmer_of(checkpoint: Checkpoint, id_column: str | None) -> Skimmer | None:
    """None where nothing is done yet, or rows that are done get fresh attempts."""
    table = "finished" if id_column is not None else "finished_block"
    retried = "SELECT 1 FROM retry WHERE part >= 0"
    is_done, is_retried = checkpoint.query(f"SELECT EXISTS (SELECT 1 FROM {table}), EXISTS ({retried})")[0]
    return Skimmer(checkpoint, id_column) if is_done and not is_retried else None
