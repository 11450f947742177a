"""Arrow types: in which form values travel, and which the output stores."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

_LISTS = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_list_view, pa.list_view),
    (pa.types.is_large_list_view, pa.large_list_view),
)


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type that the output stores for one of the input: views of text and bytes, which Arrow writes and cannot
    filter, as what they are views of; at any depth."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, stored_type(kind.value_type), kind.ordered)
    if pa.types.is_map(kind):
        return pa.map_(_stored(kind.key_field), _stored(kind.item_field), kind.keys_sorted)
    if pa.types.is_struct(kind):
        return pa.struct([_stored(field) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_stored(kind.value_field), kind.list_size)
    for is_such, list_of in _LISTS:
        if is_such(kind):
            return list_of(_stored(kind.value_field))
    return kind


def _stored(field: pa.Field) -> pa.Field:
    return field.with_type(stored_type(field.type))


def without_views(table: pa.Table) -> pa.Table:
    """The table in the types that the output stores: parts of older outputs may hold views."""
    for at, field in enumerate(table.schema):
        stored = stored_type(field.type)
        if stored != field.type:
            table = table.set_column(at, field.with_type(stored), table.column(at).cast(stored))
    return table


def carry_type(kind: pa.DataType) -> pa.DataType:
    """The form in which values of a type travel: temporal and decimal leaves as text, dictionaries decoded."""
    if pa.types.is_dictionary(kind):
        return carry_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return carry_type(kind.storage_type)
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_map(kind):
        entry = pa.struct([pa.field("key", carry_type(kind.key_type)), pa.field("value", carry_type(kind.item_type))])
        return pa.list_(entry)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, carry_type(field.type)) for field in kind])
    if pa.types.is_large_list(kind) or pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(carry_type(kind.value_type))
    if pa.types.is_float16(kind):
        return pa.float32()
    return stored_type(kind)


def bytes_type(kind: pa.DataType) -> pa.DataType:
    """A type that travels, with bytes where it has text."""
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, bytes_type(field.type)) for field in kind])
    return pa.list_(bytes_type(kind.value_type)) if pa.types.is_list(kind) else kind


def name_twice(fields: Iterable[pa.Field]) -> str | None:
    """A name that two of these fields have, or two fields within one of them; rows cannot be told with both."""
    seen: set[str] = set()
    for field in fields:
        if field.name in seen:
            return str(field.name)
        seen.add(field.name)
        kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
        if pa.types.is_nested(kind) and (name := name_twice(kind.field(at) for at in range(kind.num_fields))):
            return f"{field.name}.{name}"
    return None


def holds_binary(kind: pa.DataType) -> bool:
    """Are there bytes in values of this type, at any depth? Such columns travel only where they are named."""
    if isinstance(kind, pa.BaseExtensionType):
        return holds_binary(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return holds_binary(kind.value_type)
    if pa.types.is_nested(kind):
        return any(holds_binary(kind.field(at).type) for at in range(kind.num_fields))
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )
