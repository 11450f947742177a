"""The request's anatomy: names of the API's fields as data, its shape, and where its media sit.

Source: seeds 000-004, api.md "Submit". Every function takes any JSON-like value and never raises: what is malformed
is left to `rules.py`. None counts as left out.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchfox.core.complaint import Place

Shape = Literal["text", "vision", "video", "audio", "custom"]
Kind = Literal["image", "video", "audio", "file"]
Want = Literal["text", "integer", "number", "boolean", "urls", "url", "json", "text or json"]

# The names a row's own column may fill without being asked for.
ROW_FIELDS: tuple[str, ...] = (
    "model",
    "prompt",
    "messages",
    "image_urls",
    "video_urls",
    "audio_url",
    "max_tokens",
    "temperature",
    "system_prompt",
    "reasoning",
    "stream",
    "sync",
    "top_p",
    "stop",
    "frequency_penalty",
)

# A request holds the content of one family. `system_prompt` belongs to the prompt but does not make the shape.
CUSTOM_CONTENT: tuple[str, ...] = ("messages",)
PROMPT_MEDIA: tuple[str, ...] = ("image_urls", "video_urls", "audio_url")
PROMPT_CONTENT: tuple[str, ...] = ("prompt", *PROMPT_MEDIA)
PROMPT_FAMILY: tuple[str, ...] = (*PROMPT_CONTENT, "system_prompt")

# What a field wants, for input that knows only text (CSV, templates). A field that is not here takes what comes.
WANTS: dict[str, Want] = {
    "model": "text",
    "prompt": "text",
    "system_prompt": "text",
    "messages": "json",
    "image_urls": "urls",
    "video_urls": "urls",
    "audio_url": "url",
    "max_tokens": "integer",
    "temperature": "number",
    "top_p": "number",
    "reasoning": "boolean",
    "sync": "boolean",
    "stream": "boolean",
    "stop": "text or json",
    "frequency_penalty": "number",
    "presence_penalty": "number",
    "max_completion_tokens": "integer",
    "n": "integer",
    "seed": "integer",
    "top_logprobs": "integer",
    "logprobs": "boolean",
    "parallel_tool_calls": "boolean",
    "logit_bias": "json",
    "metadata": "json",
    "modalities": "json",
    "response_format": "json",
    "stream_options": "json",
    "tools": "json",
    "tool_choice": "text or json",
}

# Where media sit: in the prompt shapes a field each, in `messages` a block each.
MEDIA_FIELDS: dict[str, Kind] = {"image_urls": "image", "video_urls": "video", "audio_url": "audio"}
MEDIA_BLOCKS: dict[str, Kind] = {
    "image_url": "image",
    "video_url": "video",
    "audio_url": "audio",
    "file_url": "file",
}
BLOCK_TYPES: tuple[str, ...] = ("text", *MEDIA_BLOCKS)


class Medium(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One medium of a request: its kind, its place (keys and indices from the request down), its value as found."""

    kind: Kind
    place: Place
    value: Any


def shape_of(request: dict[str, Any]) -> Shape:
    """The shape, told by the fields present; `messages` first, then the rarest medium. Nothing at all is text."""
    if request.get("messages") is not None:
        return "custom"
    if request.get("audio_url") is not None:
        return "audio"
    if request.get("video_urls") is not None:
        return "video"
    if request.get("image_urls") is not None:
        return "vision"
    return "text"


def media_of(request: dict[str, Any]) -> list[Medium]:
    """Every medium in order: image_urls, video_urls, audio_url, then the blocks of `messages`.

    A block's medium is its `{"url": …}`, or the plain text that some writers put in its place.
    """
    found: list[Medium] = []
    for field, kind in MEDIA_FIELDS.items():
        value = request.get(field)
        if value is None:
            continue
        if field == "audio_url":
            found.append(Medium(kind=kind, place=(field,), value=value))
        elif isinstance(value, list):
            found += [Medium(kind=kind, place=(field, at), value=item) for at, item in enumerate(value)]
    messages = request.get("messages")
    if isinstance(messages, list):
        for at, message in enumerate(messages):
            content = message.get("content") if isinstance(message, dict) else None
            if isinstance(content, list):
                _find_in_blocks(content, at, found)
    return found


def _find_in_blocks(content: list[Any], message_at: int, found: list[Medium]) -> None:
    for at, block in enumerate(content):
        if not isinstance(block, dict):
            continue
        name = block.get("type")
        if not isinstance(name, str) or name not in MEDIA_BLOCKS:
            continue
        kind = MEDIA_BLOCKS[name]
        place: Place = ("messages", message_at, "content", at, name)
        holder = block.get(name)
        if isinstance(holder, dict):
            found.append(Medium(kind=kind, place=(*place, "url"), value=holder.get("url")))
        elif holder is not None:
            found.append(Medium(kind=kind, place=place, value=holder))


def replace_media(request: dict[str, Any], new: dict[Place, Any]) -> dict[str, Any]:
    """The request with the values at these places replaced. Only the way down to them is copied; none is changed.

    The places are those of `media_of`, or others that exist.
    """
    fresh: dict[Place, Any] = {(): dict(request)}
    for place, value in new.items():
        for depth in range(1, len(place)):
            at = place[:depth]
            if at not in fresh:
                parent = fresh[place[: depth - 1]]
                copied = parent[place[depth - 1]].copy()
                parent[place[depth - 1]] = copied
                fresh[at] = copied
        fresh[place[:-1]][place[-1]] = value
    result: dict[str, Any] = fresh[()]
    return result
