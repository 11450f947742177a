"""`batchfox status`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchfox.cli.complete import complete_output

if TYPE_CHECKING:
    from batchfox.status import Status

WATCH_EVERY_S = 2.0


@click.command("status", short_help="Show what a run is doing or did.")
@click.argument(
    "folder", metavar="DIR", type=click.Path(path_type=Path, readable=False), shell_complete=complete_output
)
@click.option("--watch", is_flag=True, help="Again every two seconds, until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object (with --watch: one a line).")
def command(folder: Path, watch: bool, as_json: bool) -> int:
    """Show what a run is doing or did.

    DIR is a job's output folder. Works while the run goes on, and after it ended or died.
    """
    import msgspec

    from batchfox.status import describe, look

    is_in_place = watch and not as_json and sys.stdout is not None and sys.stdout.isatty()
    with _in_place() if is_in_place else contextlib.nullcontext(_write) as show:
        while True:
            status = look(folder)
            show(status, msgspec.json.encode(status).decode() if as_json else describe(status))
            if not watch or not status.is_running:
                return 0
            time.sleep(WATCH_EVERY_S)


def _write(status: Status, text: str) -> None:
    click.echo(text)


@contextlib.contextmanager
def _in_place() -> Iterator[Callable[[Status, str], None]]:
    """Shows looks on the terminal, each in the place of the one before: what is said of the output, and below it the
    picture that the run's own terminal shows."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from batchfox.picture import draw
    from batchfox.status import shown_of

    console = Console(highlight=False)

    def show(status: Status, text: str) -> None:
        shown = shown_of(status)
        if shown is None:
            live.update(Text(text), refresh=True)
            return
        age_s = max(time.time() - (status.beat_at or 0.0), 0.0) if status.is_running else 0.0
        picture = draw(status.figures, shown, width=console.width, age_s=age_s, is_dead=not status.is_running)
        live.update(Group(Text(text), Text(), picture), refresh=True)

    with Live(console=console, auto_refresh=False) as live:
        yield show
