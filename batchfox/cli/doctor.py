"""`batchfox doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from batchfox.cli import say
from batchfox.cli.complete import complete_output


@click.command("doctor", short_help="Say what is wrong with this set-up or an output, and repair it.")
@click.argument(
    "folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path), shell_complete=complete_output
)
@click.option("--repair", "is_repair", is_flag=True, help="Mend what can be mended in DIR; nothing is thrown away.")
def command(folder: Path | None, is_repair: bool) -> int:
    """Say what is wrong with this set-up or an output, and repair it.

    Without DIR it looks at this machine; with a job's output folder, at its checkpoint and at every part. Nothing is
    sent. Ends with 0 where nothing is wrong (any more), with 3 where something is.
    """
    from batchfox.doctor import examine_output, examine_setup, repair
    from batchfox.doctor.remark import describe

    done: list[str] = []
    if folder is None:
        if is_repair:
            raise click.UsageError("--repair needs the output folder to be repaired: batchfox doctor DIR --repair")
        remarks = examine_setup()
    elif is_repair:
        done, remarks = repair(folder)
    else:
        remarks = examine_output(folder)
    for line in (*done, *describe(str(folder or "this set-up"), remarks)):
        say(line)
    return 3 if any(remark.is_problem for remark in remarks) else 0
