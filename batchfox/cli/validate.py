"""`batchfox validate`."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import click

from batchfox.cli.run import job_options, read_job


@click.command("validate", short_help="Check every row of a job without sending any.")
@click.argument("job", required=False, type=click.Path())
@job_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(job: str | None, as_json: bool, **values: Any) -> int:
    """Check every row of a job without sending any.

    Shows which rows break a rule and where, which columns are taken as request fields, duplicates of ids, and what
    the job will roughly take. Ends with exit 3 where a row would not be sent.
    """
    import msgspec

    from batchfox.errors import OutputError
    from batchfox.opening import output_root
    from batchfox.survey import Surveyor, describe

    read = read_job(job, values)
    root = None
    with contextlib.suppress(OutputError):
        root = output_root(read, time.time())
    found = Surveyor(read).survey(root)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    else:
        for line in describe(found):
            click.echo(line)
    return 3 if found.invalid or found.differing_rows else 0
