"""A circuit breaker for submits: when the API takes nothing at all, stop throwing rows at it.

Closed: submits flow. It opens after `TRIP` submits in a row that were not taken by anyone (no connection, 503, or no
readable verdict). Few rows would have burnt their attempts by then, so it opens as well when a row is in doubt again
and no submit got a verdict since it was in doubt before: where others get through meanwhile, the trouble is the row's
own; where nobody does, an outage is suspected. Then, ever more rarely, a free question is asked first; once that is
answered one submit is let through as a probe, and the first that is taken closes it. The fewer attempts are left among
the rows, the longer the next one waits. Polls go on whatever it says.
"""

from __future__ import annotations

TRIP = 8
FIRST_PROBE_S = 1.0
MOST_PROBE_S = 60.0
# A probe that ends in doubt may have been paid for, and costs a row an attempt.
MOST_RISK_S = 600.0
# With fewer attempts than `TRIP` left among all rows, the next probe waits at least so long where it is the last
# attempt of whichever row is risked, and a sixth of it for each attempt that may be lost before: a lone row that has
# used two of four is risked after 150 s, and for the last time 15 minutes later. What is not the API's moment but the
# row's own fault has ended within 18 minutes all the same.
LAST_WAIT_S = 900.0
_SHORTER = 6.0


class Breaker:
    """Times are the run's clock in seconds."""

    def __init__(self) -> None:
        self.streak = 0
        self.opened_at: float | None = None
        self.probe_at = 0.0
        self._probes = 0
        self._is_there = False
        # Rows that were in doubt since the last verdict.
        self._doubted: set[bytes] = set()

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
        self._doubted.clear()

    def fail(self, now: float, doubted: bytes | None = None, *, is_decisive: bool = False) -> None:
        """A submit found nobody home; `doubted`: it is in doubt, and is this row's; `is_decisive`: there will be no
        second one to go by."""
        self.streak += 1
        is_again = doubted in self._doubted or is_decisive
        if doubted is not None:
            self._doubted.add(doubted)
        if self.opened_at is None:
            if self.streak < TRIP and not is_again:
                return
            self.opened_at = now
            self._probes = 0
        elif now < self.probe_at:
            return  # one that was on the wire when the breaker opened
        self._put_off(now, MOST_PROBE_S if doubted is None else MOST_RISK_S)

    def spare(self, now: float, attempts: int, rows: int) -> None:
        """So many attempts are left among so many rows, after one that was in doubt."""
        if self.is_open and 0 < attempts < TRIP and now < self.probe_at:
            self.probe_at = max(self.probe_at, now + LAST_WAIT_S / _SHORTER ** (attempts - rows))

    def _put_off(self, now: float, most_s: float = MOST_PROBE_S) -> None:
        self._is_there = False
        self.probe_at = now + min(FIRST_PROBE_S * 2.0 ** min(self._probes, 16), most_s)
        self._probes += 1
