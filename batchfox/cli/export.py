"""`batchfox export`."""

from __future__ import annotations

from pathlib import Path

import click

from batchfox.cli.complete import complete_output, complete_status


@click.command("export", short_help="Write the results to one file in input order.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path), shell_complete=complete_output)
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--column", "columns", multiple=True, metavar="NAME", help="Only these columns; repeatable.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    metavar="STATUS",
    shell_complete=complete_status,
    help="Only rows of these statuses; repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
def command(folder: Path, target: Path, columns: tuple[str, ...], statuses: tuple[str, ...], overwrite: bool) -> int:
    """Write the results to one file in input order.

    FILE ends in .parquet, .jsonl or .csv. It appears whole or not at all. Memory does not grow with the rows.
    """
    from batchfox.errors import UserError
    from batchfox.export import export
    from batchfox.words import count

    if target.exists() and not overwrite:
        raise UserError(f"{target}: exists already; --overwrite replaces it")
    rows = export(folder, target, columns=columns, statuses=statuses)
    click.echo(f"{target}: {count(rows, 'row')}")
    return 0
