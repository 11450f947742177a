"""`batchfox runs`."""

from __future__ import annotations

from pathlib import Path

import click

from batchfox.cli.complete import complete_output


@click.command("runs", short_help="List the runs of an output.")
@click.argument(
    "folder", metavar="DIR", type=click.Path(path_type=Path, readable=False), shell_complete=complete_output
)
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(folder: Path, last: int | None, as_json: bool) -> int:
    """List the runs of an output.

    DIR is a job's output folder. Each time that the job was run is a line, the oldest first: when, how many rows, how
    many of them did not complete, credits, duration, exit. One that died is listed as such.
    """
    import msgspec

    from batchfox.runs_shown import describe, look

    runs = look(folder)[-last:] if last else look(folder)
    for line in (msgspec.json.encode(ran).decode() for ran in runs) if as_json else describe(runs, str(folder)):
        click.echo(line)
    return 0
