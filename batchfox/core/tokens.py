"""Tokens a minute: what requests take by estimate, in every sliding minute, corrected by the usage that comes back.

A request counts from the moment it leaves; one that was refused counts no more. What a group of requests (a model and a
shape) has really used teaches what the next one of it is expected to take. A request that is expected to take more than
a minute's tokens leaves alone, once nothing else counts: else it never would.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from batchfox.core.prices import USUAL_COMPLETION
from batchfox.core.shape import Medium

WINDOW_S = 60.0
# How soon it is looked again where what is wanted is with other runs.
LOOK_AGAIN_S = 0.5
# What the last usage weighs in the expectation of the next.
_WEIGHT = 0.1
# In the place of when it left: that was more than a minute ago, and it counts no more.
_GONE = float("-inf")
# Less than this is a rest of rounding.
_NOTHING = 0.001
_CHARACTERS_A_TOKEN = 4
_TOKENS_A_MEDIUM = {"image": 1_000, "video": 20_000, "audio": 5_000, "file": 3_000}


def expected_tokens(request: dict[str, Any], media: list[Medium]) -> tuple[int, int]:
    """Tokens in, and out at most, by rule of thumb."""
    most = request.get("max_tokens")
    taken = _characters(request) // _CHARACTERS_A_TOKEN + sum(_TOKENS_A_MEDIUM.get(m.kind, 0) for m in media)
    return taken, most if isinstance(most, int) else USUAL_COMPLETION


def _characters(value: Any) -> int:
    """Characters of text in a request, media aside."""
    if isinstance(value, str):
        return 0 if value.startswith(("data:", "http://", "https://")) else len(value)
    if isinstance(value, dict):
        return sum(_characters(item) for item in value.values())
    if isinstance(value, list):
        return sum(_characters(item) for item in value)
    return 0


class Tokens:
    """One run's tokens. Times are the run's clock in seconds; `before`: what earlier executions sent within the last
    minute, and the moment from which that counts."""

    def __init__(self, per_minute: float | None, *, before: tuple[float, float] = (0.0, 0.0)) -> None:
        self.per_minute = per_minute
        self.may_exceed = True
        # Each: when it left, what it takes. One that has not left yet counts, and is not in line.
        self._line: deque[list[float]] = deque()
        self._open: dict[bytes, list[float]] = {}
        self._taken = 0.0
        self._ratios: dict[str, float] = {}
        # When there will be room for the row that had none.
        self.opens_at = float("-inf")
        if per_minute is not None and before[0] > 0.0:
            self._line.append([before[1], before[0]])
            self._taken = before[0]

    def limit(self, per_minute: float, *, may_exceed: bool = True) -> None:
        """Another limit from now on, where there was one: else nothing is known of what counts. `may_exceed`: a request
        that is expected to take more leaves alone; not so where the rest is with other runs, and will come."""
        assert self.per_minute is not None
        self.per_minute, self.may_exceed, self.opens_at = per_minute, may_exceed, float("-inf")

    def expect(self, group: str, listed: float) -> float:
        """Tokens that one more request of `group` is expected to take; `listed`: by rule of thumb."""
        return listed * self._ratios.get(group, 1.0)

    def taken(self, now: float) -> float:
        """Tokens of the last minute."""
        while self._line and self._line[0][0] + WINDOW_S <= now:
            entry = self._line.popleft()
            self._taken -= entry[1]
            entry[0] = _GONE  # a task may run on for longer than its minute
        if not self._line and not self._open:
            self._taken = 0.0  # no rest of rounding
        return self._taken

    def fits(self, group: str, listed: float, now: float) -> bool:
        """May one more request of `group` leave now? If not, `opens_at` is when it may."""
        self.opens_at = float("-inf")
        if self.per_minute is None:
            return True
        expected, taken = self.expect(group, listed), self.taken(now)
        if taken + expected <= self.per_minute or (taken < _NOTHING and self.may_exceed):
            return True
        if expected > self.per_minute and not self.may_exceed:
            self.opens_at = now + LOOK_AGAIN_S
        else:
            self.opens_at = self._when(taken + expected - self.per_minute, now)
        return False

    def _when(self, excess: float, now: float) -> float:
        """When so much of what counts now counts no more, as far as time alone decides it."""
        for left_at, amount in self._line:
            excess -= amount
            if excess <= 0.0:
                return left_at + WINDOW_S
        return (self._line[-1][0] if self._line else now) + WINDOW_S

    def take(self, key: bytes, group: str, listed: float) -> None:
        """A request is about to leave: it counts from now on."""
        if self.per_minute is None:
            return
        expected = self.expect(group, listed)
        self._open[key] = [float("inf"), expected]
        self._taken += expected

    def leave(self, key: bytes, now: float) -> None:
        """It leaves."""
        if (entry := self._open.get(key)) is not None:
            entry[0] = now
            self._line.append(entry)

    def give_back(self, key: bytes) -> None:
        """It did not leave, or took nothing: the API refused it."""
        self._settle(key, 0.0)

    def learn(self, key: bytes, group: str, listed: float, used: float) -> None:
        """It is answered, and has used so much."""
        if self.per_minute is None or used <= 0.0:
            return
        self._settle(key, used)
        if listed > 0.0:
            ratio = self._ratios.get(group)
            self._ratios[group] = used / listed if ratio is None else ratio + _WEIGHT * (used / listed - ratio)

    def end(self, key: bytes) -> None:
        """Nothing more will be known of it: its minute goes on by the estimate."""
        self._open.pop(key, None)

    def _settle(self, key: bytes, used: float) -> None:
        entry = self._open.pop(key, None)
        if entry is None:
            return
        self.opens_at = float("-inf")
        if entry[0] == _GONE:
            return
        self._taken += used - entry[1]
        entry[1] = used
