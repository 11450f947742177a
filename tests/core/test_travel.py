"""How each medium travels, as a table and as a property: what fits is sent inline, what does not is uploaded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.quantity import Size
from batchfox.core.sections import Media
from batchfox.core.travel import URL_BYTES, Piece, decide, decoded_bytes, weight

REMOTE = Piece(origin="remote", size=0)


def local(size: int) -> Piece:
    return Piece(origin="local", size=size)


def data(size: int) -> Piece:
    return Piece(origin="data", size=size)


@pytest.mark.parametrize(
    ("mode", "ways"),
    [
        ("auto", ["url", "inline", "upload", "inline"]),
        ("url", ["url", "inline", "inline", "inline"]),
        ("inline", ["url", "inline", "inline", "inline"]),
        ("upload", ["url", "upload", "upload", "upload"]),
    ],
)
def test_the_way_of_each_medium_by_mode(mode: Any, ways: list[str]) -> None:
    pieces = [REMOTE, local(100), local(101), data(200)]
    assert decide(pieces, Media(mode=mode, inline_below=Size(100))) == ways


def test_the_largest_are_uploaded_until_the_request_fits() -> None:
    pieces = [local(3_000_000), REMOTE, data(9_000_000), local(2_000_000), local(1_000_000)]
    every = Media(inline_below=Size(100_000_000))
    assert decide(pieces, every, rest=1000, most=30_000_000) == ["inline", "url", "inline", "inline", "inline"]
    assert decide(pieces, every, rest=1000, most=10_000_000) == ["inline", "url", "upload", "inline", "inline"]
    assert decide(pieces, every, rest=1000, most=5_000_000) == ["upload", "url", "upload", "inline", "inline"]
    assert decide(pieces, every, rest=9_999, most=2_000) == ["upload", "url", "upload", "upload", "upload"]
    assert decide(pieces, Media(mode="inline"), rest=1000, most=10_000)[2] == "inline"


@given(st.lists(st.integers(0, 200_000), max_size=8), st.integers(0, 50_000), st.integers(1, 400_000))
def test_what_is_decided_fits_wherever_anything_would(sizes: list[int], rest: int, most: int) -> None:
    pieces = [local(size) for size in sizes]
    ways = decide(pieces, Media(inline_below=Size(100_000)), rest=rest, most=most)
    size = rest + sum(weight(piece, way) for piece, way in zip(pieces, ways, strict=True))
    least = rest + sum(min(weight(piece, "inline"), URL_BYTES) for piece in pieces if piece.size <= 100_000)
    least += sum(URL_BYTES for piece in pieces if piece.size > 100_000)
    assert size <= max(most, least)


@given(st.binary(max_size=50))
def test_the_size_of_a_payload_is_told_without_decoding_it(content: bytes) -> None:
    import base64

    payload = base64.b64encode(content).decode()
    assert decoded_bytes(len(payload), payload[-2:].count("=")) == len(content)
    assert weight(local(len(content)), "inline") >= len(payload)
