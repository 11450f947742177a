"""The rows that wait to be sent: new ones in their order, and those tried before, each from its time on.

Times are the run's clock in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from batchfox.core.agenda import Agenda
from batchfox.core.lifecycle import Life

# Rows tried before go first, so that none starves; but after so many of them in a row one new row does. Else the
# retries of rows that nobody serves would fill a slow pace, and their patience runs only while others get through.
RETRIES_IN_A_ROW = 3
# Among so many rows that are due, one with as many attempts left as can be had is looked for.
PROBES = 256


class Queue:
    """Keys and lives of what waits; `lives` is the fleet's."""

    def __init__(self, lives: Mapping[bytes, Life]) -> None:
        self._lives = lives
        self._new: deque[Life] = deque()
        self._again = Agenda()
        self._again_in_a_row = 0

    def __bool__(self) -> bool:
        return bool(self._new or self._again)

    @property
    def new(self) -> int:
        """How many rows wait that were never tried."""
        return len(self._new)

    def add(self, life: Life) -> None:
        """A new row."""
        self._new.append(life)

    def add_again(self, key: bytes, due: float) -> None:
        """A row that was tried before, and may be again from `due` on."""
        self._again.put(key, due)

    def put_back(self, life: Life) -> None:
        """A row that was taken and cannot be sent yet: it is the next one."""
        self._new.appendleft(life)

    def drop(self, key: bytes) -> None:
        """Forgets a row that was tried before."""
        self._again.drop(key)

    def next_due(self, now: float) -> float | None:
        """When the next row may be taken; None while there is none."""
        return now if self._new else self._again.next_due()

    def take(self, now: float) -> Life | None:
        """The next row, in turn."""
        is_news_turn = bool(self._new) and self._again_in_a_row >= RETRIES_IN_A_ROW
        if not is_news_turn and (due := self._again.take_due(now, 1)):
            self._again_in_a_row += 1
            return self._lives[due[0]]
        self._again_in_a_row = 0
        return self._new.popleft() if self._new else None

    def take_probe(self, now: float) -> Life | None:
        """The row that is risked while nobody seems to be there: one with as many attempts left as can be had."""
        if self._new:
            return self._new.popleft()
        due = self._again.take_due(now, PROBES)
        for key in due:
            self._again.put(key, now)
        probe = min((self._lives[key] for key in due), key=lambda life: life.attempts, default=None)
        if probe is not None:
            self._again.drop(probe.key)
        return probe
