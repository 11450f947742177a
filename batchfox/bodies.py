"""A request's body, built right before it is sent: media put in place, the final rules checked, JSON."""

from __future__ import annotations

import asyncio
import contextlib
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
from batchfox.fetching import MOST_AT_ONCE, Fetcher
from batchfox.fit.fitter import Fitter
from batchfox.loading import Load, Loader
from batchfox.media import Parcel
from batchfox.uploads import Uploads

_encode = msgspec.json.Encoder().encode
_REMOTE = ("http://", "https://")


def is_remote(media: list[Medium]) -> bool:
    """Are all of a request's media http(s) URLs, if it has any, so that nothing has to be read?"""
    return all(isinstance(medium.value, str) and medium.value.startswith(_REMOTE) for medium in media)


class Bodies:
    """Builds bodies. A request whose media are all remote is built at once; for any other media are read in a thread,
    and uploaded, first."""

    def __init__(
        self,
        loader: Loader,
        uploads: Uploads,
        fetcher: Fetcher,
        book: RuleBook,
        thread: Executor,
        fitter: Fitter | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._loader = loader
        self._uploads = uploads
        self._book = book
        self._thread = thread
        self._fitter = fitter
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

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
        # What is fetched is held in memory until it is made to fit: no more at once than are worked on.
        async with self._turns if life.unfetched_at is not None else contextlib.nullcontext():
            if life.unfetched_at is not None:
                fetched = await self._fetch(request)
                if isinstance(fetched, Unsendable):
                    return fetched
                request = fetched
            return await self._look(request)

    async def _look(self, request: dict[str, Any]) -> Load | Unsendable:
        loop = asyncio.get_running_loop()
        if self._fitter is None:
            return await loop.run_in_executor(self._thread, self._weigh, request, None)
        parcels = await loop.run_in_executor(self._thread, self._loader.door.look, request)
        if isinstance(parcels, Complaint):
            return _refusal(parcels)
        fitted = await self._fitter.fit(parcels)
        if isinstance(fitted, Complaint):
            return _refusal(fitted)
        ours = {parcel.place: "" for parcel in fitted if parcel.is_fitted}  # their bytes are not needed any more
        request = replace_media(request, ours) if ours else request
        load = await loop.run_in_executor(self._thread, self._weigh, request, fitted)
        if not isinstance(load, Load):
            self._fitter.release(fitted)
        return load

    async def _fetch(self, request: dict[str, Any]) -> dict[str, Any] | Unsendable:
        """The request with the bytes of its remote media in their places: the API could not fetch one of them."""
        new: dict[Place, Any] = {}
        for medium in to_fetch(request):
            try:
                new[medium.place] = await self._fetcher.fetch(medium.value)
            except ClosedDoorError as refusal:
                return _refusal(complain("media", spell(medium.place), refusal.found, refusal.allowed))
        return replace_media(request, new) if new else request

    def _weigh(self, request: dict[str, Any], parcels: list[Parcel] | None) -> Load | Unsendable:
        load = self._loader.weigh(request) if parcels is None else self._loader.decide(request, parcels)
        if isinstance(load, Complaint):
            return _refusal(load)
        return _unsendable(self._loader.foresee(load)) or load

    async def load(self, life: Life, load: Load) -> bytes | NotSent:
        """The body to POST, once all that is to be uploaded is. Raises `BatchfoxError`."""
        try:
            return await self._load(life, load)
        finally:
            if self._fitter is not None:
                self._fitter.release(load.parcels)

    async def _load(self, life: Life, load: Load) -> bytes | NotSent:
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
        """Ends the uploads that are under way, and what makes media fit."""
        self._uploads.close()
        if self._fitter is not None:
            self._fitter.close()


def _refusal(complaint: Complaint) -> Unsendable:
    return Unsendable(error=ApiError(code=complaint.rule, type="invalid_row", message=complaint.message))


def _unsendable(complaints: list[Complaint]) -> Unsendable | None:
    refusals = [complaint for complaint in complaints if complaint.severity == "refusal"] if complaints else []
    if not refusals:
        return None
    message = "; ".join(complaint.message for complaint in refusals[:5])
    return Unsendable(error=ApiError(code=refusals[0].rule, type="invalid_row", message=message))
