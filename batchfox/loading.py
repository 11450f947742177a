"""A request's media put in place: looked at, their ways decided, read, and the body made of it. Work for a thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import Complaint, Place, complain, spell
from batchfox.core.job import Media
from batchfox.core.rulebook import RuleBook
from batchfox.core.rules import check, check_body, check_size, most_body_bytes
from batchfox.core.shape import replace_media
from batchfox.core.travel import Way, decide, weight
from batchfox.media import MediaDoor, Parcel

_encode = msgspec.json.Encoder().encode
# What stands for a medium until it is read or uploaded: the rules look at its form.
_STAND_IN_URL = "https://upload.invalid/medium"
_STAND_IN = "AAAA"


class Load(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request's media and the way of each. `size`: bytes of the body, at most; `held`: those and the uploads'."""

    request: dict[str, Any]
    parcels: list[Parcel]
    ways: list[Way]
    size: int
    held: int

    @property
    def to_upload(self) -> list[Parcel]:
        return [parcel for parcel, way in zip(self.parcels, self.ways, strict=True) if way == "upload"]


class Loader:
    """Loads requests as the job's `[media]` says. Threads may share one."""

    def __init__(self, door: MediaDoor, media: Media, book: RuleBook) -> None:
        self.door = door
        self._media = media
        self._book = book

    def weigh(self, request: dict[str, Any]) -> Load | Complaint:
        """Looks at the media and decides how each travels. Reads the beginning of files."""
        parcels = self.door.look(request)
        if isinstance(parcels, Complaint):
            return parcels
        pieces = [parcel.piece for parcel in parcels]
        own = {parcel.place: "" for parcel in parcels if parcel.origin != "remote"}
        rest = len(_encode(replace_media(request, own) if own else request))
        ways = decide(pieces, self._media, rest=rest, most=most_body_bytes(request, self._book))
        weights = [weight(piece, way) for piece, way in zip(pieces, ways, strict=True) if piece.origin != "remote"]
        uploads = sum(piece.size for piece, way in zip(pieces, ways, strict=True) if way == "upload")
        size = rest + sum(weights)
        return Load(request=request, parcels=parcels, ways=ways, size=size, held=size + uploads)

    def foresee(self, load: Load) -> list[Complaint]:
        """What the rules will say of the body, before anything is uploaded or read as a whole."""
        new: dict[Place, Any] = {}
        for parcel, way in zip(load.parcels, load.ways, strict=True):
            if way == "upload":
                new[parcel.place] = _STAND_IN_URL + parcel.suffix
            elif parcel.origin == "local":
                new[parcel.place] = f"data:{parcel.mime};base64,{_STAND_IN}"
        request = replace_media(load.request, new) if new else load.request
        return [*check(request, self._book, final=True), *check_size(load.size, request, self._book)]

    def fill(self, load: Load, urls: Mapping[Place, str]) -> dict[str, Any] | Complaint:
        """The request with its media in place; `urls`: those of the uploads. Reads files."""
        new: dict[Place, Any] = {}
        for parcel, way in zip(load.parcels, load.ways, strict=True):
            try:
                value = urls[parcel.place] if way == "upload" else self._value(parcel, way)
            except ClosedDoorError as refusal:
                return complain("media", spell(parcel.place), refusal.found, refusal.allowed)
            if value is not parcel.value:
                new[parcel.place] = value
        return replace_media(load.request, new) if new else load.request

    def _value(self, parcel: Parcel, way: Way) -> Any:
        return self.door.inline(parcel) if way == "inline" else parcel.value

    def make(self, load: Load, urls: Mapping[Place, str]) -> tuple[bytes, list[Complaint]]:
        """The body, and what the rules say of it."""
        request = self.fill(load, urls)
        if isinstance(request, Complaint):
            return b"", [request]
        complaints = check(request, self._book, final=True)
        body = _encode(request)
        return body, [*complaints, *check_body(body, request, self._book)]

    def examine(self, request: dict[str, Any]) -> list[Complaint]:
        """What would keep this request from being sent, and what the rules warn of. Nothing is uploaded."""
        load = self.weigh(request)
        return [load] if isinstance(load, Complaint) else self.foresee(load)
