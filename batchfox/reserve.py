"""Room kept free for the last words of a run: when the disk is full, it is given up, and what is on the wire can still
be recorded."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from batchfox.errors import DiskFullError, OutputError, machine_error

RESERVE_BYTES = 8 << 20
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Reserve:
    """A file that takes up room. One a run, beside the checkpoint."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_held = False

    def fill(self) -> None:
        """Takes the room. Raises `DiskFullError` where there is none: a run that begins now could not record its
        end."""
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVE_BYTES)
            finally:
                os.close(handle)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._path.unlink()
            if error.errno in FULL:
                raise DiskFullError(
                    f"{self._path.parent}: no room: a run keeps {RESERVE_BYTES >> 20} MB free to record what is in "
                    "flight when the disk gets full; make room, then run the same command again"
                ) from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise OutputError(f"{self._path}: {error.strerror}; the output folder must be writable") from error
            raise machine_error(error) or OutputError(f"{self._path}: {error.strerror}") from error
        self._is_held = True

    def release(self) -> bool:
        """Gives the room up. False where there was none to give."""
        was_held, self._is_held = self._is_held, False
        if was_held:
            with contextlib.suppress(OSError):
                self._path.unlink()
        return was_held
