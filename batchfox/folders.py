"""Where things are in an output."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Folders(msgspec.Struct, frozen=True, kw_only=True):
    """The folders and files of one output."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def own(self) -> Path:
        return self.root / "_batchfox"

    @property
    def tmp(self) -> Path:
        return self.own / "tmp"

    @property
    def superseded(self) -> Path:
        return self.own / "superseded"

    @property
    def log(self) -> Path:
        return self.own / "log.jsonl"

    @property
    def runs(self) -> Path:
        return self.own / "runs.jsonl"

    @property
    def job(self) -> Path:
        return self.own / "job.toml"
