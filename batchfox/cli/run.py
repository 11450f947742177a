"""`batchfox run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from batchfox.cli import common, program, say
from batchfox.cli.complete import (
    complete_base_url,
    complete_data,
    complete_job,
    complete_key,
    complete_model,
    complete_output,
    complete_statuses,
)


def job_options(function: Any) -> Any:
    """The options that override, or make, a job."""
    options = [
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="PATH",
            shell_complete=complete_data,
            help="Input instead of the job's; repeatable.",
        ),
        click.option(
            "--output", metavar="DIR", shell_complete=complete_output, help="Output folder instead of the job's."
        ),
        click.option(
            "--set",
            "sets",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            shell_complete=complete_key,
            help="Override one key; repeatable.",
        ),
        click.option("--id", "id_column", metavar="COLUMN", help="The column that names a row."),
        click.option("--model", metavar="NAME", shell_complete=complete_model, help="[request] model."),
        click.option("--prompt", metavar="TEXT", help="[request] prompt; a template over the row's columns."),
        click.option("--system-prompt", metavar="TEXT", help="[request] system_prompt."),
        click.option("--max-tokens", type=int, metavar="N", help="[request] max_tokens."),
        click.option(
            "--base-url",
            metavar="URL",
            shell_complete=complete_base_url,
            help='[api] base_url; "simulator" needs no key.',
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def read_job(job: str | None, values: dict[str, Any]) -> Any:
    """The job that the command line means: file, flags, or both. Raises `JobError`."""
    from batchfox.errors import UserError
    from batchfox.jobfile import load_job

    tables: dict[str, dict[str, Any]] = {}
    inputs = list(values["inputs"])
    for section, key, value in (
        ("input", "path", inputs if len(inputs) != 1 else inputs[0]),
        ("input", "id", values["id_column"]),
        ("output", "path", values["output"]),
        ("request", "model", values["model"]),
        ("request", "prompt", values["prompt"]),
        ("request", "system_prompt", values["system_prompt"]),
        ("request", "max_tokens", values["max_tokens"]),
        ("api", "base_url", values["base_url"]),
    ):
        if value not in (None, []):
            tables.setdefault(section, {})[key] = value
    if job is None and ("input" not in tables or "path" not in tables["input"] or "output" not in tables):
        raise UserError(
            "name a job file (batchfox run jobs/demo.toml), or give at least --input PATH and --output DIR "
            "(and --model, --prompt, ... for what the rows do not say)"
        )
    return load_job(job, sets=values["sets"], tables=tables)


@click.command("run", short_help="Run a job; the same command again resumes it.")
@click.argument("job", required=False, type=click.Path(), shell_complete=complete_job)
@job_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N unfinished rows this time.")
@click.option(
    "--retry",
    metavar="STATUS[,...]",
    shell_complete=complete_statuses,
    help="Give rows of these statuses fresh attempts: failed, ..., stale, marked.",
)
@click.option(
    "--where", metavar="CONDITION", help="Of these rows only those that fit: \"error_code = 'x' and model = 'y'\"."
)
@click.option("--dry-run", is_flag=True, help="Print the first requests; send nothing.")
@click.option("--fresh", is_flag=True, help="Move the old output to DIR.old-<run_id> and start anew.")
@click.option(
    "--scheduled",
    metavar="TIME",
    help="Run as [schedule] says for this time, or for its last one: last. It sets run_date, the jitter to wait for, "
    "and the end of the window.",
)
@click.option(
    "--pilot",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="First run a sample of N rows, show its answers and what all will cost, and ask.",
)
@click.option("--yes", is_flag=True, help="With --pilot: go on without asking.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    metavar="N",
    help="Serve metrics for Prometheus on this port of loopback; 0 takes a free one.",
)
@click.pass_context
def command(context: click.Context, /, job: str | None, **values: Any) -> int:
    """Run a job; the same command again resumes it.

    JOB is a TOML file. Without one, --input, --output, --model, --prompt and the like make a job. Rows that are done
    are not sent again; tasks that are running are picked up again. The summary goes to stdout, progress to stderr.
    """
    read = read_job(job, values)
    if values["yes"] and values["pilot"] is None:
        raise click.UsageError("--yes answers the question of --pilot N", context)
    if values["pilot"] is not None:
        return _run_pilot(context, job, read, values)
    if values["dry_run"]:
        return _preview(context, read, values)
    if values["scheduled"] is None:
        return _run(context, job, read, _options(context, values))
    return _run_scheduled(context, job, read, values)


def _run_scheduled(context: click.Context, job: str | None, read: Any, values: dict[str, Any]) -> int:
    import msgspec

    from batchfox.errors import UserError
    from batchfox.schedule.planned import plan
    from batchfox.schedule.scheduled import run_scheduled

    if job is None:
        raise UserError("--scheduled needs a job file: its [schedule] says when, and its path names its runs")
    options = _options(context, values)

    def run(scheduled: Any) -> int:
        return _run(context, job, read, msgspec.structs.replace(options, scheduled=scheduled))

    return run_scheduled(plan(job, read), values["scheduled"], run)


def _run_pilot(context: click.Context, job: str | None, read: Any, values: dict[str, Any]) -> int:
    """`--pilot`: the sample, what it says, the question, and then the run as without it."""
    import msgspec

    from batchfox.errors import UserError
    from batchfox.pilot import describe, draw_sample, judge, read_ends

    for name in ("scheduled", "retry", "dry_run"):
        if values[name]:
            raise UserError(f"--pilot tries rows that were not sent yet; leave out --{name.replace('_', '-')}")
    options = _options(context, values)
    sample = draw_sample(read, options, values["pilot"])
    if not sample.chosen:
        say("no row is left to be tried: the run goes on as without --pilot")
        return _run(context, job, read, options)
    summary = _execute(read, msgspec.structs.replace(options, limit=None), only=sample.keys)
    ends = read_ends(Path(summary.data), sample)
    say("\n".join(describe(sample, ends, judge(sample, ends))))
    if summary.exit_status not in (0, 3) or not sample.left or not _goes_on(sample.left, is_yes=values["yes"]):
        say(_describe(job, summary))
        return int(summary.exit_status)
    return _run(context, job, read, msgspec.structs.replace(options, fresh=False))


def _goes_on(left: int, *, is_yes: bool) -> bool:
    """Is the rest to be run? Where nobody can be asked, only `--yes` says so."""
    if is_yes:
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        click.echo("nobody can be asked here: --yes goes on, and so does the same command without --pilot", err=True)
        return False
    try:
        return click.confirm(f"run the other {left:,} rows?", default=False, err=True)
    except click.Abort:
        click.echo("\nnot answered: the pilot's rows are kept; the same command without --pilot goes on", err=True)
        raise


def _options(context: click.Context, values: dict[str, Any]) -> Any:
    from batchfox.options import Options

    retry, fresh = values["retry"] or (), values["fresh"]
    return Options(
        limit=values["limit"],
        retry=retry,
        where=values["where"],
        fresh=fresh,
        metrics_port=values["metrics_port"],
        **common(context),
    )


def _preview(context: click.Context, read: Any, values: dict[str, Any]) -> int:
    """`--dry-run`."""
    from batchfox.survey.preview import preview

    options = _options(context, values)
    lines = preview(read, options)
    for line in lines:
        click.echo(line)
    if not options.quiet:
        click.echo("nothing was sent" if lines else "nothing was sent, and no row is left to be sent", err=True)
    return 0


def _run(context: click.Context, job: str | None, read: Any, options: Any) -> int:
    summary = _execute(read, options)
    say(_describe(job, summary))
    return int(summary.exit_status)


def _execute(read: Any, options: Any, *, only: frozenset[bytes] | None = None) -> Any:
    from batchfox.descriptors import raise_descriptor_limit
    from batchfox.display import make_display
    from batchfox.running import run

    raise_descriptor_limit(read.limits.in_flight)
    # A scheduled run may share its terminal with others: it writes lines.
    display = make_display(quiet=options.quiet, form=options.log_format, is_alone=options.scheduled is None)
    return run(read, options, display=display, only=only)


def _describe(job: str | None, summary: Any) -> str:
    """The closing summary."""
    from batchfox.show import describe

    command_line = [*program(), *(str(Path(word)) if word == job else word for word in _plain_words(sys.argv[1:]))]
    return describe(summary, command_line)


def _plain_words(words: list[str]) -> list[str]:
    """The command line without the pilot, which is not to be had again."""
    found: list[str] = []
    is_number = False
    for word in words:
        if not is_number and word != "--yes" and not word.startswith("--pilot"):
            found.append(word)
        is_number = word == "--pilot"
    return found
