"""A repaired checkpoint takes the place of the old one: in one step, though a checkpoint is more than one file.

The repaired file is complete and synced before it gets the name `checkpoint.db.rebuilt`; from then on it counts. Moving
the old files aside and giving it its name is finished by whoever holds the output next, if a crash cut it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from batchfox.durable import rename, sync_file

# The file itself comes last: while it is there, what lies beside it is its own.
_FILES = ("-wal", "-shm", "")


def building_path(path: Path) -> Path:
    """Where a repaired checkpoint is being written; nothing counts that is there."""
    return path.with_name(f"{path.name}.building")


def rebuilt_path(path: Path) -> Path:
    """Where a repaired checkpoint is complete."""
    return path.with_name(f"{path.name}.rebuilt")


def swap_in(path: Path) -> Path | None:
    """The file at `building_path` becomes the checkpoint. Returns where the old one is kept, None if there was none."""
    building = building_path(path)
    sync_file(building)
    rename(building, rebuilt_path(path))
    return finish_swap(path)


def finish_swap(path: Path) -> Path | None:
    """Puts a rebuilt checkpoint in its place, where there is one. What was there is kept under the name returned."""
    rebuilt = rebuilt_path(path)
    if not rebuilt.exists():
        return None
    # The same name however often this is begun: that of the rebuilt file's time.
    stamp = datetime.fromtimestamp(rebuilt.stat().st_mtime, UTC).strftime("%Y%m%d-%H%M%S-%f")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in _FILES:
        old = path.with_name(path.name + suffix)
        if old.exists():
            rename(old, aside.with_name(aside.name + suffix))
    rename(rebuilt, path)
    return aside if aside.exists() else None
