"""`batchfox models`."""

from __future__ import annotations

import click

from batchfox.cli import say
from batchfox.cli.complete import complete_base_url, complete_job


@click.command("models", short_help="List the models that the key may use, and what each takes.")
@click.argument("job", required=False, type=click.Path(), shell_complete=complete_job)
@click.option(
    "--base-url", metavar="URL", shell_complete=complete_base_url, help='[api] base_url; "simulator" needs no key.'
)
@click.option("--key-env", metavar="NAME", help="[api] key_env: the environment variable that holds the key.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(job: str | None, base_url: str | None, key_env: str | None, as_json: bool) -> int:
    """List the models that the key may use, and what each takes.

    With JOB its API is asked, with its key and its [rules]. Asking is free; nothing is sent that costs.
    """
    import msgspec

    from batchfox.jobfile import load_job
    from batchfox.offers import ask_offers, describe

    given = {name: value for name, value in (("base_url", base_url), ("key_env", key_env)) if value is not None}
    tables = {"api": given}
    if job is None:
        tables |= {"input": {"path": "-"}, "output": {"path": "-"}}  # which a job needs, and nobody looks at
    offered = ask_offers(load_job(job, tables=tables))
    if as_json:
        say(msgspec.json.encode(offered).decode())
    else:
        for line in describe(offered):
            say(line)
    return 0
