"""`batchfox verify`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from batchfox.cli import common, say
from batchfox.cli.complete import complete_output

ON_TERMINAL_EVERY_S = 0.5
PLAIN_EVERY_S = 15.0


@click.command("verify", short_help="Recount input, checkpoint and Parquet of an output.")
@click.argument(
    "folder", metavar="DIR", type=click.Path(path_type=Path, readable=False), shell_complete=complete_output
)
@click.option("--input", "inputs", multiple=True, metavar="PATH", help="Where the input is now; repeatable.")
@click.option("--no-input", is_flag=True, help="Compare the parts with the checkpoint alone.")
@click.option("--no-hash", is_flag=True, help="Do not make the requests again to see which rows were edited.")
@click.option("--costs", type=click.Path(path_type=Path), metavar="FILE", help="Write what each row cost, as CSV.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(
    context: click.Context,
    folder: Path,
    inputs: tuple[str, ...],
    no_input: bool,
    no_hash: bool,
    costs: Path | None,
    as_json: bool,
) -> int:
    """Recount input, checkpoint and Parquet of an output.

    Says what is missing, double, foreign or altered, and what the rows cost. Nothing is written to DIR and nothing is
    sent; a run may be at work there. Ends with 0 where all agrees, with 3 where something is off.
    """
    import msgspec

    from batchfox.audit import Choice, audit_output
    from batchfox.audit.report import describe
    from batchfox.errors import UserError
    from batchfox.export import refuse_target

    if no_input and inputs:
        raise click.UsageError("--input and --no-input: one of the two")
    if costs is not None:
        refuse_target(costs)
        if costs.exists():
            raise UserError(f"{costs}: exists already; name a new file")
    values = common(context)
    progress = _Progress(is_quiet=values["quiet"], form=values["log_format"])
    choice = Choice(inputs=inputs, has_input=not no_input, is_rendered=not no_hash, costs=costs)
    try:
        audit = audit_output(folder, choice, progress.tell)
    finally:
        progress.close()
    if as_json:
        say(msgspec.json.encode(msgspec.to_builtins(audit) | {"is_sound": not audit.problems}).decode())
    else:
        for line in describe(audit):
            say(line)
    return 3 if audit.problems else 0


class _Progress:
    """How far it is, on stderr: in place on a terminal, else a line now and then."""

    def __init__(self, *, is_quiet: bool, form: str) -> None:
        self._is_quiet = is_quiet or sys.stderr is None
        self._is_json = form == "json"
        self._is_in_place = not self._is_quiet and not self._is_json and sys.stderr.isatty()
        self._every_s = ON_TERMINAL_EVERY_S if self._is_in_place else PLAIN_EVERY_S
        self._told_at = time.monotonic()
        self._width = 0

    def tell(self, what: str, rows: int) -> None:
        now = time.monotonic()
        if self._is_quiet or now - self._told_at < self._every_s:
            return
        self._told_at = now
        if self._is_json:
            import json

            text = json.dumps({"event": "progress", "level": "info", "doing": what, "rows": rows})
        else:
            text = f"{what}: {rows:,} rows"
        if self._is_in_place:
            click.echo(f"\r{text:<{self._width}}", err=True, nl=False)
            self._width = len(text)
        else:
            click.echo(text, err=True)

    def close(self) -> None:
        """Leaves the terminal's line empty."""
        if self._width:
            click.echo(f"\r{'':<{self._width}}\r", err=True, nl=False)
