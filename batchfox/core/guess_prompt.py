"""What the prompt is made of: a question that rows bring, a text that they hold, or the medium alone."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from batchfox.core.glance import Column
from batchfox.core.guess_media import Media
from batchfox.core.hints import ANSWERS, ASKING, BESIDE, SYSTEM, TELLING, reach, words_of
from batchfox.core.shape import Kind

ABOUT_MEDIA: dict[Kind, str] = {
    "image": "Describe this image in one sentence.",
    "video": "Describe this video in one sentence.",
    "audio": "Transcribe this recording. If there is no speech, describe the sound.",
    "file": "Summarize this document in three sentences.",
}
_SHORT = 60
_MOST_LINES = 8


class Prompt(msgspec.Struct, kw_only=True):
    """`text` None: rows bring their own. `is_about_media`: it makes no sense without the medium."""

    text: str | None = None
    is_about_media: bool = False
    roles: dict[str, str] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)


def choose_prompt(columns: dict[str, Column], media: Media, roles: set[str], *, has_own: bool) -> Prompt:
    """The prompt for these columns, those aside that have a role already."""
    if has_own:
        return Prompt()
    free = [column for column in columns.values() if column.name not in roles and _is_text(column)]
    asking = _first_by_name(ASKING, (column for column in free if column.is_prose or column.is_full))
    if asking is not None:
        return _ask(asking, free)
    if media.kind is not None and (media.covered == media.rows or not free):
        text = "Describe this in one sentence." if media.is_either else ABOUT_MEDIA[media.kind]
        return Prompt(text=text, is_about_media=True)
    telling = _first_by_name(TELLING, (column for column in free if column.is_full))
    if telling is None:
        prose = [column for column in free if column.is_prose]
        telling = max(prose, key=lambda column: (column.is_full, column.mean_length), default=None)
    if telling is None:
        return _tell_record(columns)
    value = f"{{{{ {reach(telling.name)} }}}}"
    is_short = telling.mean_length < _SHORT
    text = f"Write one sentence about {value}." if is_short else f"Summarize this text in one sentence.\n\n{value}"
    return Prompt(text=text, roles={telling.name: "prompt"}, notes=_say_gaps(telling))


def _is_text(column: Column) -> bool:
    if column.type != "text" or column.way is not None or column.is_chat or not column.filled:
        return False
    return ANSWERS.isdisjoint(words_of(column.name)) and "_".join(words_of(column.name)) not in SYSTEM


def _first_by_name(names: tuple[str, ...], among: Iterable[Column]) -> Column | None:
    """The column whose name holds the first of these words that any of them holds."""
    ranked = [
        (names.index(word), at, column)
        for at, column in enumerate(among)
        for word in words_of(column.name)
        if word in names
    ]
    return min(ranked, key=lambda entry: entry[:2])[2] if ranked else None


def _ask(asking: Column, free: list[Column]) -> Prompt:
    """A question; before it what it is about, behind an instruction what it is to be done to."""
    value = reach(asking.name)
    beside = _first_by_name(BESIDE, (column for column in free if column is not asking))
    text, roles = f"{{{{ {value} }}}}", {asking.name: "prompt"}
    if beside is not None:
        other = reach(beside.name)
        roles[beside.name] = "prompt"
        if "input" in words_of(beside.name):
            text = f"{text}{{% if {other} %}}\n\n{{{{ {other} }}}}{{% endif %}}"
        else:
            text = f"{{% if {other} %}}{{{{ {other} }}}}\n\n{{% endif %}}{text}"
    return Prompt(text=text, roles=roles, notes=_say_gaps(asking))


def _say_gaps(column: Column) -> list[str]:
    if column.is_full:
        return []
    return [f"{column.rows - column.filled:,} of {column.rows:,} rows come without {column.name}: invalid"]


def _tell_record(columns: dict[str, Column]) -> Prompt:
    """No text to speak of: the row's values, a line each."""
    shown = [column for column in columns.values() if column.filled and column.way is None and column.type != "binary"]
    lines = [f"{column.name}: {{{{ {_value(column)} }}}}" for column in shown[:_MOST_LINES] if "{" not in column.name]
    text = "\n".join(["Describe this record in one sentence.", "", *lines])
    return Prompt(text=text, roles={column.name: "prompt" for column in shown[:_MOST_LINES]})


def _value(column: Column) -> str:
    name = reach(column.name)
    return f"{name} | default('', true)" if not column.is_full else name
