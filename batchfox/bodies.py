"""A request's body, built right before it is sent: media put in place, the final rules checked, JSON."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Any

import msgspec

from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import Complaint, Place, complain, spell
from batchfox.core.event import ApiError, NotSent, Unsendable
from batchfox.core.fallback import to_fetch
from batchfox.core.lifecycle import Life
from batchfox.core.rulebook import RuleBook
from batchfox.core.rules import check_body
from batchfox.core.shape import Medium, media_of, replace_media
from batchfox.fetching import Fetcher
from batchfox.loading import Load, Loader
from batchfox.uploads import Uploads

_encode = msgspec.json.Encoder().encode
_REMOTE = ("http://", "https://")


def is_remote(media: list[Medium]) -> bool:
    """Are all of a request's media http(s) URLs, if it has any, so that nothing has to be read?"""
    return all(isinstance(medium.value, str) and medium.value.startswith(_REMOTE) for medium in media)


class Bodies:
    """Builds bodies. A request whose media are all remote is built at once; for any other media are read in a thread,
    and uploaded, first."""

    def __init__(self, loader: Loader, uploads: Uploads, fetcher: Fetcher, book: RuleBook, thread: Executor) -> None:
        self._fetcher = fetcher
        self._loader = loader
        self._uploads = uploads
        self._book = book
        self._thread = thread

    def build(self, life: Life) -> bytes | Unsendable | None:
        """The body to POST; `life.media` says how each medium travels. None: `weigh` and `load` make it."""
        request = life.request
        assert request is not None, life.id
        media = media_of(request)
        if life.unfetched_at is not None and to_fetch(request):
            return None
        if not is_remote(media):
            return None
        life.media = ["url"] * len(media)
        body = _encode(request)
        return _unsendable(check_body(body, request, self._book)) or body

    async def weigh(self, life: Life) -> Load | Unsendable:
        """Its media looked at: how each will travel, and how many bytes that takes. Raises `BatchfoxError`."""
        request = life.request
        assert request is not None, life.id
        if life.unfetched_at is not None:
            fetched = await self._fetch(request)
            if isinstance(fetched, Unsendable):
                return fetched
            request = fetched
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._weigh, request)

    async def _fetch(self, request: dict[str, Any]) -> dict[str, Any] | Unsendable:
        """The request with the bytes of its remote media in their places: the API could not fetch one of them."""
        new: dict[Place, Any] = {}
        for medium in to_fetch(request):
            try:
                new[medium.place] = await self._fetcher.fetch(medium.value)
            except ClosedDoorError as refusal:
                found = complain("media", spell(medium.place), refusal.found, refusal.allowed)
                return Unsendable(error=ApiError(code=found.rule, type="invalid_row", message=found.message))
        return replace_media(request, new) if new else request

    def _weigh(self, request: dict[str, Any]) -> Load | Unsendable:
        load = self._loader.weigh(request)
        if isinstance(load, Complaint):
            return _unsendable([load]) or Unsendable(error=ApiError(code=load.rule))
        return _unsendable(self._loader.foresee(load)) or load

    async def load(self, life: Life, load: Load) -> bytes | NotSent:
        """The body to POST, once all that is to be uploaded is. Raises `BatchfoxError`."""
        urls: dict[Place, str] = {}
        told = await asyncio.gather(*(self._uploads.url_of(parcel, life.unfetched_at) for parcel in load.to_upload))
        for parcel, url in zip(load.to_upload, told, strict=True):
            if not isinstance(url, str):
                return url
            urls[parcel.place] = url
        loop = asyncio.get_running_loop()
        body, complaints = await loop.run_in_executor(self._thread, self._loader.make, load, urls)
        life.media = list(load.ways)
        return _unsendable(complaints) or body

    def close(self) -> None:
        """Ends the uploads that are under way."""
        self._uploads.close()


def _unsendable(complaints: list[Complaint]) -> Unsendable | None:
    refusals = [complaint for complaint in complaints if complaint.severity == "refusal"] if complaints else []
    if not refusals:
        return None
    message = "; ".join(complaint.message for complaint in refusals[:5])
    return Unsendable(error=ApiError(code=refusals[0].rule, type="invalid_row", message=message))
