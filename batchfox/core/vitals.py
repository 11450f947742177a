"""The signs of a run's life, from the figures on record: what every display shows, here or from another terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a display shows beside the run's figures; it goes into the progress record, for `batchfox status --watch`.

    `is_total_rough`: `total_rows` follows from the share of the input that is read, and is no count. `binds`: what
    keeps the run from being faster, a word of `binding.BINDS`. `tokens_share`: this run's part of `tokens_limit`.
    `rates` and `medians`: rows a second and median latencies of the last beats of ten seconds. `recent_per_s`,
    `sent_per_s`: rows ended and submits sent a second, in the last minute. `tail_s`: how long the last tasks take.
    """

    title: str
    total_rows: int | None = None
    is_total_rough: bool = False
    row_limit: int | None = None
    input_share: float | None = None
    limit_per_minute: float | None = None
    tokens_limit: float | None = None
    tokens_share: float | None = None
    in_flight_limit: int = 0
    credits_limit: float | None = None
    cooling_s: float = 0.0
    recent_per_s: float | None = None
    binds: str | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    rates: list[float] = msgspec.field(default_factory=list)
    medians: list[float] = msgspec.field(default_factory=list)
    tail_s: float | None = None
    sent_per_s: float | None = None


class Vitals:
    """The numbers of a look, once worked out. Rows and time are of this execution.

    `share` of the input that has ended, 0 to 1; `left_s` until the end: the rows that are not submitted yet, at the
    pace of the last minute, and then the tail.
    """

    def __init__(self, figures: Mapping[str, Any], shown: Shown) -> None:
        fed: dict[str, Any] = figures["fed"]
        status: dict[str, int] = figures["by_status"]
        self.completed: int = status.get("completed", 0)
        self.not_completed: int = sum(status.values()) - self.completed
        self.before: int = fed.get("completed_before", 0) + fed.get("ended_before", 0)
        self.ended: int = self.completed + self.not_completed + self.before
        self.elapsed_s: float = figures["here"]["elapsed_s"]
        settled = self.completed + self.not_completed
        self.per_s = settled / self.elapsed_s if self.elapsed_s > 0 else 0.0
        self.recent_per_s = self.per_s if shown.recent_per_s is None else shown.recent_per_s
        self.total = self._total(shown, fed)
        limit = None if shown.row_limit is None else self.before + shown.row_limit
        self.is_total_rough = shown.is_total_rough and not fed.get("is_over") and self.total != limit
        self.share = min(self.ended / self.total, 1.0) if self.total else None
        self.left_s = self._left_s(figures, shown, settled)

    def _total(self, shown: Shown, fed: dict[str, Any]) -> int | None:
        if fed.get("is_over"):
            return max(int(fed["rows"]) - int(fed["duplicates"]), self.ended)
        total = shown.total_rows
        if total is None and shown.input_share and fed.get("rows"):
            total = max(int(fed["rows"] / max(shown.input_share, 1e-6)), self.ended)
        if shown.row_limit is None:
            return total
        most = self.before + shown.row_limit
        return most if total is None else min(total, most)

    @property
    def of_total(self) -> str:
        """The total in words: "1,000", "about 1,000" before all of the input is read; "" where nothing tells."""
        return "" if not self.total else f"{'about ' if self.is_total_rough else ''}{self.total:,}"

    def _left_s(self, figures: Mapping[str, Any], shown: Shown, settled: int) -> float | None:
        if self.total is None or settled < 5 or figures.get("paused_s") is not None:
            return None
        tasks = figures.get("in_flight", 0)
        unsent = max(self.total - self.ended - tasks, 0)
        per_s = max(self.recent_per_s, shown.sent_per_s or 0.0)
        if unsent and per_s <= 0:
            return None
        if shown.tail_s is None:  # too few latencies are known: as if all went at the pace of the rest
            return None if per_s <= 0 else (unsent + tasks) / per_s
        return (shown.cooling_s + unsent / per_s if unsent else 0.0) + shown.tail_s


def sparks(values: list[float]) -> str:
    """A line of little bars, the highest value being a whole one; "" for fewer than two values."""
    most = max(values, default=0.0)
    if len(values) < 2 or most <= 0:
        return ""
    return "".join(_BARS[min(int(value / most * len(_BARS)), len(_BARS) - 1)] for value in values)


_BARS = "▁▂▃▄▅▆▇█"
