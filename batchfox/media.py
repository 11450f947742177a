"""The door for media: local files and bytes become data URIs, and no row reaches a file outside `media.root`.

Contract, promise 6. Remote URLs pass: the API fetches them, this machine never does.
"""

from __future__ import annotations

import binascii
import errno
import os
import stat
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from batchfox.core.complaint import Complaint, Place, complain, show, spell
from batchfox.core.job import Media
from batchfox.core.mime import HEAD_BYTES, mime_of, sniff
from batchfox.core.shape import Kind, Medium, media_of, replace_media
from batchfox.errors import JobError, MachineError

MOST_FILE_BYTES = 100_000_000
_READ_BYTES = 1024 * 1024
_OUT_OF_HANDLES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

Way = Literal["url", "inline"]


class _ClosedDoorError(Exception):
    """A medium that cannot be sent: what was found, what is allowed."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(found)
        self.found = found
        self.allowed = allowed


def check_mode(media: Media) -> None:
    """Raises `JobError` where this version cannot do what `[media] mode` asks for; to be called at job start."""
    if media.mode == "upload":
        raise JobError('media.mode = "upload" is not built yet; use auto or inline')


class MediaDoor:
    """Makes of every medium what the API takes. Threads may share one: it holds no state but `media.root`.

    The root is resolved when the door is built, against the working directory.
    """

    def __init__(self, media: Media) -> None:
        check_mode(media)
        self._mode = media.mode
        self._root = os.path.realpath(media.root)

    def send(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[str]] | Complaint:
        """The request with local media inline, and how each medium travels, in the order of `media_of`.

        `url`: an http(s) URL as it is. `inline`: a data URI, given so or built from a local path, a `file:` URL or
        bytes. The argument is not changed. Reads files: call it in a thread. A medium that cannot be read, lies
        outside the root, is not of its kind or above 100 MB is a complaint with rule `media`.
        """
        new: dict[Place, str] = {}
        ways: list[str] = []
        for medium in media_of(request):
            try:
                way, value = self._pass(medium)
            except _ClosedDoorError as refusal:
                return complain("media", spell(medium.place), refusal.found, refusal.allowed)
            ways.append(way)
            if value is not medium.value:
                new[medium.place] = value
        return (replace_media(request, new) if new else request), ways

    def _pass(self, medium: Medium) -> tuple[Way, Any]:
        value = medium.value
        if isinstance(value, (bytes, bytearray, memoryview)):
            self._demand_inline(show(value))
            return "inline", _inline(bytes(value), "", medium.kind, show(value))
        if not isinstance(value, str):
            raise _ClosedDoorError(show(value), "an http(s) URL, a data URI or a local path")
        head = value[:8].lower()
        if head.startswith(("http://", "https://")):
            return "url", value
        if head.startswith("data:"):
            return "inline", value
        self._demand_inline(f"the local path {show(value)}")
        path = _path_of_url(value) if head.startswith("file:") else value
        return "inline", _inline(self._read(path), Path(path).suffix, medium.kind, show(value))

    def _demand_inline(self, found: str) -> None:
        if self._mode == "url":
            raise _ClosedDoorError(
                found, 'an http(s) URL or a data URI, since media.mode = "url"; or set mode = "auto"'
            )

    def _read(self, path: str) -> bytes:
        """The bytes of a regular file below the root. Raises `_ClosedDoorError`; `MachineError` where the machine, and
        not the file, is wrong."""
        shown = show(path)
        if "\0" in path:
            raise _ClosedDoorError(f"{shown}, a path with a NUL", "a path below media.root")
        try:
            # Also raises UnicodeEncodeError (a ValueError) for half a surrogate pair that is no file name.
            real = os.path.realpath(os.path.join(self._root, path))  # noqa: PTH118 — an absolute path wins, as meant
            steps = self._steps_below_root(real, shown)
            return self._read_below_root(steps, shown)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _OUT_OF_HANDLES:
                raise MachineError(
                    f"{shown}: {error.strerror}; raise the limit (ulimit -n) or lower limits.in_flight, then run "
                    "the same command again"
                ) from error
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise _ClosedDoorError(
                f"{shown}, which cannot be read ({why})", f"a readable file below media.root = {self._root}"
            ) from error

    def _steps_below_root(self, real: str, shown: str) -> list[str]:
        if os.path.commonpath([real, self._root]) != self._root:
            raise _ClosedDoorError(
                f"{shown}, which lies outside",
                f"files below media.root = {self._root}; move the file, or set media.root",
            )
        return list(Path(real).relative_to(self._root).parts)

    def _read_below_root(self, steps: list[str], shown: str) -> bytes:
        """Walks down from the root, one open a step and no symbolic link followed.

        The path was resolved before: a link met now was put there in between, to lead out. Raises OSError.
        """
        opened = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for at, step in enumerate(steps):
                is_last = at == len(steps) - 1
                # Without O_NONBLOCK a FIFO would be waited for until somebody writes.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_NONBLOCK if is_last else os.O_DIRECTORY)
                below = os.open(step, flags, dir_fd=opened)
                os.close(opened)
                opened = below
            return _read_regular(opened, shown)
        finally:
            os.close(opened)


def _read_regular(opened: int, shown: str) -> bytes:
    """All bytes of an open file, at most 100 MB of them. Raises OSError."""
    state = os.fstat(opened)
    if stat.S_ISDIR(state.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(state.st_mode):
        raise _ClosedDoorError(f"{shown}, which is no regular file", "a regular file below media.root")
    blocks: list[bytes] = []
    size = 0
    while size <= MOST_FILE_BYTES and state.st_size <= MOST_FILE_BYTES:
        block = os.read(opened, _READ_BYTES)
        if not block:
            return b"".join(blocks)
        blocks.append(block)
        size += len(block)
    megabytes = max(size, state.st_size) / 1e6
    raise _ClosedDoorError(
        f"{shown} of {megabytes:,.1f} MB", "files of at most 100 MB; shrink it, or give its http(s) URL"
    )


def _path_of_url(url: str) -> str:
    """The path that a `file:` URL names. Another host's is refused."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _ClosedDoorError(show(url), "a file: URL such as file:pictures/cat.png") from error
    if parts.netloc.lower() not in ("", "localhost"):
        raise _ClosedDoorError(f"{show(url)}, a file on another host", "files of this machine, below media.root")
    # A "?" or "#" would be part of the name only when written %3F, %23.
    return unquote(parts.path, errors="surrogateescape")


def _inline(data: bytes, suffix: str, kind: Kind, shown: str) -> str:
    """The data URI of a medium whose bytes are those of its kind."""
    if not data:
        raise _ClosedDoorError(f"{shown}, which is empty", f"{kind} data")
    if len(data) > MOST_FILE_BYTES:
        raise _ClosedDoorError(f"{shown}, {len(data) / 1e6:,.1f} MB", "at most 100 MB")
    head = data[:HEAD_BYTES]
    mime = mime_of(head, suffix, kind)
    if mime is None:
        what = sniff(head) or "nothing known"
        raise _ClosedDoorError(f"{shown}, whose bytes say {what}", f"{kind} data here; look at the file")
    return f"data:{mime};base64,{binascii.b2a_base64(data, newline=False).decode('ascii')}"
