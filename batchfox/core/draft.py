"""The job file that `batchfox init` writes: a guess as commented TOML."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from batchfox.core.complaint import printable
from batchfox.core.guess import Guess

_ASIDE = 30
_MOST_COLUMNS = 40
NEEDS_REASONING = "gemini-2.5-pro"
_REASONING = ("reasoning", "true", "thinking models such as gemini-2.5-pro may require it")
_OPTIONAL = (_REASONING, ("temperature", "0.3", "0 to 2"))
_LAST = ("max_tokens", "messages")


def draft(
    guess: Guess,
    *,
    command: str,
    path: str,
    job_path: str,
    output: str,
    columns: list[str],
    id_note: str,
    root: str | None,
) -> str:
    """The job file's text. `command`: the line that made it; `path`: the input, `job_path`: this file, as they are
    typed; `id_note`: how far the id was looked at; `root`: where local media lie, None where there are none."""
    return "\n".join(
        [
            f"# Drafted by `{printable(command)}`: guesses, to be read and changed.",
            "#",
            *_commands(job_path),
            "",
            *_input(guess, path, columns, id_note),
            "",
            *_request(guess),
            "",
            *_rest(output, root),
        ]
    )


def _commands(job_path: str) -> Iterator[str]:
    shown = shlex.quote(printable(job_path))
    lines = {
        f"batchfox validate {shown}": "checks every row, sends nothing",
        f"batchfox run {shown} --base-url simulator --output out/rehearsal": "rehearses without a key",
        f"batchfox run {shown} --limit 5": "a few rows first",
        f"batchfox run {shown}": "the rest; the same command again resumes",
    }
    for line, says in lines.items():
        yield f"#     {line:<46}  # {says}"


def _input(guess: Guess, path: str, columns: list[str], id_note: str) -> Iterator[str]:
    yield "[input]"
    yield f"path = {toml(path)}"
    if guess.id is not None:
        yield _aside(f"id = {toml(guess.id)}", f"names a row: a known one is never sent twice; {id_note}")
    else:
        yield _aside('# id = "COLUMN"', "no column names the rows, so their position does: do not reorder the input")
    if guess.fields is not None:
        yield _aside(f"fields = {toml(guess.fields)}", "the only columns that are request fields")
    yield _aside('# keep = ["*"]', "the columns that the output carries: all, but binary ones and data URIs")
    if columns:
        shown = ", ".join(map(printable, columns[:_MOST_COLUMNS]))
        more = f", and {len(columns) - _MOST_COLUMNS} more" if len(columns) > _MOST_COLUMNS else ""
        yield from _wrapped(f"columns: {shown}{more}")


def _request(guess: Guess) -> Iterator[str]:
    for note in guess.notes:
        yield from _wrapped(f"Note: {note}.")
    yield _aside("[request]", "what every request says; {{ COLUMN }} is the row's value")
    says = {
        "model": "takes text and every kind of medium; `batchfox models` lists others",
        "max_tokens": "the longest answer, and so the dearest",
    }
    for name in sorted(guess.request, key=_LAST.__contains__):
        value = guess.request[name]
        if isinstance(value, str) and "\n" in value:
            yield f"{name} = {_multiline(value)}"
        elif name == "messages" and isinstance(value, list):
            continue  # a table of its own, so behind all that belongs to this one
        elif name in says:
            yield _aside(f"{name} = {toml(value)}", says[name])
        else:
            yield f"{name} = {toml(value)}"
    if guess.taken:
        yield from _wrapped(f"Taken from the row's own columns: {', '.join(guess.taken)}.")
    for name, value_shown, meaning in _OPTIONAL if guess.request else ():
        if name not in guess.taken:
            is_needed = name == "reasoning" and _may_need_reasoning(guess)
            yield _aside(f"{'' if is_needed else '# '}{name} = {value_shown}", meaning)
    if isinstance(messages := guess.request.get("messages"), list):
        yield ""
        yield from _messages(messages)


def _may_need_reasoning(guess: Guess) -> bool:
    """A prompt for the model of which the API's documents say so (seeds 000, 001; of `messages` they say nothing)."""
    return guess.request.get("model") == NEEDS_REASONING and "messages" not in {*guess.request, *guess.taken}


def _rest(output: str, root: str | None) -> Iterator[str]:
    yield "[limits]"
    yield _aside("in_flight = 200", "tasks submitted and not yet settled")
    yield _aside("# requests_per_minute = 600", "without it the pace finds what the API allows")
    yield _aside("# credits = 100", "the run stops before it spends more")
    yield ""
    if root is not None:
        yield "[media]"
        yield _aside(f"root = {toml(root)}", "local files must lie below this folder")
        yield ""
    yield "[output]"
    yield _aside(f"path = {toml(output)}", "Parquet in data/ below it; `batchfox export` makes one file of it")
    yield ""


def _messages(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        yield f"[[request.messages]]\nrole = {toml(message['role'])}"
        yield "content = ["
        yield from (f"    {toml(block)}," for block in message["content"])
        yield "]"


def toml(value: Any) -> str:
    """A value as TOML on one line: text, numbers, booleans, lists and tables of them."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str) and ('"' in value or "\\" in value) and "'" not in value and value.isprintable():
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else toml(name)


def _multiline(value: str) -> str:
    lines = [json.dumps(line, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f") for line in value.split("\n")]
    return '"""\n' + "\n".join(lines).replace('\\"', '"').replace('"""', '""\\"') + '"""'


def _aside(line: str, says: str) -> str:
    return f"{line:<{_ASIDE}} # {says}"


def _wrapped(text: str, width: int = 110) -> Iterator[str]:
    """Comment lines. Text from the data is made one line before: nothing of it can leave the comment."""
    line = "#"
    for word in printable(text).split(" "):
        if len(line) + len(word) >= width and line != "#":
            yield line
            line = "#"
        line += f" {word}"
    yield line
