"""What of a job may change between one execution and the next, and what would mix two meanings in one output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from batchfox.core.sections import SIMULATOR

# Keys (or whole tables) that say what a row means. Limits, retry, poll and the rest may change at any time.
MEANING = ("input.fields", "input.keep", "request", "media.root", "api.base_url")
# Those of them that are all in a row's request: `--retry stale` asks anew the rows whose request changed with them.
IN_REQUEST = ("request", "input.fields")
_ABSENT = object()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One key that changed, with both values as text; "(not set)" where there is none."""

    key: str
    was: str
    now: str

    @property
    def is_in_request(self) -> bool:
        """Do the rows that it concerns have another request now?"""
        return any(self.key == key or self.key.startswith(f"{key}.") for key in IN_REQUEST)

    def __str__(self) -> str:
        return f"{self.key} was {self.was}, is now {self.now}"


def changes_of_meaning(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """All changes of what gives rows their meaning."""
    return [change for key in MEANING for change in _compare(key, _find(old, key), _find(new, key))]


def refused_changes(
    old: dict[str, Any], new: dict[str, Any], *, is_unfinished: bool, has_ids: bool, asks_stale: bool = False
) -> list[Change]:
    """The changes that may not be taken over by this output.

    While a run is unfinished all that gives rows their meaning stays. After it, rows with ids may be asked anew
    (answered ones keep their answers); without ids an output belongs to one request. Simulated answers never mix with
    real ones. `asks_stale`: rows that are answered are asked anew where their request changed, so it may change at any
    time.
    """
    changes = changes_of_meaning(old, new)
    if not has_ids:
        return changes
    if is_unfinished:
        return [change for change in changes if not (asks_stale and change.is_in_request)]
    return [
        change for change in changes if change.key == "api.base_url" and f'"{SIMULATOR}"' in (change.was, change.now)
    ]


def _find(tables: Any, key: str) -> Any:
    for step in key.split("."):
        tables = tables.get(step, _ABSENT) if isinstance(tables, dict) else _ABSENT
    return tables


def _compare(key: str, was: Any, now: Any) -> Iterator[Change]:
    if isinstance(was, dict) and isinstance(now, dict):
        for name in sorted(was.keys() | now.keys()):
            yield from _compare(f"{key}.{name}", was.get(name, _ABSENT), now.get(name, _ABSENT))
    elif was is not now and was != now:
        yield Change(key=key, was=_show(was), now=_show(now))


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "(not set)"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else text[:199] + "…"
