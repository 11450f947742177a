"""Marks of rows, "retry" or "accept": lines in `_batchfox/marks.jsonl`, the last line of a row holds.

A mark is of one outcome, which `finished_at` tells: once the row has another one, nothing is retried for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

Mark = Literal["retry", "accept"]
NAME = "marks.jsonl"


class Marked(msgspec.Struct, frozen=True):
    """An outcome that can be marked. `finished_at`: microseconds since 1970 UTC; None: not known, or never."""

    row_index: int
    row_id: str
    finished_at: int | None = None


class _Line(msgspec.Struct, omit_defaults=True):
    """`mark` None takes a mark away."""

    row_id: str
    row_index: int
    mark: Mark | None = None
    finished_at: int | None = None


class Marks:
    """All marks of an output. `trouble`: why they are not kept, where the file cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "_batchfox" / NAME
        self._marks: dict[tuple[int, str], Mark] = {}
        self._finished: dict[tuple[int, str], int | None] = {}
        self._seen: tuple[int, int] | None = None
        self.trouble: str | None = None
        self.refresh()

    def refresh(self) -> None:
        """Takes in what others wrote since: a run that took the rows takes their marks away."""
        try:
            state = self._path.stat()
            if (state.st_size, state.st_mtime_ns) == self._seen:
                return
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return
        self._seen = (state.st_size, state.st_mtime_ns)
        self._marks.clear()
        self._finished.clear()
        for text in lines:
            try:
                self._take(msgspec.json.decode(text, type=_Line))
            except (msgspec.DecodeError, msgspec.ValidationError):
                continue  # the end of a line that was cut

    def _take(self, line: _Line) -> None:
        key = (line.row_index, line.row_id)
        if line.mark is None:
            self._marks.pop(key, None)
        else:
            self._marks[key] = line.mark
        self._finished[key] = line.finished_at

    def put(self, rows: Iterable[Marked], mark: Mark | None) -> None:
        """Marks these rows, for good where the file can be written."""
        lines = [
            _Line(row_id=row.row_id, row_index=row.row_index, mark=mark, finished_at=row.finished_at) for row in rows
        ]
        if not lines:
            return
        for line in lines:
            self._take(line)
        text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        try:
            with self._path.open("ab") as file:
                if file.tell() and not self._ends_whole():
                    text = b"\n" + text
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            self.trouble = None
        except OSError as error:
            self.trouble = (
                f"{self._path}: {error.strerror or error}; marks are kept only as long as this page is served"
            )

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def retried(self) -> list[Marked]:
        """What is to be retried."""
        return [Marked(*key, finished_at=self._finished[key]) for key, given in self._marks.items() if given == "retry"]

    def of(self, row_index: int, row_id: str) -> Mark | None:
        return self._marks.get((row_index, row_id))

    def ids(self) -> dict[str, list[str]]:
        """Mark → the ids of its rows."""
        found: dict[str, list[str]] = {"retry": [], "accept": []}
        for (_, row_id), mark in self._marks.items():
            found[mark].append(row_id)
        return found

    def counts(self) -> dict[str, int]:
        return {mark: len(ids) for mark, ids in self.ids().items()}

    def export(self, mark: Mark | None) -> bytes:
        """JSON lines, by position: `{"row_id":…,"row_index":…,"mark":…}`; of one mark, or of both."""
        found = sorted(self._marks.items())
        lines = [_Line(row_id=key[1], row_index=key[0], mark=given) for key, given in found if mark in (None, given)]
        return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
