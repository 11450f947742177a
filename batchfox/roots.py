"""The folders of `media.root`: files below them are opened, and none outside, whatever a row names."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import show
from batchfox.errors import MachineError

MOST_FILE_BYTES = 100_000_000
_OUT_OF_HANDLES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Roots:
    """Local folders, resolved when this is built, against the working directory. Threads may share it."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = [os.path.realpath(root) for root in roots]

    def open(self, path: str, most: int = MOST_FILE_BYTES) -> io.BufferedReader:
        """A regular file of at most `most` bytes below a root; a relative path is looked for below each, in order.

        Raises `ClosedDoorError`; `MachineError` where the machine, and not the file, is wrong.
        """
        if "\0" in path:
            raise ClosedDoorError(f"{show(path)}, a path with a NUL", "a path below media.root")
        if not self._roots:
            raise ClosedDoorError(
                f"the local path {show(path)}", "objects below the prefixes in media.root, which names no local folder"
            )
        refusals: list[ClosedDoorError] = []
        for root in self._roots:
            try:
                return self._open_below(root, path, most)
            except ClosedDoorError as refusal:
                refusals.append(refusal)
        raise next((refusal for refusal in refusals if "lies outside" not in refusal.found), refusals[0])

    def _open_below(self, root: str, path: str, most: int) -> io.BufferedReader:
        shown = show(path)
        try:
            # Also raises UnicodeEncodeError (a ValueError) for half a surrogate pair that is no file name.
            real = os.path.realpath(os.path.join(root, path))  # noqa: PTH118 — an absolute path wins, as meant
            return _open_steps(root, self._steps_below(root, real, shown), shown, most)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _OUT_OF_HANDLES:
                raise MachineError(
                    f"{shown}: {error.strerror}; raise the limit (ulimit -n) or lower limits.in_flight, then run "
                    "the same command again"
                ) from error
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise ClosedDoorError(
                f"{shown}, which cannot be read ({why})", f"a readable file below media.root = {self._shown}"
            ) from error

    @property
    def _shown(self) -> str:
        return ", ".join(self._roots)

    def _steps_below(self, root: str, real: str, shown: str) -> list[str]:
        if os.path.commonpath([real, root]) != root:
            raise ClosedDoorError(
                f"{shown}, which lies outside",
                f"files below media.root = {self._shown}; move the file, or set media.root",
            )
        return list(Path(real).relative_to(root).parts)


def _open_steps(root: str, steps: list[str], shown: str, most: int) -> io.BufferedReader:
    """Walks down from the root, one open a step and no symbolic link followed.

    The path was resolved before: a link met now was put there in between, to lead out. Raises OSError.
    """
    opened = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for at, step in enumerate(steps):
            is_last = at == len(steps) - 1
            # Without O_NONBLOCK a FIFO would be waited for until somebody writes.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_NONBLOCK if is_last else os.O_DIRECTORY)
            below = os.open(step, flags, dir_fd=opened)
            os.close(opened)
            opened = below
        _demand_regular(opened, shown, most)
    except BaseException:
        os.close(opened)
        raise
    return io.BufferedReader(io.FileIO(opened, "rb"))


def _demand_regular(opened: int, shown: str, most: int) -> None:
    state = os.fstat(opened)
    if stat.S_ISDIR(state.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(state.st_mode):
        raise ClosedDoorError(f"{shown}, which is no regular file", "a regular file below media.root")
    refuse_large(state.st_size, shown, most)


def refuse_large(size: int, shown: str, most: int = MOST_FILE_BYTES) -> None:
    """Raises `ClosedDoorError` for more than `most` bytes."""
    if size > most:
        raise ClosedDoorError(
            f"{shown} of {size / 1e6:,.1f} MB",
            f"files of at most {most // 10**6:,} MB; shrink it, or give its http(s) URL",
        )


def path_of_url(url: str) -> str:
    """The path that a `file:` URL names. Another host's is refused."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ClosedDoorError(show(url), "a file: URL such as file:pictures/cat.png") from error
    if parts.netloc.lower() not in ("", "localhost"):
        raise ClosedDoorError(f"{show(url)}, a file on another host", "files of this machine, below media.root")
    # A "?" or "#" would be part of the name only when written %3F, %23.
    return unquote(parts.path, errors="surrogateescape")
