"""Media made to fit before they are sent: what a job may ask for, kind by kind. The work is done in `batchfox/fit/`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from batchfox.core.shape import Kind


class _Fit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ImageFit(_Fit, frozen=True, kw_only=True):
    """`largest_side` in pixels. `format` "auto": JPEG, PNG, WebP and GIF stay what they are, all else becomes JPEG (PNG
    where it is transparent). `quality` of JPEG and WebP, 1 to 100; where it is given, images that fit are encoded anew
    too, and sent so where that is smaller."""

    largest_side: int | None = None
    format: Literal["auto", "jpeg", "png", "webp"] = "auto"
    quality: int | None = None


class VideoFit(_Fit, frozen=True, kw_only=True):
    """At most so many frames a second, pixels from top to bottom, seconds from the beginning on."""

    fps: float | None = None
    height: int | None = None
    seconds: float | None = None


class AudioFit(_Fit, frozen=True, kw_only=True):
    """Mono at 16 kHz, in this format."""

    format: Literal["wav", "mp3"] = "wav"


Fit = ImageFit | VideoFit | AudioFit

_KEPT_IMAGES = ("image/jpeg", "image/png", "image/webp", "image/gif")


def mime_after(fit: Fit, mime: str) -> str:
    """The type that a medium of type `mime` will have, as far as it can be told without a look at it."""
    if isinstance(fit, VideoFit):
        return "video/mp4"
    if isinstance(fit, AudioFit):
        return "audio/mpeg" if fit.format == "mp3" else "audio/wav"
    if fit.format != "auto":
        return f"image/{fit.format}"
    return mime if mime in _KEPT_IMAGES else "image/jpeg"


def name_of(kind: Kind, fit: Fit) -> str:
    """What stands for the settings in the names of results: other settings, another name."""
    settings = msgspec.structs.asdict(fit)
    return f"{kind}:" + ",".join(f"{key}={settings[key]}" for key in sorted(settings))


def mistakes(image: ImageFit | None, video: VideoFit | None, audio: AudioFit | None) -> Iterator[tuple[str, Any, str]]:
    """The key, what was found and what is wanted of every impossible value."""
    if image is not None:
        side, quality = image.largest_side, image.quality
        if side is not None and not 16 <= side <= 16_384:
            yield "media.image.largest_side", side, "16 to 16,384 pixels"
        if quality is not None and not 1 <= quality <= 100:
            yield "media.image.quality", quality, "1 to 100"
        if quality is not None and image.format == "png":
            yield "media.image", f"quality = {quality}", 'no quality beside format = "png", which loses nothing'
    if video is not None:
        if video.fps is None and video.height is None and video.seconds is None:
            yield "media.video", "an empty table", "at least one of fps, height, seconds"
        if video.fps is not None and not 0.01 <= video.fps <= 240:
            yield "media.video.fps", video.fps, "0.01 to 240 frames a second"
        if video.height is not None and not 16 <= video.height <= 4320:
            yield "media.video.height", video.height, "16 to 4,320 pixels"
        if video.seconds is not None and not 0.1 <= video.seconds <= 86_400:
            yield "media.video.seconds", video.seconds, "0.1 to 86,400"
