"""How many polls may leave: as many as wanted, until the API says 429; then everybody waits, and goes on slower if that
did not help. (What the job itself allows, `limits.polls_per_minute`, is held by the hand's limiter.)

Times are the run's clock in seconds.
"""

from __future__ import annotations

from collections import deque

# A 429 that asks for no particular wait; and the longest wait, whatever it asks for.
HOLD_S = 1.0
MOST_HOLD_S = 300.0
# A hold is all there is to a 429 that stands alone, as some come whatever the rate is. But where hardly any poll got
# through since the last one, or where soon after it a long wait is asked for again (a limit by the minute), the rate
# that polls really had is cut to these shares, again and again down to the least. It climbs back, step by step, until
# nothing holds polls back any more.
LONE_AFTER = 20
CUT = 0.7
AGAIN_WITHIN_S = 60.0
LONG_S = 5.0
LONG_CUT = 0.95
LEAST_SHARE = 0.5
CLIMB_EVERY_S = 2.0
CLIMB = 1.15
LEAST_PER_S = 1.0 / 60.0
MOST_PER_S = 2000.0
# The rate at which polls were answered is counted over so long: many limits are by the minute.
COUNTED_S = 60.0
COUNTED_IN_S = 0.25
BURST_S = 0.1


class PollPace:
    """The rate of polls as the API allows it."""

    __slots__ = (
        "_answered",
        "_changed_at",
        "_held_at",
        "_level",
        "_level_at",
        "_since",
        "_through",
        "per_s",
        "resumes_at",
        "throttles",
    )

    def __init__(self) -> None:
        self.per_s: float | None = None
        self.resumes_at = 0.0
        self.throttles = 0
        self._held_at = float("-inf")
        self._answered: deque[tuple[float, int]] = deque()
        self._since: float | None = None
        self._changed_at = 0.0
        self._through = 0
        self._level = 0.0
        self._level_at = 0.0

    def room(self, now: float, most: int) -> int:
        """How many of `most` polls may leave now."""
        if now < self.resumes_at:
            return 0
        if self.per_s is None:
            return most
        return min(most, int(self._tokens(now) + 1e-9))

    def ready_at(self) -> float:
        """When the next poll may leave."""
        if self.per_s is None or self._level >= 1.0:
            return self.resumes_at
        return max(self.resumes_at, self._level_at + (1.0 - self._level) / self.per_s)

    def _tokens(self, now: float) -> float:
        assert self.per_s is not None
        dripped = self._level + max(now - self._level_at, 0.0) * self.per_s
        self._level, self._level_at = min(dripped, max(1.0, self.per_s * BURST_S)), max(now, self._level_at)
        return self._level

    def sent(self, polls: int, now: float) -> None:
        """So many left."""
        if self.per_s is not None and polls:
            self._tokens(now)
            self._level -= polls

    def throttle(self, now: float, retry_after_s: float | None, most_s: float) -> None:
        """A poll got 429. What was on the wire beside it tells nothing new: that only lengthens the wait."""
        self.throttles += 1
        if now >= self.resumes_at:
            if now < self._held_at + AGAIN_WITHIN_S:
                if self._through < LONE_AFTER:
                    self._cut(CUT, now)
                elif (retry_after_s or 0.0) >= LONG_S:
                    self._cut(LONG_CUT, now)
            self._changed_at, self._through = now, 0
        hold_s = min(retry_after_s or HOLD_S, most_s, MOST_HOLD_S)
        self.resumes_at = max(self.resumes_at, now + hold_s)
        self._held_at = self.resumes_at

    def _cut(self, share: float, now: float) -> None:
        had = self._had_per_s(now)
        asked = had if self.per_s is None else min(had, self.per_s)
        self.per_s = max(share * asked, LEAST_SHARE * had, LEAST_PER_S)
        self._level, self._level_at = 1.0, now

    def _had_per_s(self, now: float) -> float:
        counted_s = min(now - (now if self._since is None else self._since), COUNTED_S)
        return sum(polls for at, polls in self._answered if at > now - COUNTED_S) / max(counted_s, 1.0)

    def answered(self, now: float) -> None:
        """A poll got its answer: after a while of those the pace climbs."""
        self._through += 1
        if self._since is None:
            self._since = now
        if self._answered and now < self._answered[-1][0] + COUNTED_IN_S:
            since, before = self._answered.pop()
            self._answered.append((since, before + 1))
        else:
            self._answered.append((now, 1))
        while self._answered[0][0] <= now - COUNTED_S:
            self._answered.popleft()
        if self.per_s is None or now - max(self._changed_at, self.resumes_at) < CLIMB_EVERY_S:
            return
        self._changed_at = now
        self.per_s = self.per_s * CLIMB if self.per_s * CLIMB < MOST_PER_S else None
