"""Which columns hold the media of a request, and how `[request]` reaches them."""

from __future__ import annotations

from typing import Any

import msgspec

from batchfox.core.glance import Column, Glance
from batchfox.core.hints import LESSER, kind_word, reach, words_of
from batchfox.core.shape import MEDIA_FIELDS, ROW_FIELDS, Kind

FIELD_OF: dict[Kind, str] = {kind: field for field, kind in MEDIA_FIELDS.items()}
# Where several kinds are there for every row, the rarer one is what the row is about.
_BEFORE: tuple[Kind, ...] = ("video", "audio", "image", "file")


class Media(msgspec.Struct, kw_only=True):
    """The media of the requests. `columns`: those that `[request]` has to name, each with its kind; `own`: fields that
    rows bring under the API's own name. `covered`: rows that have one of them. `is_either`: each row has one kind."""

    rows: int
    covered: int = 0
    kind: Kind | None = None
    own: list[str] = msgspec.field(default_factory=list)
    columns: dict[str, Kind] = msgspec.field(default_factory=dict)
    is_either: bool = False
    notes: list[str] = msgspec.field(default_factory=list)

    @property
    def word(self) -> str:
        return "medium" if self.kind is None or self.is_either else str(self.kind)

    def field_of(self, kind: Kind) -> str:
        return FIELD_OF.get(kind, "file in messages")

    def make(self, columns: dict[str, Column], *, is_needed: bool) -> dict[str, Any]:
        """The fields of `[request]`; for files `blocks` of a message. `is_needed`: a row without is to be invalid."""
        made: dict[str, Any] = {}
        for kind in dict.fromkeys(self.columns.values()):
            names = [name for name, of in self.columns.items() if of == kind]
            first = columns[names[0]]
            expression = _reach_medium(first)
            for name in names[1:]:
                expression += f" | default({_reach_medium(columns[name])}, true)"
            may_lack = self.is_either or not (is_needed or self.covered == self.rows)
            if kind == "file":
                made["blocks"] = [{"type": "file_url", "file_url": {"url": f"{{{{ {expression} }}}}"}}]
            elif may_lack:
                made[FIELD_OF[kind]] = f"{{{{ {expression} | default('', true) }}}}"
            elif kind == "audio" or any(columns[name].is_list for name in names):
                made[FIELD_OF[kind]] = f"{{{{ {expression} }}}}"
            else:
                made[FIELD_OF[kind]] = [f"{{{{ {expression} }}}}"]
        return made


def _reach_medium(column: Column) -> str:
    name = reach(column.name)
    return f"{name}.bytes | default({name}.path, true)" if column.is_struct else name


def choose_media(own: list[str], columns: dict[str, Column], glance: Glance, roles: set[str]) -> Media:
    """Fields under the API's own names win; else the kind that most rows have, in the column that most rows fill."""
    chosen = Media(rows=glance.rows, own=own)
    if own:
        chosen.covered = glance.rows_with(*own)
        chosen.kind = MEDIA_FIELDS[own[0]]
        chosen.is_either = len(own) > 1
        return chosen
    by_kind: dict[Kind, list[Column]] = {}
    for column in columns.values():
        kind = kind_of(column)
        if kind is not None and (column.name not in roles or column.way is not None) and column.name not in ROW_FIELDS:
            by_kind.setdefault(kind, []).append(column)
    if not by_kind:
        return chosen
    for group in by_kind.values():
        group.sort(key=lambda column: (_is_lesser(column), -column.filled))
    kinds = sorted(by_kind, key=lambda kind: (-by_kind[kind][0].filled, _BEFORE.index(kind)))
    chosen.kind = kinds[0]
    _add(chosen, chosen.kind, by_kind, glance)
    for kind in kinds[1:]:
        names = (*chosen.columns, by_kind[kind][0].name)
        if "file" not in (kind, chosen.kind) and not glance.rows_with_two_of(*names):
            _add(chosen, kind, by_kind, glance)
            chosen.is_either = True
    chosen.covered = glance.rows_with(*chosen.columns)
    left = [column.name for group in by_kind.values() for column in group if column.name not in chosen.columns]
    if left:
        chosen.notes.append(
            f"media too, and not in the request: {', '.join(left[:10])}"
            f"{f', and {len(left) - 10} more' if len(left) > 10 else ''}"
        )
    return chosen


def _add(chosen: Media, kind: Kind, by_kind: dict[Kind, list[Column]], glance: Glance) -> None:
    """The best column of a kind, and those that are filled just where it is not."""
    for column in by_kind[kind]:
        same = [name for name, of in chosen.columns.items() if of == kind]
        if not same or (
            glance.rows_with(*same) < glance.rows and not glance.rows_with_two_of(*chosen.columns, column.name)
        ):
            chosen.columns[column.name] = kind


def kind_of(column: Column) -> Kind | None:
    """The kind of medium in a column: as its values show, else, for links, as its name says."""
    if column.kind is None and not (column.is_link and kind_word(column.name)):
        return None
    kind = column.kind or kind_word(column.name)
    # `audio_url` is one medium; a list of them, or of files, would need messages of its own.
    return None if column.is_list and kind in ("audio", "file") else kind


def _is_lesser(column: Column) -> bool:
    return not LESSER.isdisjoint(words_of(column.name))
