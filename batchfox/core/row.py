"""`Row`: one input record, never changed."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import msgspec

KEY_BYTES = 16


class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One input record.

    `index` is its position in the whole input, from 0; `line` the place a person would look for it (from 1, counted
    over blank lines and, with several files, within `file`; 0 where the row is the whole file). `problem` is set where
    the record could not be read at all; `columns` is then empty. `digest` is BLAKE2b-128 of the raw record, the basis
    of the check for a changed input (source: contract.md, "Without ids").
    """

    index: int
    id: str
    key: bytes
    columns: dict[str, Any]
    line: int
    file: str = ""
    problem: str | None = None
    digest: bytes = b""

    @property
    def place(self) -> str:
        """Where a person finds it: "in.jsonl:7", "line 7", or the file that it is."""
        if not self.file:
            return f"line {self.line}"
        return f"{self.file}:{self.line}" if self.line else self.file


def key_of_id(text: str) -> bytes:
    """The 16-byte key of a row that has an id. Ids compare as text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES, person=b"id").digest()


def keys_of(ids: Iterable[str | None]) -> list[bytes]:
    """The keys of many ids; empty, which is no key, where there is no id."""
    return [b"" if text is None else key_of_id(text) for text in ids]


def key_of_line(line: int) -> bytes:
    """The key of a row whose id is missing: no id can be equal to it, whatever its text."""
    return blake2b(line.to_bytes(8, "big"), digest_size=KEY_BYTES, person=b"line").digest()


def key_of_position(index: int) -> bytes:
    """The key of a row in an input without ids: its position, 8 bytes big-endian."""
    return index.to_bytes(8, "big")


def id_text(value: Any) -> str | None:
    """An id as text; None for what names nothing: null, empty, a list, an object, NaN."""
    match value:
        case str():
            return value or None
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value) if value == value and abs(value) != float("inf") else None
        case _:
            return None
