"""The door for media: what each one is, and its bytes. No row reaches a file outside `media.root`.

Contract, promise 6. Remote URLs pass: the API fetches them.
"""

from __future__ import annotations

import binascii
import io
import os
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import msgspec

from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import Complaint, Place, complain, show, spell
from batchfox.core.mime import HEAD_BYTES, extension_of, proper, sniff
from batchfox.core.pixels import MOST_PIXELS, pixels_of
from batchfox.core.sections import Media
from batchfox.core.shape import Kind, Medium, media_of
from batchfox.core.store_path import store_of
from batchfox.core.travel import Origin, Piece, decoded_bytes
from batchfox.media_type import tell, type_of
from batchfox.roots import MOST_FILE_BYTES, Roots, path_of_url, refuse_large
from batchfox.stores import Stores

DIGEST_BYTES = 16
_READ_BYTES = 1 << 20
_MOST_DIGESTS = 10_000
# What is made smaller may be larger before.
MOST_TO_FIT = 2_000_000_000
_KINDS: tuple[Kind, ...] = ("image", "video", "audio", "file")


class Parcel(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One medium of a request, looked at. `value`: as the row has it; `path`: the local file's, or the object's.

    `size`: its bytes, decoded; 0 for a remote one. `mime`: its type, "" for a remote one. `is_fitted`: `path` is a
    result of fitting, which is ours.
    """

    place: Place
    kind: Kind
    origin: Origin
    value: Any
    path: str | None = None
    size: int = 0
    mime: str = ""
    is_fitted: bool = False

    @property
    def piece(self) -> Piece:
        return Piece(origin=self.origin, size=self.size)

    @property
    def suffix(self) -> str:
        """The ending, with its dot, of a name for it."""
        return extension_of(self.mime)


class MediaDoor:
    """Looks at media and reads them. Threads may share one."""

    def __init__(self, media: Media) -> None:
        """The roots are resolved now, against the working directory."""
        self._mode = media.mode
        self._most: dict[Kind, int] = {kind: MOST_TO_FIT if media.fit_of(kind) else MOST_FILE_BYTES for kind in _KINDS}
        roots = media.roots
        self._roots = Roots([root for root in roots if store_of(root) is None])
        self._stores = Stores([root for root in roots if store_of(root) is not None])
        self._digests: dict[tuple[str, int, int, int], bytes] = {}

    def look(self, request: dict[str, Any]) -> list[Parcel] | Complaint:
        """Every medium of the request, in the order of `media_of`. Reads the beginning of files: call it in a thread.

        A medium that cannot be read, lies outside the root, is not of its kind or above 100 MB is a complaint with
        rule `media`. Raises `MachineError`, and `UserError` where a package is missing.
        """
        found: list[Parcel] = []
        for medium in media_of(request):
            try:
                found.append(self._look_at(medium))
            except ClosedDoorError as refusal:
                return complain("media", spell(medium.place), refusal.found, refusal.allowed)
        return found

    def _look_at(self, medium: Medium) -> Parcel:
        value, kind, place = medium.value, medium.kind, medium.place
        if isinstance(value, (bytes, bytearray, memoryview)):
            self._demand_own(show(value))
            data = bytes(value)
            mime = self._demand_type(data[:HEAD_BYTES], len(data), "", kind, show(value))
            return Parcel(place=place, kind=kind, origin="local", value=data, size=len(data), mime=mime)
        if not isinstance(value, str):
            raise ClosedDoorError(show(value), "an http(s) URL, a data URI or a local path")
        head = value[:8].lower()
        if head.startswith(("http://", "https://")):
            return Parcel(place=place, kind=kind, origin="remote", value=value)
        if head.startswith("data:"):
            mime, start = _data_head(value)
            size = decoded_bytes(len(value) - start, value[-2:].count("="))
            return Parcel(place=place, kind=kind, origin="data", value=value, size=size, mime=mime)
        self._demand_own(f"the local path {show(value)}")
        path = path_of_url(value) if head.startswith("file:") else value
        size, first = self._measure(path, kind)
        mime = self._demand_type(first, size, path, kind, show(value))
        return Parcel(place=place, kind=kind, origin="local", value=value, path=path, size=size, mime=mime)

    def _demand_own(self, found: str) -> None:
        if self._mode == "url":
            raise ClosedDoorError(found, 'an http(s) URL or a data URI, since media.mode = "url"; or set mode = "auto"')

    def _demand_type(self, head: bytes, size: int, name: str, kind: Kind, shown: str) -> str:
        if not size:
            raise ClosedDoorError(f"{shown}, which is empty", f"{kind} data")
        refuse_large(size, shown, self._most[kind])
        return _type_of_kind(head, name, kind, shown)

    def _measure(self, path: str, kind: Kind) -> tuple[int, bytes]:
        """A file's size and first bytes."""
        if store_of(path) is not None or "::" in path:
            size = self._stores.size_of(path)
            refuse_large(size, show(path), self._most[kind])
            with self._stores.open(path) as file:
                return size, file.read(HEAD_BYTES)
        with self._roots.open(path, self._most[kind]) as file:
            return os.fstat(file.fileno()).st_size, file.read(HEAD_BYTES)

    def open(self, parcel: Parcel) -> IO[bytes]:
        """The bytes of a medium that is here, to be read once. Raises `ClosedDoorError`."""
        if parcel.path is None:
            return io.BytesIO(_decode(parcel.value) if parcel.origin == "data" else parcel.value)
        if parcel.is_fitted:
            return Path(parcel.path).open("rb")
        if store_of(parcel.path) is not None:
            return self._stores.open(parcel.path)
        return self._roots.open(parcel.path, self._most[parcel.kind])

    def inline(self, parcel: Parcel) -> str:
        """A data URI under the MIME type that models take."""
        mime, start = _data_head(parcel.value)
        value: str = parcel.value
        return value if value[5:].startswith(f"{mime};") else f"data:{mime};base64,{value[start:]}"

    def digest(self, parcel: Parcel) -> bytes:
        """BLAKE2b-128 of a medium's bytes. That of a file is remembered as long as its times and size stay."""
        with self.open(parcel) as file:
            return self.digest_of(file)

    def digest_of(self, file: IO[bytes]) -> bytes:
        """The same of a medium that is open at its beginning."""
        if (state := state_of(file)) is None:
            return digest_of(file)
        key = (f"{state.st_dev}:{state.st_ino}", state.st_mtime_ns, state.st_ctime_ns, state.st_size)
        if (known := self._digests.get(key)) is None:
            if len(self._digests) >= _MOST_DIGESTS:
                self._digests.clear()
            known = self._digests[key] = digest_of(file)
        return known


def state_of(file: IO[bytes]) -> os.stat_result | None:
    """What the system says of an open file; None where it is no file of this machine."""
    try:
        return os.fstat(file.fileno())
    except (OSError, AttributeError):
        return None


def digest_of(file: IO[bytes]) -> bytes:
    """BLAKE2b-128 of what is left to read."""
    found = blake2b(digest_size=DIGEST_BYTES)
    while block := file.read(_READ_BYTES):
        found.update(block)
    return found.digest()


def _type_of_kind(head: bytes, name: str, kind: Kind, shown: str) -> str:
    mime = type_of(head, name, kind)
    if mime is None:
        what = sniff(head) or next(iter(tell(head)), "nothing known")
        raise ClosedDoorError(f"{shown}, whose bytes say {what}", f"{kind} data here; look at the file")
    width, height = pixels_of(head) or (0, 0)
    if kind == "image" and width * height > MOST_PIXELS:
        raise ClosedDoorError(
            f"{shown} of {width:,} x {height:,} pixels", f"images of at most {MOST_PIXELS // 10**6} million pixels"
        )
    return mime


def _data_head(uri: str) -> tuple[str, int]:
    """The MIME type of a data URI, under its proper name, and where its payload begins. The rules look at its form."""
    head, comma, _ = uri[:200].partition(",")
    if not comma:
        return "", len(uri)
    mime = head[5:].partition(";")[0]
    return (proper(mime) if proper(mime) != mime.lower() else mime), len(head) + 1


def _decode(uri: str) -> bytes:
    _, start = _data_head(uri)
    try:
        return binascii.a2b_base64(uri[start:], strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise ClosedDoorError(f"{show(uri)} ({error})", "a payload in base64") from error
