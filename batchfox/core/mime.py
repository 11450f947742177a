"""What a medium is, told by its first bytes, then by its name. The bytes win: names lie more often.

Source of the signatures: the formats' own specifications; of the names: IANA's registry. What this short table does not
know, a longer one may (`told`, see `media_type.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from batchfox.core.shape import Kind

HEAD_BYTES = 4096

# Offset, bytes → MIME type. The first that fits holds.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"ADIF", "audio/aac"),
    (0, b"\x00\x00\x01\xba", "video/mpeg"),
    (0, b"\x00\x00\x01\xb3", "video/mpeg"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_FORM = {b"AIFF": "audio/aiff", b"AIFC": "audio/aiff"}
_BRANDS = {
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"hevc": "image/heic",
    b"mif1": "image/heic",
    b"msf1": "image/heic",
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
}
_SUFFIXES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".heic": "image/heic",
    ".heif": "image/heic",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".aiff": "audio/aiff",
    ".aif": "audio/aiff",
    ".aac": "audio/aac",
    ".m4a": "audio/mp4",
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
}
_OFFICE = "application/vnd.openxmlformats-officedocument."
# Containers that hold sound alone as well as video: the place decides.
_AS_AUDIO = {"video/mp4": "audio/mp4", "video/webm": "audio/webm", "video/quicktime": "audio/mp4"}
_AS_VIDEO = {"audio/ogg": "video/ogg", "audio/mp4": "video/mp4"}
# Formats with many beginnings: where the bytes say nothing, the name is believed.
_MANY_BEGINNINGS = frozenset({"audio/mpeg", "audio/aac", "video/mpeg", "image/svg+xml"})
# Other names of types, and the ones that models take them under (nemotron: audio/wav and audio/mpeg; api.md, "audio").
_PROPER = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/heif": "image/heic",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/x-mp3": "audio/mpeg",
    "audio/mpeg3": "audio/mpeg",
    "audio/x-m4a": "audio/mp4",
    "audio/m4a": "audio/mp4",
    "audio/x-aac": "audio/aac",
    "audio/x-flac": "audio/flac",
    "audio/x-aiff": "audio/aiff",
    "video/x-m4v": "video/mp4",
}
_FAMILIES: dict[str, Kind] = {"image": "image", "video": "video", "audio": "audio"}
_EXTENSIONS: dict[str, str] = {}
for _suffix, _type in _SUFFIXES.items():
    _EXTENSIONS.setdefault(_type, _suffix)


def sniff(head: bytes) -> str | None:
    """The MIME type told by the first `HEAD_BYTES` bytes, or None. A zip archive is `application/zip`."""
    for offset, signature, mime in _SIGNATURES:
        if head.startswith(signature, offset):
            return mime
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM":
        return _FORM.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "video/webm" if b"webm" in head else "video/x-matroska"
    if head[:4] == b"PK\x03\x04":
        return "application/zip"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # An MPEG audio frame; layer bits 00 mean AAC in ADTS.
        return "audio/aac" if head[1] & 0x06 == 0 else "audio/mpeg"
    return None


def proper(mime: str) -> str:
    """A MIME type under the name that models take it under."""
    mime = mime.lower()
    return _PROPER.get(mime, mime)


def extension_of(mime: str) -> str:
    """The ending, with its dot, that a file of this type is called by; "" for a type that is not known."""
    return _EXTENSIONS.get(mime, "")


def kind_by_name(suffix: str) -> Kind | None:
    """Image, video or audio by a file name's ending; None for any other."""
    family = _SUFFIXES.get(suffix.lower(), "").partition("/")[0]
    return _FAMILIES.get(family)


def mime_of(head: bytes, suffix: str, kind: Kind, told: Sequence[str] = ()) -> str | None:
    """The MIME type of a medium of `kind` that begins with `head` and is called `*suffix`; None if it is none.

    `suffix` with its dot, or "" where there is no name. `told`: types that a longer table gives for these bytes, the
    likeliest first. A file may be anything; what is unknown there is `application/octet-stream`.
    """
    named = _SUFFIXES.get(suffix.lower())
    found = sniff(head)
    if found is None:
        types = [proper(mime) for mime in told]
        wanted = [mime for mime in types if mime.startswith("" if kind == "file" else f"{kind}/")]
        if kind != "file" or named is None:  # of a file its name says more than a guess
            found = named if named in wanted else next(iter(wanted), None)
    if found == "application/zip" and named is not None and named.startswith(_OFFICE):
        found = named
    if kind == "audio" and found is not None:
        found = _AS_AUDIO.get(found, found)
    elif kind == "video" and found is not None:
        found = _AS_VIDEO.get(found, found)
    if kind == "file":
        return found or named or "application/octet-stream"
    if found is None and named in _MANY_BEGINNINGS:
        found = named
    return found if found is not None and found.startswith(f"{kind}/") else None
