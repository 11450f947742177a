"""The ids of an input's rows: which are new, and do duplicates say the same?"""

from __future__ import annotations

import sqlite3
import tempfile
from hashlib import blake2b
from pathlib import Path

from batchfox.core.row import Row
from batchfox.kept import encode_columns


class Ids:
    """Ids seen so far, on disk, so that memory stays flat: is a row a duplicate, and is its content another?"""

    def __enter__(self) -> Ids:
        self._folder = tempfile.TemporaryDirectory(prefix="batchfox-")
        self._db = sqlite3.connect(str(Path(self._folder.name) / "ids.db"), isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, content BLOB) WITHOUT ROWID")
        self._db.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._folder.cleanup()

    def see(self, row: Row) -> bool | None:
        """None for a new id; else whether the content differs from the first row's."""
        content = blake2b(encode_columns(row.columns), digest_size=8).digest()
        found = self._db.execute("SELECT content FROM seen WHERE key = ?", (row.key,)).fetchone()
        if found is None:
            self._db.execute("INSERT INTO seen VALUES (?, ?)", (row.key, content))
            return None
        return bool(found[0] != content)


class Digests:
    """Digests seen so far, on disk, so that memory stays flat."""

    def __enter__(self) -> Digests:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def add(self, digest: bytes) -> bool:
        """Is it new?"""
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount > 0
