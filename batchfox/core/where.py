"""`--where`: a condition on the output's columns, in the words of SQL, parsed into a tree; every mistake has its place.

    condition  = all { "or" all }
    all        = one { "and" one }
    one        = "not" one | "(" condition ")" | column test
    test       = ( "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) value
               | [ "not" ] "in" "(" value { "," value } ")" | [ "not" ] "like" text | "is" [ "not" ] "null"
    column     = a name, or "any name" in double quotes
    value      = 'text' (a quote within is '') | number | true | false

As in SQL nothing is equal to null, and nothing differs from it: a row without the value fits `is null` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from batchfox.errors import UserError

Value = str | int | float | bool
Compared = Literal["=", "!=", "<", "<=", ">", ">="]

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<text>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")+")
    | (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)
    | (?P<name>[^\W\d]\w*)
    | (?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)""",
    re.VERBOSE,
)
_WORDS = ("and", "or", "not", "in", "like", "is", "null", "true", "false")
_COMPARED: dict[str, Compared] = {
    "=": "=",
    "==": "=",
    "!=": "!=",
    "<>": "!=",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}
_MOST_DEPTH = 100


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column's name, and where it stands (from 0)."""

    name: str
    at: int


class Literals(msgspec.Struct, frozen=True, kw_only=True):
    """The values of a comparison, and where the first stands."""

    values: tuple[Value, ...]
    at: int


class Compare(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    column: Column
    sign: Compared
    value: Literals


class Among(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    column: Column
    values: Literals


class Like(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    column: Column
    pattern: str


class Null(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    column: Column


class Not(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    of: Condition


class Both(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`and`, or with `is_or` at least one of them."""

    left: Condition
    right: Condition
    is_or: bool = False


Condition = Compare | Among | Like | Null | Not | Both


def columns_of(condition: Condition) -> Iterator[Column]:
    """Every column it names, in order."""
    match condition:
        case Both(left=left, right=right):
            yield from columns_of(left)
            yield from columns_of(right)
        case Not(of=inner):
            yield from columns_of(inner)
        case _:
            yield condition.column


def misplaced(text: str, at: int, what: str) -> UserError:
    """A mistake at this place of the condition."""
    where = f"at character {at + 1}" if at < len(text) else "at its end"
    return UserError(f"--where {text!r}, {where}: {what}")


def parse_where(text: str) -> Condition:
    """Raises `UserError` with the place of what is wrong."""
    return _Parser(text).parse()


class _Token(msgspec.Struct, frozen=True):
    kind: str
    text: str
    at: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._next = 0
        self._depth = 0

    def parse(self) -> Condition:
        condition = self._any()
        if (token := self._peek()).kind != "end":
            raise misplaced(self._text, token.at, f"expected and, or, or the end, got {token.text}")
        return condition

    def _split(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            found = _TOKEN.match(self._text, at)
            if found is None:
                is_quote = self._text[at] in "'\""
                what = "a quote that is not closed" if is_quote else f"what does {self._text[at]!r} mean here?"
                raise misplaced(self._text, at, f"{what} (text stands in single quotes: 'x'; a quote within is '')")
            kind = found.lastgroup or ""
            if kind == "name" and found[0].lower() in _WORDS:
                yield _Token("word", found[0].lower(), at)
            elif kind != "space":
                yield _Token(kind, found[0], at)
            at = found.end()

    def _peek(self) -> _Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else _Token("end", "", len(self._text))

    def _take(self, *texts: str) -> bool:
        token = self._peek()
        is_there = token.kind in ("word", "sign") and token.text in texts
        self._next += is_there
        return is_there

    def _demand(self, text: str) -> None:
        if not self._take(text):
            raise self._expected(text)

    def _expected(self, what: str) -> UserError:
        token = self._peek()
        return misplaced(self._text, token.at, f"expected {what}" + (f", got {token.text}" if token.text else ""))

    def _any(self) -> Condition:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise misplaced(self._text, self._peek().at, f"nested more than {_MOST_DEPTH} deep")
        found = self._all()
        while self._take("or"):
            found = Both(left=found, right=self._all(), is_or=True)
        self._depth -= 1
        return found

    def _all(self) -> Condition:
        found = self._one()
        while self._take("and"):
            found = Both(left=found, right=self._one())
        return found

    def _one(self) -> Condition:
        is_inverted = False
        while self._take("not"):
            is_inverted = not is_inverted
        if self._take("("):
            found = self._any()
            self._demand(")")
        else:
            found = self._test(self._column())
        return Not(of=found) if is_inverted else found

    def _column(self) -> Column:
        token = self._peek()
        if token.kind not in ("name", "quoted"):
            raise self._expected("a column's name")
        self._next += 1
        name = token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text
        return Column(name=name, at=token.at)

    def _test(self, column: Column) -> Condition:
        token = self._peek()
        if token.kind == "sign" and token.text in _COMPARED:
            self._next += 1
            return Compare(column=column, sign=_COMPARED[token.text], value=self._values(1))
        if self._take("is"):
            is_inverted = self._take("not")
            self._demand("null")
            return Not(of=Null(column=column)) if is_inverted else Null(column=column)
        is_inverted = self._take("not")
        found: Condition
        if self._take("in"):
            self._demand("(")
            found = Among(column=column, values=self._values())
            self._demand(")")
        elif self._take("like"):
            token = self._peek()
            pattern = self._value()
            if not isinstance(pattern, str):
                raise misplaced(self._text, token.at, "like takes text, in which % is any text and _ any letter")
            found = Like(column=column, pattern=pattern)
        else:
            raise self._expected("=, !=, <, <=, >, >=, in (…), like '…' or is null")
        return Not(of=found) if is_inverted else found

    def _values(self, most: int | None = None) -> Literals:
        at = self._peek().at
        values = [self._value()]
        while most is None and self._take(","):
            values.append(self._value())
        return Literals(values=tuple(values), at=at)

    def _value(self) -> Value:
        token = self._peek()
        self._next += 1
        if token.kind == "text":
            return token.text[1:-1].replace("''", "'")
        if token.kind == "number":
            return float(token.text) if any(sign in token.text for sign in ".eE") else int(token.text)
        if token.text in ("true", "false"):
            return token.text == "true"
        self._next -= 1
        if token.text == "null":
            raise misplaced(self._text, token.at, "nothing is equal to null: write is null, or is not null")
        raise self._expected("a value: 'text', a number, true or false")
