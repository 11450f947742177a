"""Rows that lose their outcome with their part: those that the old checkpoint knows to have been paid for are marked.
The next run, which sends them again, flags them (`maybe_billed_twice`).

Of a row with an id it knows how it ended. Of a row without one it knows only whether it completed: where lost parts
held rows in doubt or timed out, any that did not complete may be one of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from batchfox.checkpoint import NO_PART
from batchfox.core import blocks
from batchfox.core.outcome import STATUSES
from batchfox.core.row import key_of_position

# What they may have cost is spent: a task was made of their POST, or may have been, and it did not fail.
MAYBE_PAID = ("completed", "in_doubt", "timed_out")
_PLACES = frozenset(STATUSES.index(status) for status in MAYBE_PAID)
# As in the checkpoint's table `retry`: key, part, submits, unresolved, doubled. How many submits there were nobody
# knows any more: one at least.
Mark = tuple[bytes, int, int, int, int]


def paid_before(known: Iterable[tuple[bytes, int]], found: Iterable[bytes]) -> Iterator[Mark]:
    """`known`: key and status of what was done, in order; `found`: keys that are in parts, in order."""
    rest = iter(found)
    at = next(rest, None)
    for key, status in known:
        while at is not None and at < key:
            at = next(rest, None)
        if key != at and status in _PLACES:
            yield key, NO_PART, 1, 1, 0


def paid_before_by_position(
    known: Iterable[tuple[int, bytes, bytes]], found: Iterable[tuple[int, bytes, bytes]], *, is_any_unclear: bool
) -> Iterator[Mark]:
    """The same by bitmaps of blocks: number, done, incomplete. `is_any_unclear`: rows that did not complete and were
    maybe paid for are among those that are lost."""
    there = {block: done for block, done, _ in found}
    for block, done, incomplete in known:
        now = there.get(block, bytes(blocks.BITMAP_BYTES))
        if done == now:
            continue
        for at in range(blocks.ROWS_PER_BLOCK):
            is_lost = blocks.has(done, at) and not blocks.has(now, at)
            if is_lost and (is_any_unclear or not blocks.has(incomplete, at)):
                yield key_of_position(block * blocks.ROWS_PER_BLOCK + at), NO_PART, 1, 1, 0


def holds_unclear(counts: str) -> bool:
    """Are there, in a part with these counts (JSON, by status), rows that did not complete and were maybe paid for?"""
    try:
        told = msgspec.json.decode(counts, type=dict[str, int])
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return True
    return any(told.get(status) for status in MAYBE_PAID[1:])
