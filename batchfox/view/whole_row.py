"""One row in full, as a page shows it; and the bytes of its media."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from batchfox.arrow_types import without_views
from batchfox.core.outcome import COLUMNS
from batchfox.pages.asking import Asker
from batchfox.pages.showing import SHOWN, Seen, Shower
from batchfox.view.browser import Spot

_REMEMBERED = 200
# Shown in places of their own.
_APART = ("text", "reasoning", "completion", "error_message")


class Reader:
    """Reads rows whole. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._asker = Asker(folder)
        self._shower = Shower(self._asker.job)
        self._seen: OrderedDict[tuple[int, str], list[Seen]] = OrderedDict()

    def read(self, spot: Spot) -> dict[str, Any] | None:
        """What is known of a row, ready for JSON; None where it has gone."""
        try:
            table = _row_at(spot)
        except (OSError, pa.ArrowException):
            return None
        if table is None:
            return None
        row: dict[str, Any] = table.to_pylist()[0]
        with self._lock:
            asked = self._asker.ask(table)
            seen = [self._shower.look(medium) for medium in asked.media]
            self._remember((row["row_index"], row["row_id"]), seen)
        own = {name: _plain(row[name]) for name in COLUMNS if name not in _APART and row[name] is not None}
        kept = {name: _plain(value) for name, value in row.items() if name not in COLUMNS and value is not None}
        return {
            "index": row["row_index"],
            "id": row["row_id"],
            "status": row["status"],
            **{name: row[name] for name in _APART},
            "turns": [{"role": turn.role, "text": turn.text} for turn in asked.turns],
            "note": asked.note,
            "media": [_medium(one) for one in seen],
            "outcome": own,
            "columns": kept,
        }

    def medium(self, row_index: int, row_id: str, number: int) -> tuple[str, bytes] | None:
        """Type and bytes of a medium of a row that was read before; None for what no page shows."""
        with self._lock:
            seen = self._seen.get((row_index, row_id), [])
        if not 0 <= number < len(seen):
            return None
        found = self._shower.read(seen[number])
        return found if found is not None and found[0] in SHOWN else None

    def _remember(self, key: tuple[int, str], seen: list[Seen]) -> None:
        self._seen[key] = seen
        self._seen.move_to_end(key)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


def _row_at(spot: Spot) -> pa.Table | None:
    at = spot.at
    with pq.ParquetFile(spot.path, pre_buffer=False) as file:
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if at < rows:
                return without_views(file.read_row_group(group)).slice(at, 1)
            at -= rows
    return None


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, dict)):
        return msgspec.json.encode(value, enc_hook=str).decode()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _medium(seen: Seen) -> dict[str, Any]:
    return {"kind": seen.kind, "where": seen.where, "label": seen.label, "why": seen.why, "mime": seen.mime}
