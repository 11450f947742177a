"""Results of fitting, kept beside the output by content and settings: resumes and other rows use them again."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter, OrderedDict
from pathlib import Path

from batchfox.durable import sync_file

# What a file counts at least: many small ones fill a disk, and a memory, too.
LEAST_BYTES = 16_384
_UNFINISHED = "."


class Cache:
    """A folder of results, those used longest ago thrown out beyond `most_bytes`, except those in use. Threads may
    share it; only one process at a time has it, by the output's lock."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most = most_bytes
        self._lock = threading.Lock()
        self._in_use: Counter[str] = Counter()
        self._known: OrderedDict[str, tuple[str, int]] | None = None
        self._bytes = 0
        self._begun = 0

    def take(self, key: str) -> Path | None:
        """The result under this key, kept until `release`; None where there is none."""
        with self._lock:
            known = self._load()
            if (found := known.get(key)) is None:
                return None
            path = self._folder / f"{key}{found[0]}"
            try:
                os.utime(path)
            except FileNotFoundError:
                self._forget(key)
                return None
            known.move_to_end(key)
            self._in_use[key] += 1
            return path

    def begin(self) -> Path:
        """A new file for a result that is not there yet, or for a copy; the caller takes it away unless it is put."""
        with self._lock:
            self._load()
            self._begun += 1
            return self._folder / f"{_UNFINISHED}{self._begun}"

    def put(self, key: str, suffix: str, made: Path) -> Path:
        """Takes over a finished file, in use until `release`. Durable: after a power cut it is whole or not there."""
        sync_file(made)
        path = self._folder / f"{key}{suffix}"
        with self._lock:
            self._load()
            size = made.stat().st_size
            made.replace(path)
            if key in self._known_now:
                self._forget(key)
            self._known_now[key] = (suffix, size)
            self._bytes += max(size, LEAST_BYTES)
            self._in_use[key] += 1
            self._make_room()
            return path

    def release(self, path: Path) -> None:
        """What `take` or `put` gave is used no more."""
        key = path.stem
        with self._lock:
            self._in_use[key] -= 1
            if self._in_use[key] <= 0:
                del self._in_use[key]
            self._make_room()

    @property
    def _known_now(self) -> OrderedDict[str, tuple[str, int]]:
        assert self._known is not None
        return self._known

    def _load(self) -> OrderedDict[str, tuple[str, int]]:
        """What is there, that used longest ago first; what an earlier process left half-done is taken away."""
        if self._known is None:
            self._folder.mkdir(exist_ok=True)
            found: list[tuple[float, str, int]] = []
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.startswith(_UNFINISHED):
                        Path(entry.path).unlink()
                    elif entry.is_file(follow_symlinks=False):
                        state = entry.stat(follow_symlinks=False)
                        found.append((state.st_mtime, entry.name, state.st_size))
            self._known = OrderedDict((Path(name).stem, (Path(name).suffix, size)) for _, name, size in sorted(found))
            self._bytes = sum(max(size, LEAST_BYTES) for _, size in self._known.values())
            self._make_room()
        return self._known

    def _make_room(self) -> None:
        if self._bytes <= self._most:
            return
        for key in [key for key in self._known_now if key not in self._in_use]:
            suffix = self._known_now[key][0]
            with contextlib.suppress(FileNotFoundError):
                (self._folder / f"{key}{suffix}").unlink()
            self._forget(key)
            if self._bytes <= self._most:
                return

    def _forget(self, key: str) -> None:
        _, size = self._known_now.pop(key)
        self._bytes -= max(size, LEAST_BYTES)
