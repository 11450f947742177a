"""`[input] dedupe`: what a row gets whose request is that of another row."""

from __future__ import annotations

from typing import Any

import msgspec

from batchfox.core.event import Answer
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import Outcome
from batchfox.core.settle import Orders

# What is read of the row that was sent.
COLUMNS = (
    *("row_index", "row_id", "status", "request_hash", "http_status", "credits", "completion", "text", "reasoning"),
    *("finish_reason", "model", "prompt_tokens", "completion_tokens", "total_tokens"),
)


def copy_outcome(of: Outcome, life: Life, orders: Orders, unix_s: float) -> Outcome:
    """The outcome of a row whose request was sent for another row: its answer, or why there is none. Nothing was sent
    for it, and it cost nothing."""
    return msgspec.structs.replace(
        of,
        row_index=life.index,
        row_id=life.id,
        task_id=None,
        credits=0.0,
        submits=life.submits,
        maybe_billed_twice=life.maybe_billed_twice,
        polls=0,
        submitted_at=None,
        finished_at=unix_s,
        latency_s=None,
        request_hash=life.request_hash,
        media=[],
        run_id=orders.run_id,
        run_date=orders.run_date,
        twin=None,
    )


def outcome_of_row(row: dict[str, Any]) -> Outcome:
    """What was answered to a row, by its `COLUMNS` in a part."""
    answer = Answer(
        completion=row["completion"] or "",
        **{name: row[name] for name in ("text", "reasoning", "finish_reason", "model")},
        **{name: row[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
    )
    return Outcome(
        row_index=row["row_index"],
        row_id=row["row_id"],
        status=row["status"],
        answer=answer,
        model=row["model"],
        credits=row["credits"],
        http_status=row["http_status"],
        request_hash=row["request_hash"],
        finished_at=0.0,
        run_id="",
        run_date="",
    )
