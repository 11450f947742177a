"""Which rows of a part a `--where` fits: the condition in Arrow's words, over the columns that the output has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from batchfox.core.nearest import nearest
from batchfox.core.where import (
    Among,
    Both,
    Column,
    Compare,
    Condition,
    Like,
    Literals,
    Not,
    Null,
    columns_of,
    misplaced,
    parse_where,
)

if TYPE_CHECKING:
    import pyarrow as pa


class Fitted(msgspec.Struct, frozen=True):
    """A condition in Arrow's words, and the columns it reads."""

    expression: Any
    columns: list[str]


class Where:
    """A condition as it was written. Raises `UserError` where it is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._condition = parse_where(text)

    def fit(self, schema: pa.Schema) -> Fitted:
        """The condition over this output's columns.

        Raises `UserError`, with the place, for a column it does not have, and a value that no such column holds.
        """
        columns = dict.fromkeys(column.name for column in columns_of(self._condition))
        return Fitted(_Fit(self.text, schema).of(self._condition), list(columns))

    def fit_output(self, types: bytes | None) -> Fitted | None:
        """The same, by the types on record of the carried columns; None before there is a part, when it fits none."""
        if types is None:
            return None
        from batchfox.columns import decode_types
        from batchfox.parts import schema_of

        return self.fit(schema_of(decode_types(types)))


class _Fit:
    def __init__(self, text: str, schema: pa.Schema) -> None:
        self._text = text
        self._schema = schema

    def of(self, condition: Condition) -> Any:
        import pyarrow.compute as pc

        match condition:
            case Both(left=left, right=right, is_or=is_or):
                return self.of(left) | self.of(right) if is_or else self.of(left) & self.of(right)
            case Not(of=inner):
                return ~self.of(inner)
            case Null(column=column):
                return self._field(column).is_null()
            case Like(column=column, pattern=pattern):
                kind = self._kind(column)
                if str(kind) not in ("string", "large_string", "string_view"):
                    raise misplaced(self._text, column.at, f"like takes text, and {column.name} is {kind}")
                return pc.match_like(self._field(column), pattern)
            case Among(column=column, values=values):
                # Not Arrow's isin, which says of a missing value that it is not in the list.
                field = self._field(column)
                return _any_of([field == scalar for scalar in self._scalars(column, values)])
            case Compare(column=column, sign=sign, value=value):
                field, scalar = self._field(column), self._scalars(column, value)[0]
                match sign:
                    case "=":
                        return field == scalar
                    case "!=":
                        return field != scalar
                    case "<":
                        return field < scalar
                    case "<=":
                        return field <= scalar
                    case ">":
                        return field > scalar
                    case ">=":
                        return field >= scalar
                assert_never(sign)
        assert_never(condition)

    def _field(self, column: Column) -> Any:
        import pyarrow.compute as pc

        self._kind(column)
        return pc.field(column.name)

    def _kind(self, column: Column) -> pa.DataType:
        if column.name not in self._schema.names:
            names = self._schema.names
            known = ", ".join(names)
            raise misplaced(
                self._text, column.at, f'no column "{column.name}"{nearest(column.name, names)}; there are {known}'
            )
        return self._schema.field(column.name).type

    def _scalars(self, column: Column, literals: Literals) -> list[pa.Scalar]:
        kind = self._kind(column)
        return [self._scalar(column, value, kind, literals.at) for value in literals.values]

    def _scalar(self, column: Column, value: Any, kind: pa.DataType, at: int) -> pa.Scalar:
        """A value of the column's type: text is read as a moment or a day where that is what the column holds."""
        import pyarrow as pa

        is_fit = {
            bool: pa.types.is_boolean(kind),
            int: pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind),
            float: pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_integer(kind),
            str: str(kind) in ("string", "large_string", "string_view") or pa.types.is_temporal(kind),
        }[type(value)]
        try:
            if not is_fit:
                raise ValueError
            if pa.types.is_integer(kind):
                return pa.scalar(value)
            if isinstance(value, str) and pa.types.is_timestamp(kind) and kind.tz is not None:
                return _moment(value).cast(kind)
            return pa.scalar(value).cast(kind)
        except (ValueError, OverflowError, pa.ArrowException) as error:
            said = f"{column.name} is {kind}, and {value!r} is no value of it"
            if pa.types.is_temporal(kind):
                said += " (such as '2026-01-31', '2026-01-31 12:00:00')"
            raise misplaced(self._text, at, said) from error


def _any_of(conditions: list[Any]) -> Any:
    """By halves: a list may be long, and an expression is walked by recursion."""
    half = len(conditions) // 2
    return conditions[0] if half == 0 else _any_of(conditions[:half]) | _any_of(conditions[half:])


def _moment(text: str) -> pa.Scalar:
    """In UTC where no zone is told. Raises `ValueError`."""
    from datetime import UTC, datetime

    import pyarrow as pa

    found = datetime.fromisoformat(text)
    return pa.scalar(found if found.tzinfo else found.replace(tzinfo=UTC), pa.timestamp("us", "UTC"))
