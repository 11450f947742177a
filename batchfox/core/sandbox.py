"""The sandbox that templates run in: no attribute that leads out of the data, no loader, no chance, no clock, no hang.

Jinja2's `ImmutableSandboxedEnvironment` keeps a template from Python's internals; what is added here keeps it from
null ("None" in a paid prompt) and from eating the machine. Work is charged to a budget that is refilled for every value
rendered: a step of a loop costs `STEP` and what its body is long, a call `_CALL`, text its bytes, an element `_ITEM`.
A unit is a byte that is kept, or some 15 ns. Which filters there are, and which methods a value has, is listed
here; nothing is folded while a template is compiled, or it would escape the budget.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator, KeysView, ValuesView
from string import Formatter
from typing import Any

from jinja2 import pass_context
from jinja2.exceptions import SecurityError, TemplateRuntimeError, UndefinedError
from jinja2.filters import FILTERS, do_format, do_indent, do_round, do_wordwrap, make_attrgetter
from jinja2.runtime import ChainableUndefined, Context, LoopContext, Macro, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace, missing

BUDGET = 64 * 1024 * 1024
STEP = 256
_CALL = 1024
_ITEM = 16
_HOLDER = 128
_WORD = 64
_MOST_BITS = 4096
_MOST_DIGITS = 4300
_MOST_RANGE = 100_000
_MOST_PLACES = 100
_MOST_INDENT = 16
_SEARCH_IS_LINEAR = 30_000  # CPython's search for a text in a shorter one may take the product of their lengths

# Names that no template can spell.
NEED, STEPS, LOOKED, SPENT = "batchfox need", "batchfox steps", "batchfox looked", "batchfox spent"

# Filters, with what they cost for a byte of text; and those to which text is a list of letters.
_FILTERS = {
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
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_DIRECTIVE = re.compile(r"%(?:\([^()]*\))?[^a-zA-Z%]*")
_NESTED_KEY = re.compile(r"%\((?![^()]*\))")
_DIGITS = re.compile(r"\d+")


class Absent(ChainableUndefined, StrictUndefined):
    """What is undefined or null: false in a test, an error wherever its value counts; `absent.x` is absent too."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        return False


class Sandbox(ImmutableSandboxedEnvironment):
    """One environment, for one thread: `left` is the budget of the value being rendered."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=Absent, autoescape=False, keep_trailing_newline=True, cache_size=0, optimized=False)
        self.left = BUDGET
        self.globals = {"range": self._range, "dict": dict, "namespace": Namespace}
        self.filters = self._filters()
        self.tests = {name: self._charged_test(test) for name, test in TESTS.items()}
        self.tests |= {"none": _is_null, "defined": _is_defined, "undefined": _is_null}

    def charge(self, size: int) -> None:
        """Takes `size` from the budget. Raises SecurityError when it is spent."""
        self.left -= size
        if self.left < 0:
            raise SecurityError(f"it takes more than {BUDGET // 1024 // 1024} MB of text or {BUDGET // STEP:,} steps")

    # -- null ---------------------------------------------------------------------------------------------------------

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
            self._look(value)
        return value

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`; of an object its own key before Python's method (`row.items`); null is absent."""
        value = obj[attribute] if type(obj) is dict and attribute in obj else super().getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute) if value is None else value

    def getitem(self, obj: Any, argument: Any) -> Any:
        value = super().getitem(obj, argument)
        return self.undefined(obj=obj, name=argument) if value is None else value

    # -- bounds -------------------------------------------------------------------------------------------------------

    def _look(self, value: Any, shift: int = 0) -> None:
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
                self.charge(_ITEM * len(item))
            elif isinstance(item, Namespace):
                raise TemplateRuntimeError("a namespace is no value")

    def _look_inside(self, items: Collection[Any], shift: int) -> list[Any]:
        """Charges for the items and the text among them. Returns those that hold others."""
        self.charge(_HOLDER + _ITEM * len(items))
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

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of what rows hold, the methods that are listed; of Jinja2's own objects, what Jinja2 deems safe."""
        listed = next((names for kind, names in _METHODS.items() if isinstance(obj, kind)), None)
        if listed is not None and callable(value) and attr not in listed:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.charge(_CALL)
        # A format method comes wrapped by the sandbox.
        method = getattr(obj, "__wrapped__", obj)
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(obj, LoopContext) or (name == "join" and isinstance(owner, str)):
            args = (list(self.steps(args[0])), *args[1:]) if args else args
        is_inner = isinstance(obj, Macro) or obj is Namespace  # which may be given a namespace
        for arg in (*args, *kwargs.values()):
            if not (is_inner and isinstance(arg, Namespace)):
                self._look(arg)
        if isinstance(owner, (str, bytes)):
            self._charge_method(owner, name, args, kwargs)
        elif isinstance(owner, (list, tuple)):
            self._look(owner, 4)
        elif name == "strftime" and args:
            self._charge_percent(args[0], None)
        value = super().call(context, obj, *args, **kwargs)
        self._charge_made(value)
        return value

    def _charge_made(self, value: Any) -> None:
        if isinstance(value, (str, bytes)):
            self.charge(size_of(value))
        elif isinstance(value, (list, tuple)):
            self.charge(_ITEM * len(value))

    def _charge_method(self, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A method of text. What it makes is charged before it is made, as far as that may be more than the text."""
        size = size_of(owner)
        self.charge(4 * size if name in ("casefold", "encode", "decode", "hex") else size)
        match name, (*args, *kwargs.values()):
            case (("format" | "format_map"), given):
                self._charge_braces(owner, given)
            case (("encode" | "decode"), given):
                if any(word not in _ENCODINGS and word not in ("strict", "ignore", "replace") for word in given):
                    raise SecurityError(f"{name}() takes one of {', '.join(sorted(_ENCODINGS))}")
            case "replace", (str() as old, str() as new, *_):
                self._charge_search(owner, old)
                self.charge((len(owner) // max(len(old), 1) + 1) * size_of(new))
            case "join", (items, *_):
                self.charge(size * len(items))
            case (("center" | "ljust" | "rjust" | "zfill"), (int() as width, *_)):
                self.charge(4 * max(width, 0))
            case (("split" | "rsplit"), (str() as separator, *_)):
                self._charge_search(owner, separator, is_from_end=name == "rsplit")
                self.charge(_WORD * (owner.count(separator) + 1 if separator else 0))
            case (("split" | "rsplit"), _):
                self.charge(_WORD * (len(owner) // 2))
            case "splitlines", _:
                self.charge(_WORD * sum(owner.count(end) for end in _LINE_ENDS))
            case (("rfind" | "rindex" | "rpartition" | "strip" | "lstrip" | "rstrip"), (str() as needle, *_)):
                self._charge_search(owner, needle, is_from_end=True)
            case _, (str() as needle, *_):
                self._charge_search(owner, needle)
            case _:
                pass

    def _charge_search(self, text: Any, needle: str, *, is_from_end: bool = False) -> None:
        """A search may take the product of both lengths; from the beginning of a long text it does not."""
        if is_from_end or len(text) < _SEARCH_IS_LINEAR:
            self.charge(len(text) * min(len(needle), len(text)) >> 4)

    def _charge_braces(self, text: str, given: tuple[Any, ...]) -> None:
        """`text.format(given)`: each field may show all that is given."""
        before = self.left
        self._look(given)
        most = before - self.left
        try:
            for _, field, spec, _ in Formatter().parse(text):
                if field is None:
                    continue
                if "{" in (spec or ""):
                    raise SecurityError("a width in format() is too large, or not written out")
                self.charge(STEP + most + self._width(spec or "", "format()"))
        except ValueError:  # as format() will say
            return

    def _charge_percent(self, text: Any, given: Any) -> None:
        """`text % given`."""
        text = str(text)
        before = self.left
        self._look(given)
        most = before - self.left if isinstance(given, dict) else 0
        if _NESTED_KEY.search(text):
            raise SecurityError("a name in % has parentheses")
        for directive in _DIRECTIVE.finditer(text):
            found = directive[0].rpartition(")")[2]
            if "*" in found:
                raise SecurityError("a width in % is too large, or not written out")
            self.charge(_ITEM + most + self._width(found, "%"))

    def _width(self, spec: str, where: str) -> int:
        """What a field's width and precision may add."""
        numbers = _DIGITS.findall(spec)
        if any(len(number) > 5 for number in numbers):
            raise SecurityError(f"a width in {where} is too large, or not written out")
        return 4 * sum(map(int, numbers))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return super().call_binop(context, operator, left, right)
        if operator == "*":
            for items, times in ((left, right), (right, left)):
                if isinstance(items, (str, list, tuple, bytes)) and isinstance(times, int):
                    self.charge(_made_of(items) * max(times, 0))
        elif operator == "%" and isinstance(left, (str, bytes)):
            self._charge_percent(left, right)
        elif operator == "+":
            self.charge(_made_of(left) + _made_of(right))
        if isinstance(left, int) and isinstance(right, int):
            bits = (
                left.bit_length() * max(abs(right), 1) if operator == "**" else left.bit_length() + right.bit_length()
            )
            if bits > _MOST_BITS:
                raise SecurityError("the number is too large")
        return super().call_binop(context, operator, left, right)

    def _range(self, *args: int) -> range:
        found = range(*args)
        if len(found) > _MOST_RANGE:
            raise SecurityError(f"range() of {len(found):,}; at most {_MOST_RANGE:,}")
        return found

    def steps(self, items: Any, cost: int = STEP) -> Any:
        """What a loop runs over, each step charged."""
        if items is None or isinstance(items, Undefined):
            return self.need(items, "the list of a for loop")
        if hasattr(items, "__len__"):
            self.charge(cost * len(items))
            return items
        return self._charge_each(items, cost)

    def _charge_each(self, items: Iterable[Any], cost: int = STEP) -> Iterator[Any]:
        for item in items:
            self.charge(cost)
            yield item

    # What `Guard` puts into a template. None of it is folded: it takes the context.

    @pass_context
    def _guard_need(self, _: Context, value: Any, name: str) -> Any:
        return self.need(value, name)

    @pass_context
    def _guard_steps(self, _: Context, items: Any, cost: int) -> Any:
        return self.steps(items, cost)

    @pass_context
    def _guard_looked(self, _: Context, value: Any) -> Any:
        """A value that is compared, or that a slice made."""
        self._look(value, 4)
        return value

    @pass_context
    def _guard_spent(self, _: Context, cost: int) -> int:
        self.charge(cost)
        return cost

    # -- filters and tests --------------------------------------------------------------------------------------------

    def _filters(self) -> dict[str, Callable[..., Any]]:
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
        names = _FILTERS.keys() | _BY_ITEM
        return {name: self._charged(name, own.get(name) or FILTERS[name]) for name in names} | {
            NEED: self._guard_need,
            STEPS: self._guard_steps,
            LOOKED: self._guard_looked,
            SPENT: self._guard_spent,
        }

    def _charged(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that charges for what goes in and what comes out."""
        place = 1 if hasattr(original, "jinja_pass_arg") else 0

        @functools.wraps(original)  # with Jinja2's marks on it
        def charged(*args: Any, **kwargs: Any) -> Any:
            for arg in (*args[place + 1 :], *kwargs.values()):
                self._look(arg)
            value = self._charge_value(name, args[place])
            made = original(*args[:place], value, *args[place + 1 :], **kwargs)
            if isinstance(made, Iterator):
                return self._charge_each(made)
            if name not in _SHALLOW:
                self._charge_made(made)
            return str(made) if isinstance(made, str) else made

        return charged

    def _charge_value(self, name: str, value: Any) -> Any:
        if isinstance(value, (str, bytes)):
            if name not in _SHALLOW:
                self.charge(STEP * len(value) if name in _BY_ITEM else _FILTERS[name] * size_of(value))
        elif isinstance(value, Iterator):
            value = self._charge_each(value)
            if name in _WHOLE:
                value = list(value)
                self._look(value)
        elif name in _BY_ITEM and name not in _WHOLE:
            if hasattr(value, "__len__"):
                self.charge(STEP * len(value))
        elif name not in _SHALLOW:
            self._look(value)
        return value

    def _charged_test(self, original: Any) -> Callable[..., Any]:
        @functools.wraps(original)
        def charged(*args: Any) -> Any:
            for arg in args:
                self._look(arg, 4)
            return original(*args)

        return charged

    def _filled(self, name: str) -> Callable[..., Any]:
        """`batch` and `slice`, which fill up what they make to any length."""
        original = FILTERS[name]

        def filled(value: Any, number: Any = 1, fill_with: Any = None, **kwargs: Any) -> Any:
            number = kwargs.get("linecount" if name == "batch" else "slices", number)
            self.charge(STEP * max(number, 0) if isinstance(number, int) else 0)
            return original(value, number, kwargs.get("fill_with", fill_with))

        # `slice` is wrapped for async, which wants the evaluation's context first.
        if hasattr(original, "jinja_pass_arg"):
            original = original.__wrapped__
        return filled

    def _center(self, value: Any, width: int = 80) -> str:
        self.charge(4 * max(width, 0))
        return str(value).center(width)

    def _indent(self, s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = str(s)
        lines = sum(text.count(end) for end in _LINE_ENDS) + 1
        self.charge(lines * (max(width, 0) if isinstance(width, int) else size_of(str(width))))
        return str(do_indent(text, width, first, blank))

    def _wordwrap(self, s: Any, *args: Any, **kwargs: Any) -> str:
        text = str(s)
        self.charge(len(text) * len(text) >> 8)  # a word without end is cut again and again
        return str(do_wordwrap(self, text, *args, **kwargs))

    def _trim(self, value: Any, chars: str | None = None) -> str:
        text = str(value)
        if chars is not None:
            self._charge_search(text, chars, is_from_end=True)
        return text.strip(chars)

    def _format(self, value: Any, *args: Any, **kwargs: Any) -> str:
        self._charge_percent(value, kwargs or args)
        return do_format(value, *args, **kwargs)

    def _replace(self, value: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = str(value), str(old), str(new)
        self._charge_search(text, old)
        self.charge((len(text) // max(len(old), 1) + 1) * size_of(new))
        return text.replace(old, new, -1 if count is None else count)

    def _join(self, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
        items = value if attribute is None else map(make_attrgetter(self, attribute), value)
        texts = [str(self.need(item, "an item of join")) for item in items]
        separator = str(d)
        self.charge(size_of(separator) * len(texts))
        return separator.join(texts)

    def _sum(self, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
        """Of numbers alone: lists would be copied again and again."""
        items = list(iterable if attribute is None else map(make_attrgetter(self, attribute), iterable))
        for item in (start, *items):
            self.need(item, "an item of sum")
            if isinstance(item, (str, list, tuple)):
                raise TemplateRuntimeError(f"sum() adds numbers, not {type(item).__name__}")
        return sum(items, start)


def size_of(text: str | bytes) -> int:
    """Bytes that a text takes up, at most."""
    return len(text) if isinstance(text, bytes) or text.isascii() else 4 * len(text)


def _made_of(value: Any) -> int:
    """What one more copy of a text or list takes up."""
    if isinstance(value, (str, bytes)):
        return size_of(value)
    return _ITEM * len(value) if isinstance(value, (list, tuple)) else 0


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


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    """Jinja2's `default`, with null undefined."""
    return default_value if _is_null(value) or (boolean and not value) else value


def _is_null(value: Any) -> bool:
    return value is None or isinstance(value, Undefined)


def _is_defined(value: Any) -> bool:
    return not _is_null(value)


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON as a model should read it; Jinja2's own escapes < > & ' for HTML."""
    if indent is not None and (not isinstance(indent, int) or indent > _MOST_INDENT):
        raise SecurityError(f"tojson() takes an indent of at most {_MOST_INDENT}")
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
