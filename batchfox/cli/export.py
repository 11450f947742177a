"""`batchfox export`."""

from __future__ import annotations

from pathlib import Path

import click

from batchfox.cli.complete import complete_format, complete_output, complete_status


@click.command("export", short_help="Write the results to one file in input order.")
@click.argument(
    "folder", metavar="DIR", type=click.Path(path_type=Path, readable=False), shell_complete=complete_output
)
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    metavar="FORMAT",
    shell_complete=complete_format,
    help="parquet, jsonl, csv, excel, openai-batch or datasets, where FILE's ending does not say it.",
)
@click.option(
    "--columns", "--column", "columns", multiple=True, metavar="NAME[,…]", help="Only these columns; repeatable."
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    metavar="STATUS[,…]",
    shell_complete=complete_status,
    help="Only rows of these statuses; repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
def command(
    folder: Path,
    target: Path,
    form: str | None,
    columns: tuple[str, ...],
    statuses: tuple[str, ...],
    overwrite: bool,
) -> int:
    """Write the results to one file in input order.

    FILE ends in .parquet, .jsonl or .csv. It appears whole or not at all. Memory does not grow with the rows.

    --format excel: CSV that Excel opens well; text that it would take for a formula gets an apostrophe in front.
    --format openai-batch: the lines (.jsonl) of an OpenAI batch's results. --format datasets: FILE is a folder that
    datasets.load_dataset reads.
    """
    from batchfox.errors import UserError
    from batchfox.export import columns_of, export, form_of, names_in
    from batchfox.words import count

    form_of(target, form)
    if target.exists() and not overwrite:
        raise UserError(f"{target}: exists already; --overwrite replaces it")
    chosen = names_in(columns, columns_of(folder)) if columns else []
    rows = export(folder, target, form=form, columns=chosen, statuses=names_in(statuses, ()))
    click.echo(f"{target}: {count(rows, 'row')}")
    if not click.get_current_context().meta.get("batchfox.quiet"):
        _say_what_is_to_come(folder, target)
    return 0


def _say_what_is_to_come(folder: Path, target: Path) -> None:
    """Tells where the export is of a run that is not at its end: it looks no different from a whole one."""
    from batchfox.errors import UserError
    from batchfox.status import look

    try:
        status = look(folder)
    except UserError:  # the parts alone, or another user's output: they were enough
        return
    if status.is_running:
        click.echo(f"note: a run is at work there; rows that end from now on are not in {target}", err=True)
    elif status.run_id is not None and not status.is_finished:
        does = f"the same `batchfox run` goes on, and what it adds is not in {target}"
        click.echo(f"note: the run there did not finish; {does}", err=True)
