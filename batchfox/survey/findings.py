"""What `batchfox validate` found, as one record and in words."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from batchfox.core.complaint import Complaint
from batchfox.core.row import Row
from batchfox.survey.forecast import Forecast
from batchfox.survey.past import RUNNING
from batchfox.words import count, credit, duration

MOST_PLACES = 5


class Finding(msgspec.Struct, kw_only=True):
    """One kind of complaint: how many rows have it (`done_rows` of them are completed already), where the first are."""

    rule: str
    severity: str
    example: str
    rows: int = 0
    done_rows: int = 0
    places: list[str] = msgspec.field(default_factory=list)


class Findings:
    """Collects complaints by rule and severity."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}

    def note(self, row: Row, rule: str, message: str, *, severity: str = "refusal", is_done: bool = False) -> None:
        finding = self._found.get((rule, severity))
        if finding is None:
            finding = self._found[rule, severity] = Finding(rule=rule, severity=severity, example=message)
        finding.rows += 1
        finding.done_rows += is_done
        if len(finding.places) < MOST_PLACES:
            finding.places.append(row.place)

    def note_all(self, row: Row, complaints: list[Complaint], *, is_done: bool) -> None:
        for complaint in complaints:
            self.note(row, complaint.rule, complaint.message, severity=complaint.severity, is_done=is_done)

    def sorted(self) -> list[Finding]:
        """Refusals first, the commonest first."""
        return sorted(self._found.values(), key=lambda finding: (finding.severity, -finding.rows))


class Survey(msgspec.Struct, kw_only=True):
    """What `validate` found.

    `valid` and `invalid`: rows that are still to be sent, by whether they would be. `before`: rows that an earlier run
    ended, by status, or whose task is running; `mended`: those of them that ended as invalid and are valid now.
    `stale`: those of `before` whose request is another now, and `stale_forecast` what it takes to ask them anew.
    `same_request`: rows of `valid` that get the answer of another row (`[input] dedupe`).
    `streamed`: requests that are to be made and ask for a stream.
    `refused`: why a run would not start.
    """

    rows: int = 0
    valid: int = 0
    invalid: int = 0
    before: dict[str, int] = msgspec.field(default_factory=dict)
    mended: int = 0
    stale: int = 0
    same_request: int = 0
    streamed: int = 0
    duplicates: int = 0
    differing: list[str] = msgspec.field(default_factory=list)
    differing_rows: int = 0
    requests: int = 0
    by_model: dict[str, int] = msgspec.field(default_factory=dict)
    by_shape: dict[str, int] = msgspec.field(default_factory=dict)
    media: dict[str, int] = msgspec.field(default_factory=dict)
    forecast: Forecast = msgspec.field(default_factory=Forecast)
    stale_forecast: Forecast = msgspec.field(default_factory=Forecast)
    fields: list[str] = msgspec.field(default_factory=list)
    passed_over: dict[str, int] = msgspec.field(default_factory=dict)
    id_column: str | None = None
    findings: list[Finding] = msgspec.field(default_factory=list)
    refused: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    @property
    def done_before(self) -> int:
        """Rows that an earlier run ended, however."""
        return sum(rows for status, rows in self.before.items() if status != RUNNING)

    @property
    def is_clean(self) -> bool:
        """Would every row be sent, or is it completed?"""
        return not (self.invalid or self.before.get("invalid") or self.differing_rows or self.refused)


def describe(found: Survey) -> Iterator[str]:
    """The survey in plain lines."""
    yield f"{count(found.rows, 'row')}: {found.valid:,} valid, {found.invalid:,} invalid{_say_before(found)}"
    for reason in found.refused:
        yield f"a run would not start: {reason}"
    if found.before.get("invalid"):
        ended = count(found.before["invalid"], "row")
        yield f"{ended} ended as invalid before, {found.mended:,} of them valid now; --retry invalid takes them again"
    if found.same_request:
        rows = count(found.same_request, "row")
        yield f"{rows} not to be sent: another row has the same request, and they get its answer"
    if found.stale:
        yield from _describe_stale(found)
    if found.duplicates:
        names = f" ({', '.join(found.differing)}{', ...' if found.differing_rows > len(found.differing) else ''})"
        yield (
            f"{count(found.duplicates, 'duplicate')} of an id not sent; {found.differing_rows:,} of them "
            f"{'differs' if found.differing_rows == 1 else 'differ'} in content{names if found.differing else ''}"
        )
    fields = ", ".join(found.fields) or "none"
    yield f"id column: {found.id_column or 'none'}; columns taken as request fields: {fields}"
    for finding in found.findings:
        places = ", ".join(finding.places) + (", ..." if finding.rows > len(finding.places) else "")
        done = f", {finding.done_rows:,} completed before" if finding.done_rows else ""
        yield f"{finding.severity} {finding.rule}: {count(finding.rows, 'row')}{done} ({places})"
        yield f"    {finding.example}"
    if found.requests:
        yield from _describe_requests(found)
    for note in found.notes:
        yield f"note: {note}"


def _describe_stale(found: Survey) -> Iterator[str]:
    cast = found.stale_forecast
    price = f"no estimate of credits: {cast.credits_unknown}"
    if cast.credits is not None:
        without = (
            f", without {count(sum(cast.unpriced.values()), 'request')} of unlisted models" if cast.unpriced else ""
        )
        price = f"credits, roughly: at most {credit(cast.credits)} by the price list{without}"
    yield (
        f"{count(found.stale, 'row')} stale: answered, and the request is another now; a run keeps the answers, "
        f"--retry stale asks anew ({price})"
    )


def _say_before(found: Survey) -> str:
    done = f", {found.done_before:,} done already" if found.done_before else ""
    if found.done_before > found.before.get("completed", 0):
        done += f" ({', '.join(f'{rows:,} {status}' for status, rows in found.before.items() if status != RUNNING)})"
    return done + (f", {found.before[RUNNING]:,} running" if RUNNING in found.before else "")


def _describe_requests(found: Survey) -> Iterator[str]:
    cast = found.forecast
    models = ", ".join(f"{model} {rows:,}" for model, rows in sorted(found.by_model.items()))
    shapes = ", ".join(f"{shape} {rows:,}" for shape, rows in sorted(found.by_shape.items()))
    yield f"requests: {found.requests:,} (models: {models}; shapes: {shapes})"
    if found.media:
        yield "media: " + ", ".join(f"{number:,} {kind}" for kind, number in sorted(found.media.items()))
    yield f"tokens, roughly: {cast.prompt_tokens:,} in, at most {cast.completion_tokens:,} out (media by rule of thumb)"
    if cast.credits is None:
        yield f"credits: no estimate: {cast.credits_unknown}"
    else:
        models = ", ".join(cast.unpriced)
        without = f"; without {count(sum(cast.unpriced.values()), 'request')} of unlisted models ({models})"
        yield f"credits, roughly: at most {credit(cast.credits)} by the price list{without if cast.unpriced else ''}"
    if cast.minutes is not None and cast.binding == "limits.tokens_per_minute":
        yield f"time: {duration(60 * cast.minutes)} by {cast.binding}, less where answers are shorter than they may be"
    elif cast.minutes is not None:
        yield f"time: {duration(60 * cast.minutes)} or more, by {cast.binding}"
    else:
        times = f"{cast.rounds:,} times as long as" if cast.rounds > 1 else "as long as"
        yield (
            "time: no limits.requests_per_minute is set, so the pace adapts to what the API takes; by limits.in_flight "
            f"{times} one task takes, or more"
        )
