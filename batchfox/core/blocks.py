"""Blocks of 10,000 positions: which are finished, and did the input below them change.

For inputs without ids (contract.md, "Without ids"): a bit a row, and a digest of the raw rows of each block as far as
it was read.
"""

from __future__ import annotations

from hashlib import blake2b

ROWS_PER_BLOCK = 10_000
BITMAP_BYTES = ROWS_PER_BLOCK // 8


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
