"""The methods that a template may call on what rows hold, and what a call of one may cost."""

from __future__ import annotations

from typing import Any

from jinja2.exceptions import SecurityError

from batchfox.core.formats import charge_braces
from batchfox.core.meter import Meter, size_of

_METHODS: dict[type | tuple[type, ...], frozenset[str]] = {
    str: frozenset(
        {"capitalize", "casefold", "center", "count", "encode", "endswith", "find", "format", "format_map", "index"}
        | {"isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric"}
        | {"isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition"}
        | {"removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip"}
        | {"split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill"}
    ),
    bytes: frozenset({"decode", "endswith", "hex", "startswith"}),
    (int, float): frozenset({"bit_count", "bit_length", "is_integer"}),
    (list, tuple): frozenset({"count", "index"}),
    dict: frozenset({"get", "items", "keys", "values"}),
}
_ENCODINGS = frozenset({"utf-8", "utf8", "utf-8-sig", "ascii", "latin-1", "latin1", "iso-8859-1", "cp1252", "utf-16"})
_WORD = 64
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def is_unlisted(obj: Any, attribute: str, value: Any) -> bool:
    """Is `value`, the attribute of an object that rows hold, a method which no template may call?"""
    listed = next((names for kind, names in _METHODS.items() if isinstance(obj, kind)), None)
    return listed is not None and callable(value) and attribute not in listed


def charge_method(meter: Meter, owner: str | bytes, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A method of text. What it makes is charged before it is made, as far as that may be more than the text."""
    text: Any = owner
    size = size_of(owner)
    meter.charge(4 * size if name in ("casefold", "encode", "decode", "hex") else size)
    match name, (*args, *kwargs.values()):
        case (("format" | "format_map"), given):
            charge_braces(meter, text, given)
        case (("encode" | "decode"), given):
            if any(word not in _ENCODINGS and word not in ("strict", "ignore", "replace") for word in given):
                raise SecurityError(f"{name}() takes one of {', '.join(sorted(_ENCODINGS))}")
        case "replace", (str() as old, str() as new, *_):
            meter.charge_search(text, old)
            meter.charge((len(text) // max(len(old), 1) + 1) * size_of(new))
        case "join", (items, *_):
            meter.charge(size * len(items))
        case (("center" | "ljust" | "rjust" | "zfill"), (int() as width, *_)):
            meter.charge(4 * max(width, 0))
        case (("split" | "rsplit"), (str() as separator, *_)):
            meter.charge_search(text, separator, is_from_end=name == "rsplit")
            meter.charge(_WORD * (text.count(separator) + 1 if separator else 0))
        case (("split" | "rsplit"), _):
            meter.charge(_WORD * (len(text) // 2))
        case "splitlines", _:
            meter.charge(_WORD * count_lines(text))
        case (("rfind" | "rindex" | "rpartition" | "strip" | "lstrip" | "rstrip"), (str() as needle, *_)):
            meter.charge_search(text, needle, is_from_end=True)
        case _, (str() as needle, *_):
            meter.charge_search(text, needle)
        case _:
            pass


def count_lines(text: str) -> int:
    """Ends of lines in a text, at most."""
    return sum(text.count(end) for end in _LINE_ENDS)
