"""What a run looks like while it goes on: a live display on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from batchfox.monitor import Display, Silence, View
from batchfox.words import count, credit, duration, outage_words, stop_words, tail_words

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


class _Figures:
    """The numbers of a view, once worked out. Rows and time are of this execution."""

    def __init__(self, view: View) -> None:
        figures = view.figures
        fed: dict[str, int] = figures["fed"]
        status: dict[str, int] = figures["by_status"]
        self.completed: int = status.get("completed", 0)
        self.not_completed: int = sum(status.values()) - self.completed
        before: int = fed.get("completed_before", 0) + fed.get("ended_before", 0)
        self.before = max(before - fed.get("ended_unmet", 0), 0)
        self.ended: int = self.completed + self.not_completed + self.before
        self.elapsed_s: float = figures["here"]["elapsed_s"]
        settled = self.completed + self.not_completed
        self.per_s = settled / self.elapsed_s if self.elapsed_s > 0 else 0.0
        self.total = self._total(view, fed)
        self.share = min(self.ended / self.total, 1.0) if self.total else None
        left = max(self.total - self.ended, 0) if self.total else None
        per_s = self.per_s if view.recent_per_s is None else view.recent_per_s
        self.left_s = left / per_s if left is not None and per_s > 0 and settled >= 5 else None

    def _total(self, view: View, fed: dict[str, int]) -> int | None:
        if fed.get("is_over"):
            return max(fed["rows"] - fed["duplicates"], self.ended)
        total = view.total_rows
        if total is None and view.input_share and fed.get("rows"):
            total = max(int(fed["rows"] / max(view.input_share, 1e-6)), self.ended)
        if view.row_limit is None:
            return total
        most = self.before + view.row_limit
        return most if total is None else min(total, most)


def _rate(view: View) -> str:
    figures = view.figures
    text = f"{figures['per_minute']:,.0f}/min"
    if view.limit_per_minute and figures["per_minute"] < view.limit_per_minute * 0.99:
        text += f" of {view.limit_per_minute:,.0f}"
    elif view.limit_per_minute is None:
        text += " (adapting)"
    if figures["throttles"]:
        text += f", throttled {figures['throttles']:,}x"
    if view.is_cooling_for_s > 0:
        text += f", cooling down {view.is_cooling_for_s:.0f} s"
    return text


def _money(view: View) -> str:
    figures = view.figures
    text = credit(figures["credits_spent"])
    if view.credits_limit:
        text += f" of {credit(view.credits_limit)}"
    held = figures["credits_reserved"] + figures["credits_standing"]
    return text + (f" (+{credit(held)} reserved)" if held > 1e-9 else "")


class _Paced:
    """A display that says something every so often, and at once when an outage begins or ends or the run is to stop."""

    def __init__(self) -> None:
        self._due = 0.0
        self._was = (False, None)

    def update(self, view: View) -> None:
        now, state = time.monotonic(), (view.figures["outage"] is not None, view.figures["stopped"])
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
        numbers, figures = _Figures(view), view.figures
        of = f"/{numbers.total:,}" if numbers.total else ""
        left = f", {duration(numbers.left_s)} left" if numbers.left_s is not None else ""
        outage = f"; {outage_words(figures['outage'], time.time())}" if figures["outage"] else ""
        stop = f"; {stop_words(figures)}" if figures["stopped"] else ""
        stop += f"; {tail_words(figures['tail'])}" if figures.get("tail") is not None else ""
        return (
            f"{view.title}: {numbers.ended:,}{of} rows done, {numbers.not_completed:,} not completed, "
            f"{figures['in_flight']:,} in flight, {_rate(view)}, credits {_money(view)}, "
            f"{duration(numbers.elapsed_s)} elapsed{left}{outage}{stop}"
        )


class JsonDisplay(_Paced):
    """The same as JSON lines, beside those of the log."""

    def _line(self, view: View) -> str:
        numbers, figures = _Figures(view), view.figures
        names = ("in_flight", "submits", "polls", "throttles", "per_minute", "credits_spent", "outage", "stopped")
        told = {
            "rows_done": numbers.ended,
            "rows_total": numbers.total,
            "not_completed": numbers.not_completed,
            **{name: figures[name] for name in names},
            "tail": figures.get("tail"),
            "elapsed_s": numbers.elapsed_s,
            "left_s": numbers.left_s,
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
        self._live.update(self._draw(view), refresh=True)

    def close(self) -> None:
        if self._is_started:
            with contextlib.suppress(OSError):  # a terminal that was closed takes no last picture
                self._live.stop()

    def _draw(self, view: View) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        numbers = _Figures(view)
        head = Table.grid(padding=(0, 1))
        head.add_column()
        head.add_column(width=30)
        head.add_column()
        share = f"{numbers.share:.0%}" if numbers.share is not None else ""
        of = f" of {numbers.total:,}" if numbers.total else ""
        bar = ProgressBar(total=1.0, completed=numbers.share or 0.0, width=30, pulse=numbers.share is None)
        head.add_row(Text(view.title, style="bold"), bar, f"{share}  {numbers.ended:,}{of} rows")
        body = Table.grid(padding=(0, 2))
        body.add_column(style="dim")
        body.add_column()
        for name, text in _lines(view, numbers):
            body.add_row(name, text)
        return Group(head, body)


def _lines(view: View, numbers: _Figures) -> list[tuple[str, Any]]:
    """The lines below the bar, each with its name."""
    from rich.text import Text

    figures = view.figures
    failed = Text(f"{numbers.not_completed:,} not completed", style="red" if numbers.not_completed else "dim")
    rows = Text.assemble(
        (f"{numbers.completed:,} completed", "green"),
        "   ",
        failed,
        "   ",
        f"{figures['in_flight']:,} of {view.in_flight_limit:,} in flight",
        f"   {figures['in_doubt_resubmitted'] + figures['in_doubt_held']:,} in doubt",
    )
    tokens = f"{figures['prompt_tokens']:,} + {figures['completion_tokens']:,} tokens"
    left = f"   about {duration(numbers.left_s)} left" if numbers.left_s is not None else ""
    lines: list[tuple[str, Any]] = [
        ("rows", rows),
        ("pace", _rate(view)),
        ("used", f"{count(figures['submits'], 'submit')}   {tokens}   credits {_money(view)}"),
        ("time", f"{duration(numbers.elapsed_s)} elapsed   {numbers.per_s:,.1f} rows/s{left}"),
    ]
    if figures["outage"] is not None:
        lines.append(("API", Text(outage_words(figures["outage"], time.time()), "red")))
    if figures.get("tail") is not None:
        lines.append(("tail", tail_words(figures["tail"])))
    if figures["stopped"]:
        lines.append(("stop", Text(stop_words(figures), "yellow")))
    return lines
