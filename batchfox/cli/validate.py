"""`batchfox validate`."""

from __future__ import annotations

import time
from typing import Any

import click

from batchfox.cli.complete import complete_job
from batchfox.cli.run import job_options, read_job


@click.command("validate", short_help="Check every row of a job without sending any.")
@click.argument("job", required=False, type=click.Path(), shell_complete=complete_job)
@job_options
@click.option(
    "--media",
    "with_media",
    is_flag=True,
    help="Look at every medium: reachable, type, size, expiry, how long it plays.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(job: str | None, as_json: bool, with_media: bool, **values: Any) -> int:
    """Check every row of a job without sending any.

    Shows which rows break a rule and where, which columns are taken as request fields, duplicates of ids, and what
    the job will roughly take. Ends with exit 3 where a row would not be sent.
    """
    import msgspec

    from batchfox.core.prices import refuse_unpriced
    from batchfox.opening import output_root
    from batchfox.survey.findings import describe
    from batchfox.survey.forecast import ask_prices
    from batchfox.survey.preflight import Media, describe_media
    from batchfox.survey.surveyor import Surveyor

    read = read_job(job, values)
    surveyor = Surveyor(read)
    root = output_root(read, time.time())
    listed = ask_prices(read)
    if listed.prices:
        refuse_unpriced(read, listed.prices)
    with Media(read) as media:
        found = surveyor.survey(root, listed, media if with_media else None)
        looked = media.look(read) if with_media else None
    if as_json:
        said = msgspec.to_builtins(found) | ({} if looked is None else {"preflight": msgspec.to_builtins(looked)})
        click.echo(msgspec.json.encode(said).decode())
    else:
        for line in (*describe(found), *(describe_media(looked, rows=found.valid) if looked is not None else ())):
            click.echo(line)
    return 0 if found.is_clean and not (looked is not None and looked.problems) else 3
