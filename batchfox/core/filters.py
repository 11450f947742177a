"""The filters that a template may use, each charged for what goes in and what comes out. Others do not exist."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import Environment
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.filters import FILTERS, do_format, do_indent, do_round, do_wordwrap, make_attrgetter
from jinja2.runtime import Undefined

from batchfox.core.formats import charge_percent
from batchfox.core.meter import STEP, Meter, size_of
from batchfox.core.methods import count_lines

_MOST_DIGITS = 4300
_MOST_PLACES = 100
_MOST_INDENT = 16

# Filters, with what they cost for a byte of text; and those to which text is a list of letters.
_COSTS = {
    **dict.fromkeys(
        ("abs", "attr", "center", "count", "default", "d", "dictsort", "filesizeformat", "first", "float"), 1
    ),
    **dict.fromkeys(("format", "indent", "int", "items", "last", "length", "replace", "reverse", "round", "safe"), 1),
    **dict.fromkeys(("string", "sum", "tojson", "trim", "truncate", "wordwrap"), 1),
    **dict.fromkeys(("capitalize", "lower", "upper"), 3),
    **dict.fromkeys(("e", "escape", "forceescape"), 6),
    **dict.fromkeys(("striptags", "title", "urlencode", "wordcount"), 32),
}
_BY_ITEM = frozenset(
    {"batch", "groupby", "join", "list", "map", "max", "min", "reject", "rejectattr", "select", "selectattr", "slice"}
    | {"sort", "unique"}
)
_WHOLE = frozenset({"groupby", "max", "min", "sort", "sum", "unique"})
_SHALLOW = frozenset({"attr", "count", "d", "default", "first", "items", "last", "length", "reverse"})


class Filters:
    """The filters of one environment, by name in `table`, charging `meter`."""

    def __init__(self, environment: Environment, meter: Meter) -> None:
        self._environment = environment
        self._meter = meter
        own: dict[str, Callable[..., Any]] = {
            "default": _default,
            "d": _default,
            "tojson": _to_json,
            "format": self._format,
            "replace": self._replace,
            "join": self._join,
            "center": self._center,
            "indent": self._indent,
            "wordwrap": self._wordwrap,
            "trim": self._trim,
            "round": _round,
            "sum": self._sum,
            "int": _numeric(FILTERS["int"]),
            "float": _numeric(FILTERS["float"]),
            "batch": self._filled("batch"),
            "slice": self._filled("slice"),
        }
        names = _COSTS.keys() | _BY_ITEM
        self.table = {name: self._charged(name, own.get(name) or FILTERS[name]) for name in names}

    def _charged(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that charges for what goes in and what comes out."""
        meter, charge_value = self._meter, self._charge_value
        place = 1 if hasattr(original, "jinja_pass_arg") else 0
        is_shallow = name in _SHALLOW

        @functools.wraps(original)  # with Jinja2's marks on it
        def charged(*args: Any, **kwargs: Any) -> Any:
            for arg in (*args[place + 1 :], *kwargs.values()):
                meter.look(arg)
            value = charge_value(name, args[place])
            made = original(*args[:place], value, *args[place + 1 :], **kwargs)
            if isinstance(made, Iterator):
                return meter.each(made)
            if not is_shallow:
                meter.charge_made(made)
            return str(made) if isinstance(made, str) else made

        return charged

    def _charge_value(self, name: str, value: Any) -> Any:
        meter = self._meter
        if isinstance(value, (str, bytes)):
            if name not in _SHALLOW:
                meter.charge(STEP * len(value) if name in _BY_ITEM else _COSTS[name] * size_of(value))
        elif isinstance(value, Iterator):
            value = meter.each(value)
            if name in _WHOLE:
                value = list(value)
                meter.look(value)
        elif name in _BY_ITEM and name not in _WHOLE:
            if hasattr(value, "__len__"):
                meter.charge(STEP * len(value))
        elif name not in _SHALLOW:
            meter.look(value)
        return value

    def _filled(self, name: str) -> Callable[..., Any]:
        """`batch` and `slice`, which fill up what they make to any length."""
        original = FILTERS[name]

        def filled(value: Any, number: Any = 1, fill_with: Any = None, **kwargs: Any) -> Any:
            number = kwargs.get("linecount" if name == "batch" else "slices", number)
            self._meter.charge(STEP * max(number, 0) if isinstance(number, int) else 0)
            return original(value, number, kwargs.get("fill_with", fill_with))

        # `slice` is wrapped for async, which wants the evaluation's context first.
        if hasattr(original, "jinja_pass_arg"):
            original = original.__wrapped__
        return filled

    def _center(self, value: Any, width: int = 80) -> str:
        self._meter.charge(4 * max(width, 0))
        return str(value).center(width)

    def _indent(self, s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = str(s)
        lines = count_lines(text) + 1
        self._meter.charge(lines * (max(width, 0) if isinstance(width, int) else size_of(str(width))))
        return str(do_indent(text, width, first, blank))

    def _wordwrap(self, s: Any, *args: Any, **kwargs: Any) -> str:
        text = str(s)
        self._meter.charge(len(text) * len(text) >> 8)  # a word without end is cut again and again
        return str(do_wordwrap(self._environment, text, *args, **kwargs))

    def _trim(self, value: Any, chars: str | None = None) -> str:
        text = str(value)
        if chars is not None:
            self._meter.charge_search(text, chars, is_from_end=True)
        return text.strip(chars)

    def _format(self, value: Any, *args: Any, **kwargs: Any) -> str:
        charge_percent(self._meter, value, kwargs or args)
        return do_format(value, *args, **kwargs)

    def _replace(self, value: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = str(value), str(old), str(new)
        self._meter.charge_search(text, old)
        self._meter.charge((len(text) // max(len(old), 1) + 1) * size_of(new))
        return text.replace(old, new, -1 if count is None else count)

    def _join(self, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
        items = value if attribute is None else map(make_attrgetter(self._environment, attribute), value)
        texts = [str(self._meter.need(item, "an item of join")) for item in items]
        separator = str(d)
        self._meter.charge(size_of(separator) * len(texts))
        return separator.join(texts)

    def _sum(self, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
        """Of numbers alone: lists would be copied again and again."""
        items = list(iterable if attribute is None else map(make_attrgetter(self._environment, attribute), iterable))
        for item in (start, *items):
            self._meter.need(item, "an item of sum")
            if isinstance(item, (str, list, tuple)):
                raise TemplateRuntimeError(f"sum() adds numbers, not {type(item).__name__}")
        return sum(items, start)


def is_null(value: Any) -> bool:
    """Null or undefined, which are one to a template."""
    return value is None or isinstance(value, Undefined)


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    """Jinja2's `default`, with null undefined."""
    return default_value if is_null(value) or (boolean and not value) else value


def _numeric(original: Callable[..., Any]) -> Callable[..., Any]:
    """`int` or `float`, of a number that can be one."""

    @functools.wraps(original)
    def read(value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, (str, bytes)) and len(value) > _MOST_DIGITS:
            raise SecurityError("the number has too many digits")
        return original(value, *args, **kwargs)

    return read


def _round(value: Any, precision: int = 0, method: Any = "common") -> Any:
    if abs(precision) > _MOST_PLACES:
        raise SecurityError(f"round() to {precision:,} places; at most {_MOST_PLACES}")
    return do_round(value, precision, method)


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON as a model should read it; Jinja2's own escapes < > & ' for HTML."""
    if indent is not None and (not isinstance(indent, int) or indent > _MOST_INDENT):
        raise SecurityError(f"tojson() takes an indent of at most {_MOST_INDENT}")
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
