"""What arrived of a request's media: each as the digest of its bytes, or as what stands in their place."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

_BLOCKS = ("image_url", "video_url", "audio_url", "file_url")
GONE = "gone"
URL = "url"

# The digest of the uploaded file that a URL of the simulator's own names, "" where there is none (any more); None for
# any other URL.
FindUpload = Callable[[str], str | None]


def arrivals(request: dict[str, Any], find: FindUpload) -> tuple[str, ...]:
    """For each medium of a request that passed the checks, in order: `inline:<digest>`, `upload:<digest>` (BLAKE2b-128
    of the bytes, in hex), `gone` for an upload that is not there, `url` for any other URL."""
    return tuple(_arrival(source, find) for source in _sources(request))


def _sources(request: dict[str, Any]) -> Iterator[str]:
    yield from request.get("image_urls") or ()
    yield from request.get("video_urls") or ()
    if request.get("audio_url"):
        yield request["audio_url"]
    for message in request.get("messages") or ():
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            if block["type"] in _BLOCKS:
                yield block[block["type"]]["url"]


def _arrival(source: str, find: FindUpload) -> str:
    if source[:5].lower() == "data:":
        payload = binascii.a2b_base64(source.partition(",")[2])
        return f"inline:{blake2b(payload, digest_size=16).hexdigest()}"
    digest = find(source)
    if digest is None:
        return URL
    return f"upload:{digest}" if digest else GONE
