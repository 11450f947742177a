"""`Guard`: what is put into a template's tree before it is compiled, so that null is found and work is charged."""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from batchfox.core.meter import STEP, size_of
from batchfox.core.sandbox import LOOKED, NEED, SPENT, STEPS

_OWN = frozenset({NEED, STEPS, LOOKED, SPENT})
_NODE = 4


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
        cost = STEP + _cost_of(node)
        self.generic_visit(node)
        node.iter = _own(STEPS, node.iter, nodes.Const(cost, lineno=node.lineno, environment=node.environment))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._charge_body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self._charge_body(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        return self._charge_body(node)

    def _charge_body(self, node: Any) -> nodes.Node:
        """What is called by name may be called often: each time its body is charged."""
        cost = nodes.Const(_cost_of(node), lineno=node.lineno, environment=node.environment)
        self.generic_visit(node)
        spent = nodes.ExprStmt(_own(SPENT, cost), lineno=node.lineno, environment=node.environment)
        node.body.insert(0, spent)
        changed: nodes.Node = node
        return changed

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _own(LOOKED, node.expr)
        for operand in node.ops:
            operand.expr = _own(LOOKED, operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """A slice does not pass by `getitem`."""
        self.generic_visit(node)
        return _own(LOOKED, node) if isinstance(node.arg, nodes.Slice) else node


def _cost_of(node: nodes.Node) -> int:
    """What going through a body once may cost, beside what is charged in it: its statements, and the text in it."""
    texts = sum(size_of(data.data) for data in node.find_all(nodes.TemplateData))
    texts += sum(size_of(const.value) for const in node.find_all(nodes.Const) if isinstance(const.value, str))
    return texts + _NODE * sum(1 for _ in node.find_all(nodes.Node))


def _own(name: str, node: Any, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno, environment=node.environment)


def needed(node: nodes.Expr) -> nodes.Expr:
    """The expression with `need` around it."""
    name = nodes.Const(spell_expression(node), lineno=node.lineno, environment=node.environment)
    return _own(NEED, node, name)


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
        case nodes.Filter() if node.node is not None and node.name in _OWN:
            return spell_expression(node.node)
        case nodes.Filter() if node.node is not None:
            return f"{spell_expression(node.node)} | {node.name}"
        case _:
            return "…"
