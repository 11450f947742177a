"""What a job over these columns may look like: which one is the id, which hold media, what the prompt is made of.

A guess is made to be read and changed: of two readings the one that cannot spend money on nonsense wins, and a note
says so. `draft.py` writes it down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from batchfox.core.glance import MOST_OF_THEM, Column, Glance
from batchfox.core.guess_media import Media, choose_media
from batchfox.core.guess_prompt import choose_prompt
from batchfox.core.hints import ID_NAMES, SYSTEM, WEAK_ID_WORDS, reach, words_of
from batchfox.core.shape import PROMPT_CONTENT, PROMPT_FAMILY, PROMPT_MEDIA, ROW_FIELDS

MODEL = "gemini-2.5-pro"
MAX_TOKENS = 1024
_MOST_ID = 200


class Guess(msgspec.Struct, kw_only=True):
    """`request` as it goes to `[request]`; `fields` as to `[input]`, None where it is not needed; `roles`: what each
    column was taken for, in the words of the table; `paths`: a few local media that the rows name."""

    id: str | None = None
    fields: list[str] | None = None
    request: dict[str, Any] = msgspec.field(default_factory=dict)
    taken: list[str] = msgspec.field(default_factory=list)
    roles: dict[str, str] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)
    paths: list[str] = msgspec.field(default_factory=list)


def guess(glance: Glance, *, is_whole: bool) -> Guess:
    """A job by what the sample shows. `is_whole`: the sample is all there is, so what is unique in it is unique."""
    columns = {column.name: column for column in glance.columns()}
    found = Guess()
    if glance.is_batch:
        _guess_batch(found)
        return found
    _take_fields(found, columns, glance)
    found.request = {"model": MODEL, "max_tokens": MAX_TOKENS}
    for name in ("model", "max_tokens"):
        if name in found.taken and columns[name].is_full:
            del found.request[name]
    _guess_id(found, columns, is_whole=is_whole)
    if not _guess_messages(found, columns):
        _guess_prompt(found, columns, glance)
    for column in columns.values():
        if column.is_link and column.name not in found.roles:
            found.roles[column.name] = "links (to what?)"
    return found


def _guess_batch(found: Guess) -> None:
    found.id = "custom_id"
    found.roles = {"custom_id": "id", "body": "the request"}
    found.notes.append(
        "these are lines in the OpenAI batch form: each body is sent as it is, its model included; "
        "what [request] says wins over all of them"
    )


# -- columns that are request fields by their name --------------------------------------------------------------------


def _take_fields(found: Guess, columns: dict[str, Column], glance: Glance) -> None:
    """Which columns of the API's names really are what the API means by them."""
    is_request = any(name in columns for name in ("prompt", "messages"))
    named = [column for column in columns.values() if column.name in ROW_FIELDS and column.filled]
    taken = [column.name for column in named if _is_field(column, is_request=is_request)]
    dropped = {column.name: _say_unfit(column) for column in named if column.name not in taken}
    for rival, names in (("messages", PROMPT_FAMILY), *_media_rivals(taken, columns)):
        for name in names if rival in taken else ():
            if name in taken and glance.rows_with_two_of(rival, name):
                taken.remove(name)
                dropped[name] = f"a request has either {rival} or {name}, and rows have both: {rival} is taken"
    found.taken = taken
    found.roles |= dict.fromkeys(taken, "request field")
    found.roles |= dict.fromkeys(dropped, "no request field")
    found.notes += [f"the column {name} is not taken as a request field: {why}" for name, why in dropped.items()]
    if dropped:
        found.fields = taken
    for name in taken:
        if name in MEDIA_COLUMNS:
            found.paths += columns[name].paths


MEDIA_COLUMNS = frozenset(PROMPT_MEDIA)


def _media_rivals(taken: list[str], columns: dict[str, Column]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The media field that most rows fill goes before the others."""
    media = sorted((name for name in PROMPT_MEDIA if name in taken), key=lambda name: -columns[name].filled)
    for at, name in enumerate(media):
        yield name, tuple(media[at + 1 :])


def _is_field(column: Column, *, is_request: bool) -> bool:
    """`is_request`: there is content under the API's own name, so that other such names are likely to be meant so."""
    if column.name == "model":
        return column.known_models >= MOST_OF_THEM * column.filled
    if column.name == "stop" and not is_request:
        return False  # any text passes for one, and it would cut answers short
    return column.unfit <= (1 - MOST_OF_THEM) * column.filled


def _say_unfit(column: Column) -> str:
    if column.name == "model":
        return "its values are no names of models that are known here"
    if not column.unfit:
        return "nothing says that it is one"
    return f"the API's {column.name} takes other values than {column.unfit:,} of its {column.filled:,}"


# -- the id -----------------------------------------------------------------------------------------------------------


def _guess_id(found: Guess, columns: dict[str, Column], *, is_whole: bool) -> None:
    ranked = sorted((rank, column.name) for column in columns.values() if (rank := _id_rank(column)) is not None)
    for rank, name in ranked:
        column = columns[name]
        if name in found.taken or not (is_whole or rank < _WEAK):
            continue
        if column.is_unique:
            found.id = name
            found.roles[name] = "id"
            return
        if rank < _WEAK:
            why = "is empty in some rows" if not column.is_full else "has values that stand there more than once"
            found.notes.append(f"the column {name} looks like an id, but {why}: it cannot name a row")


_WEAK = 1000


def _id_rank(column: Column) -> int | None:
    """How much the name speaks for an id, less being more; None for what can be none."""
    if column.type not in ("text", "integer", "integer or text") or column.longest > _MOST_ID or column.is_prose:
        return None
    if column.way in ("data URI", "bytes") or column.is_chat:
        return None
    words = words_of(column.name)
    spelled = "_".join(words)
    if spelled in ID_NAMES:
        return ID_NAMES.index(spelled)
    if words and words[-1] in ("id", "uuid", "guid", "key"):
        return 100
    if column.way == "path" and not column.is_list:
        return _WEAK + 500
    weak = [WEAK_ID_WORDS.index(word) for word in words if word in WEAK_ID_WORDS]
    if weak:
        return _WEAK + min(weak)
    return _WEAK + 900 if column.way == "url" and column.kind and not column.is_list else None


# -- the content ------------------------------------------------------------------------------------------------------


def _guess_messages(found: Guess, columns: dict[str, Column]) -> bool:
    """Conversations that are there already; False where there are none."""
    chat = columns.get("messages") if "messages" in found.taken else None
    if chat is None and not any(name in found.taken for name in PROMPT_CONTENT):
        chats = [column for column in columns.values() if column.is_chat and column.name not in ROW_FIELDS]
        chat = next((column for column in chats if column.is_full), None)
    if chat is None or not (chat.is_full or chat.name not in found.taken):
        return False
    is_own = chat.name == "messages"
    if chat.is_answered:
        found.request["messages"] = f"{{{{ {reach(chat.name)}[:-1] }}}}"
        found.notes.append(
            f"every conversation in {chat.name} ends with the assistant's answer; the job leaves that answer out, so "
            "that the model gives its own"
        )
    elif not is_own:
        found.request["messages"] = f"{{{{ {reach(chat.name)} }}}}"
    found.roles[chat.name] = "messages"
    return True


def _guess_prompt(found: Guess, columns: dict[str, Column], glance: Glance) -> None:
    media = choose_media([name for name in PROMPT_MEDIA if name in found.taken], columns, glance, set(found.roles))
    prompt = choose_prompt(columns, media, set(found.roles), has_own="prompt" in found.taken)
    found.roles |= prompt.roles
    for name, kind in media.columns.items():
        known = found.roles.get(name)
        found.roles[name] = f"{known}, {media.field_of(kind)}" if known else media.field_of(kind)
        found.paths += columns[name].paths
    found.notes += [*media.notes, *prompt.notes]
    content = media.make(columns, is_needed=prompt.is_about_media)
    if media.kind == "file" and media.columns:
        text = prompt.text or "{{ prompt }}"
        blocks = [{"type": "text", "text": text}, *content["blocks"]]
        found.request["messages"] = [{"role": "user", "content": blocks}]
    else:
        if prompt.text is not None:
            found.request["prompt"] = prompt.text
        found.request |= content
    for column in columns.values():
        if "_".join(words_of(column.name)) in SYSTEM and column.is_full and column.type == "text":
            if column.name not in found.roles and "messages" not in found.request:
                found.request["system_prompt"] = f"{{{{ {reach(column.name)} }}}}"
                found.roles[column.name] = "system_prompt"
            break
    _say_gaps(found, columns, media, prompt.is_about_media)


def _say_gaps(found: Guess, columns: dict[str, Column], media: Media, is_about_media: bool) -> None:
    """Rows that would be sent without what they are about, or not at all."""
    own = columns.get("prompt") if "prompt" in found.taken else None
    if own is not None and not own.is_full:
        found.notes.append(f"{own.rows - own.filled:,} of {own.rows:,} rows come without a prompt: invalid")
    if is_about_media and media.covered < media.rows:
        left = media.rows - media.covered
        becomes = "invalid" if media.columns else "they would be sent as they are, so mend the prompt or the rows"
        found.notes.append(f"{left:,} of {media.rows:,} rows come without {media.word}: {becomes}")
