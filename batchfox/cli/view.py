"""`batchfox view`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from batchfox.cli.complete import complete_output


@click.command("view", short_help="Browse the results on a local page.")
@click.argument(
    "folder", metavar="DIR", type=click.Path(path_type=Path, readable=False), shell_complete=complete_output
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1.  [default: any free one]")
@click.option("--open", "is_opened", is_flag=True, help="Open the page in the browser.")
def command(folder: Path, port: int, is_opened: bool) -> None:
    """Browse the results on a local page.

    Prints its address, which holds a token that nobody else knows, then serves until Ctrl-C: search, filter by any
    column, sort; a row in full with its media; marks for retry or accept. It refreshes while a run goes on.
    """
    from batchfox.errors import UserError

    try:
        caught = asyncio.run(_serve(folder, port, is_opened=is_opened))
    except OSError as error:
        if error.filename is not None:
            raise
        raise UserError(f"--port {port}: cannot be served on 127.0.0.1: {error.strerror or error}") from error
    # What a shell expects of a process that a signal ended.
    raise SystemExit(128 + caught)


async def _serve(folder: Path, port: int, *, is_opened: bool) -> int:
    """Serves until a signal; returns its number."""
    from batchfox.view.server import ViewServer

    loop = asyncio.get_running_loop()
    caught: asyncio.Future[int] = loop.create_future()

    def catch(number: int) -> None:
        if not caught.done():
            caught.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, catch, number)
    async with ViewServer(folder, port=port) as server:
        click.echo(server.url)
        if is_opened:
            click.launch(server.url)
        return await caught
