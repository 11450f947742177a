"""Room kept free for the last words of a run: when the disk is full, it is given up, and what is on the wire can still
be recorded."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from pathlib import Path

from batchfox.errors import DiskFullError, OutputError, machine_error

RESERVE_BYTES = 8 << 20
_PAGE = 65_536  # of SQLite, at most
# What the system says where a file takes nothing more: no room on the disk or in the quota, or no longer a file.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LONGER = "raise the limit on the size of a file (ulimit -f)"


def remedy(error: OSError) -> str:
    """What to do about one of `FULL`."""
    return _LONGER if error.errno == errno.EFBIG else "make room"


def remedy_for(path: Path) -> str:
    """The same for an SQLite file, of which SQLite only says that it took nothing more."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY:
        for name in (path.name, f"{path.name}-wal"):
            with contextlib.suppress(OSError):
                if path.with_name(name).stat().st_size > limit - _PAGE:
                    return _LONGER
    return "make room"


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
                    f"{self._path.parent}: no room ({error.strerror}): a run keeps {RESERVE_BYTES >> 20} MB free to "
                    f"record what is in flight when the disk is full; {remedy(error)}, then run the same command again"
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
