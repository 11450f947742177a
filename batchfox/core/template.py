"""`Template`: one string of `[request]`, compiled once, rendered over a row's columns.

Contract, "Templates": a value that is one whole `{{ expression }}` keeps its type; an undefined or null variable is an
error unless the template gives a default; text that comes from rows is never rendered as a template. Only this module,
`guard.py`, `sandbox.py` and what that is made of (`filters.py`, `methods.py`, `formats.py`, `meter.py`) import Jinja2.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any

from jinja2 import Template as JinjaTemplate
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError, UndefinedError
from markupsafe import Markup

from batchfox.core.guard import Guard, spell_expression
from batchfox.core.meter import Meter
from batchfox.core.nearest import nearest
from batchfox.core.sandbox import Sandbox
from batchfox.errors import JobError

ROW = "row"
_VALUE = "batchfox_value_"
_LOADING = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_UNDEFINED_NAME = re.compile(r"'(\w+)' is undefined")
_GUARDING_TESTS = frozenset({"defined", "undefined", "none"})
_DEFAULTS = frozenset({"default", "d"})


class TemplateFailure(Exception):  # noqa: N818
    """A template could not be rendered over this row; the text says why and names the variable."""


def is_template(text: str) -> bool:
    """Whether a string of `[request]` is a template at all."""
    return "{" in text and ("{{" in text or "{%" in text or "{#" in text)


class Template:
    """One compiled template. For one thread at a time, as its `Sandbox` is.

    `names`: every variable it may read; `required`: those it uses without giving a default. The columns are also there
    as `row`, for names that are no identifiers: `{{ row["image url"] }}`.
    """

    __slots__ = ("_column", "_expression", "_globals", "_jinja", "_meter", "is_whole", "names", "place", "required")

    def __init__(self, text: str, place: str, sandbox: Sandbox) -> None:
        """Compiles `text`, which stands at `place`. Raises `JobError` with place and line if it is no template."""
        try:
            tree = sandbox.parse(text)
            _refuse_loading(tree, place)
            self._keep(tree, sandbox)
            if self.is_whole:
                _assign(tree, sandbox)
            code = sandbox.compile(Guard().visit(tree), place)
        except TemplateSyntaxError as error:
            raise JobError(f"{place}: line {error.lineno}: no valid template: {error.message}") from error
        except (RecursionError, SyntaxError) as error:  # Python's own bounds, for what a template is compiled to
            raise JobError(f"{place}: line 1: no valid template: nested too deep") from error
        self.place = place
        self._meter = sandbox.meter
        self._jinja = JinjaTemplate.from_code(sandbox, code, {})

    def _keep(self, tree: nodes.Template, sandbox: Sandbox) -> None:
        """What rendering and `FirstLook` need to know of the tree as it was written."""
        self.names = frozenset(name.name for name in tree.find_all(nodes.Name) if name.ctx == "load")
        self.required = _required(tree)
        self._globals = {name: value for name, value in sandbox.globals.items() if name in self.names}
        whole = _whole(tree)
        self.is_whole = whole is not None
        self._expression = spell_expression(whole) if whole is not None else ""
        # The commonest of all, `{{ column }}`, needs no Jinja2.
        is_column = isinstance(whole, nodes.Name) and not self._globals and whole.name != ROW
        self._column = self._expression if is_column else ""

    def render(self, columns: dict[str, Any]) -> Any:
        """Text, or for one whole expression its value. Raises `TemplateFailure`, nothing else."""
        if self._column and (value := columns.get(self._column)) is not None:
            return value
        meter, jinja = self._meter, self._jinja
        meter.refill()
        known = self._globals.copy()
        for name in self.names:
            if (value := columns.get(name)) is not None:
                known[name] = value
        if ROW in self.names and columns.get(ROW) is None:
            known[ROW] = columns
        try:
            context = jinja.new_context(known, shared=True)
            if not self.is_whole:
                return "".join(jinja.root_render_func(context))
            for _ in jinja.root_render_func(context):
                pass
            return _plain(context.vars[_VALUE], meter, self._expression)
        except UndefinedError as error:
            raise TemplateFailure(self._say_absent(str(error), columns)) from error
        except SecurityError as error:
            raise TemplateFailure(f"it is not safe: {error}") from error
        except RecursionError as error:
            raise TemplateFailure("it calls itself without end") from error
        except MemoryError as error:
            raise TemplateFailure("it takes more memory than there is") from error
        except Exception as error:
            said = str(error) or type(error).__name__
            raise TemplateFailure(
                said if isinstance(error, TemplateError) else f"{type(error).__name__}: {said}"
            ) from error

    def _say_absent(self, said: str, columns: dict[str, Any]) -> str:
        """Jinja2's words in those of the row: null in it, or a name it does not have."""
        match = _UNDEFINED_NAME.search(said)
        name = match[1] if match else ""
        if name in columns:
            return f"`{name}` is null"
        if name:
            return f"`{name}` is no column{nearest(name, columns)}; columns: {list_columns(columns)}"
        return said


def list_columns(columns: Iterable[str]) -> str:
    """Names of columns for an error, at most 20."""
    names = [str(name)[:60] for name in columns]
    return (", ".join(names[:20]) or "none") + (f", and {len(names) - 20} more" if len(names) > 20 else "")


def _refuse_loading(tree: nodes.Template, place: str) -> None:
    for node in tree.find_all(_LOADING):
        what = type(node).__name__.lower()
        raise JobError(f"{place}: line {node.lineno}: no valid template: a template cannot load another ({what})")


def _whole(tree: nodes.Template) -> nodes.Expr | None:
    """The one expression that a template consists of, or None."""
    match tree.body:
        case [nodes.Output(nodes=[only])] if not isinstance(only, nodes.TemplateData):
            return only
        case _:
            return None


def _assign(tree: nodes.Template, sandbox: Sandbox) -> None:
    """Makes of one whole expression an assignment, so that its value can be had as it is. The tree is changed.

    Nothing that a text would need is asked of it: it may be bytes. What is asked, `_plain` asks.
    """
    whole = _whole(tree)
    assert whole is not None
    target = nodes.Name(_VALUE, "store", lineno=1, environment=sandbox)
    tree.body = [nodes.Assign(target, whole, lineno=1, environment=sandbox)]


def _plain(value: Any, meter: Meter, name: str) -> Any:
    """A whole expression's value as data: null refused, lazy sequences made lists. `name`: the expression."""
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool or kind is bytes:
        return value
    if isinstance(value, Markup):
        return str(value)
    if isinstance(value, dict):
        return {key: item if item is None else _plain(item, meter, name) for key, item in value.items()}
    if isinstance(value, (list, tuple, range, Iterator, KeysView, ValuesView, ItemsView)):
        return [item if item is None else _plain(item, meter, name) for item in meter.steps(value)]
    return meter.need(value, name)


# -- which variables a template cannot do without ---------------------------------------------------------------------


def _required(tree: nodes.Template) -> frozenset[str]:
    undeclared = meta.find_undeclared_variables(tree) - {"range", "dict", "namespace", ROW}
    asked = {name for node in _conditions(tree) for name in _names_asked(node)}
    unguarded = {node.name for node in _unguarded(tree) if node.ctx == "load"}
    return frozenset((undeclared & unguarded) - asked)


def _unguarded(node: nodes.Node) -> Iterator[nodes.Name]:
    """Every name outside of `name | default(…)` and of the left side of `name or …`."""
    skipped: nodes.Node | None = None
    if isinstance(node, nodes.Name):
        yield node
    elif isinstance(node, nodes.Filter) and node.name in _DEFAULTS and node.node is not None and _base(node.node):
        skipped = node.node
    elif isinstance(node, nodes.Or) and _base(node.left):
        skipped = node.left
    for child in node.iter_child_nodes():
        if child is not skipped:
            yield from _unguarded(child)


def _conditions(tree: nodes.Node) -> Iterator[nodes.Node]:
    yield from (branch.test for branch in tree.find_all(nodes.If))
    yield from (choice.test for choice in tree.find_all(nodes.CondExpr))
    yield from tree.find_all(nodes.Test)


def _names_asked(node: nodes.Node) -> Iterator[str]:
    """Names whose presence a condition asks about: a template that asks can do without them."""
    match node:
        case nodes.Not():
            yield from _names_asked(node.node)
        case nodes.And() | nodes.Or():
            yield from _names_asked(node.left)
            yield from _names_asked(node.right)
        case nodes.Test() if node.name in _GUARDING_TESTS:
            yield from _names_asked(node.node)
        case _:
            if name := _base(node):
                yield name


def _base(node: nodes.Node) -> str | None:
    """`a` of `a`, `a.b` and `a["b"]`, or None."""
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        node = node.node
    return node.name if isinstance(node, nodes.Name) else None
