"""The API could not fetch a medium: is the row sent again with it fetched here, or uploaded anew?

Source: seed 002 (nemotron: a URL may be intermittently unreachable, fall back to a data URI). How the API says so is
documented nowhere: the words below are those that model servers use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from batchfox.core.event import ApiError
from batchfox.core.medium_rules import is_youtube
from batchfox.core.shape import Medium, media_of

_ACTION = r"(?:fetch|download|retriev|access|load|reach|open|connect)\w*"
_THING = r"(?:urls?|links?|images?|videos?|audios?|files?|media|medium|documents?|resources?|content)"
_FAILED = (
    r"(?:fail\w*|unable|could\s?n[o']?t|could not|cannot|can[' ]?t|error\w*|tim(?:ed|e)[ -]?out|unreachable"
    r"|inaccessible|refused)"
)
_UNFETCHED = re.compile(
    rf"\b{_FAILED}\b[^;]{{0,40}}?\b{_ACTION}\b[^;]{{0,60}}?\b{_THING}\b"
    rf"|\b{_THING}\b[^;]{{0,80}}?\b{_FAILED}\b[^;]{{0,40}}?\b{_ACTION}\b"
    rf"|\b{_THING}\b[^;]{{0,80}}?\b(?:unreachable|inaccessible|not (?:reachable|accessible))\b"
    rf"|\b{_ACTION}\b[^;]{{0,20}}?\b(?:the )?{_THING}\b[^;]{{0,120}}?\b(?:fail\w*|tim(?:ed|e)[ -]?out|refused)\b",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"(?:url|image|video|audio|file|media|document)_(?:url_)?(?:fetch|download|retriev|access|unreachable|inaccessible|load)"
    r"|(?:fetch|download|retrieval|unreachable|inaccessible)_(?:\w+_)?(?:url|image|video|audio|file|media|failed|error)",
    re.IGNORECASE,
)


def is_unfetched(error: ApiError) -> bool:
    """Does the API say that it could not fetch a medium?"""
    return bool(_CODE.search(error.code or "") or _UNFETCHED.search(error.message or ""))


def to_fetch(request: dict[str, Any]) -> list[Medium]:
    """The media of a request that can be fetched from here: http(s) URLs but YouTube's."""
    return [
        medium
        for medium in media_of(request)
        if isinstance(medium.value, str)
        and medium.value[:8].lower().startswith(("http://", "https://"))
        and not is_youtube(medium.value)
    ]


def may_fall_back(request: dict[str, Any] | None, ways: Sequence[str], error: ApiError) -> bool:
    """Where something travelled as a URL that can be fetched here, or as an upload, and the API could not fetch it.
    `request` None: it is not known yet."""
    if not is_unfetched(error):
        return False
    return "upload" in ways or ("url" in ways and (request is None or bool(to_fetch(request))))
