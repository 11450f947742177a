"""Blocks of positions: the bitmap of what is finished, and the digest that tells a changed input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.blocks import BITMAP_BYTES, ROWS_PER_BLOCK, BlockDigest, has, mark, place


def row_digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.mark.parametrize(
    ("index", "where"),
    [(0, (0, 0)), (9_999, (0, 9_999)), (10_000, (1, 0)), (10_001, (1, 1)), (25_000_000_123, (2_500_000, 123))],
)
def test_a_position_has_its_place_in_a_block(index: int, where: tuple[int, int]) -> None:
    assert place(index) == where


@given(st.lists(st.tuples(st.integers(0, ROWS_PER_BLOCK - 1), st.booleans()), max_size=100))
def test_the_bitmap_is_a_set(marks: list[tuple[int, bool]]) -> None:
    bitmap, model = bytearray(BITMAP_BYTES), set[int]()
    for at, value in marks:
        mark(bitmap, at, value)
        model.add(at) if value else model.discard(at)
    touched = {at for at, _ in marks}
    near = {other for at in touched for other in (at - 1, at + 1, at - 8, at + 8) if 0 <= other < ROWS_PER_BLOCK}
    assert {at for at in touched | near if has(bitmap, at)} == model
    assert sum(byte.bit_count() for byte in bitmap) == len(model)


def test_the_last_row_of_a_block_has_a_bit() -> None:
    bitmap = bytearray(BITMAP_BYTES)
    mark(bitmap, ROWS_PER_BLOCK - 1)
    assert has(bytes(bitmap), ROWS_PER_BLOCK - 1)


def digest_of(numbers: list[int], start: int = 0) -> BlockDigest:
    digest = BlockDigest()
    for at, number in enumerate(numbers):
        digest.add(start + at, row_digest(number))
    return digest


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_digests_are_equal_exactly_where_the_rows_are(one: list[int], other: list[int]) -> None:
    assert (digest_of(one).digest() == digest_of(other).digest()) == (one == other)


def test_asking_for_the_digest_does_not_end_it() -> None:
    digest = BlockDigest()
    seen = []
    for at in range(5):
        digest.add(at, row_digest(at))
        seen.append(digest.digest())
        assert digest.digest() == seen[-1]
    assert len(set(seen)) == 5
    assert seen[-1] == digest_of([0, 1, 2, 3, 4]).digest()


def test_each_block_has_a_digest_of_its_own() -> None:
    whole = digest_of(list(range(ROWS_PER_BLOCK + 2)))
    assert (whole.block, whole.rows) == (1, 2)
    assert whole.digest() == digest_of([ROWS_PER_BLOCK, ROWS_PER_BLOCK + 1]).digest()


def test_a_row_out_of_turn_is_a_bug() -> None:
    digest = digest_of([1, 2])
    for index in (0, 1, 3, ROWS_PER_BLOCK + 1):
        with pytest.raises(AssertionError):
            digest.add(index, row_digest(0))
