"""A circuit breaker for submits: when the API takes nothing at all, stop throwing rows at it.

Closed: submits flow. After `TRIP` submits in a row that were not taken by anyone (no connection, 503, or no readable
verdict) it opens. Then, ever more rarely, a free question is asked first; once that is answered one submit is let
through as a probe, and the first that is taken closes it. Polls go on whatever it says.
"""

from __future__ import annotations

TRIP = 8
FIRST_PROBE_S = 1.0
MOST_PROBE_S = 60.0
# A probe that ends in doubt may have been paid for, and costs a row an attempt.
MOST_RISK_S = 600.0


class Breaker:
    """Times are the run's clock in seconds."""

    def __init__(self) -> None:
        self.streak = 0
        self.opened_at: float | None = None
        self.probe_at = 0.0
        self._probes = 0
        self._is_there = False

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    def allows(self, now: float, on_the_wire: int) -> bool:
        """May a submit leave at `now`, with so many of them on the wire already?"""
        return not self.is_open or (now >= self.probe_at and on_the_wire == 0 and self._is_there)

    def asks(self, now: float, on_the_wire: int) -> bool:
        """Is it time for the free question?"""
        return self.is_open and now >= self.probe_at and on_the_wire == 0 and not self._is_there

    def hear(self, now: float, *, is_there: bool) -> None:
        """What came of the free question. No answer tells enough: no submit is risked until the next one."""
        if not self.is_open:
            return
        self._is_there = is_there
        if not is_there:
            self._put_off(now)

    def succeed(self) -> None:
        """The API gave a verdict on a submit (whatever it was): it is alive."""
        self.streak = 0
        self.opened_at = None
        self._probes = 0

    def fail(self, now: float, *, is_risky: bool = False) -> None:
        """A submit found nobody home; `is_risky`: it is in doubt."""
        self.streak += 1
        if self.opened_at is None:
            if self.streak < TRIP:
                return
            self.opened_at = now
            self._probes = 0
        elif now < self.probe_at:
            return  # one that was on the wire when the breaker opened
        self._put_off(now, MOST_RISK_S if is_risky else MOST_PROBE_S)

    def _put_off(self, now: float, most_s: float = MOST_PROBE_S) -> None:
        self._is_there = False
        self.probe_at = now + min(FIRST_PROBE_S * 2.0 ** min(self._probes, 16), most_s)
        self._probes += 1
