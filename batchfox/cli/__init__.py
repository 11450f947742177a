"""The command line: parses, calls, prints, sets the exit status. One file a command, loaded when it is asked for."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, NoReturn

import click

from batchfox.version import __version__

# Command → the line that `batchfox --help` shows (each command's own help begins with the same line).
COMMANDS = {
    "init": "Write a job file for a data file, by what is in it.",
    "run": "Run a job; the same command again resumes it.",
    "validate": "Check every row of a job without sending any.",
    "schedule": "Run jobs at the times in their [schedule].",
    "status": "Show what a run is doing or did.",
    "ctl": "Steer a running job: pause, resume, set, retry, stop.",
    "runs": "List the runs of an output.",
    "export": "Write the results to one file in input order.",
    "report": "Write one HTML file that says what a run did.",
    "view": "Browse the results on a local page.",
    "models": "List the models that the key may use, and what each takes.",
    "verify": "Recount input, checkpoint and Parquet of an output.",
    "doctor": "Say what is wrong with this set-up or an output, and repair it.",
    "simulate": "Run the embedded API server on a loopback port.",
    "completion": "Print what makes a shell complete batchfox's commands.",
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

    def make_context(self, *arguments: Any, **values: Any) -> click.Context:
        """Where click prints the help."""
        try:
            return super().make_context(*arguments, **values)
        except OSError as error:
            raise click.exceptions.Exit(_lose_output(error)) from error

    def invoke(self, context: click.Context) -> Any:
        """A user's mistake, or a machine that failed, is one line on stderr and an exit status."""
        from batchfox.errors import BatchfoxError, machine_error, path_error
        from batchfox.owners import say_owner

        try:
            return super().invoke(context)
        except BatchfoxError as error:
            told = error
        except OSError as error:  # here, for click makes exit 1 of a closed pipe
            if error.filename is None and _is_output_lost():
                return _lose_output(error)
            if (named := path_error(error, say_owner(error.filename or "")) or machine_error(error)) is None:
                raise
            told = named
        _tell(told, told.exit_status, as_json=context.meta.get("batchfox.log_format") == "json")
        return told.exit_status

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            from batchfox.core.nearest import nearest

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
    _hold_standard_streams()
    sys.meta_path.insert(0, _NoPandas())
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
    except Exception as error:
        status = _report(error)
    sys.exit(status if isinstance(status, int) else 0)


class _NoPandas(MetaPathFinder):
    """pyarrow imports pandas, where there is one, with the first array it makes: 0.4 s and 50 MB for nothing here."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("batchfox's commands do without pandas", name=name)


def _hold_standard_streams() -> None:
    """Opens those of the three that came closed: else a file, or the event loop's own, would take their numbers."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)


def _report(error: Exception) -> int:
    import traceback

    traceback.print_exception(error)
    _say_on_stderr("batchfox: this is a bug; what was recorded is safe, and the same command resumes")
    return 1


def _tell(error: Exception, status: int, *, as_json: bool) -> None:
    if as_json:
        import json

        told = {"event": "command_failed", "level": "error", "error": str(error), "exit_status": status}
        _say_on_stderr(json.dumps(told, ensure_ascii=False))
    else:
        _say_on_stderr(f"batchfox: {error}")


def _say_on_stderr(line: str) -> None:
    try:
        click.echo(line, err=True)
    except OSError:  # nobody is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def say(text: str) -> None:
    """Prints a command's last words. Where they cannot be written, that is told, and the exit status stays what it
    was going to be."""
    try:
        click.echo(text)
    except OSError as error:
        if not _is_output_lost():
            raise
        _lose_output(error)


def _is_output_lost() -> bool:
    """Does standard output take nothing more? Asked where something could not be written: a line's end tells."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _lose_output(error: OSError) -> int:
    """A reader who has read enough (`| head`) is no failure; a full disk is."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it is refused once more when Python ends
    if isinstance(error, BrokenPipeError):
        return 0
    _say_on_stderr(f"batchfox: standard output: {error.strerror or error}; what should stand there is lost")
    return 4


def program() -> list[str]:
    """The words that start this program once more, as short as they may be."""
    started = sys.argv[0]
    if Path(started).name == "__main__.py":
        return [sys.executable, "-m", "batchfox"]
    found = shutil.which(Path(started).name)
    return [Path(started).name] if found and Path(found).resolve() == Path(started).resolve() else [started]


def common(context: click.Context) -> dict[str, Any]:
    """The values of the options that every command takes: `log_level`, `log_format`, `quiet`."""
    return {
        "log_level": context.meta.get("batchfox.log_level"),
        "log_format": context.meta.get("batchfox.log_format", "console"),
        "quiet": bool(context.meta.get("batchfox.quiet")),
    }
