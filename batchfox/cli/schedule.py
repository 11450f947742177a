"""`batchfox schedule`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from batchfox.cli import common, program, say
from batchfox.cli.complete import complete_job


@click.command("schedule", short_help="Run jobs at the times in their [schedule].")
@click.argument("jobs", nargs=-1, required=True, type=click.Path(), shell_complete=complete_job)
@click.option("--in-order", is_flag=True, help="One job at a time, in the order given, not side by side.")
@click.option("--list", "lists", is_flag=True, help="Show when each job runs next, and how its last run ended.")
@click.option("--json", "as_json", is_flag=True, help="With --list: one JSON object for each job.")
@click.option(
    "--print",
    "form",
    type=click.Choice(["systemd", "cron", "k8s", "airflow"]),
    help="Print the units, line, CronJob or DAG that runs the jobs without this command.",
)
@click.option("--into", metavar="DIR", type=click.Path(), help="With --print: write files there instead.")
@click.option(
    "--image",
    metavar="NAME",
    help="With --print k8s: the container image.  [default: batchfox:latest]",
)
@click.pass_context
def command(context: click.Context, /, jobs: tuple[str, ...], **values: Any) -> int:
    """Run jobs at the times in their [schedule].

    Runs until a signal ends it. Each run is a process of its own, `batchfox run JOB`; what it says goes where this
    command's output goes. A signal ends the runs, too: the next one goes on.
    """
    from batchfox.errors import UserError
    from batchfox.jobfile import load_job
    from batchfox.schedule.planned import plan

    if len(set(jobs)) < len(jobs):
        raise UserError("a job is named twice: each has its own times, and runs once at each")
    _check_forms(values)
    planned = [plan(job, load_job(job)) for job in jobs]
    if values["lists"]:
        return _list(planned, as_json=values["as_json"])
    if values["form"] is not None:
        return _print(planned, values)
    return _run(context, planned, in_order=values["in_order"])


def _check_forms(values: dict[str, Any]) -> None:
    """Raises `UserError` for an option that would be passed over."""
    from batchfox.errors import UserError

    form, lists = values["form"], values["lists"]
    for is_wrong, said in (
        (lists and form is not None, "--list and --print: one at a time"),
        (values["as_json"] and not lists, "--json goes with --list"),
        (values["into"] is not None and form is None, "--into goes with --print"),
        (values["image"] is not None and form != "k8s", "--image goes with --print k8s"),
    ):
        if is_wrong:
            raise UserError(said)


def _list(planned: list[Any], *, as_json: bool) -> int:
    import msgspec

    from batchfox.schedule.listing import lines, listed

    now = datetime.now(UTC)
    found = [listed(one, now) for one in planned]
    for line in [msgspec.json.encode(one).decode() for one in found] if as_json else lines(found):
        say(line)
    return 0


def _print(planned: list[Any], values: dict[str, Any]) -> int:
    import sys
    from pathlib import Path

    from batchfox.schedule.forms.site import Site
    from batchfox.schedule.printing import as_text, make_forms, write_forms

    image = values["image"] or "batchfox:latest"
    site = Site(command=[sys.executable, "-m", "batchfox"], folder=str(Path.cwd()), image=image)
    forms = make_forms(values["form"], planned, site)
    if values["into"] is None:
        say(as_text(forms))
        return 0
    for path in write_forms(forms, Path(values["into"])):
        say(str(path))
    return 0


def _run(context: click.Context, planned: list[Any], *, in_order: bool) -> int:
    from batchfox.schedule.daemon import Daemon

    options = common(context)
    passed = ["--log-format", options["log_format"]]
    if options["log_level"] is not None:
        passed += ["--log-level", options["log_level"]]
    if options["quiet"]:
        passed.append("--quiet")
    daemon = Daemon(planned, command=program(), options=passed, in_order=in_order, tell=_teller(options))
    return daemon.run()


def _teller(options: dict[str, Any]) -> Any:
    """Lines on stderr, with their moment."""
    import json

    def tell(line: str) -> None:
        if options["quiet"]:
            return
        now = datetime.now().astimezone()
        if options["log_format"] == "json":
            click.echo(json.dumps({"event": "schedule", "at": now.isoformat(), "said": line}), err=True)
        else:
            click.echo(f"{now:%Y-%m-%d %H:%M:%S} {line}", err=True)

    return tell
