"""Which input columns travel into the output, and under which names.

Source: contract.md, `[input] keep` and "…input columns". The name of a column depends on its own spelling alone, so it
is the same in every run, whichever row came first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

PREFIX = "input_"
_HEAD = 256
_PLAIN = frozenset({int, float, bool, type(None)})
_T = TypeVar("_T")


def is_data_uri(text: str) -> bool:
    """`data:<type>;base64,…`: a medium, not text."""
    return text[:5].lower() == "data:" and ";base64," in text[:_HEAD].lower()


def _holds_medium(value: Any) -> bool:
    """Binary or a data URI, at any depth."""
    kind = type(value)
    if kind is str:
        return value[:1] in "dD" and is_data_uri(value)
    if kind in _PLAIN:
        return False
    if isinstance(value, (bytes, bytearray, memoryview)):
        return True
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    for item in items:  # noqa: SIM110 - every row passes here, and a loop costs half of what any() does
        if _holds_medium(item):
            return True
    return False


class Carry:
    """`keep` applied to rows. `"*"` is every column but binary ones and data URIs; a name is always kept; other
    patterns (`meta_*`) work as `"*"` among the names they match. `taken`: the output's own columns; `binary`: columns
    that the input declares as such, so that a null in one of them is no column either. `hide`: takes out of a name what
    must not be seen."""

    def __init__(
        self,
        keep: Iterable[str],
        taken: Iterable[str],
        *,
        binary: Iterable[str] = (),
        hide: Callable[[str], str] = str,
    ) -> None:
        keep = list(keep)
        self._outright = {name for name in keep if not set(name) & set("*?[")}
        self._patterns = [name for name in keep if set(name) & set("*?[")]
        self._taken = {name.casefold() for name in taken}
        self._binary = frozenset(binary)
        self._hide = hide
        self._names: dict[str, tuple[str, bool] | None] = {}

    def select(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Output name → value of what travels. A data URI that came with `"*"` is left out for its row."""
        kept: dict[str, Any] = {}
        for name, value in columns.items():
            try:
                known = self._names[name]
            except KeyError:
                known = self._names[name] = self._decide(name)
            if known is None:
                continue
            output_name, is_outright = known
            if is_outright or not _holds_medium(value):
                kept[output_name] = value
        return kept

    def types(self, known: Mapping[str, _T]) -> dict[str, _T]:
        """Output name → type of the columns that travel and whose types are known before the first row."""
        decided = ((self._decide(name), kind) for name, kind in known.items())
        return {found[0]: kind for found, kind in decided if found is not None}

    def _decide(self, name: str) -> tuple[str, bool] | None:
        is_outright = name in self._outright
        if not is_outright and (
            name in self._binary or not any(fnmatchcase(name, pattern) for pattern in self._patterns)
        ):
            return None
        return self._hide(PREFIX + name if self._clashes(name) else name), is_outright

    def _clashes(self, name: str) -> bool:
        """Is this one of the output's own names, or what such a name becomes (`input_text`, `input_input_text`, …)?
        Each of these gets one prefix more, so that no two columns get the same name."""
        rest = name.casefold()
        while rest not in self._taken:
            if not rest.startswith(PREFIX):
                return False
            rest = rest[len(PREFIX) :]
        return True
