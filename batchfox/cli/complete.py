"""What a shell is offered behind TAB: job files, outputs, statuses, models. Nothing heavy is imported for it, and
nothing is asked of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_BATCHFOX_COMPLETE"
_MOST = 500
# bash puts a blank behind whatever is unique; behind a folder and behind KEY= more is to follow.
_BASH_GOES_ON = """\
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace

    return 0
"""


def complete_job(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """TOML files that are jobs, and folders on the way to them."""
    from batchfox.jobfile import is_job

    return _paths(incomplete, (".toml",), is_job)


def complete_output(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders that hold an output, each without its slash, and folders on the way to them."""
    folder, slash, begun = incomplete.rpartition("/")
    try:
        found = sorted(path for path in Path(folder + slash).iterdir() if path.name.startswith(begun) and path.is_dir())
    except (OSError, ValueError):
        return []
    items = []
    for path in found[:_MOST]:
        if (path / "_batchfox").is_dir():
            items.append(CompletionItem(f"{folder}{slash}{path.name}"))
        elif begun or not path.name.startswith("."):
            items.append(CompletionItem(f"{folder}{slash}{path.name}/"))
    if len(items) == 1 and items[0].value.endswith("/"):
        return complete_output(context, param, items[0].value) or items
    return items


def complete_statuses(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Statuses to retry, also behind a comma; those that stand there already are left out."""
    from batchfox.core.outcome import MARKED, STALE, STATUSES

    before, comma, begun = incomplete.rpartition(",")
    taken = before.split(",")
    statuses = [status for status in (*STATUSES, STALE, MARKED) if status != "completed" and status not in taken]
    return [CompletionItem(f"{before}{comma}{status}") for status in statuses if status.startswith(begun)]


def complete_status(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Any status of a row."""
    from batchfox.core.outcome import STATUSES

    return _that_begin(STATUSES, incomplete)


def complete_format(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The forms that results are exported in."""
    return _that_begin(("parquet", "jsonl", "csv", "excel", "openai-batch", "datasets"), incomplete)


def complete_base_url(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The embedded server."""
    return _that_begin(("simulator",), incomplete)


def complete_model(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The models that rules are known for by their whole name; which others there are, only the API knows."""
    from batchfox.core.rulebook import MODELS

    return _that_begin((facts.match for facts in MODELS if not facts.match.endswith("*")), incomplete)


def complete_key(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`--set`: the keys of a job file, up to the equals sign."""
    from batchfox.core.job import job_keys

    return _that_begin((f"{key}=" for key in job_keys()), incomplete)


def complete_data(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files that rows can be read from, and folders."""
    from batchfox.paths import SUFFIXES

    return _paths(incomplete, tuple(SUFFIXES))


def _that_begin(words: Iterable[str], begun: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(begun)]


def _paths(incomplete: str, endings: tuple[str, ...], is_wanted: Callable[[Path], bool] = bool) -> list[CompletionItem]:
    """Files with these endings, and folders (with a slash), whose path begins so; hidden ones only when asked for. A
    folder that is alone is looked into: a shell puts a blank behind what is unique."""
    folder, slash, begun = incomplete.rpartition("/")
    try:
        found = list(_look(Path(folder + slash), f"{folder}{slash}", begun, endings, is_wanted))
    except (OSError, ValueError):
        return []
    if len(found) == 1 and found[0].value.endswith("/"):
        return _paths(found[0].value, endings, is_wanted) or found
    return found


def _look(
    place: Path, before: str, begun: str, endings: tuple[str, ...], is_wanted: Callable[[Path], bool]
) -> Iterator[CompletionItem]:
    found = sorted(place.iterdir(), key=lambda path: path.name)
    shown = [path for path in found if path.name.startswith(begun) and (begun or not path.name.startswith("."))]
    for path in shown[:_MOST]:
        if path.is_dir():
            yield CompletionItem(f"{before}{path.name}/")
        elif endings and path.name.lower().endswith(endings) and is_wanted(path):
            yield CompletionItem(f"{before}{path.name}")


def script(shell: str) -> str:
    """What the shell has to read once, as click makes it."""
    from click.shell_completion import get_completion_class

    from batchfox.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(cli, {}, "batchfox", VARIABLE).source()
    return made.replace("    return 0\n", _BASH_GOES_ON, 1) if shell == "bash" else made
