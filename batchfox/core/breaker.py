"""A circuit breaker for submits: when the API takes nothing at all, stop throwing rows at it.

Closed: submits flow. After `TRIP` submits in a row that were not taken by anyone (no connection, 503, or no readable
verdict) it opens: one submit at a time is let through as a probe, ever more rarely; the first that is taken closes it.
Polls go on whatever it says.
"""

from __future__ import annotations

TRIP = 8
FIRST_PROBE_S = 1.0
MOST_PROBE_S = 60.0


class Breaker:
    """Times are the run's clock in seconds."""

    def __init__(self) -> None:
        self.streak = 0
        self.opened_at: float | None = None
        self.probe_at = 0.0
        self._probes = 0

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    def allows(self, now: float, on_the_wire: int) -> bool:
        """May a submit leave at `now`, with so many of them on the wire already?"""
        return not self.is_open or (now >= self.probe_at and on_the_wire == 0)

    def succeed(self) -> None:
        """The API gave a verdict on a submit (whatever it was): it is alive."""
        self.streak = 0
        self.opened_at = None
        self._probes = 0

    def fail(self, now: float) -> None:
        """A submit found nobody home."""
        self.streak += 1
        if self.opened_at is None:
            if self.streak < TRIP:
                return
            self.opened_at = now
            self._probes = 0
        elif now < self.probe_at:
            return  # one that was on the wire when the breaker opened
        self.probe_at = now + min(FIRST_PROBE_S * 2.0 ** min(self._probes, 16), MOST_PROBE_S)
        self._probes += 1
