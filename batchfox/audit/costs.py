"""What the rows cost, each counted once, and what had been paid for outcomes that were replaced."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from batchfox.audit.finding import MOST_EXAMPLES, Audit, Cost, Dear
from batchfox.audit.rolls import Rolls
from batchfox.core.outcome import STATUSES
from batchfox.durable import whole_or_not

_SUMS = (
    "count(*), coalesce(sum(submits), 0), coalesce(sum(credits), 0.0), "
    "coalesce(sum(credits IS NULL AND submits > 0), 0), coalesce(sum(twice), 0)"
)
# A task that was asked about once more is paid once: of each task the last word, and none that the row still names.
_REPLACED = """
SELECT r.key AS key, r.credits AS credits, max(r.finished_at) FROM replaced r
WHERE NOT EXISTS (SELECT 1 FROM held h WHERE h.key = r.key AND h.task_id IS r.task_id AND r.task_id IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM pending p WHERE p.key = r.key AND p.task_id IS r.task_id AND r.task_id IS NOT NULL)
GROUP BY r.key, coalesce(r.task_id, r.rowid)
"""
# Outcomes in no part yet; one that tells more of a task that a part tells of already is counted there.
_RECORDED = """underway u WHERE u.state = 3 AND NOT EXISTS
    (SELECT 1 FROM held h WHERE h.key = u.key AND h.task_id = u.task_id)"""
HEADER = ("row_index", "row_id", "status", "submits", "credits", "credits_replaced", "maybe_billed_twice")


def add_costs(audit: Audit, rolls: Rolls) -> None:
    """Adds them up."""
    audit.costs = _by_status(rolls, "held")
    audit.recorded_costs = _by_status(rolls, _RECORDED)
    rows = rolls.count("SELECT count(*) FROM replaced")
    paid = rolls.query(f"SELECT coalesce(sum(credits), 0.0) FROM ({_REPLACED})")[0][0]
    audit.replaced = Cost(rows=rows, submits=0, credits=paid)
    dear = rolls.query(
        "SELECT row_id, credits, submits FROM held WHERE credits > 0 "
        f"ORDER BY credits DESC, row_index LIMIT {MOST_EXAMPLES}"
    )
    audit.dearest = [Dear(row_id=row_id, credits=paid, submits=submits) for row_id, paid, submits in dear]


def _by_status(rolls: Rolls, table: str) -> dict[str, Cost]:
    found = rolls.query(f"SELECT status, {_SUMS} FROM {table} GROUP BY status ORDER BY status")
    return {
        STATUSES[status]: Cost(rows=rows, submits=submits, credits=paid, unknown=unknown, maybe_billed_twice=twice)
        for status, rows, submits, paid, unknown, twice in found
    }


def write_costs(rolls: Rolls, target: Path) -> None:
    """What each row in the parts cost, as CSV in input order: whole or not at all. Raises `UserError`."""
    sql = (
        "SELECT h.row_index, h.row_id, h.status, h.submits, h.credits, sum(r.credits), h.twice FROM held h "
        f"LEFT JOIN ({_REPLACED}) r ON r.key = h.key GROUP BY h.key ORDER BY h.row_index"
    )
    with whole_or_not(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(_line(*values) for values in rolls.stream(sql))


def _line(index: int, row_id: str, status: int, submits: int, paid: Any, replaced: Any, twice: int) -> tuple[Any, ...]:
    return index, row_id, STATUSES[status], submits, paid, replaced, "true" if twice else "false"
