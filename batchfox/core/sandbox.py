"""The sandbox that templates run in: no attribute that leads out of the data, no loader, no chance, no clock, no hang.

Jinja2's `ImmutableSandboxedEnvironment` keeps a template from Python's internals; what is added here keeps it from
null ("None" in a paid prompt) and from eating the machine. Work is charged in characters to a budget that is refilled
for every value rendered: a step of a loop costs `_STEP`, a call `_CALL`, text what it is long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateRuntimeError, UndefinedError
from jinja2.filters import FILTERS, do_format
from jinja2.runtime import ChainableUndefined, Context, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace, missing
from jinja2.visitor import NodeTransformer

BUDGET = 64 * 1024 * 1024
_STEP = 256
_CALL = 1024
_MOST_BITS = 4096
_MOST_RANGE = 100_000

# Names that no template can spell.
NEED, STEPS = "batchfox need", "batchfox steps"

_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(?:\*|\d{6})")
_WIDE_BRACES = re.compile(r"\{[^{}]*(?:\d{6}|:[^{}]*\{)")
_WIDTHS = ("width", "linecount", "slices")
_UNBOUNDED = frozenset({"translate", "maketrans", "expandtabs"})


class Absent(ChainableUndefined, StrictUndefined):
    """What is undefined or null: false in a test, an error wherever its value counts; `absent.x` is absent too."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        return False


class Sandbox(ImmutableSandboxedEnvironment):
    """One environment, for one thread: `left` is the budget of the value being rendered."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=Absent, autoescape=False, keep_trailing_newline=True, cache_size=0)
        self.left = BUDGET
        self.globals = {"range": self._range, "dict": dict, "namespace": Namespace}
        self.filters = {**FILTERS, **self._own_filters()}
        del self.filters["random"]
        self.tests = {**TESTS, "none": _is_null, "defined": _is_defined, "undefined": _is_null}

    def charge(self, size: int) -> None:
        """Takes `size` from the budget. Raises SecurityError when it is spent."""
        self.left -= size
        if self.left < 0:
            raise SecurityError(f"it takes more than {BUDGET // 1024 // 1024} MB of text or {BUDGET // _STEP:,} steps")

    # -- null ---------------------------------------------------------------------------------------------------------

    def need(self, value: Any, name: str) -> Any:
        """The value, where it may stand in a text; `name` is the expression as written."""
        if type(value) is str:
            self.charge(len(value))
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
        return value

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`; of an object its own key before Python's method (`row.items`); null is absent."""
        value = obj[attribute] if type(obj) is dict and attribute in obj else super().getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute) if value is None else value

    def getitem(self, obj: Any, argument: Any) -> Any:
        value = super().getitem(obj, argument)
        return self.undefined(obj=obj, name=argument) if value is None else value

    # -- bounds -------------------------------------------------------------------------------------------------------

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, (str, bytes)) and attr in _UNBOUNDED:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.charge(_CALL)
        # A format method comes wrapped by the sandbox.
        method = getattr(obj, "__wrapped__", obj)
        owner = getattr(method, "__self__", None)
        if isinstance(owner, (str, bytes)):
            self._charge_method(owner, method.__name__, args)
        value = super().call(context, obj, *args, **kwargs)
        if isinstance(value, (str, list)):
            self.charge(len(value))
        return value

    def _charge_method(self, owner: Any, name: str, args: tuple[Any, ...]) -> None:
        match name, args:
            case (("format" | "format_map"), _):
                if _WIDE_BRACES.search(str(owner)):
                    raise SecurityError("a width in format() is too large, or not written out")
            case "replace", (old, new, *_):
                self.charge((len(owner) // max(len(old), 1) + 1) * len(new))
            case "join", (items, *_) if hasattr(items, "__len__"):
                self.charge(len(owner) * len(items))
            case (("center" | "ljust" | "rjust" | "zfill"), (int() as width, *_)):
                self.charge(max(width, 0))
            case _:
                pass

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return super().call_binop(context, operator, left, right)
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, (str, list, tuple, bytes)) and isinstance(times, int):
                    self.charge(len(text) * max(times, 0))
        elif operator == "%" and isinstance(left, (str, bytes)) and _WIDE_PERCENT.search(str(left)):
            raise SecurityError("a width in % is too large, or not written out")
        elif operator == "+" and isinstance(left, (str, list)) and isinstance(right, (str, list)):
            self.charge(len(left) + len(right))
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

    def steps(self, items: Any) -> Any:
        """What a loop runs over, each step charged."""
        if items is None or isinstance(items, Undefined):
            return self.need(items, "the list of a for loop")
        if hasattr(items, "__len__"):
            self.charge(_STEP * len(items))
            return items
        return self._charge_each(items)

    def _charge_each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.charge(_STEP)
            yield item

    def _own_filters(self) -> dict[str, Callable[..., Any]]:
        def widened(name: str) -> Callable[..., Any]:
            original = FILTERS[name]

            def filtered(value: Any, *args: Any, **kwargs: Any) -> Any:
                width = args[0] if args else next((kwargs[key] for key in _WIDTHS if key in kwargs), 0)
                lines = str(value).count("\n") + 1 if name == "indent" else 1
                self.charge(lines * (max(width, 0) if isinstance(width, int) else len(str(width))))
                return original(value, *args, **kwargs)

            return filtered

        return {
            NEED: self.need,
            STEPS: self.steps,
            "default": _default,
            "d": _default,
            "tojson": _to_json,
            "format": self._format,
            "replace": self._replace,
            "join": self._join,
            **{name: widened(name) for name in ("indent", "batch", "slice")},
            "center": self._center,
        }

    def _center(self, value: Any, width: int = 80) -> str:
        self.charge(max(width, 0))
        return str(value).center(width)

    def _format(self, value: Any, *args: Any, **kwargs: Any) -> str:
        if _WIDE_PERCENT.search(str(value)):
            raise SecurityError("a width in format is too large, or not written out")
        return do_format(value, *args, **kwargs)

    def _replace(self, value: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = str(value), str(old), str(new)
        self.charge((len(text) // max(len(old), 1) + 1) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def _join(self, value: Any, separator: str = "", attribute: str | int | None = None) -> str:
        items = [self.getitem(item, attribute) if attribute is not None else item for item in self.steps(value)]
        texts = [str(self.need(item, "an item of join")) for item in items]
        self.charge(len(separator) * len(texts))
        return str(separator).join(texts)


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    """Jinja2's `default`, with null undefined."""
    return default_value if _is_null(value) or (boolean and not value) else value


def _is_null(value: Any) -> bool:
    return value is None or isinstance(value, Undefined)


def _is_defined(value: Any) -> bool:
    return not _is_null(value)


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON as a model should read it; Jinja2's own escapes < > & ' for HTML."""
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


class Guard(NodeTransformer):
    """Puts `need` around every value that becomes text and `steps` around every loop. The tree is changed."""

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [item if isinstance(item, nodes.TemplateData) else needed(item) for item in node.nodes]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [needed(item) for item in node.nodes]
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, STEPS, [], [], None, None, lineno=node.lineno, environment=node.environment)
        return node


def needed(node: nodes.Expr) -> nodes.Expr:
    """The expression with `need` around it."""
    name = nodes.Const(spell_expression(node), lineno=node.lineno, environment=node.environment)
    return nodes.Filter(node, NEED, [name], [], None, None, lineno=node.lineno, environment=node.environment)


def spell_expression(node: nodes.Node) -> str:
    """The expression roughly as written: names, attributes, keys and filters; the rest as `…`."""
    match node:
        case nodes.Name():
            return node.name
        case nodes.Getattr():
            return f"{spell_expression(node.node)}.{node.attr}"
        case nodes.Getitem():
            key = node.arg
            return f"{spell_expression(node.node)}[{key.value if isinstance(key, nodes.Const) else '…'}]"
        case nodes.Filter() if node.node is not None:
            return f"{spell_expression(node.node)} | {node.name}"
        case _:
            return "…"
