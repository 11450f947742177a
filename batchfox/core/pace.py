"""The allowed rate of submits: up slowly, down fast on 429, and everybody waits together.

`Pace` says how many submits a second may leave and until when nothing may; the hand that holds the clock and the
limiter obeys. A rate limit in the job is a ceiling; without one the pace starts low and finds what the API allows.
"""

from __future__ import annotations

from typing import NamedTuple

# Without a limit: the first second's pace, and how it grows while nobody complains.
START_PER_S = 20.0
PROBE_EVERY_S = 1.0
PROBE_FACTOR = 2.0
# After a 429: what is kept of the pace, and how it climbs back. One that stands alone (so many submits got through
# since the last) tells little, as some come whatever the pace is: it takes back about one step of the climb.
CUT = 0.5
LONE_AFTER = 3
LONE_CUT = 0.95
CLIMB_EVERY_S = 5.0
CLIMB_FACTOR = 1.08
USED_SHARE = 0.5
LEAST_PER_S = 1.0 / 60.0
MOST_PER_S = 1e6

# A 429 that asks for no particular wait: this long, doubling while they follow one another.
WAIT_S = 1.0
MOST_WAIT_S = 60.0

# The bucket's size as a share of a second's drip (contract: the limit holds over every sliding window).
BURST_SHARE = 0.05


class Bucket(NamedTuple):
    """A leaky bucket: `capacity` submits at once, `per_s` drip through in a second."""

    capacity: float
    per_s: float


def bucket(per_minute: float) -> Bucket:
    """The bucket that never lets more than `per_minute` through in any 60 s.

    In 60 s at most `capacity` + 60 x drip can pass. Whole requests are counted, so the sum may come close to the next
    whole number, but not reach it: 0.1 % is left to clocks. Below 1 a minute, one passes in as long as it takes.
    """
    capacity = max(1.0, per_minute / 60.0 * BURST_SHARE)
    if per_minute > 60:
        drip = (per_minute - capacity) / 60.0
    else:
        drip = (per_minute if per_minute < 1 else int(per_minute)) / 60.0
    return Bucket(capacity, drip * 0.999)


class Pace:
    """The rate of submits as the run learns it. All times are the run's clock in seconds."""

    def __init__(self, per_minute: float | None) -> None:
        self._ceiling = per_minute / 60.0 if per_minute is not None else MOST_PER_S
        self.per_s = self._ceiling if per_minute is not None else START_PER_S
        self._is_probing = per_minute is None
        self._changed_at: float | None = None
        self._cut_at = float("-inf")
        self._strikes = 0
        self._accepted = 0
        self._through = 0
        self.resumes_at = 0.0
        self.throttles = 0

    @property
    def per_minute(self) -> float:
        return self.per_s * 60.0

    @property
    def is_limited(self) -> bool:
        """True once the pace stands below what the job allows because the API said so."""
        return self.throttles > 0 and self.per_s < self._ceiling

    def is_open(self, now: float) -> bool:
        """False during a cool-down that a 429 began."""
        return now >= self.resumes_at

    def throttle(self, now: float, sent_at: float, retry_after_s: float | None) -> None:
        """A submit sent at `sent_at` got 429: everybody waits, and goes on slower.

        Replies to submits that were on the wire before the last cut tell nothing new: they only lengthen the wait.
        """
        self.throttles += 1
        if sent_at > self._cut_at:
            is_lone = self._through >= LONE_AFTER and not self._is_probing
            self._strikes = 1 if is_lone else self._strikes + 1
            kept = self.per_s * (LONE_CUT if is_lone else CUT)
            self.per_s = max(kept, min(LEAST_PER_S, self._ceiling))
            self._is_probing = False
            self._cut_at = self._changed_at = now
            self._accepted = self._through = 0
        own_wait_s = min(WAIT_S * 2.0 ** min(max(self._strikes - 1, 0), 16), MOST_WAIT_S)
        wait_s = own_wait_s if retry_after_s is None else retry_after_s
        self.resumes_at = max(self.resumes_at, now + wait_s)

    def accept(self, now: float) -> None:
        """A submit got through: after a while of those the pace climbs, if it was used. (A pace that nobody uses tells
        nothing of what the API would take.)"""
        if self._changed_at is None:
            self._changed_at = now
        self._accepted += 1
        self._through += 1
        since = now - max(self._changed_at, self.resumes_at)
        if since < (PROBE_EVERY_S if self._is_probing else CLIMB_EVERY_S):
            return
        is_used = self._accepted >= since * self.per_s * USED_SHARE
        self._strikes = self._accepted = 0
        self._changed_at = now
        if not is_used:
            return
        factor = PROBE_FACTOR if self._is_probing else CLIMB_FACTOR
        self.per_s = min(self.per_s * factor, self._ceiling)
