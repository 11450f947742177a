"""How many pixels an image has, told without decoding it: real images, and heads made for the purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.pixels import pixels_of

MEDIA = Path(__file__).parents[2] / "sample_inputs" / "media"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (PNG + (50_000).to_bytes(4, "big") * 2, (50_000, 50_000)),
        (b"GIF89a" + (300).to_bytes(2, "little") + (200).to_bytes(2, "little"), (300, 200)),
        (b"BM" + bytes(16) + (7).to_bytes(4, "little") + (9).to_bytes(4, "little"), (7, 9)),
        (b"BM" + bytes(16) + (7).to_bytes(4, "little") + (-9).to_bytes(4, "little", signed=True), (7, 9)),
        (b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\x0f\x27\x00\xf3\x01\x00", (10_000, 500)),
        (b"RIFF\0\0\0\0WEBPVP8L" + bytes(4) + b"\x2f" + (9 | 4 << 14).to_bytes(4, "little"), (10, 5)),
        (b"\xff\xd8\xff\xe0\x00\x04AB\xff\xc2\x00\x11\x08\x00\x20\x00\x40" + bytes(9), (64, 32)),
        (PNG, None),
        (b"\xff\xd8\xff\xe1\xff\xff" + bytes(100), None),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_the_size_is_read_off_the_head(head: bytes, size: tuple[int, int] | None) -> None:
    assert pixels_of(head) == size


@pytest.mark.parametrize("name", ["sun.png", "sea.jpg", "brick.webp"])
def test_real_images_tell_their_size(name: str) -> None:
    size = pixels_of((MEDIA / name).read_bytes()[:4096])
    assert size is not None
    assert 16 <= min(size) <= max(size) <= 4096


@given(st.sampled_from([b"", PNG, b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X", b"BM"]), st.binary(max_size=200))
def test_any_bytes_are_a_size_or_none(start: bytes, rest: bytes) -> None:
    size = pixels_of(start + rest)
    assert size is None or min(size) >= 0
