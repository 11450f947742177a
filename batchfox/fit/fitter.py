"""Media made to fit as the job says: found among earlier results, or made by a worker, while a thread waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from hashlib import blake2b
from pathlib import Path
from typing import IO

import msgspec

from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import Complaint, complain, show, spell
from batchfox.core.fit import AudioFit, Fit, ImageFit, VideoFit, name_of
from batchfox.core.mime import extension_of
from batchfox.core.sections import Media
from batchfox.errors import machine_error
from batchfox.fit.cache import Cache
from batchfox.fit.orders import Answer, Order, RefusedError
from batchfox.fit.workers import Workers, WorkersClosedError
from batchfox.media import DIGEST_BYTES, MediaDoor, Parcel, state_of
from batchfox.roots import refuse_large

# Results of another making are not used: goes up with every change of what is made of the same settings.
MAKING = 1
_TYPES = {
    extension_of(mime): mime
    for mime in ("image/jpeg", "image/png", "image/webp", "video/mp4", "audio/wav", "audio/mpeg")
}
_READ_BYTES = 1 << 20
_LOCKS = 64


class Fitter:
    """One output's. `threads`: more than workers, so that none waits while a result is kept and the next is opened."""

    def __init__(self, media: Media, door: MediaDoor, cache: Cache, workers: Workers, threads: Executor) -> None:
        self._media = media
        self._door = door
        self._cache = cache
        self._workers = workers
        self._threads = threads
        # Of rows with the same medium at the same time one makes it, the others find it.
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def wants(self, parcel: Parcel) -> bool:
        """Is this one to be made to fit? Whatever is here, of a kind that the job says something of."""
        return parcel.origin != "remote" and self._media.fit_of(parcel.kind) is not None

    async def fit(self, parcels: Sequence[Parcel]) -> list[Parcel] | Complaint:
        """The same in the same order, those that did not fit replaced; all kept until `release`. Raises
        `BatchfoxError`."""
        loop = asyncio.get_running_loop()
        work = [
            loop.run_in_executor(self._threads, self._fit_one, parcel) if self.wants(parcel) else None
            for parcel in parcels
        ]
        told = await asyncio.gather(*(each for each in work if each is not None), return_exceptions=True)
        results = iter(told)
        fitted = [next(results) if each is not None else parcel for each, parcel in zip(work, parcels, strict=True)]
        made = [parcel for parcel in fitted if isinstance(parcel, Parcel)]
        if len(made) == len(parcels):
            return made
        self.release(made)
        for parcel, result in zip(parcels, fitted, strict=True):
            if isinstance(result, ClosedDoorError):
                return complain("media", spell(parcel.place), result.found, result.allowed)
            if isinstance(result, WorkersClosedError):
                raise asyncio.CancelledError
            if isinstance(result, BaseException):
                raise machine_error(result) or result
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Ends what is under way."""
        self._workers.close()

    def release(self, parcels: Sequence[Parcel]) -> None:
        """They are used no more."""
        for parcel in parcels:
            if parcel.is_fitted and parcel.path is not None:
                self._cache.release(Path(parcel.path))

    def _fit_one(self, parcel: Parcel) -> Parcel:
        """Raises `ClosedDoorError`, `BatchfoxError`, OSError of this machine."""
        fit = self._media.fit_of(parcel.kind)
        assert fit is not None, parcel.kind
        settings = f"{MAKING}:{name_of(parcel.kind, fit)}".encode()
        with self._opened(parcel) as (source, digest):
            key = f"{digest.hex()}-{blake2b(settings, digest_size=8).hexdigest()}"
            with self._locks[digest[0] % _LOCKS]:
                path = self._cache.take(key) or self._make(parcel, fit, source, key)
        if path is None:
            refuse_large(parcel.size, show(parcel.value))
            return parcel
        size, mime = path.stat().st_size, _TYPES[path.suffix]
        # The bytes of what is no file are not needed any more: its words stand for it.
        value = parcel.value if parcel.path is not None else show(parcel.value)
        return msgspec.structs.replace(
            parcel, origin="local", value=value, path=str(path), size=size, mime=mime, is_fitted=True
        )

    @contextlib.contextmanager
    def _opened(self, parcel: Parcel) -> Iterator[tuple[IO[bytes], bytes]]:
        """A file of this machine with the medium's bytes, and their digest. What is no file is copied into one."""
        with self._door.open(parcel) as opened:
            if (before := state_of(opened)) is None:
                copy = self._cache.begin()
                with copy.open("w+b") as file:
                    copy.unlink()
                    yield file, _copy(opened, file)
                return
            yield opened, self._door.digest_of(opened)
            after = state_of(opened)
        if after is None or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ClosedDoorError(f"{show(parcel.value)}, which changed while it was read", "a file that stays")

    def _make(self, parcel: Parcel, fit: Fit, source: IO[bytes], key: str) -> Path | None:
        """The result, kept; None where the medium fits as it is."""
        made = self._cache.begin()
        try:
            with made.open("wb") as target:
                answer = self._ask(parcel, fit, source, target)
            if answer.mime is None:
                return None
            refuse_large(made.stat().st_size, f"{show(parcel.value)}, which was made to fit and is still")
            return self._cache.put(key, extension_of(answer.mime), made)
        finally:
            made.unlink(missing_ok=True)

    def _ask(self, parcel: Parcel, fit: Fit, source: IO[bytes], target: IO[bytes]) -> Answer:
        order = Order(
            image=fit if isinstance(fit, ImageFit) else None,
            video=fit if isinstance(fit, VideoFit) else None,
            audio=fit if isinstance(fit, AudioFit) else None,
        )
        try:
            return self._workers.ask(order, source.fileno(), target.fileno())
        except RefusedError as refusal:
            raise ClosedDoorError(
                f"{show(parcel.value)}, which cannot be made to fit ({refusal})",
                f"{parcel.kind} data that can be decoded; look at the file",
            ) from refusal


def _copy(opened: IO[bytes], file: IO[bytes]) -> bytes:
    """Copies what is left to read, and returns its digest."""
    found = blake2b(digest_size=DIGEST_BYTES)
    while block := opened.read(_READ_BYTES):
        found.update(block)
        file.write(block)
    file.flush()
    return found.digest()
