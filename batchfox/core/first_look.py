"""Mistakes of a job that all its rows would share: told before anything is sent, and once, not a thousand times.

`refuse_constants` looks at `[request]` by itself, `FirstLook` at the first 100 rows. What only later rows could mend
(a column to keep that none of them has) is a warning; what leaves every row without an id, a variable, a model or
content is the job's mistake. Source: contract.md, "Templates", for the number of rows and for what counts as missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from batchfox.core.complaint import Complaint
from batchfox.core.nearest import nearest
from batchfox.core.render import BATCH_HINT, Renderer, is_batch_line
from batchfox.core.row import Row
from batchfox.core.rulebook import FIXED, RuleBook
from batchfox.core.rules import check
from batchfox.core.sections import Input
from batchfox.core.shape import PROMPT_FAMILY
from batchfox.core.stream_choice import choose_stream
from batchfox.core.template import list_columns
from batchfox.errors import JobError

ENOUGH_ROWS = 100
CONTENT = ("prompt", "messages", "audio_url")
_MOST_COLUMNS = 1000


def refuse_constants(renderer: Renderer, book: RuleBook) -> None:
    """Raises `JobError` where `[request]` breaks a rule whatever the rows hold."""
    constants = choose_stream(renderer.constants, book)
    found = [_complaints_about(constants | content, constants, book) for content in _contents(renderer)]
    shared = [complaint for key, complaint in found[0].items() if all(key in others for others in found)]
    if shared:
        hints = sorted({complaint.rule for complaint in shared} - FIXED)
        hint = f" ([rules] off = {hints} switches what is wrong here off)".replace("'", '"') if hints else ""
        raise JobError("; ".join(f"request.{complaint.message}" for complaint in shared) + hint)


def _contents(renderer: Renderer) -> Iterator[dict[str, Any]]:
    """A content of each family that rows may still bring, or that a template makes."""
    if "messages" not in renderer.names:
        yield {} if "prompt" in renderer.constants else {"prompt": "x"}
    if not any(name in renderer.names for name in PROMPT_FAMILY):
        yield {} if "messages" in renderer.constants else {"messages": [{"role": "user", "content": "x"}]}


def _complaints_about(
    request: dict[str, Any], constants: dict[str, Any], book: RuleBook
) -> dict[tuple[str, str], Complaint]:
    """Refusals of what the constants say, not of what is missing yet."""
    return {
        (complaint.rule, complaint.field): complaint
        for complaint in check(request, book, final=False)
        if complaint.severity == "refusal" and re.split(r"[.\[…]", complaint.field)[0] in constants
    }


class FirstLook:
    """What the first 100 rows tell of the job. `off`: rules that are switched off."""

    def __init__(
        self, renderer: Renderer, given: Input, *, id_column: str | None, off: frozenset[str] = frozenset()
    ) -> None:
        self._renderer = renderer
        self._id_column = id_column
        self._variables = renderer.variables
        self._lacks_id = id_column is not None
        self._lacks_model = "model" not in renderer.names and "model" not in off
        self._lacks_content = not any(name in renderer.names for name in CONTENT) and "prompt" not in off
        # Columns that the job names outright, by where it does.
        self._named = dict.fromkeys(given.fields or (), "input.fields")
        self._named |= {name: "input.keep" for name in given.keep if not set(name) & set("*?[")}
        self._columns: dict[str, None] = {}
        self._passed_over: dict[str, str] = {}
        self._is_batch = False
        self._rows = 0

    @property
    def is_settled(self) -> bool:
        """Whether no further row can change the verdict."""
        lacks = self._variables or self._lacks_id or self._lacks_model or self._lacks_content or self._named
        return not lacks or self._rows >= ENOUGH_ROWS

    def see(self, row: Row) -> None:
        """Takes note of a row; one that could not be read does not count, nor do rows after the first 100."""
        if self._rows >= ENOUGH_ROWS or (row.problem is not None and not row.columns):
            return
        self._rows += 1
        columns = row.columns
        if len(self._columns) < _MOST_COLUMNS:
            self._columns.update(dict.fromkeys(columns))
        for name in self._variables.keys() & columns.keys():
            del self._variables[name]
        for name in self._named.keys() & columns.keys():
            del self._named[name]
        self._is_batch = self._is_batch or is_batch_line(columns)
        self._lacks_id = self._lacks_id and self._id_column not in columns
        self._lacks_model = self._lacks_model and not self._renderer.may_give(row, "model")
        self._lacks_content = self._lacks_content and not any(self._renderer.may_give(row, name) for name in CONTENT)
        self._passed_over |= self._renderer.passed_over(row)

    def verdict(self) -> str | None:
        """After 100 rows, or at the end of a shorter input: what is wrong, or None."""
        if not self._rows:
            return None
        if self._lacks_id:
            return self._say_no_id()
        if self._variables:
            name, place = next(iter(self._variables.items()))
            return (
                f'{place}: the variable "{name}" is no column of {self._first}{nearest(name, self._columns)}; '
                f"columns: {self._listed}; a template that can do without it says {name} | default(…)"
            )
        if self._lacks_model:
            return (
                f"request.model: missing; neither [request] nor a column of {self._first} names a model: "
                f'model = "…" in [request], or --model NAME{self._say_unfilled("model")}'
            )
        if self._lacks_content:
            return (
                f"request.prompt: missing; neither [request] nor a column of {self._first} gives prompt, messages or "
                f'audio_url: prompt = "{{{{ COLUMN }}}}" in [request], or --prompt; columns: {self._listed}'
                f"{self._say_unfilled(*CONTENT)}"
            )
        return None

    def warnings(self) -> Iterator[tuple[str, dict[str, str]]]:
        """What is odd and may yet be meant: event and values for the log."""
        for name, place in self._named.items() if self._rows else ():
            said = f"no column of {self._first}{nearest(name, self._columns)}"
            yield "column_missed", {"column": name, "named_in": place, "found": said}
        for name, reason in self._passed_over.items():
            yield "column_passed_over", {"column": name, "because": reason}

    @property
    def _first(self) -> str:
        return "the first row" if self._rows == 1 else f"the first {self._rows} rows"

    @property
    def _listed(self) -> str:
        return list_columns(self._columns)

    def _say_no_id(self) -> str:
        hint = nearest(str(self._id_column), self._columns)
        if self._is_batch:
            hint = f"; {BATCH_HINT}"
        return f'input.id: "{self._id_column}" is no column of {self._first}{hint}; columns: {self._listed}'

    def _say_unfilled(self, *names: str) -> str:
        """`[input] fields` may be what keeps a column from being taken."""
        there = [name for name in names if name in self._columns]
        return f"; the column {there[0]} is not in input.fields" if there else ""
