"""The closing summary of a run, in plain text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from batchfox.core.complaint import printable
from batchfox.summary import Cause, Summary, Used
from batchfox.words import count, credit, drift_words, duration, exit_means, shorten

ASKS_OR_PAYS = (
    "timed_out: the same command without --retry asks about their tasks again, free; --retry timed_out pays anew where "
    "there is still no answer"
)


def describe(summary: Summary, command: list[str]) -> str:
    """What a person reads when a run ends. `command`: this run's own, for the line to type next."""
    return "\n".join(_lines(summary, command))


def _lines(summary: Summary, command: list[str]) -> Iterator[str]:
    total = sum(summary.by_status.values())
    yield f"{summary.output}: {count(total, 'row')}"
    for status, rows in summary.by_status.items():
        yield f"  {status:<10} {rows:>9,}"
    yield from _work(summary)
    yield from _leftovers(summary)
    for drifted in summary.drift:
        yield f"  not as in the last runs: {drift_words(drifted)}"
    if summary.causes:
        yield "why rows did not complete:"
        yield from map(_cause, summary.causes)
        if summary.more_causes:
            yield f"  and {count(summary.more_causes, 'more kind')} of causes"
    program = command[: command.index("run")] if "run" in command else command[:1]
    if (before := _not_completed(summary.by_status) - _not_completed(summary.settled)) > 0:
        report = shlex.join([*program, "report", summary.output])
        yield f"not completed before this time: {count(before, 'row')}; why: {report}"
    if summary.reason:
        yield printable(summary.reason)
    if total:
        export = shlex.join([*program, "export", summary.output, "results.jsonl"])
        yield f"results: {summary.data} (Parquet); as one file: {export}"
    means = exit_means(summary.exit_status, is_limited=summary.is_limited)
    yield f"exit {summary.exit_status}: {means}".rstrip(": ")
    if summary.needs_mending:
        yield "first: mend the input or the job; a row that is invalid ends as invalid again as it is"
    if summary.asks_or_pays:
        yield ASKS_OR_PAYS
    if (line := summary.next_step(command)) is not None:
        yield f"next: {line}"


def _not_completed(rows_of: dict[str, int]) -> int:
    return sum(rows for status, rows in rows_of.items() if status != "completed")


def _work(summary: Summary) -> Iterator[str]:
    """What was done, now and, where the run was taken up again, since it began."""
    settled, here = sum(summary.settled.values()), summary.here
    rate = settled / here.elapsed_s if here.elapsed_s > 0 else 0.0
    name = "this time" if summary.is_resume else "this run"
    yield f"{name}: {count(settled, 'row')} in {duration(here.elapsed_s)} ({rate:,.1f} rows/s); {_used(here)}"
    if summary.is_resume:
        yield f"whole run: {duration(summary.whole_run.elapsed_s)}; {_used(summary.whole_run)}"


def _used(used: Used) -> str:
    return (
        f"{count(used.submits, 'submit')}, {count(used.polls, 'poll')}, {count(used.throttles, 'time')} throttled; "
        f"{used.prompt_tokens:,} + {used.completion_tokens:,} tokens; {credit(used.credits_spent)} credits"
    )


def _leftovers(summary: Summary) -> Iterator[str]:
    if summary.completed_before:
        yield f"  completed before: {summary.completed_before:,}"
    if summary.is_limited:
        yield "  beyond --limit or --pilot: not taken, the next run takes them"
    if summary.duplicates:
        yield f"  duplicates of an id, not sent: {summary.duplicates:,}"
    if summary.deduped:
        rows, saved = count(summary.deduped, "row"), credit(summary.saved_credits)
        yield f"  not sent, as another row has the same request: {rows}; {saved} credits saved"
    if summary.outdated:
        rows = count(summary.outdated, "row")
        yield f"  answered as they were asked before an edit: {rows}, in flight since; --retry stale asks anew"
    if summary.maybe_billed_twice:
        yield f"  maybe billed twice: {count(summary.maybe_billed_twice, 'row')} (column maybe_billed_twice)"
    if summary.in_doubt_held:
        yield f"  held in doubt: {count(summary.in_doubt_held, 'row')}, past [retry] in_doubt_limit"
    if summary.left_in_flight:
        tasks = count(summary.left_in_flight, "task")
        yield f"  still in flight at the API: {tasks}, picked up by the next run"
    if summary.left_in_doubt:
        submits = count(summary.left_in_doubt, "submit")
        yield f"  {submits} in doubt: on the wire at the end, maybe billed; the next run does as [retry] in_doubt says"
    for group, (estimate, came_to) in summary.estimates_low.items():
        model, _, shape = group.rpartition("|")
        yield f"  estimate proved low: {model} ({shape}) {credit(estimate)} expected, {credit(came_to)} came of it"
    if summary.late_collected:
        tasks, paid = count(summary.late_collected, "late task"), credit(summary.late_credits)
        yield f"  collected: {tasks}; {paid} credits, paid when they were submitted"
    if summary.given_up:
        tasks = count(summary.given_up, "task")
        oldest = ", ".join(f"{duration(one.age_s)} (row {shorten(one.row_id, 40)})" for one in summary.stragglers)
        yield f"  not waited for any longer: {tasks}, collected by the next run, free; the oldest: {oldest}"
    if summary.late_unheard:
        yield _unheard(summary)
    if summary.retry_left:
        yield f"  marked for retry, and left for the next run: {count(summary.retry_left, 'row')}"
    if summary.retry_gone:
        yield f"  marked for retry, but no longer in the input: {count(summary.retry_gone, 'row')}"


def _unheard(summary: Summary) -> str:
    """Tasks of which nothing could be learned: what was not paid for, and why."""
    last = f" (last: {shorten(summary.late_error)})" if summary.late_error else ""
    if summary.retry_unpaid:
        rows = count(summary.retry_unpaid, "timed_out row")
        return f"  not paid for anew: {rows}; no poll told whether their tasks have ended meanwhile{last}"
    return f"  no news of {count(summary.late_unheard, 'timed_out task')}: the next run asks again, free{last}"


def _cause(cause: Cause) -> str:
    code, row, message = shorten(cause.code), shorten(cause.example_row, 80), shorten(cause.example_message)
    return f"  {cause.rows:>7,}  {cause.status} {code}; row {row}: {message}"
