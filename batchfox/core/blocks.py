"""Blocks of 10,000 positions: which are finished, and did the input below them change.

For inputs without ids (contract.md, "Without ids"): a bit a row, and a digest of the raw rows of each block as far as
it was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from batchfox.errors import InputError

ROWS_PER_BLOCK = 10_000
BITMAP_BYTES = ROWS_PER_BLOCK // 8
FULL = b"\xff" * BITMAP_BYTES


def place(index: int) -> tuple[int, int]:
    """The block of a position, and its place in it."""
    return divmod(index, ROWS_PER_BLOCK)


def has(bitmap: bytes | bytearray, at: int) -> bool:
    return bool(bitmap[at >> 3] & (1 << (at & 7)))


def mark(bitmap: bytearray, at: int, value: bool = True) -> None:
    if value:
        bitmap[at >> 3] |= 1 << (at & 7)
    else:
        bitmap[at >> 3] &= ~(1 << (at & 7)) & 0xFF


class BlockDigest:
    """The running digest of the block that is being read."""

    def __init__(self) -> None:
        self.block = 0
        self.rows = 0
        self._hash = blake2b(digest_size=16)

    def add(self, index: int, row_digest: bytes) -> None:
        """The raw row at `index`, which must follow the one before."""
        block, at = place(index)
        if block != self.block:
            self.block, self.rows, self._hash = block, 0, blake2b(digest_size=16)
        assert at == self.rows, (index, self.rows)
        self.rows += 1
        self._hash.update(row_digest)

    def digest(self) -> bytes:
        """Of the block's first `rows` rows."""
        return self._hash.copy().digest()


class Comparison:
    """An input without ids beside what it was when its rows were first read, block by block.

    `known`: rows read and their digest, by block.
    """

    def __init__(self, known: Mapping[int, tuple[int, bytes]]) -> None:
        self._known = known
        self._digest = BlockDigest()
        self.is_settled = True

    def see(self, index: int, row_digest: bytes) -> tuple[int, int, bytes] | None:
        """The raw row at `index`. Returns its block, rows and digest where they are new. `is_settled` then says
        whether all rows seen are as they were, or new. Raises `InputError` where they are not."""
        digest = self._digest
        digest.add(index, row_digest)
        rows, known = self._known.get(digest.block, (0, b""))
        if digest.rows > rows:
            self.is_settled = True
            return digest.block, digest.rows, digest.digest()
        self.is_settled = digest.rows == rows
        if self.is_settled and digest.digest() != known:
            raise InputError(_say_changed(digest.block, rows))
        return None

    def pass_over(self, first: int, rows: int) -> None:
        """Rows from `first` on, up to a block's end, were found to be as they were."""
        self._digest.block, self._digest.rows = place(first + rows - 1)
        self._digest.rows += 1

    def end(self) -> None:
        """The input is over. Raises `InputError` where rows that were there are not."""
        for block, (rows, _) in self._known.items():
            if block > self._digest.block or (block == self._digest.block and rows > self._digest.rows):
                raise InputError(_say_changed(block, rows))


def _say_changed(block: int, rows: int) -> str:
    first = block * ROWS_PER_BLOCK
    return (
        f"the input changed: rows {first} to {first + rows - 1} (from 0) are not what they were when this output was "
        "begun, and without ids rows are known by their position only. Nothing was sent. Either name the column that "
        'identifies a row ([input] id = "...") in a new output, or put the old input back, or start anew with --fresh'
    )
