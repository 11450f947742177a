"""How many pixels an image says it has, from its first bytes: PNG, JPEG, GIF, WebP, BMP. Nothing is decoded.

An image of a few kilobytes may unpack to gigabytes: models refuse such a one after it was paid for.
"""

from __future__ import annotations

MOST_PIXELS = 200_000_000
# JPEG's start-of-frame markers; C4, C8 and CC are something else.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def pixels_of(head: bytes) -> tuple[int, int] | None:
    """Width and height; None where the bytes do not tell (any more: a JPEG's may lie behind a long preview)."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return _pair(head, 16, 4, "big")
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _pair(head, 6, 2, "little")
    if head.startswith(b"BM"):
        size = _pair(head, 18, 4, "little")
        return size and (size[0], min(size[1], (1 << 32) - size[1]))  # a negative height: from the top down
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _of_webp(head)
    return _of_jpeg(head) if head.startswith(b"\xff\xd8") else None


def _pair(head: bytes, at: int, width: int, order: str) -> tuple[int, int] | None:
    if len(head) < at + 2 * width:
        return None
    little = order == "little"
    first, second = (
        int.from_bytes(head[start : start + width], "little" if little else "big") for start in (at, at + width)
    )
    return first, second


def _of_webp(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X" and (size := _pair(head, 24, 3, "little")):
        return size[0] + 1, size[1] + 1
    if kind == b"VP8 " and (size := _pair(head, 26, 2, "little")):
        return size[0] & 0x3FFF, size[1] & 0x3FFF
    if kind == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _of_jpeg(head: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _FRAMES and (size := _pair(head, at + 5, 2, "big")):
            return size[1], size[0]
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None
