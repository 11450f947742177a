"""A request's media put in place: looked at, their ways decided, read, and the body made of it. Work for a thread."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from batchfox.core.complaint import Complaint, Place, complain, spell
from batchfox.core.fit import mime_after
from batchfox.core.rulebook import RuleBook
from batchfox.core.rules import check, check_body, check_size, most_body_bytes
from batchfox.core.sections import Media
from batchfox.core.shape import replace_media
from batchfox.core.travel import Way, decide, weight
from batchfox.media import MediaDoor, Parcel
from batchfox.splicing import Gap, UnreadableError, splice

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
        return parcels if isinstance(parcels, Complaint) else self.decide(request, parcels)

    def decide(self, request: dict[str, Any], parcels: list[Parcel]) -> Load:
        """How media that were looked at, and made to fit, travel."""
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

    def make(self, load: Load, urls: Mapping[Place, str]) -> tuple[bytes, list[Complaint]]:
        """The body, and what the rules say of it; `urls`: those of the uploads. Reads files."""
        new: dict[Place, Any] = {}
        gaps: list[Gap] = []
        for parcel, way in zip(load.parcels, load.ways, strict=True):
            if way == "upload":
                new[parcel.place] = urls[parcel.place]
            elif way == "inline" and parcel.origin == "data":
                new[parcel.place] = self.door.inline(parcel)
            elif way == "inline":
                mark = secrets.token_hex(16)  # what a row says cannot be it
                new[parcel.place] = f"data:{parcel.mime};base64,{mark}"
                gaps.append(Gap(mark=mark.encode(), parcel=parcel))
        request = replace_media(load.request, new) if new else load.request
        complaints = check(request, self._book, final=True)
        try:
            body = splice(_encode(request), gaps, self.door)
        except UnreadableError as error:
            place, refusal = error.parcel.place, error.refusal
            return b"", [complain("media", spell(place), refusal.found, refusal.allowed)]
        return body, [*complaints, *check_body(body, request, self._book)]

    def examine(self, request: dict[str, Any]) -> list[Complaint]:
        """What would keep this request from being sent, and what the rules warn of. Nothing is uploaded, and nothing is
        made to fit: how large such media will be is not known."""
        parcels = self.door.look(request)
        if isinstance(parcels, Complaint):
            return [parcels]
        return self.foresee(self.decide(request, [self._expect(parcel) for parcel in parcels]))

    def _expect(self, parcel: Parcel) -> Parcel:
        if parcel.origin == "remote" or (fit := self._media.fit_of(parcel.kind)) is None:
            return parcel
        return msgspec.structs.replace(parcel, origin="local", size=0, mime=mime_after(fit, parcel.mime))
