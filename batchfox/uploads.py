"""Uploads: one for each distinct content, shared by the rows that use it, remembered, renewed before it expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import IO, Protocol

from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import complain, spell
from batchfox.core.event import ApiError, NotSent, Unsendable
from batchfox.core.uploaded import failed_upload
from batchfox.media import MediaDoor, Parcel
from batchfox.upload_table import UploadTable

MOST_AT_ONCE = 8
# A URL is used only while so much of its life is left: the API must still be able to fetch it when the task's turn
# comes.
LEAST_LEFT = 0.1
_MOST_LEFT_S = 3600.0

_Key = tuple[bytes, str]


class Uploader(Protocol):
    """The API's uploads. What comes back is the URL, what keeps the row from being sent, and the digest of what went
    out."""

    async def upload(self, file: IO[bytes], *, size: int, name: str, mime: str) -> tuple[str | NotSent, bytes]: ...


class Uploads:
    """The uploads of one output."""

    def __init__(
        self,
        uploader: Uploader,
        table: UploadTable,
        door: MediaDoor,
        thread: Executor,
        *,
        life_s: float,
        unix: Callable[[], float],
    ) -> None:
        self._uploader = uploader
        self._table = table
        self._door = door
        self._thread = thread
        self._life_s = life_s
        self._usable_s = life_s - min(LEAST_LEFT * life_s, _MOST_LEFT_S)
        self._unix = unix
        self._under_way: dict[_Key, asyncio.Future[str | NotSent]] = {}
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def url_of(self, parcel: Parcel, unfetched_at: float | None = None) -> str | NotSent:
        """The URL of an upload of this medium: one that is there, or under way, or a new one. One from before
        `unfetched_at` (unix seconds) is of no use: the API could not fetch it. Raises `MachineError`."""
        loop = asyncio.get_running_loop()
        try:
            digest, known = await loop.run_in_executor(self._thread, self._look_up, parcel, unfetched_at or 0.0)
        except ClosedDoorError as refusal:
            return _unsendable(parcel, refusal)
        if known is not None:
            return known
        key = digest, parcel.suffix
        if (under_way := self._under_way.get(key)) is None:
            under_way = self._under_way[key] = asyncio.ensure_future(self._upload(parcel, key))
            under_way.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(under_way)

    def close(self) -> None:
        """Ends what is under way: the rows that wait for it are not sent."""
        for under_way in list(self._under_way.values()):
            under_way.cancel()

    def _look_up(self, parcel: Parcel, after: float) -> tuple[bytes, str | None]:
        digest = self._door.digest(parcel)
        found = self._table.find(digest, parcel.suffix)
        is_usable = found is not None and found[1] >= after and 0 <= self._unix() - found[1] < self._usable_s
        return digest, found[0] if found is not None and is_usable else None

    async def _upload(self, parcel: Parcel, key: _Key) -> str | NotSent:
        digest, suffix = key
        loop = asyncio.get_running_loop()
        async with self._turns:
            try:
                file = await self._open(parcel)
            except ClosedDoorError as refusal:
                return _unsendable(parcel, refusal)
            began_at = self._unix()
            with file:
                name = f"{digest.hex()}{suffix}"
                said, sent = await self._uploader.upload(file, size=parcel.size, name=name, mime=parcel.mime)
        if not isinstance(said, str):
            return said
        if sent != digest:
            return failed_upload("the file changed while it was read")
        forget_before = began_at - self._life_s

        def remember() -> None:
            self._table.put(digest, suffix, said, began_at, forget_before=forget_before)

        await loop.run_in_executor(self._thread, remember)
        return said

    async def _open(self, parcel: Parcel) -> IO[bytes]:
        opening = asyncio.get_running_loop().run_in_executor(self._thread, self._door.open, parcel)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise


def _close(opening: asyncio.Future[IO[bytes]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _unsendable(parcel: Parcel, refusal: ClosedDoorError) -> Unsendable:
    said = complain("media", spell(parcel.place), refusal.found, refusal.allowed)
    return Unsendable(error=ApiError(code=said.rule, type="invalid_row", message=said.message))
