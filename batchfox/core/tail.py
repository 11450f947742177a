"""The end of a run: everything is submitted, and some tasks still run. The oldest are named, and may be given up.

Times are the run's clock in seconds.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import Any

import msgspec

from batchfox.core.dispatch import Fleet
from batchfox.core.lifecycle import Life, Overdue, State
from batchfox.core.outcome import Outcome

MOST_NAMED = 5
# The oldest are looked for among all, which takes milliseconds where thousands run: not with every record.
NAMED_EVERY_S = 1.0


class Straggler(msgspec.Struct, frozen=True, kw_only=True):
    """A task that runs when the others have ended. `age_s`: since it was submitted."""

    row_id: str
    task_id: str
    age_s: float


class Tail:
    """Of one execution. `straggle_s`: so long after the last submit what still runs is given up; None: never.
    `given_up`: how many were, and `oldest` of them."""

    def __init__(self, fleet: Fleet, straggle_s: float | None, began_at: float) -> None:
        self._fleet = fleet
        self._straggle_s = straggle_s
        self._began_at = began_at
        self.given_up = 0
        self.oldest: list[Straggler] = []
        self._named: list[Straggler] = []
        self._named_at = float("-inf")

    def has_begun(self, *, is_input_over: bool) -> bool:
        """Is nothing left to be submitted, and something running?"""
        fleet = self._fleet
        is_all_sent = fleet.stopped is not None or (is_input_over and not fleet.has_waiting)
        return is_all_sent and fleet.on_the_wire == 0 and fleet.in_flight > 0

    def figures(self, now: float, *, is_input_over: bool) -> dict[str, Any] | None:
        """How many tasks run, and the oldest of them, as they were at most a second ago; None before the tail."""
        if not self.has_begun(is_input_over=is_input_over):
            return None
        return {"tasks": self._fleet.in_flight, "oldest": [msgspec.to_builtins(one) for one in self._name(now)]}

    def give_up(self, now: float, unix_s: float, *, is_input_over: bool) -> list[tuple[Life, Outcome]]:
        """Ends what still runs, once it is time. A task that is being asked about, or that this execution took up and
        has not asked about yet, is ended the next time."""
        fleet, straggle_s = self._fleet, self._straggle_s
        if straggle_s is None or not fleet.may_give_up or not self.has_begun(is_input_over=is_input_over):
            return []
        last_at = self._began_at if fleet.last_sent_at is None else fleet.last_sent_at
        if now - last_at < straggle_s:
            return []
        ended = []
        for life in [life for life in fleet.lives.values() if self._may_end(life)]:
            self.given_up += 1
            self.oldest = _oldest([*self.oldest, _straggler(life, now)])
            ended.append((life, fleet.give_up(life, Overdue(after_last_submit_s=now - last_at), now, unix_s)))
        return ended

    def _may_end(self, life: Life) -> bool:
        is_known = life.polls_here > 0 or life.born == life.watched_since
        return life.state is State.RUNNING and is_known and self._fleet.watch.is_at_rest(life)

    def _name(self, now: float) -> list[Straggler]:
        if now - self._named_at >= NAMED_EVERY_S:
            lives = (life for life in self._fleet.lives.values() if life.state is State.RUNNING)
            oldest = nsmallest(MOST_NAMED, lives, key=lambda life: life.born)
            self._named, self._named_at = [_straggler(life, now) for life in oldest], now
        return self._named


def _straggler(life: Life, now: float) -> Straggler:
    return Straggler(row_id=life.id, task_id=life.task_id or "", age_s=max(now - life.born, 0.0))


def _oldest(stragglers: list[Straggler]) -> list[Straggler]:
    return sorted(stragglers, key=lambda straggler: -straggler.age_s)[:MOST_NAMED]
