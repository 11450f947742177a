"""Uploaded files: kept in a folder, served back, remembered with the digest of the bytes that arrived."""

from __future__ import annotations

import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

How = Literal["stream", "base64", "url"]


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """One kept file. `digest`: BLAKE2b-128 of its bytes in hex. `source`: the URL of an upload by URL."""

    id: str
    filename: str
    size: int
    digest: str
    created: float
    how: How
    source: str | None = None


class Draft:
    """A file being received. `write` until it is whole, then `Shelf.keep` or `discard`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = blake2b(digest_size=16)
        self._file: BinaryIO = path.open("wb")

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def close(self) -> str:
        """Closes the file and returns the digest of its bytes."""
        self._file.close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Removes what was received."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Shelf:
    """The folder of uploads, made with the first one. `folder` None: a temporary one, removed by `close`."""

    def __init__(self, folder: Path | None, former: tuple[Upload, ...] = ()) -> None:
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._uploads = {upload.id: upload for upload in former}

    def draft(self, file_id: str) -> Draft:
        """A new file to write into."""
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="batchfox-simulator-")
            self._folder = Path(self._temporary.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        return Draft(self._folder / file_id)

    def keep(self, draft: Draft, filename: str, how: How, created: float, source: str | None = None) -> Upload:
        """The draft becomes a file that is served."""
        upload = Upload(
            id=draft.path.name,
            filename=filename,
            size=draft.size,
            digest=draft.close(),
            created=created,
            how=how,
            source=source,
        )
        self._uploads[upload.id] = upload
        return upload

    def find(self, file_id: str, filename: str, since: float) -> Upload | None:
        """That file, if it was uploaded after `since`, unix seconds; or None."""
        upload = self._uploads.get(file_id)
        if upload is None or upload.filename != filename or upload.created <= since:
            return None
        return upload

    def place(self, upload: Upload) -> Path:
        """Where a file's bytes lie."""
        assert self._folder is not None
        return self._folder / upload.id

    def uploads(self) -> list[Upload]:
        """All files, in the order they came."""
        return list(self._uploads.values())

    def close(self) -> None:
        """Removes a temporary folder."""
        if self._temporary is not None:
            self._temporary.cleanup()
