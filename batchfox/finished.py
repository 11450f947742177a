"""What a checkpoint knows of rows that are filed: by their keys where they have ids, else by their positions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec

from batchfox.core import blocks
from batchfox.core.outcome import STATUSES

# Of one query.
_MOST_KEYS = 512


class Done(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A finished key: how it ended, and at which position of the input."""

    status: str
    row_index: int


class Finished:
    """The tables `finished` and `finished_block`. It belongs to the thread that its checkpoint belongs to."""

    def __init__(self, query: Callable[..., list[Any]]) -> None:
        self._query = query

    def ids(self, keys: list[bytes]) -> dict[bytes, Done]:
        """Of these keys of rows with ids, the finished ones."""
        return {key: Done(status=STATUSES[status], row_index=row_index) for key, status, row_index in self.ends(keys)}

    def are_completed_in_place(self, keys: list[bytes], first: int) -> bool:
        """Did the rows of these keys all complete, at the positions `first`, `first + 1`, …? One answer for many rows
        is a third cheaper than theirs."""
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            if self._query(_in_place_sql(len(some)), (*some, first + start)) != [(len(some),)]:
                return False
        return True

    def ends(self, keys: list[bytes]) -> list[tuple[bytes, int, int]]:
        """The same, as key, place of its status in `STATUSES`, and position in the input."""
        return self._of(keys, "key, status, row_index")

    def hashes(self, keys: list[bytes]) -> dict[bytes, bytes | None]:
        """Of these keys of rows with ids, the finished ones: the first 8 bytes of their request's hash, None for a
        row that made no request."""
        return dict(self._of(keys, "key, hash"))

    def _of(self, keys: list[bytes], columns: str) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            found += self._query(f"SELECT {columns} FROM finished WHERE key IN ({','.join('?' * len(some))})", some)
        return found

    def positions(self, indices: list[int]) -> dict[int, Done]:
        """Of these positions of an input without ids, the finished ones (as completed or failed, no finer)."""
        found: dict[int, Done] = {}
        bitmaps: dict[int, Any] = {}
        for index in indices:
            block, at = blocks.place(index)
            if block not in bitmaps:
                bitmaps[block] = self.bitmaps(block)
            maps = bitmaps[block]
            if maps and blocks.has(maps[0], at):
                status = "failed" if blocks.has(maps[1], at) else "completed"
                found[index] = Done(status=status, row_index=index)
        return found

    def bitmaps(self, block: int) -> tuple[bytes, bytes] | None:
        """Of a block of an input without ids: what is finished, and what of that did not complete."""
        rows = self._query("SELECT done, incomplete FROM finished_block WHERE block = ?", (block,))
        return rows[0] if rows else None


@functools.cache
def _in_place_sql(keys: int) -> str:
    places = ",".join(f"(?,{place})" for place in range(keys))
    return (
        f"SELECT count(*) FROM (VALUES {places}) AS wanted CROSS JOIN finished ON finished.key = wanted.column1 "
        f"WHERE finished.status = {STATUSES.index('completed')} AND finished.row_index = ? + wanted.column2"
    )
