"""How each medium of a request travels: by its URL, inline, or as an upload. Decides; touches nothing.

| the row has | `url` | `inline` | `upload` | `auto` |
|---|---|---|---|---|
| an http(s) URL | its URL | its URL | its URL | its URL |
| a data URI | inline | inline | upload | inline |
| a local file, an object, bytes | refused | inline | upload | inline up to `inline_below`, else upload |

In `auto`, whatever is here is uploaded, the largest first, where the body would be larger than the API takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from batchfox.core.sections import Media

Origin = Literal["remote", "data", "local"]
Way = Literal["url", "inline", "upload"]

# What stands in a body beside an inline medium's base64, and what an upload's URL takes.
_HEAD_BYTES = 100
URL_BYTES = 500


class Piece(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One medium, as far as its way depends on it. `size`: its bytes, decoded; 0 for a remote one."""

    origin: Origin
    size: int


def decide(pieces: Sequence[Piece], media: Media, *, rest: int = 0, most: int | None = None) -> list[Way]:
    """The way of each. A local one has to be refused before where the mode is `url`.

    `rest`: bytes of the request without them; `most`: how large its body may be. Where that is too little, in `auto`,
    the largest of those that are here are uploaded until it fits, or none is left.
    """
    ways = [_way_of(piece, media) for piece in pieces]
    if media.mode != "auto" or most is None:
        return ways
    size = rest + sum(weight(piece, way) for piece, way in zip(pieces, ways, strict=True) if way != "url")
    inline = [at for at, way in enumerate(ways) if way == "inline"]
    for at in sorted(inline, key=lambda at: -pieces[at].size):
        gained = weight(pieces[at], "inline") - URL_BYTES
        if size <= most or gained <= 0:
            break
        ways[at] = "upload"
        size -= gained
    return ways


def _way_of(piece: Piece, media: Media) -> Way:
    if piece.origin == "remote":
        return "url"
    if media.mode == "upload":
        return "upload"
    if piece.origin == "local" and media.mode == "auto" and piece.size > media.inline_below:
        return "upload"
    return "inline"


def weight(piece: Piece, way: Way) -> int:
    """Bytes that a medium takes in the body, at most."""
    return base64_bytes(piece.size) + _HEAD_BYTES if way == "inline" else URL_BYTES


def base64_bytes(size: int) -> int:
    """How long the base64 of so many bytes is."""
    return -(-size // 3) * 4


def decoded_bytes(payload: int, padding: int) -> int:
    """How many bytes a base64 payload of so many characters holds."""
    return max(payload // 4 * 3 - padding, 0)
