"""Which shape each row's request had. No column of the output says it: the job, the columns kept and `media` do.

What fields a request can have, `[request]` and the names of the columns decide (core/render.py); of those that a row
may fill, its own columns tell. Where they were not kept, only whether there was a medium is known, and that is said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batchfox.core.carry import Carry
from batchfox.core.job import Job
from batchfox.core.outcome import COLUMNS, EXTRA
from batchfox.core.render import Renderer
from batchfox.core.shape import CUSTOM_CONTENT, PROMPT_MEDIA, Shape, shape_of
from batchfox.errors import BatchfoxError
from batchfox.jobfile import load_job

WITH_MEDIA = "with media"
WITHOUT_MEDIA = "without media"
# The rarest last: it makes the shape where there are several.
_SHAPES: tuple[tuple[str, Shape], ...] = (("image_urls", "vision"), ("video_urls", "video"), ("audio_url", "audio"))
_BATCH = ("custom_id", "body")


class Shapes:
    """Tells shapes for one output. Where its job cannot be read, every shape is unknown."""

    def __init__(self, folder: Path) -> None:
        self._renderer: Renderer | None = None
        self._taken: frozenset[str] = frozenset()
        try:
            job = load_job(folder / "_batchfox" / "job.toml")
            self._renderer = Renderer(job.request, fields=job.input.fields)
        except BatchfoxError:
            return
        self._taken = _kept(job)

    def columns(self, names: list[str]) -> list[str]:
        """Those of a part's columns that must be read for it."""
        if self._renderer is None or self._renderer.names.issuperset(CUSTOM_CONTENT):
            return []
        wanted = [*self._fillable, *(_BATCH if set(_BATCH) <= set(names) else ())]
        return [name for name in wanted if name in names]

    @property
    def _fillable(self) -> list[str]:
        assert self._renderer is not None
        return [name for name in (*PROMPT_MEDIA, *CUSTOM_CONTENT) if name in self._renderer.fillable]

    def of(self, table: pa.Table) -> pa.ChunkedArray:
        """A word a row: a shape, or `WITH_MEDIA`, `WITHOUT_MEDIA` where that is all that is known."""
        has_media = pc.greater(pc.coalesce(pc.list_value_length(table["media"]), 0), 0)
        if self._renderer is None:
            return pc.if_else(has_media, WITH_MEDIA, WITHOUT_MEDIA)
        if self._renderer.names.issuperset(CUSTOM_CONTENT):
            return pa.chunked_array([pa.repeat("custom", table.num_rows)])
        given = [shape for name, shape in _SHAPES if name in self._renderer.names]
        shapes = pc.if_else(has_media, given[0] if len(given) == 1 else WITH_MEDIA, self._bare(table))
        for name, shape in _SHAPES:
            if name in self._fillable and name in table.column_names:
                shapes = pc.if_else(pc.and_(has_media, _is_there(table[name])), shape, shapes)
        if "messages" in self._fillable and "messages" in table.column_names:
            shapes = pc.if_else(_is_there(table["messages"]), "custom", shapes)
        return self._of_batch_lines(table, shapes)

    def _bare(self, table: pa.Table) -> str:
        """A row without media: is it text for sure, or may it have been `messages` that nobody kept?"""
        is_told = "messages" not in self._fillable or {"messages", "body"} <= self._taken
        return "text" if is_told else WITHOUT_MEDIA

    def _of_batch_lines(self, table: pa.Table, shapes: pa.ChunkedArray) -> pa.ChunkedArray:
        """Lines of the OpenAI batch form have their fields in `body`."""
        if not set(_BATCH) <= set(table.column_names):
            return shapes
        assert self._renderer is not None
        found = shapes.to_pylist()
        for at, body in enumerate(table["body"].to_pylist()):
            if (fields := _decode(body)) is not None:
                given = dict.fromkeys(self._renderer.names, True)
                allowed = {name: value for name, value in fields.items() if name not in self._renderer.excluded}
                found[at] = shape_of(allowed | given)
        return pa.chunked_array([pa.array(found, pa.string())])


def _kept(job: Job) -> frozenset[str]:
    """Of the columns that hold content, those that travel into the output."""
    carry = Carry(job.input.keep, [*COLUMNS, EXTRA])
    return frozenset(carry.select(dict.fromkeys((*PROMPT_MEDIA, *CUSTOM_CONTENT, "body"), "")))


def _is_there(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """As a request takes it: neither null nor blank text."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pc.coalesce(pc.match_substring_regex(column, r"\S"), False)
    return pc.is_valid(column)


def _decode(body: Any) -> dict[str, Any] | None:
    if isinstance(body, str):
        try:
            body = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return None
    return body if isinstance(body, dict) else None
