"""What a run looks like on the terminal: a live display, or plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from batchfox.monitor import Display, Silence, View
from batchfox.summary import Summary

PLAIN_EVERY_S = 15.0
EXIT_MEANS = {
    0: "every row is completed",
    3: "finished, some rows did not complete",
    4: "stopped early; resumable",
    129: "stopped by SIGHUP; resumable",
    130: "stopped by SIGINT; resumable",
    143: "stopped by SIGTERM; resumable",
}


def make_display(*, quiet: bool) -> Display:
    """The display that fits where stderr goes."""
    if quiet:
        return Silence()
    if sys.stderr.isatty():
        return LiveDisplay()
    return PlainDisplay()


def duration(seconds: float) -> str:
    """ "0:07", "12:30", "3:05:00"."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest_s = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes}:{rest_s:02d}"


class _Figures:
    """The numbers of a view, once worked out."""

    def __init__(self, view: View) -> None:
        figures = view.figures
        fed: dict[str, int] = figures["fed"]
        status: dict[str, int] = figures["by_status"]
        self.completed: int = status.get("completed", 0)
        self.not_completed: int = sum(status.values()) - self.completed
        self.before: int = fed.get("completed_before", 0) + fed.get("ended_before", 0)
        self.ended: int = self.completed + self.not_completed + self.before
        self.elapsed_s = figures["elapsed_s"]
        settled = self.completed + self.not_completed
        self.per_s = settled / self.elapsed_s if self.elapsed_s > 0 else 0.0
        self.total = self._total(view, fed)
        self.share = min(self.ended / self.total, 1.0) if self.total else None
        left = max(self.total - self.ended, 0) if self.total else None
        self.left_s = left / self.per_s if left is not None and self.per_s > 0 and settled >= 5 else None

    def _total(self, view: View, fed: dict[str, int]) -> int | None:
        if fed.get("is_over"):
            return max(fed["rows"] - fed["duplicates"], self.ended)
        if view.total_rows:
            return view.total_rows
        if view.input_share and fed.get("rows"):
            return max(int(fed["rows"] / max(view.input_share, 1e-6)), self.ended)
        return None


def _rate(view: View) -> str:
    figures = view.figures
    text = f"{figures['per_minute']:,.0f}/min"
    if view.limit_per_minute and figures["per_minute"] < view.limit_per_minute * 0.99:
        text += f" of {view.limit_per_minute:,.0f}"
    elif view.limit_per_minute is None:
        text += " (adapting)"
    if figures["throttles"]:
        text += f", throttled {figures['throttles']:,}x"
    if view.is_breaker_open:
        text += ", API down: probing"
    elif view.is_cooling_for_s > 0:
        text += f", cooling down {view.is_cooling_for_s:.0f} s"
    return text


def _money(view: View) -> str:
    figures = view.figures
    text = f"{figures['credits_spent']:,.2f}"
    if view.credits_limit:
        text += f" of {view.credits_limit:,.0f}"
    held = figures["credits_reserved"] + figures["credits_standing"]
    return text + (f" (+{held:,.2f} reserved)" if held >= 0.005 else "")


class PlainDisplay:
    """One line now and then: for files, pipes and CI logs."""

    def __init__(self) -> None:
        self._due = 0.0

    def update(self, view: View) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + PLAIN_EVERY_S
        numbers, figures = _Figures(view), view.figures
        of = f"/{numbers.total:,}" if numbers.total else ""
        left = f", {duration(numbers.left_s)} left" if numbers.left_s is not None else ""
        click.echo(
            f"{view.title}: {numbers.ended:,}{of} rows done, {numbers.not_completed:,} not completed, "
            f"{figures['in_flight']:,} in flight, {_rate(view)}, credits {_money(view)}, "
            f"{duration(numbers.elapsed_s)} elapsed{left}",
            err=True,
        )

    def close(self) -> None:
        """Nothing to put right."""


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
            self._live.stop()

    def _draw(self, view: View) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        numbers, figures = _Figures(view), view.figures
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
        failed = Text(f"{numbers.not_completed:,} not completed", style="red" if numbers.not_completed else "dim")
        rows = Text.assemble(
            (f"{numbers.completed:,} completed", "green"),
            "   ",
            failed,
            "   ",
            f"{figures['in_flight']:,} of {view.in_flight_limit:,} in flight",
            f"   {figures['in_doubt_resubmitted'] + figures['in_doubt_held']:,} in doubt",
        )
        body.add_row("rows", rows)
        body.add_row("pace", _rate(view))
        body.add_row(
            "used",
            f"{figures['prompt_tokens']:,} + {figures['completion_tokens']:,} tokens   credits {_money(view)}",
        )
        left = f"   about {duration(numbers.left_s)} left" if numbers.left_s is not None else ""
        body.add_row("time", f"{duration(numbers.elapsed_s)} elapsed   {numbers.per_s:,.1f} rows/s{left}")
        if figures["stopped"]:
            body.add_row("stop", Text(f"stopping ({figures['stopped']}): waiting for what is on the wire", "yellow"))
        return Group(head, body)


def describe(summary: Summary, command: list[str]) -> str:
    """The closing summary, in plain text."""
    total = sum(summary.by_status.values())
    lines = [f"{summary.output}: {total:,} rows"]
    lines += [f"  {status:<10} {rows:>9,}" for status, rows in summary.by_status.items()]
    settled = sum(summary.settled.values())
    rate = settled / summary.elapsed_s if summary.elapsed_s > 0 else 0.0
    lines.append(f"this run: {settled:,} rows in {duration(summary.elapsed_s)} ({rate:,.1f} rows/s)")
    if summary.completed_before:
        lines.append(f"  completed before: {summary.completed_before:,}")
    if summary.duplicates:
        lines.append(f"  duplicates of an id, not sent: {summary.duplicates:,}")
    lines.append(
        f"  {summary.submits:,} submits, {summary.polls:,} polls, {summary.throttles:,} times throttled; "
        f"{summary.prompt_tokens:,} + {summary.completion_tokens:,} tokens; credits {summary.credits_spent:,.4g}"
    )
    if summary.maybe_billed_twice:
        lines.append(f"  maybe billed twice: {summary.maybe_billed_twice:,} rows (column maybe_billed_twice)")
    if summary.in_doubt_held:
        lines.append(f"  held in doubt: {summary.in_doubt_held:,} rows, past [retry] in_doubt_limit")
    if summary.left_in_flight:
        lines.append(f"  still in flight at the API: {summary.left_in_flight:,} tasks, picked up by the next run")
    if summary.retry_gone:
        lines.append(f"  marked for retry, but no longer in the input: {summary.retry_gone:,} rows")
    if summary.causes:
        lines.append("why rows did not complete:")
    for cause in summary.causes:
        message = " ".join(cause.example_message.split())
        shown = message if len(message) <= 160 else message[:159] + "…"
        lines.append(f"  {cause.rows:>7,}  {cause.status} {cause.code}; row {cause.example_row}: {shown}")
    if summary.reason:
        lines.append(summary.reason)
    lines.append(f"exit {summary.exit_status}: {EXIT_MEANS.get(summary.exit_status, '')}".rstrip(": "))
    if (line := summary.next_step(command)) is not None:
        lines.append(f"next: {line}")
    return "\n".join(lines)
