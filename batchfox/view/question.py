"""What a page asks for, and the SQL that says it. Values are always parameters; names are only those of the schema."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchfox.core.nearest import nearest
from batchfox.core.outcome import COLUMNS, EXTRA
from batchfox.errors import UserError

Operator = Literal["contains", "is", "is not", "at least", "at most", "empty", "not empty"]
MOST_ROWS = 200


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One condition on one column. Text is compared without regard to case by "contains", else as it is."""

    column: str
    operator: Operator
    value: str = ""


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows, in what order. `status` and `code`: of the facets; `mark`: "retry", "accept" or "none"."""

    search: str = ""
    filters: list[Filter] = msgspec.field(default_factory=list)
    status: str | None = None
    code: str | None = None
    mark: Literal["retry", "accept", "none"] | None = None
    sort: str = "row_index"
    is_descending: bool = False
    offset: int = 0
    limit: int = 50

    @property
    def has_text(self) -> bool:
        """Must the rows' texts be read to answer it?"""
        return bool(self.search or self.filters)


def quote(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def as_text(name: str, kind: str) -> str:
    """A column as text in SQL; times in UTC."""
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"CAST(make_timestamp(epoch_us({quote(name)})) AS VARCHAR)"
    return quote(name) if kind == "VARCHAR" else f"CAST({quote(name)} AS VARCHAR)"


def demand_column(name: str, types: dict[str, str]) -> str:
    """The type of a column. Raises `UserError`."""
    if name not in types:
        raise UserError(f"no such column: {name}{nearest(name, types)}")
    return types[name]


def text_condition(question: Question, types: dict[str, str]) -> tuple[str, list[Any]]:
    """Search and filters as a condition with its parameters. Raises `UserError`."""
    parts: list[str] = []
    values: list[Any] = []
    if question.search:
        names = [name for name, kind in types.items() if kind == "VARCHAR" and is_searched(name)]
        parts.append("(" + " OR ".join(_contains(quote(name)) for name in names) + ")")
        values += [question.search] * len(names)
    for one in question.filters:
        condition, given = _condition(one, demand_column(one.column, types))
        parts.append(condition)
        values += given
    return " AND ".join(parts) or "TRUE", values


def is_searched(name: str) -> bool:
    """Is this a column that people search? The raw completion says nothing that `text` does not, at ten times the
    bytes."""
    return (name not in COLUMNS and name != EXTRA) or name in (
        "row_id",
        "text",
        "reasoning",
        "error_code",
        "error_message",
    )


def _contains(text: str) -> str:
    """As a literal, without regard to case; half as dear as to lower every text first."""
    return f"regexp_matches({text}, ?, 'il')"


def _condition(one: Filter, kind: str) -> tuple[str, list[Any]]:
    column, text = quote(one.column), as_text(one.column, kind)
    match one.operator:
        case "contains":
            return _contains(text), [one.value]
        case "empty":
            return f"({column} IS NULL OR {text} = '')", []
        case "not empty":
            return f"({column} IS NOT NULL AND {text} <> '')", []
        case "is":
            return _compare(column, text, kind, "=", one.value)
        case "is not":
            condition, values = _compare(column, text, kind, "=", one.value)
            return f"NOT coalesce({condition}, FALSE)", values
        case "at least":
            return _compare(column, text, kind, ">=", one.value)
        case "at most":
            return _compare(column, text, kind, "<=", one.value)


def _compare(column: str, text: str, kind: str, sign: str, value: str) -> tuple[str, list[Any]]:
    """In the column's own type, so that 9 is less than 10; lists and objects as text."""
    if kind == "VARCHAR" or kind.endswith("[]") or kind.startswith(("STRUCT", "MAP", "BLOB")):
        return f"{text} {sign} ?", [value]
    return f"{column} {sign} TRY_CAST(? AS {kind})", [value]
