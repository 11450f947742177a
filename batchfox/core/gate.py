"""The gate of submits: may one leave now, and what its reply tells about pace, money, and whether anybody is there.

It joins what holds a submit back: the pace, a minute's tokens, the breaker, the budget, and the bound on resubmits of
rows in doubt. Times are the run's clock in seconds.
"""

from __future__ import annotations

from batchfox.core.breaker import Breaker
from batchfox.core.budget import Budget
from batchfox.core.event import (
    Accepted,
    Answered,
    Deferred,
    Doubted,
    Event,
    Halted,
    Refused,
    TaskFailed,
    Unreached,
    Unsendable,
)
from batchfox.core.lifecycle import Life, Policy, State
from batchfox.core.paces import Paces
from batchfox.core.tokens import Tokens

# `in_doubt_limit = "auto"`: this many resubmits, or this share of submits, whichever is more (contract.md).
AUTO_DOUBTS = 100
AUTO_DOUBT_SHARE = 0.01


class Doubts:
    """Resubmits of rows in doubt in one run: counted and bounded; past the limit rows are held."""

    def __init__(self, limit: int | None, *, resubmitted: int = 0) -> None:
        self._limit = limit
        self.resubmitted = resubmitted
        self.held = 0

    def may_resubmit(self, submits: int) -> bool:
        """`submits`: how many the run has sent so far."""
        limit = max(AUTO_DOUBTS, int(AUTO_DOUBT_SHARE * submits)) if self._limit is None else self._limit
        return self.resubmitted < limit

    def count(self, life: Life, policy: Policy) -> None:
        """A submit was found in doubt; where the row stands tells what was decided."""
        if life.state is State.WAITING:
            self.resubmitted += 1
        elif policy.in_doubt == "resubmit" and life.attempts < policy.attempts:
            self.held += 1


class Gate:
    """One run's gate."""

    def __init__(
        self, *, pace: Paces, breaker: Breaker, budget: Budget, doubts: Doubts, tokens: Tokens | None = None
    ) -> None:
        self.pace = pace
        self.tokens = tokens or Tokens(None)
        self.breaker = breaker
        self.budget = budget
        self.doubts = doubts
        self.is_budget_binding = False
        # The estimate that last did not fit into the budget.
        self.too_dear = 0.0
        self.got_through_at = float("-inf")
        # When the last of those submits left that got a verdict, whatever it was.
        self._heard_of = float("-inf")
        # Since when the API has taken nothing at all, whatever it replied; None while it takes something.
        self.idle_since: float | None = None

    def width(self, now: float, on_the_wire: int) -> int | None:
        """How many submits may leave at once: none during a cool-down, one as a probe, None for no bound."""
        if not self.pace.is_open(now):
            return 0
        if self.breaker.is_open:
            return 1 if self.breaker.allows(now, on_the_wire) else 0
        most = self.pace.may_be_on_the_wire(now)
        return None if most is None else max(most - on_the_wire, 0)

    def opens_at(self, now: float, on_the_wire: int) -> float:
        """When the next submit may leave, as far as the breaker goes, and what is on the wire already."""
        if self.breaker.is_open:
            return max(now, self.breaker.probe_at, self.tokens.opens_at)
        most = self.pace.may_be_on_the_wire(now)
        opens_at = now if most is None or on_the_wire < most else self.pace.is_wide_at(now)
        return max(opens_at, self.tokens.opens_at)

    def admit(self, life: Life, now: float) -> bool:
        """Reserves what the row's next attempt may cost; False where the budget or a minute's tokens do not allow
        it."""
        if not self.tokens.fits(life.group, life.tokens, now):
            return False
        estimate = self.budget.estimate(life.group, life.listed)
        self.is_budget_binding = not self.budget.may_spend(estimate)
        if self.is_budget_binding:
            self.too_dear = estimate
            return False
        self.budget.reserve(estimate)
        self.tokens.take(life.key, life.group, life.tokens)
        life.estimate = estimate
        return True

    def limit_credits(self, most: float) -> None:
        """Another limit from now on."""
        self.budget.limit = most
        self.is_budget_binding = False  # until the next row is looked at

    def give_back(self, life: Life) -> None:
        """The attempt did not take place after all."""
        self.budget.release(life.estimate)
        self.tokens.give_back(life.key)
        self.is_budget_binding = False

    def is_news(self, sent_at: float) -> bool:
        """Does a submit that left then and got no verdict tell whether the API is there now? One that hung for minutes
        does not, where others that left after it got theirs."""
        return sent_at >= self._heard_of

    def note_submit(
        self, life: Life, event: Event, sent_at: float, now: float, policy: Policy, *, is_alone: bool = False
    ) -> None:
        """The reply to a submit that left at `sent_at`; the row has moved already. `is_alone`: no other is on the
        wire."""
        if isinstance(event, (Accepted, Answered, Refused)):
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now
        match event:
            case Accepted():
                self._got_through(life, now, sent_at)
                life.estimate = self.budget.learn(life.group, life.estimate, event.reserved)
            case Answered():
                self._got_through(life, now, sent_at)
            case Refused():
                self._heard(sent_at)
                self.give_back(life)
            case Unsendable() | Halted():
                self.give_back(life)
            case Deferred():
                self.give_back(life)
                if event.scope == "rate":
                    self.pace.throttle(life.model, now, sent_at, event.retry_after_s, event.error)
                if event.scope != "service":
                    self._heard(sent_at)
                elif self.is_news(sent_at):
                    self.breaker.fail(now)
            case Unreached():
                self.give_back(life)
                if self.is_news(sent_at):
                    self.breaker.fail(now)
            case Doubted():
                is_decisive = is_alone and life.attempts == 1 == policy.attempts - 1
                if self.is_news(sent_at):
                    self.breaker.fail(now, life.key, is_decisive=is_decisive)
                self.budget.let_stand(held(life))
                self.doubts.count(life, policy)
            case _:
                raise AssertionError(event)

    def _got_through(self, life: Life, now: float, sent_at: float) -> None:
        self.got_through_at = now
        self.pace.accept(life.model, now, sent_at)
        self._heard(sent_at)

    def _heard(self, sent_at: float) -> None:
        self._heard_of = max(self._heard_of, sent_at)
        self.breaker.succeed()

    def note_end(self, life: Life, event: Event | None, *, was_running: bool, charged: float | None) -> None:
        """A row's attempt is over: what was reserved for it is charged, released, or stands because nobody knows."""
        self.is_budget_binding = False  # until the next row is looked at: money may have come back
        if isinstance(event, Answered):
            answer = event.answer
            used = (answer.prompt_tokens or 0) + (answer.completion_tokens or 0)
            self.tokens.learn(life.key, life.group, life.tokens, used)
            self.budget.charge(life.group, held(life), held(life) if charged is None else charged)
        elif was_running and isinstance(event, TaskFailed):
            self.budget.release(held(life))
        elif was_running:
            self.budget.let_stand(held(life))
        self.tokens.end(life.key)


def held(life: Life) -> float:
    """Credits that are set aside for a row's present attempt."""
    return life.reserved if life.reserved is not None else life.estimate
