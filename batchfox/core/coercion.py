"""Text where a field wants something else: what CSV cells and templates can only write as text is parsed.

What cannot be parsed is left as it is, for the rules to refuse with the field's name. Nothing here raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from batchfox.core.shape import WANTS, Want

_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def coerce(field: str, value: Any) -> Any:
    """The value as `field` wants it; None where it counts as left out (null, or empty text in a field of no text).

    "64" and 64.0 → 64 in max_tokens; "a.png" → ["a.png"], '["a","b"]' → a list in image_urls; JSON text in messages.
    """
    if value is None:
        return None
    want = WANTS.get(field)
    if want is None or want == "text":
        return value
    if type(value) is float and want == "integer":
        # pandas writes integers as floats where a column has nulls.
        return int(value) if value.is_integer() else value
    if want == "urls" and isinstance(value, (bytes, bytearray)):
        return [value]
    if not isinstance(value, str):
        return value
    text = value.strip()
    return _PARSERS[want](text, value) if text else None


def _parse_integer(text: str, value: str) -> Any:
    try:
        return int(text) if len(text) <= 20 else value
    except ValueError:
        number = _parse_number(text, value)
        return int(number) if isinstance(number, float) and number.is_integer() else value


def _parse_number(text: str, value: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _parse_json(text: str, value: str) -> Any:
    if text[0] not in "[{":
        return value
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return value


def _parse_urls(text: str, value: str) -> Any:
    return _parse_json(text, value) if text[0] == "[" else [text]


_PARSERS: dict[Want, Callable[[str, str], Any]] = {
    "integer": _parse_integer,
    "number": _parse_number,
    "boolean": lambda text, value: _BOOLEANS.get(text.lower(), value),
    "urls": _parse_urls,
    "url": lambda text, value: text,
    "json": _parse_json,
    "text or json": _parse_json,
}
