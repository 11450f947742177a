"""The rules on media: how many, of which kind, at which address; and what is rewritten before they are sent.

Source: seed 000 (video: counts, extensions, YouTube, Shorts), seed 002 (images, data URIs), seed 004 (blocks), api.md
(audio formats, the table of models).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from batchfox.core.complaint import Complaint, complain, show, spell
from batchfox.core.rulebook import MOST_MEDIA, VIDEO_EXTENSIONS, ModelFacts
from batchfox.core.shape import MEDIA_BLOCKS, Kind, Medium, media_of, replace_media
from batchfox.core.store_path import store_of

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_URL = re.compile(
    r"(?i)https?://(?:[^\s/?#@]*@)?(?:\[[0-9a-f:.]+\]|[^\s/?#@:\[\]\\]+)(?::(?P<port>\d{1,5})?)?(?P<path>/[^\s?#]*)?(?:[?#]\S*)?"
)
_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0]")
_DATA = re.compile(r"(?i)data:([a-z]+)/([a-z0-9.+-]+);base64,")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_EDGE = 128

_YOUTUBE = re.compile(r"(?i)https?://(?:[^\s/?#@]*@)?(?:[\w-]+\.)*(?:youtube\.com|youtu\.be)(?=[:/?#]|$)")
_YOUTUBE_VIDEO = re.compile(
    r"(?i)https?://(?:(?:www\.|m\.)?youtube\.com/watch/?\?(?:[^#]*&)?v=[\w-]+|(?:www\.)?youtu\.be/[\w-]+)"
)
_SHORTS = re.compile(r"(?i)https?://(?:www\.|m\.)?youtube\.com/shorts/(?P<id>[\w-]+)/?(?:[?#]\S*)?")

# Names of an audio format, in URLs and in MIME types, other than its own.
_AUDIO_ALIASES = {
    "mpeg": "mp3",
    "x-wav": "wav",
    "wave": "wav",
    "vnd.wave": "wav",
    "mp4": "m4a",
    "x-m4a": "m4a",
    "x-aac": "aac",
    "x-flac": "flac",
    "x-aiff": "aiff",
    "aif": "aiff",
    "oga": "ogg",
}


def check_media(
    request: dict[str, Any], facts: ModelFacts | None, media: list[Medium], *, final: bool
) -> Iterator[Complaint]:
    """Every complaint about the media of a request; `media` are those of `media_of(request)`."""
    for field in ("image_urls", "video_urls"):
        yield from _check_count(field, request.get(field))
    for medium in media:
        yield from _check_medium(medium, facts, final)
    if facts is not None and media:
        yield from _check_model(media, facts)


def _check_count(field: str, value: Any) -> Iterator[Complaint]:
    if value is None or (isinstance(value, list) and 1 <= len(value) <= MOST_MEDIA):
        return
    yield complain("media_count", field, show(value), f"a list of 1 to {MOST_MEDIA}")


def _check_medium(medium: Medium, facts: ModelFacts | None, final: bool) -> Iterator[Complaint]:
    value = medium.value
    if isinstance(value, str):
        if value[:5].lower() == "data:":
            yield from _check_data_uri(medium, value)
            yield from _check_audio_format(medium, value, facts)
        elif value[:8].lower().startswith(("http://", "https://")):
            yield from _check_url(medium, value, facts, final)
        elif final or not value or _is_foreign(value):
            yield _refuse_address(medium)
    elif not isinstance(value, bytes):
        yield _refuse_address(medium)


def _is_foreign(value: str) -> bool:
    """Whether it names a scheme that `[media]` cannot send. One letter and a colon is no scheme."""
    scheme = _SCHEME.match(value)
    return scheme is not None and scheme[1].lower() != "file" and store_of(value) is None


def _refuse_address(medium: Medium) -> Complaint:
    kind = "<kind>/<type>" if medium.kind == "file" else f"{medium.kind}/<type>"
    found = "an empty text" if medium.value == "" else show(medium.value)
    return complain("media_url", spell(medium.place), found, f"an http(s) URL or data:{kind};base64,…")


# -- inline -----------------------------------------------------------------------------------------------------------


def _check_data_uri(medium: Medium, value: str) -> Iterator[Complaint]:
    """A cheap look: the head, the alphabet at both edges, the length. Decoding 10 MB would cost more than it saves."""
    kind = "<kind>" if medium.kind == "file" else medium.kind
    allowed = f"data:{kind}/<type>;base64,<payload>"
    head = _DATA.match(value)
    if head is None or (medium.kind != "file" and head[1].lower() != medium.kind):
        yield complain("data_uri", spell(medium.place), show(value), allowed)
        return
    start, size = head.end(), len(value) - head.end()
    if size == 0:
        yield complain("data_uri", spell(medium.place), "an empty payload", allowed)
    elif size % 4:
        found = f"a payload of {size} characters" if size != 1 else "a payload of 1 character"
        yield complain("data_uri", spell(medium.place), found, "base64: a multiple of 4")
    elif not _has_base64_edges(value, start, size):
        yield complain("data_uri", spell(medium.place), show(value), "a payload in base64: A-Z a-z 0-9 + / and =")


def _has_base64_edges(value: str, start: int, size: int) -> bool:
    if _BASE64.fullmatch(value, max(start, len(value) - _EDGE)) is None:
        return False
    edge = value[start : start + _EDGE]
    return size <= _EDGE or (_BASE64.fullmatch(edge) is not None and "=" not in edge[: size - 2])


# -- by address -------------------------------------------------------------------------------------------------------


def _check_url(medium: Medium, value: str, facts: ModelFacts | None, final: bool) -> Iterator[Complaint]:
    url = _URL.fullmatch(value)
    if url is None or _CONTROL.search(value) or int(url["port"] or 0) > 65535:
        yield complain("media_url", spell(medium.place), show(value), "an http(s) URL with a host and without spaces")
        return
    if medium.kind == "audio":
        yield from _check_audio_format(medium, value, facts)
    if medium.kind != "video":
        return
    if _YOUTUBE.match(value):
        yield from _check_youtube(spell(medium.place), value, facts, final)
    elif _extension(url["path"]) not in VIDEO_EXTENSIONS:
        allowed = "a path that ends in " + ", ".join(f".{name}" for name in VIDEO_EXTENSIONS)
        # Documented for `video_urls` only (seed 000): in messages the API decides.
        is_documented = medium.place[0] == "video_urls"
        yield complain(
            "video_extension",
            spell(medium.place),
            show(value),
            allowed,
            severity="refusal" if is_documented else "warning",
        )


def _check_youtube(field: str, value: str, facts: ModelFacts | None, final: bool) -> Iterator[Complaint]:
    if not _YOUTUBE_VIDEO.match(value) and (final or not _SHORTS.fullmatch(value)):
        yield complain("youtube", field, show(value), "https://www.youtube.com/watch?v=ID or https://youtu.be/ID")
    elif facts is not None and not facts.youtube:
        yield complain(
            "youtube", field, show(value), f"YouTube for gemini-* only; a direct video URL for {facts.match}"
        )


def _extension(path: str | None) -> str:
    """The extension of a URL's path, lower case and without its dot; "" where there is none."""
    name = (path or "").rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else ""


def _check_audio_format(medium: Medium, value: str, facts: ModelFacts | None) -> Iterator[Complaint]:
    """A URL without an extension passes: what it serves is not known here."""
    if medium.kind != "audio" or facts is None or facts.audio_formats is None:
        return
    if data := _DATA.match(value):
        found = data[2].lower()
    else:
        url = _URL.fullmatch(value)
        found = _extension(url["path"]) if url else ""
    if found and _AUDIO_ALIASES.get(found, found) not in facts.audio_formats:
        allowed = f"{' '.join(facts.audio_formats)} for {facts.match}"
        yield complain("audio_format", spell(medium.place), show(found), allowed)


# -- by model ---------------------------------------------------------------------------------------------------------


def _check_model(media: list[Medium], facts: ModelFacts) -> Iterator[Complaint]:
    first: dict[Kind, Medium] = {}
    count: dict[Kind, int] = {"image": 0, "video": 0, "audio": 0, "file": 0}
    for medium in media:
        first.setdefault(medium.kind, medium)
        count[medium.kind] += 1
    for kind, medium in first.items():
        if facts.media is not None and kind not in facts.media:
            allowed = f"{', '.join(['text', *sorted(facts.media)])} for {facts.match}"
            yield complain("modality", spell(medium.place), _a(kind), allowed)
    images, videos = count["image"], count["video"]
    if facts.most_images is not None and images > facts.most_images:
        yield _refuse_many(first["image"], f"{images} images", f"{facts.most_images} for {facts.match}")
    if facts.most_videos is not None and videos > facts.most_videos:
        yield _refuse_many(first["video"], f"{videos} videos", f"{facts.most_videos} for {facts.match}")
    if facts.most_visuals is not None and images and videos and images + videos > facts.most_visuals:
        found = f"{images} and {videos} of images and videos"
        yield _refuse_many(first["video"], found, f"{facts.most_visuals} of both together for {facts.match}")


def _refuse_many(medium: Medium, found: str, allowed: str) -> Complaint:
    field = medium.place[0]
    return complain("model_media_count", str(field), found, f"at most {allowed}")


def _a(kind: Kind) -> str:
    return {"image": "an image", "video": "a video", "audio": "audio", "file": "a file"}[kind]


# -- rewritten --------------------------------------------------------------------------------------------------------


def is_youtube(url: str) -> bool:
    return _YOUTUBE.match(url) is not None


def rewrite_shorts(request: dict[str, Any]) -> dict[str, Any]:
    """YouTube Shorts as the watch?v=ID that the API takes (seed 000), in fields and blocks; else the same object."""
    new = {
        medium.place: f"https://www.youtube.com/watch?v={shorts['id']}"
        for medium in media_of(request)
        if medium.kind == "video" and isinstance(medium.value, str) and (shorts := _SHORTS.fullmatch(medium.value))
    }
    return replace_media(request, new) if new else request


def rewrite(request: dict[str, Any]) -> dict[str, Any]:
    """A request that passed the rules, as the API documents it (seed 004); the argument is not changed.

    Shorts become watch?v=ID, `"image_url": "…"` becomes `"image_url": {"url": "…"}`, and a block loses its null keys
    (Parquet gives every block of a column the keys of all).
    """
    request = rewrite_shorts(request)
    new: dict[tuple[str | int, ...], Any] = {}
    messages = request.get("messages")
    for at, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for block_at, block in enumerate(content if isinstance(content, list) else ()):
            tidy = _tidy(block)
            if tidy is not block:
                new["messages", at, "content", block_at] = tidy
    return replace_media(request, new) if new else request


def _tidy(block: Any) -> Any:
    if not isinstance(block, dict):
        return block
    name = block.get("type")
    is_plain = isinstance(name, str) and name in MEDIA_BLOCKS and isinstance(block.get(name), (str, bytes))
    if not is_plain and None not in block.values():
        return block
    tidy = {key: value for key, value in block.items() if value is not None}
    if is_plain:
        tidy[name] = {"url": block[name]}
    return tidy
