"""The ration of a minute: a server that lets so many through in 60 s, and then nothing until that minute is over.

A pace that was fast enough to use a ration up tells nothing of it; what got through in the last 60 s tells all. It is
recognised by its standstill: for seconds nothing gets through, or the wait that is asked for ends with the minute.
"""

from __future__ import annotations

from batchfox.core.evidence import WINDOW_S, LastMinute
from batchfox.core.pace_rules import MINUTE_SHARE, RATION_GROWN, RATION_LEAST, RATION_PROBE, SLACK_S, STANDSTILL_S


class Ration:
    """Times are the run's clock in seconds. `per_s`: the ration once it is known, spread over its minute."""

    def __init__(self) -> None:
        self.per_s: float | None = None
        self._minute = LastMinute()
        self._first_at: float | None = None
        # Of the standstill: since when, how many felt for its end in vain, what the minute before had let through.
        self._since = 0.0
        self._felt = 0
        self._got_per_s = 0.0
        self._names_end = False
        self._went_on_at = float("-inf")
        self._was_soon = False

    def note(self, now: float, sent_at: float) -> None:
        """A submit got through."""
        self._minute.note(now)
        if self._first_at is None:
            self._first_at = sent_at

    def minute_per_s(self, now: float) -> float:
        """A little less than what got through in the last minute."""
        return MINUTE_SHARE * self._minute.count(now) / WINDOW_S

    @property
    def safe_per_s(self) -> float | None:
        """A little less than the ration."""
        return None if self.per_s is None else MINUTE_SHARE * self.per_s

    @property
    def least_per_s(self) -> float:
        """Lone refusals bring no pace below this: they come of how uneven the minute before was."""
        return RATION_LEAST * (self.per_s or 0.0)

    def stand(self, now: float, asked_s: float | None) -> None:
        """Hardly anything gets through from now on."""
        self._since, self._felt = now, 0
        left_s = (self._first_at or 0.0) + WINDOW_S - now
        self._names_end = asked_s is not None and abs(asked_s - left_s) <= SLACK_S < left_s
        self._got_per_s = self._minute.count(now) / WINDOW_S

    def feel(self) -> None:
        """A submit that felt for the end of the standstill was refused."""
        self._felt += 1

    def go_on(self, now: float, target: float) -> float | None:
        """Something got through again: the pace to go on with in place of `target`, None where that may stay."""
        self._went_on_at = now
        is_over_minute = self._names_end or (self._felt > 0 and now - self._since > STANDSTILL_S)
        if (is_over_minute or self.per_s is not None) and 0.0 < self._got_per_s < target:
            self.per_s = self._got_per_s
            return MINUTE_SHARE * self._got_per_s
        return None

    def is_trusted(self, now: float) -> bool:
        """Does it explain many refusals? Once they may come soon after a standstill, of how uneven the minute was."""
        if self.per_s is None:
            return False
        was_soon, self._was_soon = self._was_soon, now - self._went_on_at < STANDSTILL_S
        return not (was_soon and self._was_soon)

    def bound(self, following: float, per_s: float, now: float) -> float:
        """The pace to try after `per_s`: up to the ration, then a little above, and without bound once more got through
        in a minute than the ration was."""
        if self.per_s is None:
            return following
        safe_per_s = MINUTE_SHARE * self.per_s
        if per_s < safe_per_s:
            return min(following, safe_per_s)
        if self._minute.count(now) / WINDOW_S <= RATION_GROWN * self.per_s:
            return min(following, RATION_PROBE * self.per_s)
        self.per_s = None
        return following
