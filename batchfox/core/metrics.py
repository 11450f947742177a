"""A run's figures in the text form that Prometheus reads. The names are documented in docs/metrics.md and stay.

Counters are this execution's and begin at 0 with it, which Prometheus knows how to add up. Labels have few values, all
known beforehand: never an id, a model or a message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from batchfox.core.binding import BINDS
from batchfox.core.outcome import STATUSES
from batchfox.core.vitals import Shown, Vitals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Labels and value of a sample; None where it is not known now: then there is none.
Sample = tuple[str, float | None]
Family = tuple[str, Literal["counter", "gauge"], str, list[Sample]]


def render(figures: Mapping[str, Any], shown: Shown) -> str:
    """All metrics, one sample a line."""
    lines: list[str] = []
    for name, kind, says, samples in _families(figures, shown):
        lines += [f"# HELP {name} {says}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{labels} {value:.15g}" for labels, value in samples if value is not None]
    return "\n".join(lines) + "\n"


def _one(value: float | None) -> list[Sample]:
    return [("", value)]


def _families(figures: Mapping[str, Any], shown: Shown) -> Iterator[Family]:
    vitals, here, status = Vitals(figures, shown), figures["here"], figures["by_status"]
    again: dict[str, int] = figures["taken_back"]  # retried by ctl: a counter never goes back
    rows: list[Sample] = [
        (f'{{status="{name}"}}', float(status.get(name, 0) + again.get(name, 0))) for name in STATUSES
    ]
    yield "batchfox_rows_total", "counter", "Rows that ended in this execution, by how.", rows
    yield "batchfox_rows_before", "gauge", "Rows met so far that had ended before this execution.", _one(vitals.before)
    yield "batchfox_rows_expected", "gauge", "Rows of the input, exact or by what is read of it.", _one(vitals.total)
    for name, says in (
        ("submits", "POSTs that were or may have been billed."),
        ("polls", "Status queries."),
        ("throttles", "Submits that got 429."),
        ("polls_throttled", "Polls that got 429."),
        ("in_doubt_resubmitted", "Submits of unknown fate that were sent again."),
        ("in_doubt_held", "Submits of unknown fate that were not sent again."),
    ):
        yield f"batchfox_{name}_total", "counter", says, _one(here[name])
    tokens: list[Sample] = [(f'{{kind="{kind}"}}', here[f"{kind}_tokens"]) for kind in ("prompt", "completion")]
    yield "batchfox_tokens_total", "counter", "Tokens of the answers, by kind.", tokens
    yield "batchfox_credits_total", "counter", "Credits charged.", _one(here["credits_spent"])
    held = figures["credits_reserved"] + figures["credits_standing"]
    yield "batchfox_credits_reserved", "gauge", "Credits set aside for tasks in flight and rows in doubt.", _one(held)
    yield "batchfox_credits_limit", "gauge", "limits.credits, where there is one.", _one(shown.credits_limit)
    yield "batchfox_in_flight", "gauge", "Tasks submitted and not yet settled.", _one(figures["in_flight"])
    yield "batchfox_in_flight_limit", "gauge", "limits.in_flight.", _one(shown.in_flight_limit)
    yield "batchfox_on_the_wire", "gauge", "POSTs without a reply.", _one(figures["on_the_wire"])
    yield "batchfox_waiting", "gauge", "Rows read that wait to be sent.", _one(figures["waiting"])
    yield "batchfox_pace_per_minute", "gauge", "Submits a minute that are allowed now.", _one(figures["per_minute"])
    yield "batchfox_cooling_seconds", "gauge", "Seconds until submits go on after a 429.", _one(shown.cooling_s)
    latencies: list[Sample] = [('{quantile="0.5"}', shown.p50_s), ('{quantile="0.95"}', shown.p95_s)]
    yield "batchfox_latency_seconds", "gauge", "From submit to answer, in the last minutes.", latencies
    binds: list[Sample] = [(f'{{limit="{word}"}}', float(word == shown.binds)) for word in BINDS]
    yield "batchfox_binds", "gauge", "1 for what keeps the run from being faster now.", binds
    yield "batchfox_paused", "gauge", "1 while batchfox ctl pauses it.", _one(figures["paused_s"] is not None)
    yield "batchfox_outage", "gauge", "1 while the API is away.", _one(figures["outage"] is not None)
    yield "batchfox_stopping", "gauge", "1 once nothing more is submitted.", _one(figures["stopped"] is not None)
    yield "batchfox_elapsed_seconds", "gauge", "Seconds since this execution began.", _one(here["elapsed_s"])
    yield "batchfox_left_seconds", "gauge", "Seconds until the run ends, estimated.", _one(vitals.left_s)
