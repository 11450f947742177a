"""`batchfox ctl`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from batchfox.cli.complete import complete_output

ORDERS = ("pause", "resume", "set", "retry", "stop")


def _complete(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(order) for order in ORDERS if order.startswith(incomplete)]


def _complete_word(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from batchfox.core.steer import STEERABLE

    if context.params.get("order") != "set":
        return []
    return [CompletionItem(f"limits.{key}=") for key in STEERABLE if f"limits.{key}".startswith(incomplete)]


@click.command("ctl", short_help="Steer a running job: pause, resume, set, retry, stop.")
@click.argument(
    "folder", metavar="DIR", type=click.Path(path_type=Path, readable=False), shell_complete=complete_output
)
@click.argument("order", metavar="pause|resume|set|retry|stop", type=click.Choice(ORDERS), shell_complete=_complete)
@click.argument("word", metavar="[KEY=VALUE|ROW]", required=False, shell_complete=_complete_word)
def command(folder: Path, order: str, word: str | None) -> int:
    """Steer a running job: pause, resume, set, retry, stop.

    DIR is the output folder of the run. set takes one of its limits, such as limits.requests_per_minute=300; retry the
    id of a row that ended (or its position, where rows have none). What was done goes to stdout.
    """
    from batchfox.control import ask
    from batchfox.errors import UserError

    reply = ask(folder, _read(order, word))
    if not reply.ok:
        raise UserError(reply.message)
    click.echo(reply.message)
    return 0


def _read(order: str, word: str | None) -> Any:
    """The order that the words mean. Raises `UserError`."""
    from batchfox.core.steer import Order
    from batchfox.errors import UserError
    from batchfox.jobfile import read_set

    if order == "set":
        if word is None:
            raise UserError("ctl set: which limit? As in: batchfox ctl DIR set limits.requests_per_minute=300")
        key, value = read_set(word)
        return Order(do="set", key=key, value=value)
    if order == "retry":
        if word is None:
            raise UserError("ctl retry: which row? As in: batchfox ctl DIR retry image-17")
        return Order(do="retry", row=word)
    if word is not None:
        raise UserError(f"ctl {order} takes nothing more, got {word}")
    return Order(do=order)  # type: ignore[arg-type]  # one of `ORDERS`
