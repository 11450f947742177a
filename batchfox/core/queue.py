"""The rows that wait to be sent: new ones in their order, and those tried before, each from its time on.

Each model has a lane of its own, and those that may go take turns: a model that the API holds back stops no other.
Times are the run's clock in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from batchfox.core.agenda import Agenda
from batchfox.core.lifecycle import Life

# Rows tried before go first, so that none starves; but after so many of them in a row one new row does. Else the
# retries of rows that nobody serves would fill a slow pace, and their patience runs only while others get through.
RETRIES_IN_A_ROW = 3
# Among so many rows that are due, one with as many attempts left as can be had is looked for.
PROBES = 256

# When a model's next submit may leave.
OpensAt = Callable[[str | None, float], float]


class Lane:
    """One model's rows."""

    def __init__(self, lives: Mapping[bytes, Life]) -> None:
        self._lives = lives
        self.new: deque[Life] = deque()
        self.again = Agenda()
        self._again_in_a_row = 0

    def __bool__(self) -> bool:
        return bool(self.new or self.again)

    def next_due(self, now: float) -> float | None:
        return now if self.new else self.again.next_due()

    def take(self, now: float) -> Life | None:
        is_news_turn = bool(self.new) and self._again_in_a_row >= RETRIES_IN_A_ROW
        if not is_news_turn and (due := self.again.take_due(now, 1)):
            self._again_in_a_row += 1
            return self._lives[due[0]]
        self._again_in_a_row = 0
        return self.new.popleft() if self.new else None

    def take_probe(self, now: float) -> Life | None:
        if self.new:
            return self.new.popleft()
        due = self.again.take_due(now, PROBES)
        for key in due:
            self.again.put(key, now)
        probe = min((self._lives[key] for key in due), key=lambda life: life.attempts, default=None)
        if probe is not None:
            self.again.drop(probe.key)
        return probe


class Queue:
    """Keys and lives of what waits; `lives` is the fleet's."""

    def __init__(self, lives: Mapping[bytes, Life], opens_at: OpensAt) -> None:
        self._lives = lives
        self._opens_at = opens_at
        self._lanes: dict[str | None, Lane] = {}

    def __bool__(self) -> bool:
        return any(self._lanes.values())

    @property
    def new(self) -> int:
        """How many rows wait that were never tried, of the model that has the fewest."""
        if len(self._lanes) == 1:  # as it mostly is, and asked for with every row
            (lane,) = self._lanes.values()
            return len(lane.new)
        return min((len(lane.new) for lane in self._lanes.values()), default=0)

    def models(self) -> list[str | None]:
        """Those that rows wait for."""
        return [model for model, lane in self._lanes.items() if lane]

    def _lane(self, life: Life) -> Lane:
        lane = self._lanes.get(life.model)
        if lane is None:
            lane = self._lanes[life.model] = Lane(self._lives)
        return lane

    def add(self, life: Life) -> None:
        """A new row."""
        self._lane(life).new.append(life)

    def add_again(self, key: bytes, due: float) -> None:
        """A row that was tried before, and may be again from `due` on."""
        self._lane(self._lives[key]).again.put(key, due)

    def put_back(self, life: Life) -> None:
        """A row that was taken and cannot be sent yet: it is the next one."""
        self._lane(life).new.appendleft(life)

    def drop(self, key: bytes) -> None:
        """Forgets a row that was tried before."""
        for lane in self._lanes.values():
            lane.again.drop(key)

    def next_due(self, now: float) -> float | None:
        """When the next row may be taken; None while there is none."""
        dues = [
            max(due, self._opens_at(model, now))
            for model, lane in self._lanes.items()
            if (due := lane.next_due(now)) is not None
        ]
        return min(dues, default=None)

    def take(self, now: float) -> Life | None:
        """The next row, in turn."""
        return self._take(now, Lane.take)

    def take_probe(self, now: float) -> Life | None:
        """The row that is risked while nobody seems to be there: one with as many attempts left as can be had."""
        return self._take(now, Lane.take_probe)

    def _take(self, now: float, how: Callable[[Lane, float], Life | None]) -> Life | None:
        for model, lane in self._lanes.items():
            if self._opens_at(model, now) <= now and (life := how(lane, now)) is not None:
                if len(self._lanes) > 1:
                    self._lanes[model] = self._lanes.pop(model)  # the others come first next time
                return life
        return None
