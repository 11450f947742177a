"""The sandbox that templates run in: no attribute that leads out of the data, no loader, no chance, no clock, no hang.

Jinja2's `ImmutableSandboxedEnvironment` keeps a template from Python's internals; what is added here keeps it from
null ("None" in a paid prompt) and from eating the machine. All work is charged to a `Meter`; which filters there are is
listed in `filters.py`, which methods a value has in `methods.py`. Nothing is folded while a template is compiled, or it
would escape the budget.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jinja2 import pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import ChainableUndefined, Context, LoopContext, Macro, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from batchfox.core.filters import Filters, is_null
from batchfox.core.formats import charge_percent
from batchfox.core.meter import Meter, copy_size
from batchfox.core.methods import charge_method, is_unlisted

_CALL = 1024
_MOST_BITS = 4096
_MOST_RANGE = 100_000

# Names that no template can spell.
NEED, STEPS, LOOKED, SPENT = "batchfox need", "batchfox steps", "batchfox looked", "batchfox spent"


class Absent(ChainableUndefined, StrictUndefined):
    """What is undefined or null: false in a test, an error wherever its value counts; `absent.x` is absent too."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        return False


class Sandbox(ImmutableSandboxedEnvironment):
    """One environment, for one thread. `meter`: the budget of the value being rendered."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=Absent, autoescape=False, keep_trailing_newline=True, cache_size=0, optimized=False)
        self.meter = Meter()
        self.globals = {"range": _range, "dict": dict, "namespace": Namespace}
        self.filters = Filters(self, self.meter).table | _guards(self.meter)
        self.tests = {name: _charged_test(self.meter, test) for name, test in TESTS.items()}
        self.tests |= {"none": is_null, "defined": _is_defined, "undefined": is_null}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`; of an object its own key before Python's method (`row.items`); null is absent."""
        value = obj[attribute] if type(obj) is dict and attribute in obj else super().getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute) if value is None else value

    def getitem(self, obj: Any, argument: Any) -> Any:
        value = super().getitem(obj, argument)
        return self.undefined(obj=obj, name=argument) if value is None else value

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of what rows hold, the methods that are listed; of Jinja2's own objects, what Jinja2 deems safe."""
        return not is_unlisted(obj, attr, value) and super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        meter = self.meter
        meter.charge(_CALL)
        # A format method comes wrapped by the sandbox.
        method = getattr(obj, "__wrapped__", obj)
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(obj, LoopContext) or (name == "join" and isinstance(owner, str)):
            args = (list(meter.steps(args[0])), *args[1:]) if args else args
        is_inner = isinstance(obj, Macro) or obj is Namespace  # which may be given a namespace
        for arg in (*args, *kwargs.values()):
            if not (is_inner and isinstance(arg, Namespace)):
                meter.look(arg)
        if isinstance(owner, (str, bytes)):
            charge_method(meter, owner, name, args, kwargs)
        elif isinstance(owner, (list, tuple)):
            meter.look(owner, 4)
        elif name == "strftime" and args:
            charge_percent(meter, args[0], None)
        value = super().call(context, obj, *args, **kwargs)
        meter.charge_made(value)
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return super().call_binop(context, operator, left, right)
        if operator == "*":
            for items, times in ((left, right), (right, left)):
                if isinstance(items, (str, list, tuple, bytes)) and isinstance(times, int):
                    self.meter.charge(copy_size(items) * max(times, 0))
        elif operator == "%" and isinstance(left, (str, bytes)):
            charge_percent(self.meter, left, right)
        elif operator == "+":
            self.meter.charge(copy_size(left) + copy_size(right))
        if isinstance(left, int) and isinstance(right, int):
            bits = (
                left.bit_length() * max(abs(right), 1) if operator == "**" else left.bit_length() + right.bit_length()
            )
            if bits > _MOST_BITS:
                raise SecurityError("the number is too large")
        return super().call_binop(context, operator, left, right)


def _guards(meter: Meter) -> dict[str, Callable[..., Any]]:
    """What `Guard` puts into a template. None of it is folded: it takes the context."""

    @pass_context
    def need(_: Context, value: Any, name: str) -> Any:
        return meter.need(value, name)

    @pass_context
    def steps(_: Context, items: Any, cost: int) -> Any:
        return meter.steps(items, cost)

    @pass_context
    def looked(_: Context, value: Any) -> Any:
        """A value that is compared, or that a slice made."""
        meter.look(value, 4)
        return value

    @pass_context
    def spent(_: Context, cost: int) -> int:
        meter.charge(cost)
        return cost

    return {NEED: need, STEPS: steps, LOOKED: looked, SPENT: spent}


def _charged_test(meter: Meter, original: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    def charged(*args: Any) -> Any:
        for arg in args:
            meter.look(arg, 4)
        return original(*args)

    return charged


def _is_defined(value: Any) -> bool:
    return not is_null(value)


def _range(*args: int) -> range:
    found = range(*args)
    if len(found) > _MOST_RANGE:
        raise SecurityError(f"range() of {len(found):,}; at most {_MOST_RANGE:,}")
    return found
