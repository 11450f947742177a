"""`batchfox status`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from batchfox.cli.complete import complete_output

WATCH_EVERY_S = 2.0


@click.command("status", short_help="Show what a run is doing or did.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path), shell_complete=complete_output)
@click.option("--watch", is_flag=True, help="Again every two seconds, until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object (with --watch: one a line).")
def command(folder: Path, watch: bool, as_json: bool) -> int:
    """Show what a run is doing or did.

    DIR is a job's output folder. Works while the run goes on, and after it ended or died.
    """
    import msgspec

    from batchfox.status import describe, look

    is_in_place = watch and not as_json and sys.stdout is not None and sys.stdout.isatty()
    with _in_place() if is_in_place else contextlib.nullcontext(click.echo) as show:
        while True:
            status = look(folder)
            show(msgspec.json.encode(status).decode() if as_json else describe(status))
            if not watch or not status.is_running:
                return 0
            time.sleep(WATCH_EVERY_S)


@contextlib.contextmanager
def _in_place() -> Iterator[Callable[[str], None]]:
    """Shows texts on the terminal, each in the place of the one before."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        yield lambda text: live.update(Text(text), refresh=True)
