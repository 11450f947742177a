"""A job's tables as they were read, before they are a job: keys that nobody knows, text that no file can hold."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args

import msgspec

from batchfox.core.job_words import demand, show_value
from batchfox.core.nearest import nearest
from batchfox.errors import JobError

_MOST_DEPTH = 200


def sections_of(struct: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct] | None]:
    """The keys of a table, each with the table it holds, if it is one."""
    found: dict[str, type[msgspec.Struct] | None] = {}
    for field in msgspec.structs.fields(struct):
        kinds = get_args(field.type) if isinstance(field.type, UnionType) else (field.type,)
        structs = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        found[field.name] = structs[0] if structs else None
    return found


def refuse_unknown(data: dict[str, Any], struct: type[msgspec.Struct], path: str) -> None:
    """Raises `JobError` for a key that no table has, and for a table that is none."""
    sections = sections_of(struct)
    for name, value in data.items():
        where = f"{path}{name}"
        if name not in sections:
            raise JobError(f"{where}: unknown key{nearest(name, sections)}; allowed here: {', '.join(sections)}")
        section = sections[name]
        if section is not None:
            if not isinstance(value, dict):
                raise JobError(f"{where}: expected a table [{where}], got {show_value(value)}")
            refuse_unknown(value, section, f"{where}.")


def refuse_unprintable(data: dict[str, Any]) -> None:
    """Raises `JobError` for a name or a setting that no file and no log can hold, and for tables without a bottom.
    (Text in [request] is the rules' business.)"""
    left: list[tuple[str, int, Any]] = [("", 0, data)]
    while left:
        where, depth, value = left.pop()
        if depth > _MOST_DEPTH:
            raise JobError(f"{where[:40]}…: lists or tables are nested too deep; at most {_MOST_DEPTH} levels")
        if isinstance(value, dict):
            for name, inner in value.items():
                demand(_is_unicode(str(name)), where or "the job", name, "names in Unicode (UTF-8)")
                left.append((f"{where}.{name}" if where else str(name), depth + 1, inner))
        elif isinstance(value, list):
            left += ((where, depth + 1, inner) for inner in value)
        elif isinstance(value, str) and not where.startswith("request."):
            demand(_is_unicode(value), where, value, "text in Unicode (UTF-8)")


def _is_unicode(text: str) -> bool:
    """Bytes that are no UTF-8 come from the command line as halves of surrogate pairs."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
