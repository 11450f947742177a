"""The charts of a report, as data: names, labels, series. A script in the page draws them, and tables say the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from batchfox.report.tally import Tally
from batchfox.report.timeline import Bin
from batchfox.words import shorten


class Series(msgspec.Struct, frozen=True):
    """`color`: the name of one of the page's colors. None in `values` breaks a line."""

    name: str
    values: list[float | None]
    color: str


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """One chart. `kind`: "line", "area" (stacked) or "bars" (lying)."""

    id: str
    title: str
    unit: str
    kind: Literal["line", "area", "bars"]
    labels: list[str]
    series: list[Series]


def charts_of(tally: Tally) -> list[Chart]:
    """The charts that there is something to show in."""
    found = [*_over_time(tally.timeline.bins()), *_causes(tally), *_models(tally)]
    return [chart for chart in found if any(any(series.values) for series in chart.series)]


def _over_time(bins: list[Bin | None]) -> list[Chart]:
    labels = _labels(bins)

    def series(name: str, color: str, value: Any, places: int = 3) -> Series:
        values = [None if one is None else value(one) for one in bins]
        return Series(name, [None if found is None else round(found, places) for found in values], color)

    def chart(id_: str, title: str, unit: str, kind: Literal["line", "area"], *lines: Series) -> Chart:
        return Chart(id=id_, title=title, unit=unit, kind=kind, labels=labels, series=list(lines))

    spent = _running([0.0 if one is None else one.span.credits for one in bins])
    spent_until = [None if one is None else round(total, 4) for one, total in zip(bins, spent, strict=True)]
    return [
        chart(
            *("throughput", "Throughput", "rows a minute", "area"),
            series("completed", "good", lambda one: 60 * one.span.completed / one.lasts_s, 1),
            series("not completed", "bad", lambda one: 60 * (one.span.settled - one.span.completed) / one.lasts_s, 1),
        ),
        chart(
            *("latency", "Latency", "seconds from submit to settled", "line"),
            series("half of the rows", "first", lambda one: one.span.latencies.quantile(0.5), 2),
            series("95 of 100", "second", lambda one: one.span.latencies.quantile(0.95), 2),
        ),
        chart(
            *("in-flight", "In flight", "tasks submitted and not yet settled", "line"),
            series("tasks", "first", lambda one: one.in_flight, 0),
        ),
        chart(
            *("throttles", "Throttles", "times the API said: later (429)", "line"),
            series("throttled", "bad", lambda one: one.span.throttles, 0),
        ),
        chart(
            *("tokens", "Tokens", "a minute", "area"),
            series("of prompts", "first", lambda one: 60 * one.span.prompt_tokens / one.lasts_s, 0),
            series("of answers", "second", lambda one: 60 * one.span.completion_tokens / one.lasts_s, 0),
        ),
        chart("credits", "Credits", "spent since the beginning", "line", Series("credits", list(spent_until), "first")),
    ]


def _running(values: list[float]) -> list[float]:
    total, found = 0.0, []
    for value in values:
        total += value
        found.append(total)
    return found


def _labels(bins: list[Bin | None]) -> list[str]:
    """Times of day in UTC; the date where a day begins."""
    found, day = [], None
    has_seconds = any(one is not None and one.lasts_s < 60 for one in bins)
    for one in bins:
        if one is None:
            found.append("…")
            continue
        moment = datetime.fromtimestamp(one.starts_at, UTC)
        text = f"{moment:%H:%M:%S}" if has_seconds else f"{moment:%H:%M}"
        found.append(f"{moment:%Y-%m-%d} {text}" if moment.date() != day else text)
        day = moment.date()
    return found


def _causes(tally: Tally) -> list[Chart]:
    causes = sorted(tally.causes.values(), key=lambda cause: -cause.rows)[:12]
    labels = [shorten(f"{cause.status} · {cause.code}", 60) for cause in causes]
    rows: list[float | None] = [cause.rows for cause in causes]
    series = [Series("rows", rows, "bad")]
    return [
        Chart(id="causes", title="Why rows did not complete", unit="rows", kind="bars", labels=labels, series=series)
    ]


def _models(tally: Tally) -> list[Chart]:
    items = sorted(tally.latencies.items(), key=lambda item: -item[1].counts.total())[:12]
    labels = [shorten(f"{model} · {shape}".removesuffix(" · "), 60) for (model, shape), _ in items]
    quantiles = [
        Series(name, [round(found.quantile(share) or 0.0, 2) for _, found in items], color)
        for name, share, color in (("half of the rows", 0.5, "first"), ("95 of 100", 0.95, "second"))
    ]
    unit = "seconds from submit to settled"
    return [
        Chart(id="models", title="Latency by model and shape", unit=unit, kind="bars", labels=labels, series=quantiles)
    ]
