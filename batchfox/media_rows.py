"""A folder of images, videos or audio as an input: one row a file, in the order of their paths.

Only names are read, a folder at a time, so a folder of a million files starts at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from batchfox.core.mime import kind_by_name
from batchfox.core.shape import Kind
from batchfox.errors import InputError
from batchfox.records import Record

# The request field that a file of each kind fills by itself.
_FIELDS: dict[Kind, str] = {"image": "image_urls", "video": "video_urls", "audio": "audio_url"}


def is_media(name: str) -> bool:
    """By its ending."""
    return kind_by_name(Path(name).suffix) is not None


def read_media(folder: str, *, with_digest: bool) -> Iterator[Record]:
    """One record a media file below `folder`, hidden ones aside: `path` (from the folder on, with "/"), `name` (without
    its ending), `kind`, `size` in bytes, and the request field that a medium of this kind belongs in.

    `media.root` has to be that folder. Raises `InputError` where a folder cannot be listed.
    """
    for line, (path, size) in enumerate(_files(folder, ""), 1):
        kind = kind_by_name(Path(path).suffix)
        assert kind is not None, path
        digest = blake2b(os.fsencode(path) + size.to_bytes(8, "big"), digest_size=16).digest() if with_digest else b""
        problem = None if path.isascii() or _is_text(path) else "its name is not UTF-8: rename the file"
        field = _FIELDS[kind]
        media = {field: path} if field == "audio_url" else {field: [path]}
        columns = {"path": path, "name": Path(path).stem, "kind": kind, "size": size} | media
        yield Record(
            columns={} if problem else columns,
            line=line,
            size=len(path),
            position=0,
            problem=problem,
            digest=digest,
            name=path,
        )


def _files(folder: str, below: str) -> Iterator[tuple[str, int]]:
    try:
        with os.scandir(Path(folder) / below) as found:
            entries = sorted((entry for entry in found if not entry.name.startswith((".", "_"))), key=_name)
    except OSError as error:
        raise InputError(f"{Path(folder) / below}: {error.strerror or error}") from error
    for entry in entries:
        path = f"{below}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _files(folder, f"{path}/")
        elif is_media(entry.name) and entry.is_file():
            yield path, entry.stat().st_size


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _is_text(name: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in name)
