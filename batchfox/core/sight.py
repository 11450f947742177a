"""What a value of a row looks like to somebody who looks for media: its kind, and how it is given.

Nothing is opened and nothing is fetched: a URL or a path is judged by its ending, a data URI by its head, bytes by
their first few. `guess.py` and `glance.py` build on this.
"""

from __future__ import annotations

import re
from typing import Any, Literal, cast

import msgspec

from batchfox.core.coercion import coerce
from batchfox.core.mime import HEAD_BYTES, mime_of, sniff
from batchfox.core.shape import Kind

Way = Literal["url", "path", "data URI", "bytes"]

_UNKNOWN = "application/octet-stream"
_DOCUMENTS = frozenset({".pdf", ".docx", ".xlsx", ".pptx", ".txt", ".md", ".csv"})
_DATA = re.compile(r"(?i)data:([a-z]+)/[a-z0-9.+-]+;base64,")
_YOUTUBE = re.compile(r"(?i)https?://(?:[\w-]+\.)*(?:youtube\.com/(?:watch|shorts/)|youtu\.be/)")
_MOST_PATH = 300
_KINDS = ("image", "video", "audio")


class Sight(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A medium, or a link that does not say what is behind it (`kind` None). `is_list`: several of one kind."""

    kind: Kind | None
    way: Way
    is_list: bool = False


def sight_of(value: Any) -> Sight | None:
    """What is seen in a value; None for what is no medium and no link. A list counts where all of it is of one kind.

    `{"bytes": …, "path": …}`, which `datasets` makes of images and audio, is seen as what it holds.
    """
    if isinstance(value, (bytes, bytearray)):
        return _of_mime(sniff(bytes(value[:HEAD_BYTES])), "bytes")
    if isinstance(value, dict):
        return (sight_of(value["bytes"]) or sight_of(value["path"])) if value.keys() == {"bytes", "path"} else None
    if isinstance(value, list):
        return _of_list(value)
    return _of_text(value) if isinstance(value, str) else None


def _of_list(values: list[Any]) -> Sight | None:
    seen = {None if isinstance(value, (list, dict)) else sight_of(value) for value in values[:100]}
    kinds = {sight.kind for sight in seen if sight is not None}
    if None in seen or len(kinds) != 1:
        return None
    sight = next(iter(seen))
    assert sight is not None
    return Sight(kind=sight.kind, way=sight.way, is_list=True)


def _of_text(text: str) -> Sight | None:
    head = text[:8].lower()
    if head.startswith("data:"):
        data = _DATA.match(text)
        kind = "" if data is None else data[1].lower()
        return Sight(kind=cast(Kind, kind if kind in _KINDS else "file"), way="data URI") if data else None
    if text.startswith("["):
        listed = coerce("image_urls", text)
        return _of_list(listed) if isinstance(listed, list) else None
    if len(text) > 4096 or "\n" in text:
        return None
    if head.startswith(("http://", "https://")):
        if " " in text:
            return None
        kind = "video" if _YOUTUBE.match(text) else _kind_by_ending(re.split(r"[?#]", text, maxsplit=1)[0])
        return Sight(kind=cast("Kind | None", kind), way="url")
    kind = _kind_by_ending(text) if len(text) <= _MOST_PATH else None
    return Sight(kind=cast(Kind, kind), way="path") if kind else None


def _kind_by_ending(path: str) -> str | None:
    name = path.rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    if not dot or not stem or len(ending) > 5:
        return None
    suffix = f".{ending.lower()}"
    if suffix in _DOCUMENTS:
        return "file"
    mime = mime_of(b"", suffix, "file") or _UNKNOWN
    return mime.partition("/")[0] if mime.startswith(tuple(f"{kind}/" for kind in _KINDS)) else None


def _of_mime(mime: str | None, way: Way) -> Sight | None:
    if mime is None:
        return None
    kind = mime.partition("/")[0]
    return Sight(kind=cast(Kind, kind if kind in _KINDS else "file"), way=way)


def is_chat(value: Any) -> bool:
    """Is it a conversation: a list, or its JSON, of objects with role and content?"""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = coerce("messages", value)
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(message, dict) and "role" in message and "content" in message for message in value)


def ends_with_answer(value: Any) -> bool:
    """Does a conversation, which is no text, end with what the assistant said?"""
    return isinstance(value, list) and len(value) > 1 and is_chat(value) and value[-1]["role"] == "assistant"
