"""`batchfox doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from batchfox.cli import say
from batchfox.cli.complete import complete_base_url, complete_job, complete_output


def _complete(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Outputs, and jobs beside them; folders on the way to either once."""
    outputs = complete_output(context, param, incomplete)
    known = tuple(f"{item.value.rstrip('/')}/" for item in outputs)
    jobs = complete_job(context, param, incomplete)
    return [*outputs, *(item for item in jobs if not item.value.startswith(known))]


def _examine_setup(job: Path | None, base_url: str | None, *, is_offline: bool) -> list[Any]:
    from batchfox.doctor import examine_setup
    from batchfox.jobfile import load_job

    tables: dict[str, dict[str, Any]] = {} if base_url is None else {"api": {"base_url": base_url}}
    if job is None:
        tables |= {"input": {"path": "-"}, "output": {"path": "."}}
    return examine_setup(load_job(job, tables=tables), is_offline=is_offline)


@click.command("doctor", short_help="Say what is wrong with this set-up or an output, and repair it.")
@click.argument(
    "place",
    metavar="[DIR|JOB]",
    required=False,
    type=click.Path(path_type=Path, readable=False),
    shell_complete=_complete,
)
@click.option("--repair", "is_repair", is_flag=True, help="Mend what can be mended in DIR; nothing is thrown away.")
@click.option("--offline", "is_offline", is_flag=True, help="Look at this machine alone; ask the API nothing.")
@click.option(
    "--base-url", metavar="URL", shell_complete=complete_base_url, help="The API to ask, instead of the job's."
)
def command(place: Path | None, is_repair: bool, is_offline: bool, base_url: str | None) -> int:
    """Say what is wrong with this set-up or an output, and repair it.

    Without DIR it looks at this machine and asks the API (that of JOB, if one is named) whether it can be reached,
    takes the key, and what is left of the balance: free requests, about ten seconds at most. With a job's output folder
    it looks at its checkpoint and at every part, and sends nothing. Ends with 0 where nothing is wrong (any more), with
    3 where something is.
    """
    from batchfox.doctor import examine_output, repair
    from batchfox.doctor.remark import describe

    done: list[str] = []
    if place is None or place.is_file() or (place.suffix == ".toml" and not place.is_dir()):
        if is_repair:
            raise click.UsageError("--repair needs the output folder to be repaired: batchfox doctor DIR --repair")
        remarks = _examine_setup(place, base_url, is_offline=is_offline)
    elif is_offline or base_url is not None:
        raise click.UsageError("an output is looked at without the API: leave out --offline and --base-url, or DIR")
    elif is_repair:
        done, remarks = repair(place)
    else:
        remarks = examine_output(place)
    for line in (*done, *describe(str(place or "this set-up"), remarks)):
        say(line)
    return 3 if any(remark.is_problem for remark in remarks) else 0
