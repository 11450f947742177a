"""An audit in words."""

from __future__ import annotations

from collections.abc import Iterator

from batchfox.audit.finding import Audit, Cost, Finding
from batchfox.words import count, credit, shorten

_ON_THEIR_WAY = {
    "waiting": ("row", "waiting for another attempt"),
    "sending": ("submit", "in doubt"),
    "running": ("task", "in flight"),
    "recorded": ("outcome", "recorded for the next part"),
}


def remarks_on(audit: Audit, marked: int) -> Iterator[Finding]:
    """What is good to know besides. `marked`: rows that `--retry` named and no run has taken yet."""
    if audit.is_running:
        yield _note("running", 1, "a run is at work here: this is how it stood when the parts were read")
    if audit.unfinished:
        words = [
            f"{count(rows, _ON_THEIR_WAY[state][0])} {_ON_THEIR_WAY[state][1]}"
            for state, rows in audit.unfinished.items()
        ]
        then = "" if audit.is_running else "the same `batchfox run` goes on with them"
        yield _note("unfinished", sum(audit.unfinished.values()), "; ".join(words), then)
    if marked:
        yield _note("marked", marked, f"{count(marked, 'row')} marked by --retry and not taken yet")
    if audit.input_rows is None:
        yield _note("input_not_read", 1, "the input was not read: what is missing or foreign is by the records alone")
    if audit.duplicates:
        rows = count(audit.duplicates, "row")
        yield _note("duplicates", audit.duplicates, f"{rows} of the input whose id came before: one row each id")
    unknown = sum(cost.unknown for cost in audit.costs.values())
    if unknown:
        yield _note("cost_unknown", unknown, f"{count(unknown, 'row')} submitted without a charge that is known")


def _note(kind: str, number: int, what: str, then: str = "") -> Finding:
    return Finding(kind=kind, number=number, what=what, next=then, is_problem=False)


def describe(audit: Audit) -> Iterator[str]:
    """Plain lines: the counts, what is off, what is good to know, what the rows cost."""
    read = "input not read" if audit.input_rows is None else f"{count(audit.input_rows, 'row')} of input"
    problems = audit.problems
    verdict = count(len(problems), "problem") if problems else "nothing off"
    parts = count(audit.parts, "part")
    yield f"{audit.output}: {verdict} ({read}, {count(audit.output_rows, 'row')} in {parts}, {_state(audit)})"
    for finding in (*problems, *(finding for finding in audit.findings if not finding.is_problem)):
        yield from _describe(finding)
    yield from _table(audit)


def _state(audit: Audit) -> str:
    if audit.run_id is None:
        return "no run yet"
    state = "goes on" if audit.is_running else "finished" if audit.is_finished else "did not finish"
    return f"run {audit.run_id} {state}"


def _describe(finding: Finding) -> Iterator[str]:
    where = f"{finding.where}: " if finding.where else ""
    yield f"  {'problem' if finding.is_problem else 'note'}: {where}{finding.what}"
    if finding.examples:
        more = finding.number - len(finding.examples)
        rest = f"; and {more:,} more" if more > 0 else ""
        yield f"    {'; '.join(finding.examples)}{rest}"
    if finding.next:
        yield f"    next: {finding.next}"


def _table(audit: Audit) -> Iterator[str]:
    lines = [
        *audit.costs.items(),
        *((f"{status}, in no part yet", cost) for status, cost in audit.recorded_costs.items()),
    ]
    if not lines and not audit.replaced.rows:
        return
    yield f"  {'what it cost':<26} {'rows':>11} {'submits':>11} {'credits':>14}  maybe billed twice"
    for name, cost in lines:
        yield _line(name, cost)
    if audit.replaced.rows:
        yield f"  {'replaced since':<26} {audit.replaced.rows:>11,} {'':>11} {credit(audit.replaced.credits):>14}"
    if len(lines) + bool(audit.replaced.rows) > 1:
        rows, submits = (sum(getattr(cost, name) for _, cost in lines) for name in ("rows", "submits"))
        yield f"  {'together':<26} {rows:>11,} {submits:>11,} {credit(audit.credits):>14}"
    if audit.dearest and audit.dearest[0].credits > audit.dearest[-1].credits:
        dear = "; ".join(f"{shorten(row.row_id, 60)} {credit(row.credits)}" for row in audit.dearest)
        yield f"  dearest rows: {dear}"


def _line(name: str, cost: Cost) -> str:
    twice = f"{cost.maybe_billed_twice:>18,}" if cost.maybe_billed_twice else ""
    return f"  {name:<26} {cost.rows:>11,} {cost.submits:>11,} {credit(cost.credits):>14}  {twice}".rstrip()
