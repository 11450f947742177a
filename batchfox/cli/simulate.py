"""`batchfox simulate`: the embedded API server on a loopback port, to rehearse a job without a key or a network."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchfox.simulator import Simulator

_HINTS = """\
Serving until Ctrl-C. In a job file: [api] base_url = "{url}"; any key that begins with sk- is taken.
The book of what was billed: {url}/__book (?entries=0: totals). Settings while it runs: POST {url}/__control
"""


@click.command(name="simulate")
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to serve on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port; 0 takes a free one.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same latencies, fates and faults.")
@click.option(
    "--latency",
    default="lognormal:2,0.5",
    show_default=True,
    help="constant:S, uniform:A,B, lognormal:MEDIAN,SIGMA or bimodal:M1,M2,SHARE2, in seconds.",
)
@click.option("--rpm", type=int, help="Submits a minute before 429. Unlimited if not given.")
@click.option("--poll-rpm", type=int, help="Polls a minute before 429. Unlimited if not given.")
@click.option(
    "--rate-limit",
    type=click.Choice(["window", "bucket"]),
    default="window",
    show_default=True,
    help="--rpm over a sliding minute, or as a bucket of --burst.",
)
@click.option("--burst", type=int, default=10, show_default=True, help="Size of the bucket.")
@click.option(
    "--retry-after",
    type=click.Choice(["seconds", "date", "none"]),
    default="seconds",
    show_default=True,
    help="Form of the Retry-After header.",
)
@click.option(
    "--retry-after-seconds", "retry_after_s", type=float, help="What every 429 asks for. The true wait if not given."
)
@click.option("--balance", type=float, help="Credits before 402. Unlimited if not given.")
@click.option("--key", "keys", multiple=True, help="A key that is taken (repeatable). Any sk-... if not given.")
@click.option("--model", "models", multiple=True, help="A model served beside the built-in ones (repeatable).")
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME=RATE", help="A fault and its rate, 0 to 1 (repeatable)."
)
@click.option("--slow", "slow_s", type=float, default=3.0, show_default=True, help="Seconds that slow faults take.")
@click.option("--outage", type=click.Choice(["503", "500", "close"]), help="Start with everything down.")
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), help="File in which tasks and book survive.")
@click.option("--list-faults", is_flag=True, help="Show all faults and exit.")
def command(host: str, port: int, state: Path | None, list_faults: bool, faults: tuple[str, ...], **given: Any) -> None:
    """Run the embedded API server on a loopback port.

    Prints its URL, then serves until Ctrl-C.
    """
    if list_faults:
        _show_faults()
        return
    # aiohttp takes a tenth of a second to import: only who serves is to pay for it.
    from batchfox.simulator import Settings, SettingsError, Simulator, StateError, fastest_loop

    try:
        simulator = Simulator(Settings(faults=_rates(faults), **given), state=state, host=host, port=port)
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            caught = runner.run(_serve(simulator))
    except (SettingsError, StateError) as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.UsageError(f"cannot serve on {host} port {port}: {error.strerror or error}") from error
    # What a shell expects of a process that a signal ended.
    raise SystemExit(128 + caught)


def _rates(faults: tuple[str, ...]) -> dict[str, float]:
    rates: dict[str, float] = {}
    for fault in faults:
        name, _, rate = fault.partition("=")
        try:
            rates[name] = float(rate)
        except ValueError as error:
            raise click.BadParameter(
                f'expected NAME=RATE, such as lost=0.01, found "{fault}"', param_hint="--fault"
            ) from error
    return rates


async def _serve(simulator: Simulator) -> int:
    """Serves until a signal; returns its number."""
    loop = asyncio.get_running_loop()
    caught: asyncio.Future[int] = loop.create_future()

    def catch(number: int) -> None:
        if not caught.done():
            caught.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, catch, number)
    async with simulator:
        click.echo(simulator.url)
        click.echo(_HINTS.format(url=simulator.url), err=True, nl=False)
        return await caught


def _show_faults() -> None:
    from batchfox.simulator import FAULTS

    for fault in FAULTS:
        is_bill = fault.where == "submit"
        billed = ("billed" if fault.is_task_made else "not billed") if is_bill else ""
        click.echo(f"{fault.name:20} {fault.where:8} {billed:11} {fault.says}")
