"""What a run looks like while it goes on: a live display on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import UTC, datetime
from math import ceil
from typing import Any

import click
import msgspec

from batchfox.core.vitals import Vitals
from batchfox.monitor import Display, Silence, View
from batchfox.words import duration, latency_words, money_words, outage_words, pace_words, stop_words, tail_words

PLAIN_EVERY_S = 15.0


def make_display(*, quiet: bool, form: str = "console", is_alone: bool = True) -> Display:
    """The display that fits where stderr goes, and how messages there are to look. `is_alone`: nobody else writes
    there."""
    if quiet:
        return Silence()
    if form == "json":
        return JsonDisplay()
    if is_alone and sys.stderr is not None and sys.stderr.isatty():
        return LiveDisplay()
    return PlainDisplay()


class _Paced:
    """A display that says something every so often, and at once when an outage or a pause begins or ends or the run is
    to stop."""

    def __init__(self) -> None:
        self._due = 0.0
        self._was: tuple[Any, ...] = (False, None, False)

    def update(self, view: View) -> None:
        figures, now = view.figures, time.monotonic()
        state = (figures["outage"] is not None, figures["stopped"], figures["paused_s"] is not None)
        if now < self._due and state == self._was:
            return
        self._due, self._was = now + PLAIN_EVERY_S, state
        click.echo(self._line(view), err=True)

    def _line(self, view: View) -> str:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to put right."""


class PlainDisplay(_Paced):
    """One line now and then: for files, pipes and CI logs."""

    def _line(self, view: View) -> str:
        numbers, figures = Vitals(view.figures, view.shown), view.figures
        shown = view.shown
        of = f" of {numbers.of_total}" if numbers.is_total_rough else f"/{numbers.total:,}" if numbers.total else ""
        binds = f", limit: {shown.binds}" if shown.binds is not None else ""
        cooling = f", cooling down {ceil(shown.cooling_s)} s" if shown.cooling_s > 0 else ""
        took = f", latency {words}" if (words := latency_words(shown)) else ""
        left = f", {duration(numbers.left_s)} left" if numbers.left_s is not None else ""
        outage = f"; {outage_words(figures['outage'], time.time())}" if figures["outage"] else ""
        stop = f"; {stop_words(figures)}" if figures["stopped"] else ""
        stop += f"; {tail_words(figures['tail'])}" if figures.get("tail") is not None else ""
        return (
            f"{view.title}: {numbers.ended:,}{of} rows done, {numbers.not_completed:,} not completed, "
            f"{figures['in_flight']:,} in flight, {pace_words(figures, shown)}{cooling}{binds}{took}, "
            f"credits {money_words(figures, shown)}, {duration(numbers.elapsed_s)} elapsed{left}{outage}{stop}"
        )


class JsonDisplay(_Paced):
    """The same as JSON lines, beside those of the log."""

    def _line(self, view: View) -> str:
        numbers, figures = Vitals(view.figures, view.shown), view.figures
        names = ("in_flight", "submits", "polls", "throttles", "per_minute", "credits_spent", "outage", "stopped")
        told = {
            "rows_done": numbers.ended,
            "rows_total": numbers.total,
            "not_completed": numbers.not_completed,
            **{name: figures[name] for name in names},
            "tail": figures.get("tail"),
            "elapsed_s": numbers.elapsed_s,
            "left_s": numbers.left_s,
            "paused_s": figures["paused_s"],
            "binds": view.shown.binds,
            "latency_p50_s": view.shown.p50_s,
            "latency_p95_s": view.shown.p95_s,
            "event": "run_progressed",
            "level": "info",
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        return msgspec.json.encode(told).decode()


class LiveDisplay:
    """A few lines that stay in place, redrawn twice a second."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._is_started = False

    def update(self, view: View) -> None:
        if not self._is_started:
            self._is_started = True
            self._live.start()
        from batchfox.picture import draw

        self._live.update(draw(view.figures, view.shown, width=self._console.width), refresh=True)

    def close(self) -> None:
        if self._is_started:
            with contextlib.suppress(OSError):  # a terminal that was closed takes no last picture
                self._live.stop()
