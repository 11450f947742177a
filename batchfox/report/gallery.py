"""The rows that a report shows: failures first, then a sample of what completed; each with what it asked and got."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from batchfox.core.shape import Kind
from batchfox.pages.asking import Asker, Turn
from batchfox.pages.showing import SHOWN, Seen, Shower
from batchfox.report.tally import Place, Tally, rows_at

MOST_TEXT = 6_000
THUMBNAIL = 480
MOST_PICTURE_BYTES = 400_000
MOST_CLIP_BYTES = 2_000_000
MOST_BYTES = 24_000_000
MOST_MEDIA = 12


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A medium of a card. `source`: a data URI; `link`: an http(s) URL; else `why` there is neither."""

    kind: Kind
    label: str
    source: str = ""
    link: str = ""
    why: str = ""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `facts`: name and value, as text. `columns`: what the input had, where the request does not show it."""

    row_id: str
    row_index: int
    status: str
    code: str
    message: str
    turns: list[Turn]
    note: str
    media: list[Picture]
    more_media: int
    text: str
    reasoning: str
    facts: list[tuple[str, str]]


def choose(tally: Tally, most: int) -> list[Place]:
    """At most two thirds of the rows are failures, the commonest causes first and each cause once before any twice."""
    causes = sorted(tally.causes.values(), key=lambda cause: -cause.rows)
    failures = [cause.places[turn] for turn in range(10) for cause in causes if turn < len(cause.places)]
    room = max(most - len(tally.sample), most * 2 // 3)
    chosen = failures[:room]
    return [*chosen, *tally.sample[: most - len(chosen)]]


class Gallery:
    """Makes cards within a number of bytes of media. `left_out`: media that were too large to be put in; `unread`: rows
    that were to be shown and could not be read."""

    def __init__(self, folder: Path) -> None:
        self._asker = Asker(folder)
        self._shower = Shower(self._asker.job)
        self._bytes = 0
        self.left_out = 0
        self.unread = 0

    def cards(self, places: list[Place]) -> list[Card]:
        """In the order of the places."""
        made = {place: self._card(row) for place, row in rows_at(places)}
        self.unread += len(set(places)) - len(made)
        return [made[place] for place in places if place in made]

    def _card(self, table: pa.Table) -> Card:
        row: dict[str, Any] = table.to_pylist()[0]
        asked = self._asker.ask(table)
        names = ("model", "finish_reason", "http_status", "submits", "polls", "total_tokens", "credits", "latency_s")
        facts = [(name, _brief(row[name])) for name in (*names, "finished_at", "task_id") if row[name] is not None]
        return Card(
            row_id=row["row_id"],
            row_index=row["row_index"],
            status=row["status"],
            code=row["error_code"] or "",
            message=clip(row["error_message"] or ""),
            turns=[Turn(turn.role, clip(turn.text)) for turn in asked.turns],
            note=asked.note or "",
            media=[self._picture(self._shower.look(medium)) for medium in asked.media[:MOST_MEDIA]],
            more_media=max(len(asked.media) - MOST_MEDIA, 0),
            text=clip(row["text"] or ""),
            reasoning=clip(row["reasoning"] or ""),
            facts=facts,
        )

    def _picture(self, seen: Seen) -> Picture:
        label = clip(seen.label, 200)
        if seen.where == "remote":
            return Picture(kind=seen.kind, label=label, link=seen.label)
        if seen.where == "gone":
            return Picture(kind=seen.kind, label=label, why=seen.why)
        read = self._shower.read(seen)
        if read is None:
            return Picture(kind=seen.kind, label=label, why="cannot be read any more")
        mime, data = read
        if seen.kind == "image":
            small = _thumbnail(data) if len(data) > MOST_PICTURE_BYTES // 8 or mime not in SHOWN else None
            mime, data = small or (mime, data)
        most = MOST_PICTURE_BYTES if seen.kind == "image" else MOST_CLIP_BYTES
        if mime not in SHOWN or not mime.startswith(f"{seen.kind}/"):
            return Picture(kind=seen.kind, label=label, why=f"{mime or 'its type'} is not shown here")
        if len(data) > most or self._bytes + len(data) > MOST_BYTES:
            self.left_out += 1
            return Picture(kind=seen.kind, label=label, why=f"{len(data) / 1e6:,.1f} MB are too much for this page")
        self._bytes += len(data)
        return Picture(
            kind=seen.kind, label=label, source=f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
        )


def clip(text: str, most: int = MOST_TEXT) -> str:
    """The beginning, and how much more there is."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def can_shrink() -> bool:
    """Is Pillow here, to make thumbnails of large pictures?"""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        return False
    return True


def _thumbnail(data: bytes) -> tuple[str, bytes] | None:
    """A small picture of a large one; None where Pillow is not here or does not take it."""
    if not can_shrink():
        return None
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")) as image:
            if image.width * image.height > 60_000_000:
                return None
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            is_clear = image.mode in ("RGBA", "LA", "P")
            small = io.BytesIO()
            image.convert("RGBA" if is_clear else "RGB").save(small, "WEBP", quality=80)
    except Exception:  # whatever a hostile picture makes a decoder raise, its row is shown without it
        return None
    return "image/webp", small.getvalue()
