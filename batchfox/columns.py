"""The carried input columns as Arrow: their types, fixed by the first part, and later rows fitted to them.

Source: contract.md, "Types of input columns". Values come here after a round through msgpack.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from batchfox.arrow_types import carry_type, stored_type
from batchfox.core.complaint import show

_INT64 = 1 << 63
_EXACT = 1 << 53


def to_json(value: Any) -> str:
    """JSON text; bytes as base64, NaN and Infinity as text, other strangers as theirs, half surrogates as U+FFFD."""
    try:
        text = msgspec.json.encode(value, enc_hook=str).decode()
    except (UnicodeEncodeError, TypeError, OverflowError, msgspec.ValidationError):
        return _to_json_slowly(value)
    # msgspec writes null for NaN, and knows no integer beyond 64 bits.
    return _to_json_slowly(value) if "null" in text else text


def _to_json_slowly(value: Any) -> str:
    return json.dumps(_mend(value), ensure_ascii=False, separators=(",", ":"), default=str)


def _mend(value: Any) -> Any:
    """What JSON can carry. A value that it cannot is text."""
    match value:
        case str():
            return mend(value)
        case float() if not math.isfinite(value):
            return show(value)
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {str(_mend(name)): _mend(item) for name, item in value.items()}
        case list() | tuple():
            return [_mend(item) for item in value]
        case _:
            return value


def mend(text: str) -> str:
    """Text that UTF-8 can hold."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def infer(rows: Iterable[Mapping[str, Any]], known: Mapping[str, pa.DataType] | None) -> dict[str, pa.DataType]:
    """The types of the carried columns: known ones as they are, the others from what the rows hold."""
    seen: dict[str, set[str]] = {}
    types = dict(known or {})
    for row in rows:
        for name, value in row.items():
            if name not in types:
                kinds = seen.get(name)
                if kinds is None:
                    kinds = seen[name] = set()
                kinds.add(_kind(value))
    for name, kinds in seen.items():
        types[name] = _type_of(kinds - {"null"})
    return _without_case_clashes(types)


def _without_case_clashes(types: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Readers that ignore case must not see one name twice: the later spelling goes to `input_extra`."""
    found: dict[str, pa.DataType] = {}
    folded: set[str] = set()
    for name, kind in types.items():
        if name.casefold() not in folded:
            folded.add(name.casefold())
            found[name] = pa.string() if pa.types.is_null(kind) else kind
    return found


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int():
            return "exact" if -_EXACT <= value <= _EXACT else "int" if -_INT64 <= value < _INT64 else "huge"
        case float():
            return "float"
        case str():
            return "string"
        case bytes():
            return "binary"
        case _:
            return "json"


def _type_of(kinds: set[str]) -> pa.DataType:
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds and kinds <= {"exact", "int"}:
        return pa.int64()
    if kinds and kinds <= {"exact", "float"}:
        return pa.float64()
    if kinds == {"binary"}:
        return pa.binary()
    return pa.string()


def fit(
    rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType]
) -> tuple[list[pa.Array], list[str | None], set[str]]:
    """One array a type, in order; per row the JSON text of what did not fit, else None; names that did not fit."""
    strays: list[dict[str, Any] | None] = [None] * len(rows)
    misfits: set[str] = set()

    def stray(at: int, name: str, value: Any) -> None:
        misfits.add(name)
        found = strays[at]
        if found is None:
            found = strays[at] = {}
        found[name] = value

    known = types.keys()
    for at, row in enumerate(rows):
        if not row.keys() <= known:
            for name in row.keys() - known:
                if row[name] is not None:
                    stray(at, name, row[name])
    arrays = []
    for name, kind in types.items():
        values = [row.get(name) for row in rows]
        array = _fit_all(values, kind)
        if array is None:
            array = _fit_each(values, kind, lambda at, value, name=name: stray(at, name, value))
        arrays.append(array)
    return arrays, [None if found is None else to_json(found) for found in strays], misfits


def _fit_all(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    """The whole column at once, None where some value needs a closer look."""
    if pa.types.is_string(kind):
        if not all(value is None or type(value) is str for value in values):
            return None
    elif not _is_plain(values, kind):
        return None
    return _build(values, kind)


def _is_plain(values: list[Any], kind: pa.DataType) -> bool:
    """Arrow takes True for 1 and 2.0 for 2; we do not."""
    kinds = {type(value) for value in values} - {type(None)}
    if pa.types.is_integer(kind):
        return kinds <= {int}
    if pa.types.is_floating(kind):
        return kinds <= {float} or (kinds <= {float, int} and all(_is_exact(value) for value in values))
    if pa.types.is_boolean(kind):
        return kinds <= {bool}
    return True


def _is_exact(value: Any) -> bool:
    return not isinstance(value, int) or -_EXACT <= value <= _EXACT


def _build(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    travels = carry_type(kind)
    try:
        array = pa.array(values, travels)
        return array if travels == kind else _cast_back(array, kind)
    except (pa.ArrowException, UnicodeEncodeError, TypeError, ValueError, OverflowError):
        return None


def _cast_back(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """From the type that travels to the real one, leaf by leaf."""
    if array.type == kind:
        return array
    if pa.types.is_map(kind):
        entry = pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])
        entries = _cast_back(array, pa.list_(entry))
        keys, items = entries.values.field("key"), entries.values.field("value")
        return pa.MapArray.from_arrays(entries.offsets, keys, items, type=kind, mask=_nulls(array))
    if pa.types.is_struct(kind):
        fields = array.flatten()  # with the parent's nulls, so that nothing under a null is cast
        children = [_cast_back(field, kind.field(at).type) for at, field in enumerate(fields)]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(
            array.offsets, _cast_back(array.values, kind.value_type), type=kind, mask=_nulls(array)
        )
    if pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _cast_back(array, pa.list_(kind.value_field)).cast(kind)
    # Arrow writes these two as text, and does not read them.
    if pa.types.is_time(kind):
        import pyarrow.compute as pc  # takes longer to load than most runs need it for

        moments = pc.binary_join_element_wise("1970-01-01", array, " ").cast(pa.timestamp(kind.unit))
        return moments.cast(kind)
    if pa.types.is_duration(kind):
        return array.cast(pa.int64()).cast(kind)
    return array.cast(kind)


def _nulls(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def _fit_each(values: list[Any], kind: pa.DataType, stray: Any) -> pa.Array:
    """Value by value: text takes anything as JSON text where it was inferred as text, the rest must fit."""
    fitted: list[Any] = []
    for at, value in enumerate(values):
        if value is None:
            fitted.append(None)
        elif pa.types.is_string(kind):
            fitted.append(_as_text(value))
        elif _is_plain([value], kind) and _build([value], kind) is not None:
            fitted.append(value)
        else:
            stray(at, value)
            fitted.append(None)
    array = _build(fitted, kind)
    if array is None:  # each alone fits, all together do not
        for at, value in enumerate(fitted):
            if value is not None:
                stray(at, value)
        array = pa.nulls(len(values), kind)
    return array


def _as_text(value: Any) -> str:
    """Text as it is, NaN and Infinity by name, anything else as JSON."""
    mended = _mend(value) if isinstance(value, (str, float)) else None
    return mended if isinstance(mended, str) else to_json(value)


def encode_types(types: Mapping[str, pa.DataType]) -> bytes:
    """For the checkpoint."""
    schema = pa.schema([pa.field(name, kind) for name, kind in types.items()])
    return bytes(schema.serialize().to_pybytes())


def decode_types(data: bytes) -> dict[str, pa.DataType]:
    """What `encode_types` wrote; older ones may have kept views."""
    return {field.name: stored_type(field.type) for field in pa.ipc.read_schema(pa.py_buffer(data))}
