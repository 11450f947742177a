"""What `%` and `str.format` may cost: each field may show all that is given, and be as wide as it says."""

from __future__ import annotations

import re
from string import Formatter
from typing import Any

from jinja2.exceptions import SecurityError

from batchfox.core.meter import ITEM, STEP, Meter

_DIRECTIVE = re.compile(r"%(?:\([^()]*\))?[^a-zA-Z%]*")
_NESTED_KEY = re.compile(r"%\((?![^()]*\))")
_DIGITS = re.compile(r"\d+")


def charge_braces(meter: Meter, text: str, given: tuple[Any, ...]) -> None:
    """Charges for `text.format(given)`. Raises SecurityError for a width that is too large or not written out."""
    before = meter.left
    meter.look(given)
    most = before - meter.left
    try:
        for _, field, spec, _ in Formatter().parse(text):
            if field is None:
                continue
            if "{" in (spec or ""):
                raise SecurityError("a width in format() is too large, or not written out")
            meter.charge(STEP + most + _width(spec or "", "format()"))
    except ValueError:  # as format() will say
        return


def charge_percent(meter: Meter, text: Any, given: Any) -> None:
    """Charges for `text % given`. Raises SecurityError as `charge_braces` does, and for parentheses in a name."""
    text = str(text)
    before = meter.left
    meter.look(given)
    most = before - meter.left if isinstance(given, dict) else 0
    if _NESTED_KEY.search(text):
        raise SecurityError("a name in % has parentheses")
    for directive in _DIRECTIVE.finditer(text):
        found = directive[0].rpartition(")")[2]
        if "*" in found:
            raise SecurityError("a width in % is too large, or not written out")
        meter.charge(ITEM + most + _width(found, "%"))


def _width(spec: str, where: str) -> int:
    """What a field's width and precision may add."""
    numbers = _DIGITS.findall(spec)
    if any(len(number) > 5 for number in numbers):
        raise SecurityError(f"a width in {where} is too large, or not written out")
    return 4 * sum(map(int, numbers))
