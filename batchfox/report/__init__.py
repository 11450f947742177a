"""`batchfox report`: one HTML file that needs nothing else, and says what a run did."""

from __future__ import annotations

import base64
import shlex
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from batchfox.core.outcome import STATUSES
from batchfox.durable import whole_or_not
from batchfox.errors import BatchfoxError, UserError
from batchfox.export import refuse_target
from batchfox.part_names import part_paths
from batchfox.report.charts import Chart, charts_of
from batchfox.report.gallery import Gallery, can_shrink, choose
from batchfox.report.notes import Outage, read_log
from batchfox.report.reasons import reason_of
from batchfox.report.shapes import Shapes
from batchfox.report.tally import Cause, Tally, tally
from batchfox.status import Status, look
from batchfox.summary import RETRYABLE
from batchfox.words import count, credit, duration, exit_means, shorten

MOST_CAUSES = 40
_BEGIN = b"<!doctype html"


def _refuse_other(target: Path) -> None:
    """Only a report is replaced: a job or a data file named by mistake stays. Raises `UserError`."""
    if not target.is_file():
        return
    try:
        with target.open("rb") as file:
            begin = file.read(len(_BEGIN))
    except OSError:  # what writes it tells
        return
    if begin and begin.lower() != _BEGIN:
        raise UserError(f"{target}: exists and is no report; name another file, or remove it yourself")


def write_report(folder: Path, target: Path, *, rows: int = 60, program: list[str] | None = None) -> int:
    """Writes the report, whole or not at all. `rows`: how many the gallery shows at most. Returns how many it shows.

    `program`: the words that start batchfox, for the lines to type. Raises `UserError`, `OutputError`.
    """
    refuse_target(target)
    _refuse_other(target)
    found = tally(part_paths(folder), Shapes(folder), sample=rows)
    outages = read_log(folder, found.timeline)
    gallery = Gallery(folder)
    cards = gallery.cards(choose(found, rows))
    charts = charts_of(found)
    retry = [*(program or ["batchfox"]), "run", f"{folder}/_batchfox/job.toml", "--output", str(folder), "--retry"]
    script, chart_library = _read("page.js"), _read("chart.umd.min.js", "batchfox.pages.vendor")
    data = _json_in_script({"charts": [msgspec.to_builtins(chart) for chart in charts]})
    style = _read("page.css")
    page = _environment().get_template("page.html").render(
        title=folder.name or str(folder),
        folder=str(folder),
        policy=_policy([chart_library, script], style),
        style=_raw(style),
        scripts=[_raw(chart_library), _raw(script)],
        data=_raw(data),
        charts=charts,
        table=_table_of,
        tally=found,
        money=_money(found),
        states=[(status, found.by_status[status]) for status in STATUSES if found.by_status[status]],
        run=_run_of(folder, found),
        causes=_causes(found, retry),
        more_causes=max(len(found.causes) - MOST_CAUSES, 0),
        retry=_retry_line(found, retry),
        outages=[_outage_words(outage) for outage in outages],
        cards=cards,
        note=_note(gallery, folder),
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )  # fmt: skip
    with whole_or_not(target) as temporary:
        temporary.write_text(page.encode("utf-8", "replace").decode(), encoding="utf-8")
    return len(cards)


def _read(name: str, package: str = "batchfox.report") -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    """Everything that is put into the page is escaped; a name that is missing is a bug."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batchfox.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["credit"] = credit
    return environment


def _raw(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # our own files, and JSON in which no "<" is left


def _policy(scripts: list[str], style: str) -> str:
    """Only these scripts run, and nothing is ever fetched."""
    hashes = " ".join(f"'{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src '{_digest(style)}'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}"


def _json_in_script(value: Any) -> str:
    """JSON that ends no script element, whatever it holds."""
    text = msgspec.json.encode(value).decode()
    for letter in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _table_of(chart: Chart) -> list[list[str]]:
    """The chart's values as rows of text."""
    return [
        [label, *("" if series.values[at] is None else f"{series.values[at]:,g}" for series in chart.series)]
        for at, label in enumerate(chart.labels)
    ]


def _money(tally: Tally) -> list[tuple[str, str, str]]:
    """Name, amount, what it is."""
    total = sum(tally.credits.values())
    completed = tally.by_status["completed"]
    items = [("credits", credit(total), "of all rows, as charged, else as reserved")]
    for status in STATUSES:
        if status != "completed" and tally.credits.get(status):
            items.append((f"of them {status}", credit(tally.credits[status]), "paid without an answer, or not known"))
    if completed:
        items.append(("credits a completed row", credit(tally.credits.get("completed", 0.0) / completed), "on average"))
    items.append(("submits", f"{tally.submits:,}", "POSTs that were or may have been billed"))
    items.append(("maybe billed twice", f"{tally.maybe_billed_twice:,}", "rows, column maybe_billed_twice"))
    items.append(("tokens", f"{tally.prompt_tokens:,} + {tally.completion_tokens:,}", "of prompts and of answers"))
    items.append(("polls", f"{tally.polls:,}", "status queries, free"))
    return items


def _run_of(folder: Path, tally: Tally) -> list[tuple[str, str]]:
    """The time that it took, and how the last run ended, as far as that is on record."""
    facts = []
    if tally.first_at is not None and tally.last_at is not None:
        began, ended = (datetime.fromtimestamp(at, UTC) for at in (tally.first_at, tally.last_at))
        facts.append(("from", f"{began:%Y-%m-%d %H:%M:%S} UTC"))
        facts.append(("to", f"{ended:%Y-%m-%d %H:%M:%S} UTC"))
    try:
        status = look(folder)
    except BatchfoxError as error:
        return [*facts, ("the run", f"its checkpoint cannot be read: {shorten(str(error))}")]
    return [*facts, *_ending(status)]


def _ending(status: Status) -> list[tuple[str, str]]:
    if status.run_id is None:
        return []
    facts = [("run", status.run_id)]
    figures = status.figures
    if figures:
        facts.append(("time at work", duration(figures.get("elapsed_s", 0.0))))
        facts.append(("throttled", count(figures.get("throttles", 0), "time")))
    if status.is_running:
        facts.append(("state", f"running, this is what is written; {count(status.in_flight, 'task')} in flight"))
    elif status.ended_at is None:
        facts.append(("state", "died; the same command resumes it"))
    else:
        means = exit_means(status.exit_status or 0, is_limited=status.is_limited)
        facts.append(("state", f"exit {status.exit_status}: {means}".rstrip(": ")))
    return facts


def _causes(tally: Tally, retry: list[str]) -> list[dict[str, Any]]:
    found = sorted(tally.causes.values(), key=lambda cause: -cause.rows)[:MOST_CAUSES]
    return [_cause(cause, retry) for cause in found]


def _cause(cause: Cause, retry: list[str]) -> dict[str, Any]:
    return {
        "rows": cause.rows,
        "status": cause.status,
        "code": cause.code,
        "example": cause.places[0].row_id if cause.places else "",
        "message": shorten(cause.message, 400),
        "reason": reason_of(cause.status, cause.code),
        "retry": shlex.join([*retry, cause.status]),
    }


def _retry_line(tally: Tally, retry: list[str]) -> str:
    again = [status for status in RETRYABLE if tally.by_status[status]]
    return shlex.join([*retry, ",".join(again)]) if again else ""


def _outage_words(outage: Outage) -> str:
    lasted = "not over when the log ends" if outage.lasted_s is None else f"for {duration(outage.lasted_s)}"
    return f"{outage.since}: {outage.what}, {lasted}; {shorten(outage.message)}".rstrip("; ")


def _note(gallery: Gallery, folder: Path) -> str:
    """What the gallery lacks, and why."""
    lacks = []
    if gallery.unread:
        rows = count(gallery.unread, "row")
        lacks.append(f"{rows} more could not be read; batchfox doctor {folder} says whether a part is damaged")
    if gallery.left_out:
        hint = "" if can_shrink() else "; with pip install 'batchfox[report]' pictures are made smaller"
        lacks.append(f"{count(gallery.left_out, 'medium', 'media')} too large for this page{hint}")
    return ". ".join(lacks)
