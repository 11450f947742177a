"""What `batchfox init` shows: the columns as a table, what was guessed, what to do next."""

from __future__ import annotations

import io
import shlex
import shutil
from collections.abc import Iterator

from batchfox.begin.drafting import Drafted
from batchfox.core.complaint import printable, show_text
from batchfox.core.glance import Column
from batchfox.words import count, shorten

MOST_SHOWN = 40
_HEAD = ("column", "type", "filled", "distinct", "example", "guess")


def describe(drafted: Drafted) -> Iterator[str]:
    """Lines for standard output, as wide as the terminal; the key, should the data hold it, is in none."""
    return map(drafted.secret.hide, _describe(drafted))


def _describe(drafted: Drafted) -> Iterator[str]:
    sample, columns = drafted.sample, drafted.columns
    looked = "all " if sample.is_whole else "a look at "
    files = f" in {count(len(sample.files), 'file')}" if len(sample.files) > 1 else ""
    yield f"{drafted.path}: {looked}{count(sample.glance.rows, 'row')}{files}, {count(len(columns), 'column')}"
    if sample.unread:
        yield f"{count(sample.unread, 'row')} cannot be read, the first: {printable(shorten(sample.problem))}"
    shown = _choose(columns, drafted.guess.roles)
    yield ""
    yield table(shown, drafted.declared, drafted.guess.roles, sample.glance.rows)
    if len(shown) < len(columns):
        yield f"and {count(len(columns) - len(shown), 'more column')}"
    yield ""
    for note in drafted.notes:
        yield f"note: {printable(note)}"
    if drafted.refused:
        yield (
            f"note: {drafted.refused:,} of the first {count(drafted.checked, 'row')} would be invalid: "
            f"{printable(shorten(drafted.reason))}"
        )
    yield f"wrote {drafted.job_path}; read it, then: batchfox validate {shlex.quote(str(drafted.job_path))}"


def _choose(columns: list[Column], roles: dict[str, str]) -> list[Column]:
    """The columns in their order; of very many those with a role and the first others."""
    if len(columns) <= MOST_SHOWN:
        return columns
    room = MOST_SHOWN - len(roles)
    chosen = {column.name for column in columns if column.name in roles}
    chosen |= {column.name for column in [c for c in columns if c.name not in roles][: max(room, 0)]}
    return [column for column in columns if column.name in chosen]


def table(columns: list[Column], declared: dict[str, str], roles: dict[str, str], rows: int) -> str:
    """One line a column. Names and values are the data's: shown as text, whatever is in them."""
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = shutil.get_terminal_size((80, 24)).columns
    cells = [
        (
            printable(column.name),
            _type(column, declared),
            _share(column.filled, rows),
            f"{column.distinct:,}",
            _example(column),
            roles.get(column.name, ""),
        )
        for column in columns
    ]
    widths = [max(cell_len(text) for text in texts) for texts in zip(_HEAD, *cells, strict=True)]
    widths[0] = min(widths[0], max(12, width // 4))
    widths[1], widths[5] = min(widths[1], 11), min(widths[5], 24)
    widths[4] = max(8, min(widths[4], width - sum(widths[:4]) - widths[5] - 2 * (len(_HEAD) - 1)))
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for at, name in enumerate(_HEAD):
        drawn.add_column(name, width=widths[at], justify="right" if at in (2, 3) else "left", no_wrap=True)
    for texts in cells:
        drawn.add_row(*map(Text, texts))
    written = io.StringIO()
    console = Console(file=written, width=max(width, 40), color_system=None, highlight=False, legacy_windows=False)
    console.print(drawn)
    return "\n".join(line.rstrip() for line in written.getvalue().rstrip("\n").split("\n"))


def _type(column: Column, declared: dict[str, str]) -> str:
    if column.filled and column.type != "text":
        return column.type
    known = declared.get(column.name, "")
    if known not in ("", "string", "large_string", "string_view"):
        return known
    return column.type if column.filled else "empty"


def _share(filled: int, rows: int) -> str:
    """Per cent; 0 and 100 only where that is true to the row."""
    share = 100 * filled / rows
    if 0 < share < 1:
        return "<1%"
    return ">99%" if 99 < share < 100 else f"{share:.0f}%"


def _example(column: Column) -> str:
    """A value without its quotes; its passwords and keys in URLs are masked."""
    if column.type != "text":
        return printable(column.example)
    shown = show_text(column.example)
    return shown[1:-1] if shown.startswith('"') and shown.endswith('"') else shown
