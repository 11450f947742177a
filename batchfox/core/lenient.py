"""Values in JSON from outside, read for what they are worth: any bytes and any value may come in."""

from __future__ import annotations

import json
from typing import Any, TypeGuard

import msgspec

_INT64 = 1 << 63
_decode_any = msgspec.json.Decoder().decode


def loads(raw: bytes) -> Any:
    """The value, or None where it is no JSON."""
    try:
        return _decode_any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:  # bytes that are no UTF-8 must not hide the code and type of an error
            return json.loads(raw.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None


def text_of(value: Any) -> str | None:
    """A string that UTF-8 can hold, or None. A lone surrogate becomes U+FFFD."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "replace").decode() if has_surrogate(value) else value


def has_surrogate(text: str) -> bool:
    """Is half of a surrogate pair in it, which is no text?"""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def is_number(value: Any) -> TypeGuard[float]:
    """A number that 64 bits can hold; neither NaN nor infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _INT64


def count_of(value: Any) -> int | None:
    return int(value) if is_number(value) else None
