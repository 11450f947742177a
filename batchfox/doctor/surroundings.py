"""What is wrong with this set-up: interpreter, packages, extras, SQLite, limits, clock, disk. Needs no network."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from batchfox.core.job import Job
from batchfox.descriptors import MOST_DESCRIPTORS
from batchfox.doctor.remark import Remark, note
from batchfox.errors import UserError
from batchfox.jobfile import find_key
from batchfox.reserve import RESERVE_BYTES
from batchfox.version import __version__

_FIRST_DAY = 1_735_689_600  # 2025-01-01: no machine that runs this lives before it
_LAST_DAY = 4_102_444_800  # 2100-01-01
_SKEW_S = 10.0
# Extra → what cannot be done without it.
EXTRAS = {
    "media": "no [media] that makes pictures and films fit, no length of films in `validate`",
    "view": "no `batchfox view`",
    "report": "no thumbnails of large pictures in `batchfox report`",
    "notify": "no [notify] urls",
    "stores": "no input from s3://, gs:// and the like",
}


def look_around(folder: Path) -> Iterator[Remark]:
    """Everything there is to say of this machine, with `folder` where the output lies."""
    yield note(f"batchfox {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    yield from _look_at_packages()
    yield from _look_at_extras()
    yield from _look_at_disk(folder)
    yield from look_at_limits()
    yield from look_at_clock(folder)


def _look_at_packages() -> Iterator[Remark]:
    """The packages that batchfox says it needs, at the versions it says."""
    try:
        wanted = importlib.metadata.requires("batchfox") or []
    except importlib.metadata.PackageNotFoundError:
        yield Remark(what="the package batchfox is not installed", next="pip install -e .")
        return
    found = []
    for line in wanted:
        if "extra ==" in line:
            continue
        name, least = re.findall(r"^[\w.-]+", line)[0], re.findall(r">=\s*([\d.]+)", line)
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "uvloop":
                yield note("uvloop is not installed: runs go on without it, more slowly", next="pip install uvloop")
            else:
                yield Remark(
                    what=f"the package {name} is missing", next="install batchfox once more (pip install -e .)"
                )
            continue
        found.append(f"{name} {version}")
        if least and _numbers(version) < _numbers(least[0]):
            yield Remark(what=f"{name} {version} is too old", next=f'pip install "{name}>={least[0]}"')
    yield note(", ".join(sorted(found)))


def _look_at_extras() -> Iterator[Remark]:
    """The extras that a user may want, each with what it is for."""
    try:
        wanted = importlib.metadata.requires("batchfox") or []
    except importlib.metadata.PackageNotFoundError:
        return
    there, missing = [], []
    for extra, use in EXTRAS.items():
        names = [re.findall(r"^[\w.-]+", line)[0] for line in wanted if re.search(f"extra == ['\"]{extra}['\"]", line)]
        if all(map(_is_installed, names)):
            there.append(extra)
        else:
            missing.append(note(f"the extra {extra} is not installed: {use}", next=f"pip install 'batchfox[{extra}]'"))
    if there:
        yield note(f"extras: {', '.join(there)}")
    yield from missing


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def look_at_key(job: Job) -> Iterator[Remark]:
    """Is there a key? Without the network nothing more can be said of it."""
    name = job.api.key_env
    try:
        find_key(job)
    except UserError as error:
        yield Remark(what=str(error))
    else:
        yield note(f"the key in {name} is there; whether the API takes it, only a request tells: leave out --offline")


def _look_at_disk(folder: Path) -> Iterator[Remark]:
    free = shutil.disk_usage(folder).free
    if free < 2 * RESERVE_BYTES:
        yield Remark(
            what=f"only {free >> 20} MB are free", where=str(folder), next="make room: a run keeps 8 MB in reserve"
        )
    else:
        yield note(f"{free / 1e9:,.1f} GB are free", where=str(folder))
    with tempfile.TemporaryDirectory() as name:
        db = sqlite3.connect(Path(name) / "probe.db")
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.Error as error:
            mode = str(error)
        finally:
            db.close()
    if mode != "wal":
        yield Remark(what=f"SQLite keeps no write-ahead log here ({mode})", next="use another SQLite, or another disk")


def look_at_limits() -> Iterator[Remark]:
    """Each submit on the wire and each poll needs a file descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MOST_DESCRIPTORS:
        fewer = max(hard // 4, 1)
        yield Remark(
            what=f"only {hard} files and connections may be open at once",
            next=f"raise the limit (ulimit -Hn {MOST_DESCRIPTORS}), or set limits.in_flight to {fewer} or less",
        )
    elif soft != resource.RLIM_INFINITY and soft < MOST_DESCRIPTORS:
        yield note(f"{soft} files and connections may be open at once; a run raises that to what it needs")


def look_at_clock(folder: Path) -> Iterator[Remark]:
    """Is the clock of this century, and that of the disk?"""
    now = time.time()
    if not _FIRST_DAY < now < _LAST_DAY:
        day = time.strftime("%Y-%m-%d", time.gmtime(now))
        yield Remark(what=f"the clock says {day}", next="set the clock: times in the output and run_date come from it")
    if not os.access(folder, os.W_OK):
        return
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".batchfox-doctor-") as file:
        skew = os.stat(file.name).st_mtime - time.time()  # noqa: PTH116 - the name is text
    if abs(skew) > _SKEW_S:
        yield Remark(
            what=f"the disk's clock is {skew:+.0f} s from this machine's", where=str(folder), next="set the clocks"
        )
