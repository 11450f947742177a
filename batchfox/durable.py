"""Files and folders that are there for good: what a power cut must not undo is synced, and its folder too."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from batchfox.errors import UserError


def sync_folder(folder: Path) -> None:
    """The entries of a folder are there for good when this returns; as far as a folder that may be entered but not
    read, and a file system that syncs no folders, allow it."""
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(handle)


def make_folder(folder: Path) -> None:
    """Makes a folder where there is none, and those that lead to it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_file(path: Path) -> None:
    """A file that is written and closed is there for good when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(old: Path, new: Path) -> None:
    """Gives a synced file, or a folder, another name, in place of what has that name."""
    old.replace(new)
    sync_folder(new.parent)


def write_text(text: str, temporary: Path, final: Path) -> None:
    """A file with this text, whole or not at all."""
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    rename(temporary, final)


@contextlib.contextmanager
def whole_or_not(target: Path) -> Iterator[Path]:
    """Where to write a file that a user asked for: it takes the name `target` once the block ends, whole; where the
    block raises, nothing is left. Raises `UserError` where the file system refuses, and for a device, a pipe, a folder:
    only a file is replaced."""
    if not target.name:
        raise UserError(f"{target}: a folder; name the file to write")
    temporary = target.with_name(f".{target.name}.part")
    try:
        if target.exists() and not target.is_file():
            raise UserError(f"{target}: exists and is no file; name another; nothing was written")
        yield temporary
        sync_file(temporary)
        rename(temporary, target)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)  # Arrow's own words name the temporary file
        raise UserError(f"{target}: {reason}; nothing was written") from error
    finally:
        with contextlib.suppress(OSError):  # what could not be made for its name or place cannot be removed either
            temporary.unlink(missing_ok=True)
