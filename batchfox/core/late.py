"""A task that an earlier execution gave up as timed out: what more polls, which are free, make of its row, and when
they have told enough.

A row may be paid for anew (`--retry timed_out`) only once the API has said of its task that there is no answer. A poll
that says nothing (no connection, 5xx, HTML, a cut reply) is asked again, ever later.
"""

from __future__ import annotations

from batchfox.core.budget import Budget
from batchfox.core.event import Missing, PollEvent, Running, Unheard
from batchfox.core.lifecycle import CALM, ODD_REPLIES, Life, Policy, State, advance
from batchfox.core.outcome import Outcome
from batchfox.core.settle import Orders, outcome_of

# A second look ends a row or leaves it as it is; it never pays anew.
NEVER_AGAIN = Policy(attempts=1, failed="never", in_doubt="hold")
# How often a task is asked about: where its row is paid for anew unless there is an answer, and where nothing is at
# stake, as every later run asks again.
LOOKS_AT_STAKE = 6
LOOKS = 2


def second_look(
    life: Life, event: PollEvent, orders: Orders, budget: Budget, now: float, unix_s: float
) -> Outcome | None:
    """The row's new outcome where the task has ended meanwhile; None where nothing is known that was not known."""
    life.polls += 1
    life.polls_here += 1
    stood = life.reserved or 0.0
    move = advance(life, event, NEVER_AGAIN, CALM, now)
    if move.state is not State.SETTLED:
        return None
    outcome = outcome_of(life, orders, move.status or "failed", move.answer, unix_s)
    budget.clear_up(stood, outcome.credits or 0.0)
    return outcome


def asks_upstream(life: Life) -> bool:
    """Should the next look have the router refresh? Yes, but not after `completed` without results (api.md: asking
    again without brings them), and not always where the refresh itself may be what fails: then by turns."""
    odd_or_silent = max(life.odd_replies, life.unheard - 1)
    return odd_or_silent <= 0 or odd_or_silent % 2 == 0


def has_no_answer(life: Life, event: PollEvent, *, was_refreshed: bool) -> bool:
    """Has the API said of the task, which has not ended, that there is no answer now? A cache that calls it running may
    be behind; 404s and `completed` without results pass, but not those said so often. `life` has taken the event."""
    if isinstance(event, Running):
        return was_refreshed
    is_odd = isinstance(event, Missing) or (isinstance(event, Unheard) and event.without_results)
    return is_odd and life.odd_replies >= ODD_REPLIES
