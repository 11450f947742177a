"""`batchfox init`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from batchfox.cli import say
from batchfox.cli.complete import complete_data


@click.command("init", short_help="Write a job file for a data file, by what is in it.")
@click.argument("data", metavar="DATA", shell_complete=complete_data)
@click.option(
    "--output",
    "job_path",
    metavar="JOB.toml",
    type=click.Path(path_type=Path),
    help="The job file to write; by default named like DATA, here.",
)
@click.option("--force", is_flag=True, help="Replace the job file where it exists.")
def command(data: str, job_path: Path | None, force: bool) -> int:
    """Write a job file for a data file, by what is in it.

    DATA is a JSONL, Parquet or CSV file, a folder or a pattern of them, or a folder of media. The first rows are looked
    at: which column is an id, which hold images, videos, audio or documents, what the prompt is made of. The job file
    says what was guessed, and runs as it is. Nothing is sent.
    """
    from batchfox.begin import begin, describe

    command = f"batchfox init {shlex.quote(data)}"
    for line in describe(begin(data, job_path, command=command, is_forced=force)):
        say(line)
    return 0
