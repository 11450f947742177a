"""The command line: parses, calls, prints, sets the exit status. One file a command, loaded when it is asked for."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from batchfox.version import __version__

# Command → the line that `batchfox --help` shows (each command's own help begins with the same line).
COMMANDS = {
    "run": "Run a job; the same command again resumes it.",
    "validate": "Check every row of a job without sending any.",
    "status": "Show what a run is doing or did.",
    "export": "Write the results to one file in input order.",
    "simulate": "Run the embedded API server on a loopback port.",
}


def _add_common_options(command: click.Command) -> None:
    """Every command takes these; they land in the context's `meta`."""

    def keep(context: click.Context, option: click.Parameter, value: Any) -> Any:
        if option.name is not None:
            context.meta[f"batchfox.{option.name}"] = value
        return value

    command.params += [
        click.Option(
            ["--log-level"],
            type=click.Choice(["debug", "info", "warning", "error"]),
            expose_value=False,
            callback=keep,
            help="How much to say on stderr and in the log.  [default: warnings here, info in the log]",
        ),
        click.Option(
            ["--log-format"],
            type=click.Choice(["console", "json"]),
            default="console",
            show_default=True,
            expose_value=False,
            callback=keep,
            help="How messages on stderr look.",
        ),
        click.Option(
            ["--quiet"], is_flag=True, expose_value=False, callback=keep, help="Nothing on stderr but errors."
        ),
    ]


class _Commands(click.Group):
    """Loads a command's module when it is asked for, so that help is quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"batchfox.cli.{name}").command
        if not any(option.name == "log_level" for option in command.params):
            _add_common_options(command)
        return command

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            from batchfox.core.job import nearest

            raise click.UsageError(f"{error.message}{nearest(args[0], COMMANDS)}", context) from error

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="batchfox")
def cli() -> None:
    """Run millions of multimodal LLM requests as a batch that survives anything.

    Rows come from JSONL, Parquet or CSV, answers go to a Parquet dataset. Try `batchfox run jobs/demo.toml`.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """The console script. Exit statuses are the contract's; a user's mistake never shows a traceback."""
    try:
        status = cli.main(args, prog_name="batchfox", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        status = 2
    except click.ClickException as error:
        error.show()
        status = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("batchfox: interrupted", err=True)
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as error:
        status = _report(error)
    sys.exit(status if isinstance(status, int) else 0)


def _report(error: Exception) -> int:
    from batchfox.errors import BatchfoxError

    if isinstance(error, BatchfoxError):
        click.echo(f"batchfox: {error}", err=True)
        return error.exit_status
    import traceback

    traceback.print_exception(error)
    click.echo("batchfox: this is a bug; what was recorded is safe, and the same command resumes", err=True)
    return 1


def common(context: click.Context) -> dict[str, Any]:
    """The values of the options that every command takes: `log_level`, `log_format`, `quiet`."""
    return {
        "log_level": context.meta.get("batchfox.log_level"),
        "log_format": context.meta.get("batchfox.log_format", "console"),
        "quiet": bool(context.meta.get("batchfox.quiet")),
    }
