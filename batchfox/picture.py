"""The picture of a run on a terminal: one glance tells whether it is well. Words carry it all; colour stresses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import ceil
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batchfox.core.binding import BINDS
from batchfox.core.vitals import Shown, Vitals, sparks
from batchfox.words import (
    duration,
    latency_words,
    moment,
    money_words,
    outage_words,
    pace_words,
    shorten,
    stop_words,
    tail_words,
)

# From this width on there are two columns.
WIDE = 130
# Rows that do not complete are a bad sign from this share on, of so many rows.
MANY = 0.05
OF_ROWS = 20
_SPARKS_NARROW, _SPARKS_WIDE = 12, 20
# What the names of the lines take.
_NAMES = 9

# Yellow and green text, and whatever is bold and so perhaps bright, are lost on a white ground. So what has to be seen
# brings its ground with it; red is read on both.
GOOD, CARE, BAD = "black on green", "black on yellow", "white on red"

Line = tuple[str, Text]


def draw(
    figures: Mapping[str, Any], shown: Shown, *, width: int, age_s: float = 0.0, is_dead: bool = False
) -> RenderableType:
    """The picture for a terminal so wide. `age_s`: how long ago the figures were true. `is_dead`: the run died then."""
    vitals = Vitals(figures, shown)
    if is_dead:
        vitals.left_s = None
    is_wide = width >= WIDE
    most_sparks = _SPARKS_WIDE if is_wide else _SPARKS_NARROW
    flow = [
        _rows(figures, shown, vitals, is_wide=is_wide),
        _speed(shown, vitals, most_sparks, width, shown.cooling_s if is_dead else age_s),
        _pace(figures, shown),
    ]
    flow += [_latency(shown, most_sparks)]
    cost = [_sent(figures), _money(figures, shown), _tokens(figures), _time(vitals)]
    last = _trouble(figures)
    state = ("died", BAD) if is_dead else state_of(figures, shown, vitals, age_s)
    head = _head(shown, vitals, state, width)
    if is_wide:
        both = Table.grid(padding=(0, 4))
        both.add_row(_table(flow), _table(cost))
        return Group(head, both, _table(last)) if last else Group(head, both)
    return Group(head, _table([*flow, *cost, *last]))


def _table(lines: list[Line]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", width=8, no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines:
        table.add_row(name, text)
    return table


def _head(shown: Shown, vitals: Vitals, state: tuple[str, str], width: int) -> Table:
    of = f" of {vitals.of_total}" if vitals.total else ""
    share = f"{vitals.share:4.0%}  " if vitals.share is not None else ""
    told = f"{share}{vitals.ended:,}{of} rows"
    word, style = state
    name = shorten(shown.title, max(width // 5, 12))
    bar_width = max(min(width - len(name) - len(told) - len(word) - 12, 60), 8)
    bar = ProgressBar(  # in the terminal's own colours, which fit light and dark alike
        total=1.0,
        completed=vitals.share or 0.0,
        width=bar_width,
        pulse=vitals.share is None,
        style="bright_black",
        complete_style="green",
        finished_style="green",
        pulse_style="green",
    )
    head = Table.grid(padding=(0, 1))
    for _ in range(4):
        head.add_column(no_wrap=True)
    head.add_row(Text(name, style="bold"), Text(f" ● {word} ", style=style), bar, Text(told))
    return head


def state_of(figures: Mapping[str, Any], shown: Shown, vitals: Vitals, age_s: float = 0.0) -> tuple[str, str]:
    """In a word whether the run is well, and its colour."""
    settled = vitals.completed + vitals.not_completed
    if figures["stopped"]:
        return "stopping", CARE
    if figures.get("paused_s") is not None:
        return f"paused {duration(figures['paused_s'] + age_s)}", CARE
    if figures["outage"] is not None:
        return "the API is away", BAD
    if settled >= OF_ROWS and vitals.not_completed >= MANY * settled:
        return "rows fail", BAD
    if shown.cooling_s > age_s:
        return f"cooling down {ceil(shown.cooling_s - age_s)} s", CARE
    return ("finishing" if shown.binds == "tail" else "running"), GOOD


def _rows(figures: Mapping[str, Any], shown: Shown, vitals: Vitals, *, is_wide: bool) -> Line:
    doubts = figures["in_doubt_resubmitted"] + figures["in_doubt_held"]
    text = Text.assemble(
        f"{vitals.completed:,} done",
        "   ",
        (f"{vitals.not_completed:,} failed", "red" if vitals.not_completed else "dim"),
        f"   {figures['in_flight']:,} of {shown.in_flight_limit:,} in flight   ",
        (f"{doubts:,} in doubt", CARE if doubts else "dim"),
    )
    if vitals.before and is_wide:
        text.append(f"   {vitals.before:,} before", "dim")
    return "rows", text


def _speed(shown: Shown, vitals: Vitals, most: int, width: int, age_s: float) -> Line:
    text = Text(f"{vitals.recent_per_s:,.1f} rows/s  ")
    text.append(sparks(shown.rates[-most:]))
    if shown.binds is not None:
        text.append(f"  limit: {shown.binds}", "bold")
        cools_s = shown.cooling_s - age_s if shown.binds == "cool-down" else 0.0
        why = f" (after a 429, {ceil(cools_s)} s to go)" if cools_s > 0 else f" ({BINDS.get(shown.binds, '')})"
        if len(text) + len(why) <= width - _NAMES:
            text.append(why, "dim")
    return "speed", text


def _pace(figures: Mapping[str, Any], shown: Shown) -> Line:
    return "pace", Text(pace_words(figures, shown))


def _latency(shown: Shown, most: int) -> Line:
    text = Text(latency_words(shown) or "not known yet", "" if shown.p50_s is not None else "dim")
    text.append(f"  {sparks(shown.medians[-most:])}")
    return "latency", text


def _money(figures: Mapping[str, Any], shown: Shown) -> Line:
    return "credits", Text(money_words(figures, shown))


def _sent(figures: Mapping[str, Any]) -> Line:
    return "sent", Text(f"{figures['submits']:,} submits   {figures['polls']:,} polls")


def _tokens(figures: Mapping[str, Any]) -> Line:
    return "tokens", Text(f"{figures['prompt_tokens']:,} in   {figures['completion_tokens']:,} out")


def _time(vitals: Vitals) -> Line:
    text = f"{duration(vitals.elapsed_s)} gone"
    if vitals.left_s is not None:
        now = time.time()
        text += f"   about {duration(vitals.left_s)} left, until {moment(now + vitals.left_s, now)}"
    return "time", Text(text)


def _trouble(figures: Mapping[str, Any]) -> list[Line]:
    lines = []
    if figures["outage"] is not None:
        lines.append(("API", Text(outage_words(figures["outage"], time.time()), "red")))
    if figures.get("tail") is not None:
        lines.append(("tail", Text(tail_words(figures["tail"]))))
    if figures["stopped"]:
        lines.append(("stop", Text(stop_words(dict(figures)))))
    return lines
