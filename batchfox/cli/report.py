"""`batchfox report`."""

from __future__ import annotations

from pathlib import Path

import click

from batchfox.cli.complete import complete_output


@click.command("report", short_help="Write one HTML file that says what a run did.")
@click.argument(
    "folder", metavar="DIR", type=click.Path(path_type=Path, readable=False), shell_complete=complete_output
)
@click.option(
    "--to",
    "target",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it; an older report is replaced.  [default: DIR/report.html]",
)
@click.option(
    "--rows",
    type=click.IntRange(0, 1000),
    default=60,
    show_default=True,
    help="How many rows to show at most, those that failed first.",
)
def command(folder: Path, target: Path | None, rows: int) -> int:
    """Write one HTML file that says what a run did.

    Counts, money, time, why rows did not complete, charts over time, and rows to look at with their media, prompt and
    answer. The file needs no network and no other file, and nothing that stands in a row is run in it.
    """
    from batchfox.cli import program
    from batchfox.report import write_report
    from batchfox.words import count

    path = target or folder / "report.html"
    shown = write_report(folder, path, rows=rows, program=program())
    click.echo(f"{path}: {count(shown, 'row')} shown, {path.stat().st_size / 1e6:,.1f} MB")
    return 0
