"""A body with its inline media in place: base64 a block at a time, straight from the file into the body's own bytes.

So a body takes what it is long, 1.33 times its media, and not three copies of that on the way there.
"""

from __future__ import annotations

import binascii
import io
from collections.abc import Sequence
from typing import IO

import msgspec

from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import show
from batchfox.core.travel import base64_bytes
from batchfox.media import MediaDoor, Parcel

# A multiple of 3, so that blocks follow each other without padding.
_BLOCK_BYTES = 3 << 18


class UnreadableError(Exception):
    """The medium of a gap cannot be read any more."""

    def __init__(self, parcel: Parcel, refusal: ClosedDoorError) -> None:
        super().__init__(refusal)
        self.parcel = parcel
        self.refusal = refusal


class Gap(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a medium's base64 belongs: `mark` stands there instead, in JSON, and nowhere else."""

    mark: bytes
    parcel: Parcel


def splice(encoded: bytes, gaps: Sequence[Gap], door: MediaDoor) -> bytes:
    """The body. Raises `UnreadableError`."""
    if not gaps:
        return encoded
    body = io.BytesIO()
    # Its whole length at once: it need not grow.
    size = len(encoded) + sum(base64_bytes(gap.parcel.size) - len(gap.mark) for gap in gaps)
    body.seek(size - 1)
    body.write(b"}")
    body.seek(0)
    done = 0
    for at, gap in sorted(((encoded.index(gap.mark), gap) for gap in gaps), key=lambda found: found[0]):
        body.write(memoryview(encoded)[done:at])
        try:
            _write(gap.parcel, door, body)
        except ClosedDoorError as refusal:
            raise UnreadableError(gap.parcel, refusal) from refusal
        done = at + len(gap.mark)
    body.write(memoryview(encoded)[done:])
    return body.getvalue()


def _write(parcel: Parcel, door: MediaDoor, body: IO[bytes]) -> None:
    with door.open(parcel) as file:
        left = parcel.size
        while left > 0 and (block := _read(file, min(left, _BLOCK_BYTES))):
            body.write(binascii.b2a_base64(block, newline=False))
            left -= len(block)
        if left or file.read(1):
            raise ClosedDoorError(f"{show(parcel.value)}, which changed while it was read", "a file that stays")


def _read(file: IO[bytes], size: int) -> bytes:
    """So many bytes; fewer only at the end. Stores may give less than was asked for."""
    block = file.read(size)
    while len(block) < size and (more := file.read(size - len(block))):
        block += more
    return block
