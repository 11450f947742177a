"""Chance as a function: the same seed and the same words give the same draw, whatever the order of events."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def digest_of(request: dict[str, Any]) -> str:
    """BLAKE2b-128 in hex of the request as compact UTF-8 JSON with its keys sorted."""
    return blake2b(msgspec.json.encode(request, order="sorted"), digest_size=16).hexdigest()


def number_of(seed: int, *words: str | int) -> int:
    """64 bits drawn for these words."""
    text = "\0".join(map(str, (seed, *words)))
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def draw(seed: int, *words: str | int) -> float:
    """A number in [0, 1) drawn for these words."""
    return (number_of(seed, *words) >> 11) / (1 << 53)


def letters(seed: int, *words: str | int, length: int = 8) -> str:
    """Small letters and digits drawn for these words, as ids end in."""
    number = number_of(seed, *words)
    drawn = ""
    for _ in range(length):
        number, place = divmod(number, len(_ALPHABET))
        drawn += _ALPHABET[place]
    return drawn
