"""One file as `multipart/form-data`, streamed from where it lies, and hashed as it goes out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import IO

from batchfox.media import DIGEST_BYTES

BLOCK_BYTES = 1 << 18


class ShortFileError(OSError):
    """A file ended before its size."""


class Envelope:
    """The body of one upload, to be sent once. `size`: the file's bytes, no more of which are sent; `digest`:
    BLAKE2b-128 of those that went out."""

    def __init__(self, file: IO[bytes], *, size: int, name: str, mime: str) -> None:
        """`name` and `mime` are our own: they hold no quotes."""
        boundary = f"batchfox-{secrets.token_hex(16)}"
        disposition = f'form-data; name="file"; filename="{name}"'
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file_name"\r\n\r\n{name}\r\n'
            f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {mime}\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file = file
        self._size = size
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self.content_type = f"multipart/form-data; boundary={boundary}"

    @property
    def content_length(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body. Raises `ShortFileError` where the file is shorter than it was said to be."""
        loop = asyncio.get_running_loop()
        yield self._head
        left = self._size
        while left:
            block = await loop.run_in_executor(None, self._file.read, min(left, BLOCK_BYTES))
            if not block:
                raise ShortFileError("the file became shorter while it was read")
            left -= len(block)
            self._hash.update(block)
            yield block
        yield self._tail
