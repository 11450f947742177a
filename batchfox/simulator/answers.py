"""Answers as a function of the request alone: the same request is answered the same, by any simulator, at any time."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import msgspec

from batchfox.simulator.draws import digest_of

Shape = Literal["text", "vision", "video", "audio", "custom"]

_HEAD_CHARS = 200
_QUOTED_CHARS = 60
_CHARS_A_TOKEN = 4
_EPOCH = 1_770_000_000
_DAY_S = 86_400
_MEDIA_TOKENS = {"image": 258, "video": 20_000, "audio": 1_500, "file": 3_000}


class Brief(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is kept of a request: enough for its answer, without its media. `prompt_head`: 200 characters at most.
    `media`: what arrived of each medium (`arrivals.py`)."""

    digest: str
    model: str
    shape: Shape
    prompt_head: str
    prompt_tokens: int
    images: int = 0
    videos: int = 0
    audios: int = 0
    files: int = 0
    max_tokens: int | None = None
    reasoning: bool | None = None
    media: tuple[str, ...] = ()


def shape_of(request: dict[str, Any]) -> Shape | None:
    """The request's shape, told by the fields present (null counts as absent); None where none fits."""
    for field, shape in _SHAPES:
        if request.get(field) is not None:
            return shape
    return None


_SHAPES: tuple[tuple[str, Shape], ...] = (
    ("messages", "custom"),
    ("audio_url", "audio"),
    ("video_urls", "video"),
    ("image_urls", "vision"),
    ("prompt", "text"),
)


def brief(request: dict[str, Any], digest: str, arrived: tuple[str, ...] = ()) -> Brief:
    """The brief of a request that passed the checks."""
    texts, media = _contents(request)
    tokens = sum(-(-len(text) // _CHARS_A_TOKEN) for text in texts)
    tokens += sum(_MEDIA_TOKENS[kind] * count for kind, count in media.items())
    reasoning = request.get("reasoning")
    return Brief(
        digest=digest,
        model=request["model"],
        shape=shape_of(request) or "text",
        prompt_head=(texts[-1] if texts else "")[:_HEAD_CHARS],
        prompt_tokens=max(tokens, 1),
        images=media["image"],
        videos=media["video"],
        audios=media["audio"],
        files=media["file"],
        max_tokens=request.get("max_tokens"),
        reasoning=reasoning if isinstance(reasoning, bool) else None,
        media=arrived,
    )


def _contents(request: dict[str, Any]) -> tuple[list[str], Counter[str]]:
    """All texts, the last one asked at the end, and how many media of each kind."""
    media: Counter[str] = Counter()
    if request.get("messages") is None:
        media["image"] = len(request.get("image_urls") or ())
        media["video"] = len(request.get("video_urls") or ())
        media["audio"] = 1 if request.get("audio_url") else 0
        return [text for field in ("system_prompt", "prompt") if (text := request.get(field))], media
    others: list[str] = []
    asked: list[str] = []
    for message in request["messages"]:
        texts = asked if message["role"] == "user" else others
        content = message.get("content") or ""
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            if block["type"] == "text":
                texts.append(block["text"])
            else:
                media[block["type"].removesuffix("_url")] += 1
    return others + asked, media


def content(brief: Brief) -> str:
    """The answer's text: names what was asked and ends with the request's digest in brackets."""
    head = " ".join(brief.prompt_head.split())
    quoted = head if len(head) <= _QUOTED_CHARS else f"{head[:_QUOTED_CHARS].rstrip()}…"
    counts = ((brief.images, "image"), (brief.videos, "video"), (brief.audios, "audio"), (brief.files, "file"))
    media = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for count, kind in counts if count)
    asked = f'asked "{quoted}"' if quoted else "asked nothing"
    return f"The simulator was {asked}{f' with {media}' if media else ''}. [{brief.digest}]"


def reasoning(brief: Brief) -> str:
    """What a thinking model thinks before it answers; appears in streams only."""
    return f"The request is of the {brief.shape} shape. Its digest begins with {brief.digest[:8]}. That is all I need."


def completion_tokens(brief: Brief) -> int:
    """How many tokens the answer counts, `max_tokens` at most."""
    tokens = -(-len(content(brief)) // _CHARS_A_TOKEN)
    return tokens if brief.max_tokens is None else min(tokens, brief.max_tokens)


def finish_reason(brief: Brief) -> Literal["stop", "length"]:
    """`length` where `max_tokens` is reached. The text stays whole all the same: it proves whose answer it is."""
    return "length" if brief.max_tokens is not None and completion_tokens(brief) >= brief.max_tokens else "stop"


def usage(brief: Brief) -> dict[str, int]:
    """The tokens of the call as OpenAI counts them."""
    completion = completion_tokens(brief)
    return {
        "prompt_tokens": brief.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": brief.prompt_tokens + completion,
    }


def created(brief: Brief) -> int:
    """The answer's time: of the request too, or the same request would not have the same answer."""
    return _EPOCH + int(brief.digest[:8], 16) % _DAY_S


def completion(brief: Brief) -> dict[str, Any]:
    """The whole ChatCompletion."""
    message = {"role": "assistant", "content": content(brief)}
    return {
        "id": f"chatcmpl-{brief.digest[:24]}",
        "object": "chat.completion",
        "created": created(brief),
        "model": brief.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason(brief)}],
        "usage": usage(brief),
    }


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The ChatCompletion that a valid request is answered with: what a test holds against what arrived."""
    return completion(brief(request, digest_of(request)))
