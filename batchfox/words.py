"""How figures are said to people: counts, spans, moments, credits, exit statuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchfox.core.drift import Drifted
from batchfox.core.complaint import printable
from batchfox.core.vitals import Shown

EXIT_MEANS = {
    0: "every row is completed",
    3: "finished, some rows did not complete",
    4: "stopped early; resumable",
    129: "stopped by SIGHUP; resumable",
    130: "stopped by SIGINT; resumable",
    143: "stopped by SIGTERM; resumable",
}
LIMITED = {
    0: "every row taken is completed; rows beyond --limit or --pilot were not taken",
    3: "some of the rows taken did not complete; rows beyond --limit or --pilot were not taken",
}


def exit_means(status: int, *, is_limited: bool = False) -> str:
    """What an exit status says of the rows; "" for one that says nothing of them."""
    return (LIMITED.get(status) if is_limited else None) or EXIT_MEANS.get(status, "")


def count(number: int, noun: str, many: str = "") -> str:
    """ "1 row", "2,000 rows"."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def duration(seconds: float) -> str:
    """ "0:07", "12:30", "3:05:00"."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest_s = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes}:{rest_s:02d}"


def moment(unix_s: float, now_unix_s: float) -> str:
    """A time of day, here; with its date where that was not today: "03:12:05", "2026-01-31 03:12:05"."""
    then, now = datetime.fromtimestamp(unix_s).astimezone(), datetime.fromtimestamp(now_unix_s).astimezone()
    return f"{then:%H:%M:%S}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M:%S}"


def credit(amount: float) -> str:
    """An amount of credits: "1,234.50", "0.0123", "0"; never an exponent, never a small sum shown as nothing."""
    if abs(amount) < 1e-9:
        return "0"
    if abs(amount) >= 1:
        return f"{amount:,.2f}"
    places = 2 - math.floor(math.log10(abs(amount)))
    return f"{amount:.{places}f}".rstrip("0").rstrip(".")


def shorten(text: str, most: int = 160) -> str:
    """One line of at most so many characters, none of which a terminal takes for a command."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def outage_words(outage: Mapping[str, Any], now_unix_s: float) -> str:
    """An outage, as `Pool.outage` tells it, in a line: what, since when, and what was said last."""
    does = "takes no submits" if outage["what"] == "submits" else "answers no polls"
    since, tries = outage["since"], count(outage["tries"], "try", "tries")
    last = ": ".join(shorten(word) for word in (outage["kind"], outage["message"]) if word)
    span = duration(max(now_unix_s - since, 0.0))
    return f"the API {does} since {moment(since, now_unix_s)} ({span}, {tries} in a row), last: {last}"


def stop_words(figures: dict[str, Any]) -> str:
    """What a run that is stopping still waits for."""
    cause, wait_s = figures["stopped"], figures["leaves_in_s"]
    if wait_s is None and cause in ("key", "gateway"):
        tasks = count(figures["in_flight"], "task")
        return f"stopping ({cause}): nothing more is submitted, {tasks} in flight left for the next run"
    if wait_s is None:
        return f"stopping ({cause}): nothing more is submitted, {count(figures['in_flight'], 'task')} to be finished"
    wire = count(figures["on_the_wire"], "submit")
    signal = "a signal" if cause == "ctl" else "a second signal"
    return f"stopping ({cause}): up to {wait_s:.0f} s for {wire} on the wire; {signal} leaves at once"


def tail_words(tail: Mapping[str, Any]) -> str:
    """What a run that has submitted everything still waits for, as `Tail.figures` tells it, the oldest first."""
    oldest = ", ".join(f"{duration(one['age_s'])} (row {shorten(one['row_id'], 40)})" for one in tail["oldest"][:3])
    return f"all is submitted, {count(tail['tasks'], 'task')} still running; the oldest: {oldest}"


_DRIFTED = {
    "refused": "refused or failed",
    "empty": "answers without text",
    "length": "characters an answer",
    "tokens": "tokens a row",
    "credits": "credits a row",
    "latency": "seconds from submit to answer",
}


def drift_words(drifted: Drifted) -> str:
    """A figure of the answers that is off, what it was before, and what was allowed."""
    name, rows = _DRIFTED[drifted.name], f"(of {count(drifted.rows, 'row')})"
    if drifted.name in ("refused", "empty"):
        before = "" if drifted.before is None else f", {drifted.before:.1%} in the last runs"
        return f"{name}: {drifted.now:.1%} {rows}{before}; allowed: {drifted.allowed:.1%}"
    before = "none" if drifted.before is None else credit(drifted.before)
    return f"{name}: {credit(drifted.now)} {rows}, {before} in the last runs; allowed: {drifted.allowed:g} times"


def pace_words(figures: Mapping[str, Any], shown: Shown) -> str:
    """The pace of submits, what the job allows, and what the API said to it."""
    text = f"{figures['per_minute']:,.0f}/min"
    limit = shown.limit_per_minute
    if limit is None:
        text += " (adapting)"
    elif figures["per_minute"] < limit * 0.99:
        text += f" of {limit:,.0f}"
    if shown.tokens_limit is not None:
        share = shown.tokens_limit if shown.tokens_share is None else shown.tokens_share
        text += f", {figures['tokens_of_minute']:,.0f} of {share:,.0f} tokens/min"
        if share < shown.tokens_limit * 0.99:
            text += f" (its part of {shown.tokens_limit:,.0f})"
    if figures["throttles"]:
        text += f", throttled {figures['throttles']:,}x"
    return text


def latency_words(shown: Shown) -> str:
    """ "p50 2.1 s, p95 4.0 s"; "" before enough is known."""
    if shown.p50_s is None or shown.p95_s is None:
        return ""
    return f"p50 {_seconds(shown.p50_s)}, p95 {_seconds(shown.p95_s)}"


def money_words(figures: Mapping[str, Any], shown: Shown) -> str:
    """Credits spent, of how many, and what is set aside."""
    text = credit(figures["credits_spent"])
    if shown.credits_limit:
        text += f" of {credit(shown.credits_limit)}"
    held = figures["credits_reserved"] + figures["credits_standing"]
    return text + (f" (+{credit(held)} reserved)" if held > 1e-9 else "")


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else duration(seconds)
