"""`Complaint`: why a row may not be sent, in words that name the field, what was found and what is allowed.

A found value is shown shortened, printable and without secrets, whatever it is: these words go to the terminal, the
log and the output.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal

import msgspec

_MOST_SHOWN = 80
_URL = re.compile(r"(?i)^\s*([a-z][a-z0-9+.-]{1,20}://)([^/?#]*@)?([^/?#]*)([^?#]*)(\?[^#]*)?")
_DATA_URI = re.compile(r"(?i)^\s*data:[^,]{0,60}(?:,|$)")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

Place = tuple[str | int, ...]


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """One broken rule. A refusal makes the row `invalid`; a warning is only said.

    `rule` is the name under which `[rules] off` knows it; `field` the place, as `image_urls[2]`.
    """

    rule: str
    field: str
    found: str
    allowed: str
    message: str
    severity: Literal["refusal", "warning"] = "refusal"

    @property
    def is_warning(self) -> bool:
        return self.severity == "warning"


def complain(
    rule: str, field: str, found: str, allowed: str, *, severity: Literal["refusal", "warning"] = "refusal"
) -> Complaint:
    """A complaint whose message is made of its parts: `field: found …; allowed: …`."""
    message = f"{field}: found {found}; allowed: {allowed}"
    return Complaint(rule=rule, field=field, found=found, allowed=allowed, message=message, severity=severity)


def spell(place: Place) -> str:
    """A path of keys and indices as a person writes it: `messages[0].content[1].image_url.url`."""
    parts: list[str] = []
    for step in place:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            name = step if _PLAIN_KEY.fullmatch(step) else show(step)
            parts.append(f".{name}" if parts else name)
    return "".join(parts)


def show(value: Any) -> str:
    """Any value in at most about 100 characters: printable, passwords and query strings masked, data URIs cut."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if -(10**30) < value < 10**30 else "a huge integer"
        case float():
            return repr(value) if math.isfinite(value) else _NOT_FINITE[repr(value)]
        case str():
            return show_text(value)
        case bytes() | bytearray() | memoryview():
            return f"{len(value)} bytes" if len(value) != 1 else "1 byte"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return f"an object with {len(value)} keys" if len(value) != 1 else "an object with 1 key"
        case _:
            return f"a value of type {type(value).__name__}"


def show_text(text: str) -> str:
    """Text in quotes, see `show`."""
    if data := _DATA_URI.match(text):
        return f'"{printable(data[0].strip())}…" ({len(text)} characters)'
    shown = mask(text[:2000])
    shortened = shown[: _MOST_SHOWN - 1] + "…" if len(shown) > _MOST_SHOWN else shown
    quoted = printable(json.dumps(shortened, ensure_ascii=False))
    return quoted if len(text) <= 2000 else f"{quoted} ({len(text)} characters)"


def mask(text: str) -> str:
    """A URL without what may be secret in it: user and password, and the values of its query. Other text as it is."""
    url = _URL.match(text)
    if url is None:
        return text
    scheme, user, host, path, query = url.groups()
    return f"{scheme}{'***@' if user else ''}{host}{path}{'?***' if query else ''}"


def printable(text: str) -> str:
    """Text that a terminal shows on one line and takes for no command."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
