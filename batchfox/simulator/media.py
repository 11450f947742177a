"""What the API refuses of media: counts, URLs, file types, data URIs, YouTube, the models' own limits."""

from __future__ import annotations

import binascii
import re
from typing import Literal
from urllib.parse import SplitResult, parse_qs, urlsplit

from batchfox.simulator.catalogue import Model
from batchfox.simulator.refusal import invalid

Medium = Literal["image", "video", "audio", "file"]

_MOST_MEDIA = 10
_VIDEO_ENDINGS = (".mp4", ".mpeg", ".mpg", ".mov", ".webm")
_YOUTUBE_HOSTS = frozenset({"youtube.com", "www.youtube.com", "m.youtube.com"})
_DATA_URI = re.compile(r"data:([a-z]+)/([a-z0-9.+-]+)(?:;[a-z0-9-]+=[^;,]*)*;base64,", re.IGNORECASE)
_NEMOTRON_AUDIO = frozenset({"wav", "mp3"})
_AUDIO = _NEMOTRON_AUDIO | {"aiff", "aac", "ogg", "flac", "m4a"}
# The subtypes under which these formats travel in data URIs.
_AUDIO_SUBTYPES = {
    "mpeg": "mp3",
    "mpeg3": "mp3",
    "x-mp3": "mp3",
    "x-wav": "wav",
    "wave": "wav",
    "vnd.wave": "wav",
    "x-aiff": "aiff",
    "aif": "aiff",
    "x-aac": "aac",
    "x-flac": "flac",
    "mp4": "m4a",
    "x-m4a": "m4a",
    "opus": "ogg",
}


def check_images(found: object) -> None:
    """`image_urls`: 1 to 10, each an http(s) URL or a data URI of an image."""
    for place, url in _listed(found, "image_urls"):
        check_source(url, "image", place)


def check_videos(found: object, model: Model) -> None:
    """`video_urls`: 1 to 10, each a URL with a video's ending, YouTube for Gemini, or a data URI of a video."""
    for place, url in _listed(found, "video_urls"):
        check_source(url, "video", place)
        if url[:5].lower() == "data:":
            continue
        parts = urlsplit(url)
        if not check_youtube(parts, model, place) and not parts.path.lower().endswith(_VIDEO_ENDINGS):
            raise invalid(f"{place}: expected a URL that ends in {' '.join(_VIDEO_ENDINGS)}, found {_short(url)}")


def check_audio(found: object, model: Model, place: str) -> None:
    """One URL or data URI, of a format that the model takes. A URL without an ending is left to the upstream."""
    if not isinstance(found, str):
        raise invalid(f"{place}: expected one string")
    check_source(found, "audio", place)
    if match := _DATA_URI.match(found):
        subtype = match[2].lower()
        format_ = _AUDIO_SUBTYPES.get(subtype, subtype)
    else:
        format_ = urlsplit(found).path.lower().rpartition("/")[2].rpartition(".")[2]
        format_ = "aiff" if format_ == "aif" else format_
        if "." not in urlsplit(found).path.rpartition("/")[2]:
            return
    takes = _NEMOTRON_AUDIO if model.id.startswith("nemotron-") else _AUDIO
    if format_ not in takes:
        raise invalid(
            f'{place}: expected {", ".join(sorted(takes))} for {model.id}, found "{format_}"',
            "model_rule_violation" if format_ in _AUDIO else "invalid_param",
        )


def check_single(model: Model, *, images: int, videos: int, field: str) -> None:
    """The limits that lie in the model itself."""
    if model.id.startswith("nemotron-3-nano-omni") and images + videos > 1:
        raise invalid(
            f"{field}: {model.id} takes one image or one video, found {images + videos}", "model_rule_violation"
        )
    if model.id.startswith("gpt-5.5") and images > 1:
        raise invalid(f"{field}: {model.id} takes one image, found {images}", "model_rule_violation")


def check_source(url: object, medium: Medium, place: str) -> None:
    """An http(s) URL with a host, or a data URI of that medium with a sound payload."""
    if not isinstance(url, str) or not url:
        raise invalid(f"{place}: expected a URL or a data URI")
    if url[:5].lower() == "data:":
        _check_data_uri(url, medium, place)
        return
    try:
        parts = urlsplit(url)
        is_web = parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_web = False
    if not is_web or any(char.isspace() for char in url):
        raise invalid(f"{place}: expected an http(s) URL or a data URI, found {_short(url)}")


def check_youtube(parts: SplitResult, model: Model, place: str) -> bool:
    """True where the URL is a YouTube video that the model may take; refuses Shorts and other models."""
    host = (parts.hostname or "").lower()
    if host in _YOUTUBE_HOSTS:
        if parts.path.startswith("/shorts/"):
            raise invalid(f"{place}: YouTube Shorts are not supported; rewrite the URL to watch?v=<id>")
        is_video = parts.path == "/watch" and bool(parse_qs(parts.query).get("v"))
    elif host == "youtu.be":
        is_video = bool(parts.path.strip("/"))
    else:
        return False
    if not is_video:
        raise invalid(f"{place}: expected watch?v=<id> or youtu.be/<id>, found {_short(parts.geturl())}")
    if not model.id.startswith("gemini-"):
        raise invalid(f"{place}: YouTube URLs are for Gemini models only, not {model.id}", "model_rule_violation")
    return True


def _listed(found: object, field: str) -> list[tuple[str, str]]:
    """The list's items with their places; refuses what is no list of 1 to 10 strings."""
    if not isinstance(found, list):
        raise invalid(f"{field}: expected a list of 1 to {_MOST_MEDIA} strings")
    if not 1 <= len(found) <= _MOST_MEDIA:
        raise invalid(f"{field}: expected 1 to {_MOST_MEDIA} items, found {len(found)}")
    for index, url in enumerate(found):
        if not isinstance(url, str):
            raise invalid(f"{field}[{index}]: expected a string")
    return [(f"{field}[{index}]", url) for index, url in enumerate(found)]


def _check_data_uri(url: str, medium: Medium, place: str) -> None:
    match = _DATA_URI.match(url)
    wanted = "<type>/<subtype>" if medium == "file" else f"{medium}/<type>"
    if match is None or (medium != "file" and match[1].lower() != medium):
        raise invalid(f"{place}: expected data:{wanted};base64,<payload>, found {_short(url)}")
    try:
        payload = binascii.a2b_base64(url[match.end() :], strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{place}: the data URI's payload is not valid base64: {error}") from error
    if not payload:
        raise invalid(f"{place}: the data URI has no payload")


def _short(url: str) -> str:
    return url if len(url) <= 80 else f"{url[:77]}..."
