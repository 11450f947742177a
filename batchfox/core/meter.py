"""`Meter`: what rendering a value may cost, in text made and steps taken, and what counts as a value at all.

A step of a loop costs `STEP` and what its body is long, text its bytes, an element `ITEM`. A unit is a byte that is
kept, or some 15 ns.
"""

from __future__ import annotations

from collections.abc import Collection, ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any

from jinja2.exceptions import SecurityError, TemplateRuntimeError, UndefinedError
from jinja2.runtime import Undefined
from jinja2.utils import Namespace, missing

BUDGET = 64 * 1024 * 1024
STEP = 256
ITEM = 16
_HOLDER = 128
_SEARCH_IS_LINEAR = 30_000  # CPython's search for a text in a shorter one may take the product of their lengths


class Meter:
    """The budget of the value being rendered, refilled for each. `left`: units that are not spent."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = BUDGET

    def refill(self) -> None:
        self.left = BUDGET

    def charge(self, size: int) -> None:
        """Takes `size` from the budget. Raises SecurityError when it is spent."""
        self.left -= size
        if self.left < 0:
            raise SecurityError(f"it takes more than {BUDGET // 1024 // 1024} MB of text or {BUDGET // STEP:,} steps")

    def need(self, value: Any, name: str) -> Any:
        """The value, where it may stand in a text; `name` is the expression as written."""
        if type(value) is str:
            self.charge(size_of(value))
        elif value is None:
            raise UndefinedError(f"`{name}` is null")
        elif isinstance(value, Undefined):
            if value._undefined_obj is missing or value._undefined_exception is not UndefinedError:
                value._fail_with_undefined_error()
            raise UndefinedError(f"`{name}` is null or missing")
        elif isinstance(value, (bytes, bytearray, memoryview)):
            raise TemplateRuntimeError(f"`{name}` is binary")
        elif callable(value) or isinstance(value, (Iterator, Namespace)):
            raise TemplateRuntimeError(f"`{name}` is no value but {type(value).__name__.replace('_', ' ')}")
        else:
            self.look(value)
        return value

    def steps(self, items: Any, cost: int = STEP) -> Any:
        """What a loop runs over, each step charged."""
        if items is None or isinstance(items, Undefined):
            return self.need(items, "the list of a for loop")
        if hasattr(items, "__len__"):
            self.charge(cost * len(items))
            return items
        return self.each(items, cost)

    def each(self, items: Iterable[Any], cost: int = STEP) -> Iterator[Any]:
        """The items, each charged when it is asked for."""
        for item in items:
            self.charge(cost)
            yield item

    def look(self, value: Any, shift: int = 0) -> None:
        """Charges for all that is in a value, however deep; text by 1 / 2^shift where it is not copied."""
        left = [value]
        while left:
            item = left.pop()
            if isinstance(item, (str, bytes)):
                self.charge(size_of(item) >> shift)
            elif isinstance(item, (list, tuple, KeysView, ValuesView, ItemsView)):
                left += self._look_inside(item, shift)
            elif isinstance(item, dict):
                left += self._look_inside(item.keys(), shift)
                left += self._look_inside(item.values(), shift)
            elif isinstance(item, range):
                self.charge(ITEM * len(item))
            elif isinstance(item, Namespace):
                raise TemplateRuntimeError("a namespace is no value")

    def _look_inside(self, items: Collection[Any], shift: int) -> list[Any]:
        """Charges for the items and the text among them. Returns those that hold others."""
        self.charge(_HOLDER + ITEM * len(items))
        size = 0
        holders: list[Any] = []
        for item in items:
            kind = type(item)
            if kind is str:
                size += size_of(item)
            elif kind is not int and kind is not float and kind is not bool and item is not None:
                holders.append(item)
        self.charge(size >> shift)
        return holders

    def charge_made(self, value: Any) -> None:
        """Charges for a text or list that was just made."""
        if isinstance(value, (str, bytes)):
            self.charge(size_of(value))
        elif isinstance(value, (list, tuple)):
            self.charge(ITEM * len(value))

    def charge_search(self, text: Any, needle: str, *, is_from_end: bool = False) -> None:
        """A search may take the product of both lengths; from the beginning of a long text it does not."""
        if is_from_end or len(text) < _SEARCH_IS_LINEAR:
            self.charge(len(text) * min(len(needle), len(text)) >> 4)


def size_of(text: str | bytes) -> int:
    """Bytes that a text takes up, at most."""
    return len(text) if isinstance(text, bytes) or text.isascii() else 4 * len(text)


def copy_size(value: Any) -> int:
    """What one more copy of a text or list takes up."""
    if isinstance(value, (str, bytes)):
        return size_of(value)
    return ITEM * len(value) if isinstance(value, (list, tuple)) else 0
