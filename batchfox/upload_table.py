"""Uploads that an output remembers: by content, with their URL and age. A connection of its own, used by one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batchfox.checkpoint import Checkpoint


class UploadTable:
    """The table `upload` of the checkpoint. `connect` is called with the first use."""

    def __init__(self, connect: Callable[[], Checkpoint]) -> None:
        self._connect = connect
        self._opened: Checkpoint | None = None

    def find(self, digest: bytes, suffix: str) -> tuple[str, float] | None:
        """The URL of this content under a name with this ending, and when it was uploaded, unix seconds."""
        sql = "SELECT url, uploaded_at FROM upload WHERE digest = ? AND suffix = ?"
        found: list[Any] = self._checkpoint.query(sql, (digest, suffix))
        return (found[0][0], found[0][1]) if found else None

    def put(self, digest: bytes, suffix: str, url: str, uploaded_at: float, *, forget_before: float) -> None:
        """Remembers an upload, durably when it returns; those from before `forget_before` are forgotten."""
        with self._checkpoint.transaction() as db:
            db.execute("DELETE FROM upload WHERE uploaded_at < ?", (forget_before,))
            db.execute("INSERT OR REPLACE INTO upload VALUES (?, ?, ?, ?)", (digest, suffix, url, uploaded_at))

    @property
    def _checkpoint(self) -> Checkpoint:
        if self._opened is None:
            self._opened = self._connect()
        return self._opened
