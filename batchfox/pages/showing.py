"""The media of a request as a page may show them: bytes that are here, links to what is elsewhere.

The door is that of a run: no row makes a page show a file outside `media.root`. Nothing is fetched.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import Complaint, show
from batchfox.core.job import Job
from batchfox.core.mime import HEAD_BYTES, sniff
from batchfox.core.sections import Media
from batchfox.core.shape import Kind, Medium
from batchfox.core.store_path import store_of
from batchfox.errors import BatchfoxError
from batchfox.media import MediaDoor, Parcel

# What browsers show of themselves, and cannot be a document with a script in it.
SHOWN = frozenset(
    {
        *("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp"),
        *("audio/mpeg", "audio/mp3", "audio/wav", "audio/x-wav", "audio/ogg", "audio/flac", "audio/aac", "audio/mp4"),
        *("audio/x-m4a", "audio/m4a", "audio/webm", "video/mp4", "video/webm", "video/ogg", "video/quicktime"),
    }
)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A medium, looked at. `where`: "here" (its bytes can be read), "remote" (`label` is its URL) or "gone" (`why`)."""

    kind: Kind
    where: Literal["here", "remote", "gone"]
    label: str
    why: str = ""
    size: int = 0
    mime: str = ""
    parcel: Parcel | None = None


class Shower:
    """Looks at media and reads them, by the job's `[media] root`."""

    def __init__(self, job: Job | None) -> None:
        root = job.media.root if job is not None else []
        self._door = MediaDoor(Media(root=root)) if job is not None else None

    def look(self, medium: Medium) -> Seen:
        """Never raises for what a row names."""
        value, kind = medium.value, medium.kind
        label = show(value)
        if isinstance(value, str):
            if value[:8].lower().startswith(("http://", "https://")):
                return Seen(kind=kind, where="remote", label=value)
            if value[:5].lower() != "data:":
                label = value
                if store_of(value) is not None or "::" in value:
                    return Seen(kind=kind, where="gone", label=label, why="is in an object store")
        if self._door is None:
            return Seen(kind=kind, where="gone", label=label, why="the job on record cannot be read")
        try:
            looked = self._door.look(_request_with(kind, value))
        except BatchfoxError as error:
            return Seen(kind=kind, where="gone", label=label, why=str(error))
        if isinstance(looked, Complaint):
            return Seen(kind=kind, where="gone", label=label, why=looked.message)
        parcel = looked[0]
        return Seen(kind=kind, where="here", label=label, size=parcel.size, mime=parcel.mime, parcel=parcel)

    def read(self, seen: Seen) -> tuple[str, bytes] | None:
        """The type, by the bytes themselves, and the bytes; None for what cannot be read or that no page shows."""
        if self._door is None or seen.parcel is None:
            return None
        try:
            with self._door.open(seen.parcel) as file:
                data = file.read(seen.parcel.size + 1)
        except (ClosedDoorError, BatchfoxError, OSError):
            return None
        if len(data) != seen.parcel.size:
            return None  # it changed while it was read
        return (sniff(data[:HEAD_BYTES]) or seen.mime), data


def _request_with(kind: Kind, value: Any) -> dict[str, Any]:
    match kind:
        case "image":
            return {"image_urls": [value]}
        case "video":
            return {"video_urls": [value]}
        case "audio":
            return {"audio_url": value}
        case "file":
            return {"messages": [{"content": [{"type": "file_url", "file_url": value}]}]}
