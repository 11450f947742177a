"""What the API refuses of the custom shape's `messages`: the OpenAI chat form with five types of blocks."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from batchfox.simulator.catalogue import Capability, Model
from batchfox.simulator.media import Medium, check_audio, check_single, check_source, check_youtube
from batchfox.simulator.refusal import invalid

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_MEDIA: dict[str, tuple[Medium, Capability]] = {
    "image_url": ("image", "vision"),
    "video_url": ("video", "video"),
    "audio_url": ("audio", "audio"),
    "file_url": ("file", "file"),
}


def check_messages(messages: object, model: Model) -> None:
    """A list of one message or more, each with a role and a content that the model takes."""
    if not isinstance(messages, list) or not messages:
        raise invalid("messages: expected a list of one message or more")
    media: Counter[str] = Counter()
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(message, dict):
            raise invalid(f"{place}: expected an object")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise invalid(f"{place}.role: expected one of {', '.join(sorted(_ROLES))}")
        _check_content(message, f"{place}.content", model, media)
    check_single(model, images=media["image"], videos=media["video"], field="messages")


def _check_content(message: dict[str, Any], place: str, model: Model, media: Counter[str]) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    # An assistant's turn that only calls tools has no content.
    if content is None and message["role"] == "assistant" and message.get("tool_calls"):
        return
    if not isinstance(content, list) or not content:
        raise invalid(f"{place}: expected a string or a list of blocks")
    for index, block in enumerate(content):
        _check_block(block, f"{place}[{index}]", model, media)


def _check_block(block: object, place: str, model: Model, media: Counter[str]) -> None:
    if not isinstance(block, dict):
        raise invalid(f"{place}: expected an object")
    kind = block.get("type")
    if kind == "text":
        if not isinstance(block.get("text"), str):
            raise invalid(f"{place}.text: expected a string")
        return
    if not isinstance(kind, str) or kind not in _MEDIA:
        raise invalid(f"{place}.type: expected text, {', '.join(_MEDIA)}, found {kind!r}", "unsupported_content_type")
    medium, capability = _MEDIA[kind]
    if capability not in model.capabilities:
        raise invalid(f"{place}.type: model {model.id} takes no {kind}", "model_not_support_capability")
    source = block.get(kind)
    url = source.get("url") if isinstance(source, dict) else None
    if not isinstance(url, str):
        raise invalid(f'{place}.{kind}: expected {{"url": "..."}}')
    where = f"{place}.{kind}.url"
    if medium == "audio":
        check_audio(url, model, where)
    else:
        check_source(url, medium, where)
    if medium == "video" and url[:5].lower() != "data:":
        check_youtube(urlsplit(url), model, where)
    media[medium] += 1
