"""The leaky bucket that keeps a rate within its limit over every sliding minute."""

from __future__ import annotations

from typing import NamedTuple

# The bucket's size beyond the one that leaves, as a share of a second's drip. A token is taken some milliseconds after
# it was there (a timer, the sync of an intent); without room for what drips in meanwhile, that is lost with each: 600 a
# minute were used to 0.96. With it no second holds more than 1.05 of its share and one.
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
    capacity = 1.0
    if per_minute > 60:
        capacity += per_minute / 60.0 * BURST_SHARE
        drip = (per_minute - capacity) / 60.0
    else:
        drip = (per_minute if per_minute < 1 else int(per_minute)) / 60.0
    return Bucket(capacity, drip * 0.999)


class Drip:
    """A bucket's level as arithmetic: when the next submit may leave. It begins without a free burst.

    What is left of it survives a change of its size, and grows by dripping only; what drips in while everybody waits is
    at most one, so that no burst follows a pause.
    """

    def __init__(self) -> None:
        self._bucket = Bucket(1.0, 0.0)
        self.room = 0.0
        self._at = 0.0

    def resize(self, per_minute: float, now: float) -> None:
        """From now on it drips for this rate."""
        self._drip_to(now)
        self._bucket = bucket(per_minute)
        self.room = min(self.room, self._bucket.capacity)

    def _drip_to(self, now: float) -> None:
        if now > self._at:
            self.room = min(self.room + (now - self._at) * self._bucket.per_s, self._bucket.capacity)
            self._at = now

    def calm(self, until: float) -> None:
        """Nobody may leave until then."""
        self._drip_to(until)
        self.room = min(self.room, 1.0)

    def ready_at(self, now: float) -> float:
        """When the next may leave; `now` where it may."""
        self._drip_to(now)
        short = 1.0 - self.room
        return max(now, self._at) + max(short, 0.0) / self._bucket.per_s if short > 1e-9 else max(now, self._at)

    def take(self, now: float) -> None:
        """One leaves."""
        self._drip_to(now)
        self.room -= 1.0
