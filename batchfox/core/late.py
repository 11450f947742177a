"""A task that an earlier execution gave up as timed out: what one more poll, which is free, makes of its row."""

from __future__ import annotations

from batchfox.core.budget import Budget
from batchfox.core.event import PollEvent
from batchfox.core.lifecycle import CALM, Life, Policy, State, advance
from batchfox.core.outcome import Outcome
from batchfox.core.settle import Orders, outcome_of

# A second look ends a row or leaves it as it is; it never pays anew.
NEVER_AGAIN = Policy(attempts=1, failed="never", in_doubt="hold")


def second_look(
    life: Life, event: PollEvent, orders: Orders, budget: Budget, now: float, unix_s: float
) -> Outcome | None:
    """The row's new outcome where the task has ended meanwhile; None where nothing is known that was not known."""
    life.polls += 1
    stood = life.reserved or 0.0
    move = advance(life, event, NEVER_AGAIN, CALM, now)
    if move.state is not State.SETTLED:
        return None
    outcome = outcome_of(life, orders, move.status or "failed", move.answer, unix_s)
    budget.clear_up(stood, outcome.credits or 0.0)
    return outcome
