"""SQLite's errors in our words, at the one border where they cross into batchfox."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from batchfox.errors import BatchfoxError, DamagedError, DiskFullError, MachineError, OutputError
from batchfox.reserve import remedy_for


@contextlib.contextmanager
def at_the_border(path: Path) -> Iterator[None]:
    """Raises `DamagedError` for what cannot be read as a checkpoint, `OutputError` for what may not be used, else
    `MachineError`."""
    try:
        yield
    except BatchfoxError:
        raise
    except sqlite3.OperationalError as error:
        text = str(error)
        if "no such table" in text or "no such column" in text:
            raise damaged(path, text) from error
        if "full" in text or "disk I/O" in text:
            raise DiskFullError(f"{path}: {text}; {remedy_for(path)}, then run the same command again") from error
        if "unable to open" in text and _is_usable(path):
            raise MachineError(
                f"{path}: {text}, and nothing forbids it: too many files are open (ulimit -n), or the disk fails; "
                "mend it, then run the same command again"
            ) from error
        if "readonly" in text or "unable to open" in text or "permission" in text.lower():
            raise OutputError(f"{path}: {text}; the output folder must be writable") from error
        raise MachineError(f"{path}: {text}") from error
    except (sqlite3.DatabaseError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from error


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, on a connection in autocommit; nobody else writes meanwhile. Raises `sqlite3.Error`."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _is_usable(path: Path) -> bool:
    """Nothing forbids to open this file. SQLite does not say why it could not."""
    place = path if path.exists() else path.parent
    is_kind = place.is_file() if place is path else place.is_dir()
    return is_kind and os.access(place, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)


def damaged(path: Path, text: str) -> DamagedError:
    """The error for a checkpoint that is not what batchfox wrote."""
    return DamagedError(f"{path}: {text}; the checkpoint is damaged: {repair_words(path)} saves what can be saved")


def repair_words(path: Path) -> str:
    """The command that repairs the output of this checkpoint, as far as its path tells which that is."""
    folder = path.parent.parent if path.parent.name == "_batchfox" else "DIR"
    return f"`batchfox doctor {folder} --repair`"
