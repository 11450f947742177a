"""A row's outcome, from what its life has come to."""

from __future__ import annotations

import msgspec

from batchfox.core.event import Answer
from batchfox.core.lifecycle import PARTIAL, Life, Policy
from batchfox.core.outcome import Outcome, Status


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the job asks of the fleet, and whose work it is."""

    policy: Policy
    in_flight: int
    bytes_in_flight: int
    run_id: str
    run_date: str


def outcome_of(life: Life, orders: Orders, status: Status, answer: Answer | None, unix_s: float) -> Outcome:
    """The output row of a life that ends at `unix_s`.

    `credits`: the charge in the final reply, else the reservation where the row was or may have been charged.
    """
    if answer is None and life.reasoning:
        answer = Answer(completion="", reasoning=life.reasoning)  # all that is left of it
    charged = answer.credits if answer is not None else None
    is_charged = status == "completed" or life.unresolved > 0
    submitted_at = life.submitted_at if life.submits else None
    return Outcome(
        row_index=life.index,
        row_id=life.id,
        status=status,
        answer=answer,
        error=life.error if status != "completed" or _is_partial(life) else None,
        model=life.model,
        task_id=life.task_id,
        credits=charged if charged is not None else life.reserved if is_charged else None,
        http_status=life.http_status,
        submits=life.submits,
        maybe_billed_twice=life.maybe_billed_twice,
        polls=life.polls,
        submitted_at=submitted_at,
        finished_at=unix_s,
        latency_s=None if submitted_at is None else max(unix_s - submitted_at, 0.0),
        request_hash=life.request_hash,
        media=life.media,
        run_id=orders.run_id,
        run_date=orders.run_date,
        twin=life.twin,
    )


def _is_partial(life: Life) -> bool:
    """Does the row say that its reasoning may not be all?"""
    return life.error is not None and life.error.code == PARTIAL
