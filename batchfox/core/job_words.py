"""What is wrong with a job, in the words of the job file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from batchfox.errors import JobError


def show_value(value: Any) -> str:
    return {bool: "a boolean", dict: "a table", list: "a list"}.get(type(value), repr(value))


def say(message: str, struct: type[msgspec.Struct]) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.limits.in_flight`" in the words of the job file."""
    text, _, place = message.partition(" - at `$.")
    if missing := re.match(r"Object missing required field `(\w+)`", text):
        prefix = place.rstrip("`")
        where = f"{prefix}.{missing[1]}" if prefix else missing[1]
        return f"{where}: missing; a job needs it"
    place = place.rstrip("`")
    if wrong := re.match(r"Invalid enum value (.*)", text):
        return f"{place}: expected {_words(place, struct)}, got {wrong[1]}"
    text = text.replace("`", "").replace("Expected", "expected")
    return f"{place or 'the job file'}: {text}"


def _words(place: str, struct: type[msgspec.Struct]) -> str:
    """What the key at `place` takes, where that is a choice of words (or a number)."""
    kinds: list[Any] = [struct]
    for name in re.sub(r"\[.*?\]", "", place).split("."):
        found_structs = [kind for kind in _unfold(kinds) if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        kinds = [field.type for held in found_structs for field in msgspec.structs.fields(held) if field.name == name]
    found = list(_unfold(kinds))
    words = [f'"{word}"' for word in found if isinstance(word, str)]
    return " or ".join([*words, *("a whole number" for kind in found if kind is int)])


def _unfold(kinds: Any) -> Iterator[Any]:
    """The types, their arguments, and the arguments of those."""
    for kind in kinds:
        yield kind
        yield from _unfold(get_args(kind))


def demand(holds: bool, where: str, found: Any, wanted: str) -> None:
    if not holds:
        raise JobError(f"{where}: expected {wanted}, got {show_value(found)}")
