"""Does it help to have the router refresh (`sync_upstream`) rather than answer from its cache?

What is found running by a plain poll is, now and then, asked about again at once with a refresh: where that finds the
task done, the cache was behind. Where it often is, every poll of that model and shape asks for a refresh, but for a
few that go on comparing.
"""

from __future__ import annotations

# The share of plain polls that are checked: at first, and once so many were.
CHECKED_AT_FIRST = 0.08
FIRST = 16
CHECKED = 0.01
# While all polls ask for a refresh, this share of them is plain, and checked.
COMPARED = 0.05
# Stale is a cache that so many checks and such a share of them found behind; it is that until the share is below the
# second one. By chance a task ends between the two polls, a matter of a few per cent at most.
LEAST_BEHIND = 3
STALE_FROM = 0.05
STALE_TO = 0.025
# Older checks weigh half once there are so many.
HALVED_AT = 100.0


class Freshness:
    """One group's cache."""

    __slots__ = ("behind", "checks", "is_stale")

    def __init__(self) -> None:
        self.checks = 0.0
        self.behind = 0.0
        self.is_stale = False

    def is_compared(self, draw: float) -> bool:
        """Should this poll be plain, although the cache is known to be stale? `draw` in [0, 1)."""
        return draw < COMPARED

    def is_checked(self, draw: float) -> bool:
        """Should a task that a plain poll found running be asked about again at once, with a refresh?"""
        if self.is_stale:
            return True
        return draw < (CHECKED_AT_FIRST if self.checks < FIRST else CHECKED)

    def note(self, *, was_behind: bool) -> None:
        """A check was made."""
        self.checks += 1
        self.behind += was_behind
        share = self.behind / self.checks
        if self.is_stale:
            self.is_stale = share >= STALE_TO
        else:
            self.is_stale = self.behind >= LEAST_BEHIND and share >= STALE_FROM
        if self.checks >= HALVED_AT:
            self.checks, self.behind = self.checks / 2, self.behind / 2
