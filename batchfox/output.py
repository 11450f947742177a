"""An output folder: made, locked, moved aside. What is in it is `checkpoint.py`'s and `parts.py`'s."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from batchfox.core.job import Job
from batchfox.durable import make_folder, rename, sync_folder
from batchfox.errors import JobError, OutputBusyError, OutputError, machine_error
from batchfox.folders import Folders
from batchfox.owners import say_owner
from batchfox.swap import finish_swap

# How long a lock is tried for: a live run keeps it, a look at the output lets go of it at once.
LOCK_S = 1.0
LOCK_EVERY_S = 0.01

_PLACEHOLDER = re.compile(r"\{\{\s*([^}]*?)\s*\}\}")
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "fuse.glusterfs", "ceph", "lustre", "afs"})


def resolve_path(pattern: str, *, run_date: str, job_name: str) -> str:
    """`[output] path` with its placeholders filled in. Raises `JobError` for any other placeholder."""

    def fill(found: re.Match[str]) -> str:
        values = {"run_date": run_date, "job": job_name}
        if found[1] not in values:
            raise JobError(
                f"output.path: unknown placeholder {found[0]}; there are {{{{ run_date }}}} and {{{{ job }}}}"
            )
        return values[found[1]]

    return _PLACEHOLDER.sub(fill, pattern)


def is_dated(pattern: str) -> bool:
    return any(found == "run_date" for found in _PLACEHOLDER.findall(pattern))


def dated_folders(job: Job) -> list[Path]:
    """The folders that earlier runs of a job with a dated path left, the oldest first."""
    marked = resolve_path(job.output.path, run_date="\0", job_name=job.name)
    pattern = re.sub(r"([*?\[])", r"[\1]", marked).replace("\0", "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]")
    anchor = Path(Path(pattern).anchor) if Path(pattern).is_absolute() else Path()
    relative = pattern[len(str(anchor)) :] if Path(pattern).is_absolute() else pattern
    return sorted(path for path in anchor.glob(relative) if path.is_dir())


def own_outputs(job: Job) -> list[Path]:
    """Every folder that this job has written to or may write to now. Raises `JobError` for an unknown placeholder."""
    if is_dated(job.output.path):
        return dated_folders(job)
    return [Path(resolve_path(job.output.path, run_date="", job_name=job.name))]


class Output:
    """An output folder that this process holds. `checkpoint_path` may lie elsewhere (`[output] checkpoint`)."""

    def __init__(self, root: Path, checkpoint: str | None) -> None:
        self.folders = Folders(root=root)
        self.checkpoint_path = Path(checkpoint) if checkpoint else self.folders.own / "checkpoint.db"

    @property
    def is_begun(self) -> bool:
        return self.checkpoint_path.exists()


@contextlib.contextmanager
def hold(root: Path, *, checkpoint: str | None = None) -> Iterator[Output]:
    """Makes the folder where needed and holds its lock: an OS lock, which dies with its process.

    Raises `OutputBusyError` where another live run holds it, `OutputError` where it cannot be used.
    """
    output = Output(root, checkpoint)
    folders = output.folders
    refuse_unusable(root, checkpoint)
    with _at_the_border(root):
        # `own` first: by it the folder is known as an output, should the run be killed here.
        for folder in (root, folders.own, folders.data, folders.tmp, folders.superseded):
            make_folder(folder)
        for folder in (root.parent, root, folders.own):  # a run that made them may have been killed before it synced
            sync_folder(folder)
        _refuse_locked(folders)
        handle = os.open(folders.own / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(handle, root)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        finish_swap(output.checkpoint_path)
        yield output
    finally:
        os.close(handle)


def _refuse_locked(folders: Folders) -> None:
    """Raises `OutputError` where a run could not write what it has to write."""
    for place in (folders.data, folders.own, folders.tmp, folders.superseded, folders.log, folders.job):
        if place.exists() and not os.access(place, os.W_OK):
            raise OutputError(_say_locked(place))


def _say_locked(place: Path) -> str:
    return f"{place}: not writable{say_owner(place, ': ')}; choose another [output] path or mend its permissions"


def _lock(handle: int, root: Path) -> None:
    """Takes the lock, which who only looks whether it is held has for an instant (`status.is_held`)."""
    tries = round(LOCK_S / LOCK_EVERY_S)
    for left in reversed(range(tries)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if left == 0:
                who = os.pread(handle, 64, 0).decode("ascii", "replace").strip()
                raise OutputBusyError(
                    f"{root}: another live run holds this output{f' (process {who})' if who else ''}; "
                    "wait for it, or stop it, or choose another [output] path"
                ) from error
            time.sleep(LOCK_EVERY_S)


def move_aside(root: Path, run_id: str) -> Path:
    """`--fresh`: the old output becomes `DIR.old-<run_id>`. Nothing is deleted."""
    target = root.with_name(f"{root.name}.old-{run_id}")
    number = 1
    while target.exists():
        number += 1
        target = root.with_name(f"{root.name}.old-{run_id}-{number}")
    with _at_the_border(root):
        rename(root, target)
    return target


@contextlib.contextmanager
def _at_the_border(root: Path) -> Iterator[None]:
    try:
        yield
    except NotADirectoryError as error:
        raise OutputError(f"{root}: a file is in the way; [output] path must be a folder") from error
    except FileExistsError as error:
        raise OutputError(f"{root}: a file is in the way; [output] path must be a folder") from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(
                f"{root}: {error.strerror}{say_owner(root, ': ')}; the output folder must be writable"
            ) from error
        raise machine_error(error) or OutputError(f"{root}: {error.strerror}") from error


def refuse_unusable(root: Path, checkpoint: str | None) -> None:
    """Raises `OutputError` where a run could not use this output, as far as looking tells; nothing is touched."""
    if checkpoint is None and (kind := _file_system(root)) in _NETWORK:
        raise OutputError(
            f"{root}: on a network file system ({kind}), where SQLite's write-ahead log is not safe; "
            'set [output] checkpoint = "/a/local/path/checkpoint.db"'
        )
    if checkpoint is not None and Path(checkpoint).exists() and not Path(checkpoint).is_file():
        raise OutputError(f"{checkpoint}: no regular file; [output] checkpoint must be the path of a file")
    with _at_the_border(root):
        there = next(place for place in (root, *root.absolute().parents) if os.path.lexists(place))
        if not there.is_dir():
            raise OutputError(f"{there}: a file is in the way; [output] path must be a folder")
        if there != root:
            if not os.access(there, os.W_OK | os.X_OK):
                raise OutputError(_say_locked(there))
        elif not (root / "_batchfox").exists() and any(root.iterdir()):
            raise OutputError(
                f"{root}: not empty, and not an output of batchfox; choose an empty or new folder for [output] path"
            )


def _file_system(path: Path) -> str:
    """The type of the file system that a path is, or will be, on; "" where the machine does not tell."""
    path = path.absolute()
    best, kind = "", ""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, mount, this_kind, *_ = line.split(" ")
        if len(mount) >= len(best) and (str(path) + "/").startswith(mount.rstrip("/") + "/"):
            best, kind = mount, this_kind
    return kind
