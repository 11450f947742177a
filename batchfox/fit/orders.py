"""What the run and its workers say to each other: a line of JSON each way; files travel as open handles beside it."""

from __future__ import annotations

from typing import Literal

import msgspec

from batchfox.core.fit import AudioFit, ImageFit, VideoFit


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One medium: at most one of the settings; with none it is only measured."""

    image: ImageFit | None = None
    video: VideoFit | None = None
    audio: AudioFit | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of it. `mime`: of the result that was written, None: the medium fits as it is. `seconds`: how long it
    plays, where that was asked and it tells. `problem`: why there is no result; `fault`: whose."""

    mime: str | None = None
    seconds: float | None = None
    problem: str | None = None
    fault: Literal["medium", "machine", "package"] = "medium"


class RefusedError(Exception):
    """A medium of which nothing can be made; says why."""
