"""Credits: spent + reserved + the next request's estimate never passes the limit.

The estimate of a request is the dearest reservation seen for its model and shape, else what the price list says.
Rows in doubt stay reserved. Source: contract.md, "Credits".
"""

from __future__ import annotations

from typing import Protocol


class Purse(Protocol):
    """What the runs of a key may spend in a day, together. `limit` None: as much as they like."""

    limit: float | None

    def used(self) -> float:
        """What is gone of it, or set aside."""
        ...

    def cover(self, gone: float, reserved: float) -> bool:
        """May this run have `gone` credits that are spent or in doubt, and `reserved` for live rows?"""
        ...


class Budget:
    """One run's money. Groups are a model and a shape; credits throughout.

    `reserved` is what live rows may still cost; `standing` what rows may have cost whose charge will never be known.
    """

    def __init__(self, limit: float | None, *, spent: float = 0.0, standing: float = 0.0) -> None:
        self.limit = limit
        self.spent = spent
        self.reserved = 0.0
        self.standing = standing
        self._dearest: dict[str, float] = {}
        # What proved low: the group, with the estimate that a request left on and what it came to, the worst of each.
        self.low: dict[str, tuple[float, float]] = {}
        # The day's money, where the job limits it; and whether it was that which last did not suffice.
        self.purse: Purse | None = None
        self.is_day_binding = False

    def estimate(self, group: str, listed: float) -> float:
        """Credits that one more request of `group` is expected to reserve; `listed`: what the price list says."""
        return self._dearest.get(group, listed)

    def may_spend(self, estimate: float) -> bool:
        self.is_day_binding = False
        if self.limit is not None and self.spent + self.reserved + self.standing + estimate > self.limit + 1e-9:
            return False
        if self.purse is not None:
            self.is_day_binding = not self.purse.cover(self.spent + self.standing, self.reserved + estimate)
        return not self.is_day_binding

    @property
    def left(self) -> float:
        """Credits that are neither spent nor set aside; infinite without a limit."""
        return float("inf") if self.limit is None else self.limit - self.spent - self.reserved - self.standing

    def reserve(self, estimate: float) -> None:
        """A submit is about to leave, or a recovered one may be charged."""
        self.reserved += estimate

    def learn(self, group: str, estimate: float, reserved: float | None) -> float:
        """The API said what it reserved: replaces the estimate, and returns what is reserved now."""
        if reserved is None:
            return estimate
        self._compare(group, estimate, reserved)
        self.reserved += reserved - estimate
        if reserved > self._dearest.get(group, -1.0):
            self._dearest[group] = reserved
        return reserved

    def release(self, reserved: float) -> None:
        """A submit was refused, or its task failed: nothing is charged."""
        self.reserved = max(self.reserved - reserved, 0.0)

    def let_stand(self, reserved: float) -> None:
        """A POST is in doubt, or its task was given up: it may have been charged, and stays reserved."""
        self.release(reserved)
        self.standing += reserved

    def charge(self, group: str, reserved: float, charged: float) -> None:
        """A task ended: its reservation becomes a charge."""
        self._compare(group, reserved, charged)
        self.release(reserved)
        self.spent += charged

    def _compare(self, group: str, estimate: float, came_to: float) -> None:
        if came_to > estimate and came_to > self.low.get(group, (0.0, 0.0))[1]:
            self.low[group] = (estimate, came_to)

    def clear_up(self, stood: float, charged: float) -> None:
        """What became of a row is known after all: what stood for it, where it counts in this run, becomes a charge."""
        cleared = min(self.standing, stood)
        self.standing -= cleared
        if cleared > 0.0:
            self.spent += charged
