"""What the API refuses, checked before any money: `check(request, book)` → complaints.

Rules run twice (design.md, "The way of a row"): on the rendered request, where a medium may be anything that `[media]`
can send, and with `final=True` on the body as it goes out. Source of every limit: seeds 000-004, then api.md; the
limits themselves are data in `rulebook.py`. Any JSON-like value may come in; nothing here raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from batchfox.core.complaint import Complaint, Place, complain, show, spell
from batchfox.core.medium_rules import check_media, rewrite, rewrite_shorts
from batchfox.core.rulebook import (
    LEAST_INTEGER,
    MOST_BODY_BYTES,
    MOST_DEPTH,
    MOST_INTEGER,
    MOST_PROMPT,
    MOST_SYSTEM_PROMPT,
    ModelFacts,
    RuleBook,
    rule_names,
)
from batchfox.core.shape import BLOCK_TYPES, PROMPT_FAMILY, PROMPT_MEDIA, media_of, shape_of

__all__ = ["Complaint", "RuleBook", "check", "check_body", "rewrite", "rewrite_shorts", "rule_names"]

_MB = 1_000_000


def check(request: dict[str, Any], book: RuleBook, *, final: bool = False) -> list[Complaint]:
    """Every rule the request breaks, warnings among them; a request without a refusal can be encoded and hashed.

    `final` False: a local path, a `file:` URL, bytes and YouTube Shorts still pass as media, since `[media]` and
    `rewrite` turn them into what the API takes.
    """
    media = media_of(request) if isinstance(request, dict) else []
    unsendable = _find_unsendable(request, () if final else {medium.place for medium in media})
    if unsendable is not None:
        return [unsendable]
    found: list[Complaint] = []
    custom = shape_of(request) == "custom"
    facts = book.facts_of(request.get("model"))
    if "model" not in request:
        found.append(complain("model", "model", "nothing", _FIELDS["model"].allowed))
    for name, value in request.items():
        field = _FIELDS.get(name)
        if field is not None and not (field.nullable if value is None else field.holds(value, custom)):
            found.append(_complain_of_field(name, field, value, custom))
    found += _check_family(request)
    if custom:
        found += _check_messages(request["messages"])
        found += _check_custom_model(request, facts)
    elif request.get("prompt") is None and request.get("audio_url") is None:
        allowed = f"text of at most {MOST_PROMPT:,} characters; or messages, or audio_url"
        found.append(complain("prompt", "prompt", "nothing", allowed))
    if media or "image_urls" in request or "video_urls" in request:
        found += check_media(request, facts, media, final=final)
    return [complaint for complaint in found if complaint.rule not in book.off] if found else found


def check_body(body: bytes, request: dict[str, Any], book: RuleBook | None = None) -> list[Complaint]:
    """The size of the encoded body, bytes: see `most_body_bytes`."""
    return check_size(len(body), request, book)


def check_size(size: int, request: dict[str, Any], book: RuleBook | None = None) -> list[Complaint]:
    """The same of a body that is still to be made, by its bytes."""
    book = book or RuleBook()
    most = most_body_bytes(request, book)
    if most is None or size <= most:
        return []
    found, allowed = f"{size / _MB:,.2f} MB", f"at most {most // _MB} MB, all media included"
    return [complain("body_size", "body", found, allowed)]


def most_body_bytes(request: dict[str, Any], book: RuleBook) -> int | None:
    """How large the request may be as a body: 100 MB, for gemini 20 MB in the audio shape (api.md, "audio"). None: the
    rule is off."""
    if "body_size" in book.off:
        return None
    facts = book.facts_of(request.get("model"))
    if facts is not None and facts.most_audio_body_bytes is not None and shape_of(request) == "audio":
        return min(facts.most_audio_body_bytes, MOST_BODY_BYTES)
    return MOST_BODY_BYTES


# -- fields: one line each -------------------------------------------------------------------------------------------


class _Field(msgspec.Struct, frozen=True, kw_only=True):
    """`holds(value, custom)` of a field's value that is not null; `in_custom`: what is allowed there, if different."""

    rule: str
    holds: Callable[[Any, bool], bool]
    allowed: str
    in_custom: str | None = None
    nullable: bool = True


_TEXTS = ("prompt", "system_prompt")


def _complain_of_field(name: str, field: _Field, value: Any, custom: bool) -> Complaint:
    shown = "null" if value is None else show(value)
    if isinstance(value, str) and len(value) > MOST_SYSTEM_PROMPT:
        shown = f"{len(value):,} characters"
    allowed = (custom and field.in_custom) or field.allowed
    if name in _TEXTS and isinstance(value, int | float):
        # One whole expression keeps its type (contract.md, "Templates"), and so does a column.
        shown += ", a number" if not isinstance(value, bool) else ", no text"
        allowed += f'; {name} = "{{{{ COLUMN | string }}}}" in [request] sends it as text'
    return complain(field.rule, name, shown, allowed)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_BOOLEAN = _Field(rule="flags", holds=lambda value, _: isinstance(value, bool), allowed="true or false", nullable=False)
_FIELDS: dict[str, _Field] = {
    "model": _Field(
        rule="model",
        holds=lambda value, _: isinstance(value, str) and bool(value.strip()),
        allowed='the name of a model, such as "gemini-2.5-pro"',
        nullable=False,
    ),
    "prompt": _Field(
        rule="prompt",
        holds=lambda value, _: isinstance(value, str) and len(value) <= MOST_PROMPT,
        allowed=f"text of at most {MOST_PROMPT:,} characters",
    ),
    "system_prompt": _Field(
        rule="system_prompt",
        holds=lambda value, _: isinstance(value, str) and len(value) <= MOST_SYSTEM_PROMPT,
        allowed=f"text of at most {MOST_SYSTEM_PROMPT:,} characters, or null",
    ),
    "max_tokens": _Field(
        rule="max_tokens",
        holds=lambda value, _: type(value) is int and value >= 1,
        allowed="an integer, 1 or more, or null",
    ),
    "temperature": _Field(
        rule="temperature",
        holds=lambda value, custom: _is_number(value) and (custom or 0 <= value <= 2),
        allowed="a number from 0 to 2, or null",
        in_custom="a finite number, or null",
    ),
    "top_p": _Field(rule="top_p", holds=lambda value, _: _is_number(value), allowed="a number, or null"),
    # Undocumented with messages: there it passes through, as every other OpenAI parameter does.
    "reasoning": _Field(
        rule="flags",
        holds=lambda value, custom: custom or isinstance(value, bool),
        allowed="true, false or null",
    ),
    "sync": _BOOLEAN,
    "stream": _BOOLEAN,
}


# -- shape ------------------------------------------------------------------------------------------------------------


def _check_family(request: dict[str, Any]) -> Iterator[Complaint]:
    if request.get("messages") is not None:
        for name in PROMPT_FAMILY:
            if request.get(name) is not None:
                yield complain("family", name, f"{name} beside messages", "messages alone, or a prompt and its media")
        return
    media = [name for name in PROMPT_MEDIA if request.get(name) is not None]
    if len(media) > 1:
        allowed = "at most one of " + ", ".join(PROMPT_MEDIA) + "; or messages, which may mix media"
        yield complain("family", media[1], " and ".join(media) + " together", allowed)


def _check_messages(messages: Any) -> Iterator[Complaint]:
    if not isinstance(messages, list) or not messages:
        found = "an empty list" if messages == [] else show(messages)
        yield complain("messages", "messages", found, "a list of objects with role and content, not empty")
        return
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            yield complain("messages", f"messages[{at}]", show(message), "an object with role and content")
            continue
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not role:
            yield complain("messages", f"messages[{at}].role", show(role), 'text such as "user", "system", "assistant"')
        if isinstance(content, list) and content:
            for block_at, block in enumerate(content):
                yield from _check_block(block, f"messages[{at}].content[{block_at}]")
        elif not isinstance(content, str) and (content is not None or not _calls_tools(message)):
            allowed = "text, or a list of blocks, not empty (null only where an assistant calls tools)"
            yield complain("messages", f"messages[{at}].content", show(content), allowed)


def _calls_tools(message: dict[str, Any]) -> bool:
    return message.get("role") == "assistant" and bool(message.get("tool_calls") or message.get("function_call"))


def _check_block(block: Any, field: str) -> Iterator[Complaint]:
    if not isinstance(block, dict):
        yield complain("block", field, show(block), f"an object whose type is one of {', '.join(BLOCK_TYPES)}")
        return
    name = block.get("type")
    if not isinstance(name, str) or name not in BLOCK_TYPES:
        yield complain("block", f"{field}.type", show(name), ", ".join(BLOCK_TYPES))
    elif name == "text":
        if not isinstance(block.get("text"), str):
            yield complain("block", f"{field}.text", show(block.get("text")), "text")
    elif not isinstance(block.get(name), (dict, str, bytes)):
        yield complain("block", f"{field}.{name}", show(block.get(name)), f'{{"url": "…"}} in {name}')


def _check_custom_model(request: dict[str, Any], facts: ModelFacts | None) -> Iterator[Complaint]:
    """What a model demands of max_tokens with messages, and what the custom shape does not document."""
    if request.get("sync"):
        allowed = "sync is documented for prompts only; with messages the API may ignore it"
        yield complain("sync_custom", "sync", show(request["sync"]), allowed, severity="warning")
    if facts is None:
        return
    tokens = request.get("max_tokens")
    if facts.requires_max_tokens and tokens is None:
        yield complain("max_tokens_required", "max_tokens", "nothing", f"an integer: {facts.match} requires it")
    least = facts.least_max_tokens
    if least is not None and type(tokens) is int and tokens < least:
        allowed = f"{least} or more for {facts.match}"
        severity = facts.least_max_tokens_severity
        yield complain("max_tokens_least", "max_tokens", show(tokens), allowed, severity=severity)


# -- what JSON cannot carry -------------------------------------------------------------------------------------------


def _find_unsendable(request: dict[str, Any], may_be_bytes: set[Place] | tuple[()]) -> Complaint | None:
    """The first value that could not be sent as it is meant. The quick look has no paths; the slow one finds them."""
    if not isinstance(request, dict):
        return complain("json", "request", show(request), "an object")
    if _is_sendable(request, MOST_DEPTH):
        return None
    return next(_walk(request, (), may_be_bytes), None)


def _is_sendable(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is str:
        return value.isascii() or _is_unicode(value)
    if kind is dict:
        if depth <= 0:
            return False
        for key, item in value.items():
            if type(key) is not str or not (key.isascii() or _is_unicode(key)):
                return False
            if not (type(item) is str and item.isascii()) and not _is_sendable(item, depth - 1):
                return False
        return True
    if kind is list:
        if depth <= 0:
            return False
        for item in value:
            if not (type(item) is str and item.isascii()) and not _is_sendable(item, depth - 1):
                return False
        return True
    if kind is int:
        return bool(LEAST_INTEGER <= value <= MOST_INTEGER)
    if kind is float:
        return math.isfinite(value)
    return value is None or kind is bool


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(value: Any, place: Place, may_be_bytes: set[Place] | tuple[()]) -> Iterator[Complaint]:
    field = spell(place) or "request"
    if type(value) in (dict, list):
        if len(place) >= MOST_DEPTH:
            yield complain("json", spell(place[:3]) + "…", f"more than {MOST_DEPTH} levels", f"{MOST_DEPTH} at most")
            return
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict) and (type(key) is not str or not _is_unicode(key)):
                yield complain("json", field, f"the key {show(key)}", "keys that are Unicode text")
            else:
                yield from _walk(item, (*place, key), may_be_bytes)
    elif isinstance(value, bytes) and place in may_be_bytes:
        return
    elif not _is_sendable(value, 1):
        yield complain("json", field, _describe(value), "JSON: text in Unicode, finite numbers, 64-bit integers")


def _describe(value: Any) -> str:
    if isinstance(value, str):
        return f"{show(value)}, which holds half a surrogate pair" if type(value) is str else show(value)
    return show(value)
