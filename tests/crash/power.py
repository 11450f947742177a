"""What a disk holds after a power cut: replays the journal of `power_shim.c` and forgets what was not synced.

Strict POSIX: an fsync keeps that file's data and size, or that folder's entries, and nothing else; a new file's name is
kept by its folder's sync alone. Of what was not synced a seeded mixture is there: each write whole, torn between
sectors of 512 bytes, gone, or gone with its length filled with zeros; each change of a size or none.

Assumed, as every journaling file system does: a sector is old or new, and the entries of one folder change in order, so
that a cut keeps a first few of its changes (a rename within a folder is one). Folders keep no order between
each other: a file renamed from one to another may be in both, or in none.
"""

from __future__ import annotations

import enum
import os
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
_SHIM = Path(__file__).with_name("power_shim.c")
_HEADER = struct.Struct("<IIIIQQQqII")
_MAGIC = 0x50575231


class Kind(enum.IntEnum):
    """The same numbers as in `power_shim.c`."""

    CREATE = 1
    WRITE = 2
    RESIZE = 3
    EXTEND = 4
    RENAME = 5
    LINK = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    SYNC_FILE = 10
    SYNC_FOLDER = 11


class Op(NamedTuple):
    """One change, or sync. `begun`, `ended`: unix seconds. `path`, `to`: below the root."""

    kind: Kind
    begun: float
    ended: float
    inode: int
    number: int
    path: str
    to: str
    data: bytes

    @property
    def is_sync(self) -> bool:
        return self.kind in (Kind.SYNC_FILE, Kind.SYNC_FOLDER)


def build_shim(folder: Path) -> Path:
    """The shim, compiled."""
    library = folder / "power_shim.so"
    flags = ["-O1", "-w", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", library, _SHIM, "-ldl", "-lpthread"], check=True)
    return library


def shim_environment(library: Path, root: Path, journal: Path) -> dict[str, str]:
    """What makes a child write down what it does below `root`."""
    return {"LD_PRELOAD": str(library), "POWER_ROOT": str(root), "POWER_JOURNAL": str(journal)}


def read_journal(path: Path) -> list[Op]:
    """Every record, in order; they are one process's, or those of several that ran one after the other."""
    text = path.read_bytes()
    found: list[Op] = []
    writers: list[int] = []
    at = 0
    while at < len(text):
        magic, kind, pid, _, begun, ended, inode, number, first, second = _HEADER.unpack_from(text, at)
        assert magic == _MAGIC, f"{path}: no record at byte {at}"
        if writers[-1:] != [pid]:
            writers.append(pid)
        at += _HEADER.size
        data, to = text[at : at + first], text[at + first : at + first + second].decode()
        at += first + second
        name = "" if kind == Kind.WRITE else data.decode()
        data = data if kind == Kind.WRITE else b""
        found.append(Op(Kind(kind), begun / 1e9, ended / 1e9, inode, number, name, to, data))
    assert len(set(writers)) == len(writers), f"{path}: written by several processes at once, whose order is not known"
    return found


class Luck:
    """What survives of what was not synced, drawn for one cut. `kept` and `named`: how much of data and of names."""

    def __init__(self, seed: int | str, kept: float | None = None, named: float | None = None) -> None:
        self._draw = random.Random(seed)
        self._kept = self._any_share() if kept is None else kept
        self._named = self._any_share() if named is None else named

    def _any_share(self) -> float:
        return self._draw.choice((0.0, 1.0, 0.5, self._draw.random()))

    def keeps(self) -> bool:
        return self._draw.random() < self._kept

    def extends(self) -> bool:
        return 0.0 < self._kept < 1.0 and self._draw.random() < 0.3

    def sectors(self, number: int) -> list[bool]:
        """Which sectors of a write are there."""
        if self.keeps():
            return [True] * number
        if not 0.0 < self._kept < 1.0 or self._draw.random() < 0.5:
            return [False] * number
        return [self._draw.random() < 0.5 for _ in range(number)]

    def changes(self, number: int) -> int:
        """How many of a folder's changes are there."""
        if self._named in (0.0, 1.0):
            return round(self._named * number)
        return self._draw.randint(0, number)


EVERYTHING = 1.0
NOTHING = 0.0


class Content:
    """Bytes, and a size that may be beyond them: zeros."""

    def __init__(self, data: bytes = b"") -> None:
        self._bytes = bytearray(data)
        self._size = len(data)

    def copy(self) -> Content:
        other = Content()
        other._bytes, other._size = bytearray(self._bytes), self._size
        return other

    def write(self, offset: int, data: bytes) -> None:
        if len(self._bytes) < offset:
            self._bytes.extend(bytes(offset - len(self._bytes)))
        self._bytes[offset : offset + len(data)] = data
        self._size = max(self._size, offset + len(data))

    def resize(self, size: int) -> None:
        del self._bytes[size:]
        self._size = size

    def extend(self, size: int) -> None:
        self._size = max(self._size, size)

    def put(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(self._bytes)
            file.truncate(self._size)


class File:
    """What is synced of a file, and what was done to it since."""

    def __init__(self, data: bytes = b"") -> None:
        self._synced = Content(data)
        self._since: list[Op] = []

    def change(self, op: Op) -> None:
        self._since.append(op)

    def sync(self) -> None:
        for op in self._since:
            _apply(op, self._synced)
        self._since.clear()

    def survivor(self, luck: Luck) -> Content:
        content = self._synced.copy()
        for op in self._since:
            if op.kind is Kind.WRITE:
                _write_some(op, content, luck)
            elif luck.keeps():
                _apply(op, content)
        return content


def _apply(op: Op, content: Content) -> None:
    if op.kind is Kind.WRITE:
        content.write(op.number, op.data)
    elif op.kind is Kind.RESIZE:
        content.resize(op.number)
    else:
        content.extend(op.number)


def _write_some(op: Op, content: Content, luck: Luck) -> None:
    """The sectors of a write that luck kept."""
    pieces = list(_sectors(op.number, op.data))
    for (offset, piece), is_kept in zip(pieces, luck.sectors(len(pieces)), strict=True):
        if is_kept:
            content.write(offset, piece)
    if luck.extends():
        content.extend(op.number + len(op.data))


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length = SECTOR - (offset + at) % SECTOR
        yield offset + at, data[at : at + length]
        at += length


class Folder:
    """A folder's entries as they are now, and the changes to them that are not synced."""

    def __init__(self) -> None:
        self.entries: dict[str, Node] = {}
        self._synced: dict[str, Node] = {}
        self._since: list[dict[str, Node | None]] = []

    def change(self, changes: dict[str, Node | None]) -> None:
        """New entries, None for those that go; one step."""
        _take(self.entries, changes)
        self._since.append(changes)

    def sync(self) -> None:
        self._synced = dict(self.entries)
        self._since.clear()

    def put(self, path: Path, luck: Luck) -> None:
        """Makes the folder as a cut leaves it."""
        path.mkdir()
        left = dict(self._synced)
        for changes in self._since[: luck.changes(len(self._since))]:
            _take(left, changes)
        for name, node in left.items():
            if isinstance(node, Folder):
                node.put(path / name, luck)
            else:
                node.survivor(luck).put(path / name)


Node = File | Folder


def _take(entries: dict[str, Node], changes: dict[str, Node | None]) -> None:
    for name, node in changes.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class Disk:
    """The folder below which a journal was written, operation by operation."""

    def __init__(self, root: Path) -> None:
        """As the folder is now, everything in it synced."""
        self._by_inode: dict[int, File] = {}
        self._root = self._read(root)

    def _read(self, path: Path) -> Folder:
        folder = Folder()
        for entry in os.scandir(path):
            if entry.is_dir():
                folder.entries[entry.name] = self._read(Path(entry.path))
            elif not entry.name.endswith("-shm"):
                file = folder.entries[entry.name] = File(Path(entry.path).read_bytes())
                self._by_inode[entry.inode()] = file
        folder.sync()
        return folder

    def do(self, op: Op) -> None:
        """One more operation."""
        match op.kind:
            case Kind.CREATE:
                self._by_inode[op.inode] = File()
                self._change(op.path, self._by_inode[op.inode])
            case Kind.WRITE | Kind.RESIZE | Kind.EXTEND:
                self._by_inode[op.inode].change(op)
            case Kind.RENAME:
                self._rename(op.path, op.to)
            case Kind.LINK:
                self._change(op.to, self._find(op.path))
            case Kind.UNLINK | Kind.RMDIR:
                self._change(op.path, None)
            case Kind.MKDIR:
                self._change(op.path, Folder())
            case Kind.SYNC_FILE:
                self._by_inode[op.inode].sync()
            case Kind.SYNC_FOLDER:
                folder = self._find(op.path)
                assert isinstance(folder, Folder)
                folder.sync()

    def cut(self, target: Path, luck: Luck) -> Path:
        """Makes the folder `target` as a power cut now would leave the disk."""
        self._root.put(target, luck)
        return target

    def _find(self, path: str) -> Node:
        node: Node = self._root
        for name in Path(path).parts:
            assert isinstance(node, Folder)
            node = node.entries[name]
        return node

    def _parent(self, path: str) -> Folder:
        found = self._find(os.path.dirname(path))  # noqa: PTH120 - a path of the journal, "" being the root
        assert isinstance(found, Folder)
        return found

    def _change(self, path: str, node: Node | None) -> None:
        self._parent(path).change({Path(path).name: node})

    def _rename(self, path: str, to: str) -> None:
        node, source, target = self._find(path), self._parent(path), self._parent(to)
        if source is target:
            source.change({Path(path).name: None, Path(to).name: node})
        else:
            target.change({Path(to).name: node})
            source.change({Path(path).name: None})
