"""The input columns of a row as msgpack, as the checkpoint keeps them, and back.

An integer beyond 64 bits, which msgpack has not, travels as an extension of its decimal text.
"""

from __future__ import annotations

from typing import Any

import msgspec

_BIG_INTEGER = 1
_Ext = msgspec.msgpack.Ext
_encode = msgspec.msgpack.Encoder(enc_hook=str).encode


def encode_columns(columns: dict[str, Any]) -> bytes:
    """Any JSON-like columns, bytes among them; a value of another type as its text."""
    try:
        return _encode(columns)
    except OverflowError:
        return _encode(_wrap_big(columns))


def _wrap_big(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _wrap_big(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_wrap_big(item) for item in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return _Ext(_BIG_INTEGER, str(value).encode())
    return value


def _unwrap(code: int, data: memoryview) -> Any:
    return int(bytes(data)) if code == _BIG_INTEGER else bytes(data)


_decode = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_unwrap).decode


def decode_columns(data: bytes) -> dict[str, Any]:
    """What `encode_columns` wrote."""
    return _decode(data)
