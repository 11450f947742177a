"""The watch over running tasks: which are to be asked about, and when next. Polls never wait for submits.

Times are the run's clock in seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from batchfox.core.agenda import Agenda
from batchfox.core.event import Answered, Event, Halted, Missing, Running, TaskFailed, Unheard
from batchfox.core.lifecycle import Life, State
from batchfox.core.poll_pace import PollPace
from batchfox.core.timing import Timing, retry_delay_s

# Every so many polls of a late task the router is asked to refresh from upstream.
UPSTREAM_EVERY = 3
# Tasks whose polls got 429 come back spread over so long.
SPREAD_S = 1.0


class Watch:
    """The running tasks of a fleet, by key."""

    def __init__(self, timing: Timing, task_timeout_s: float, draw: Callable[[], float]) -> None:
        self.timing = timing
        self._task_timeout_s = task_timeout_s
        self._draw = draw
        self._agenda = Agenda()
        self._pace = PollPace()
        self.polls = 0

    @property
    def throttles(self) -> int:
        """Polls that got 429."""
        return self._pace.throttles

    def begin(self, life: Life, now: float) -> None:
        """A task was accepted."""
        self.timing.begin(life.group, life.key)
        self._agenda.put(life.key, now + self.timing.first_poll_s(life.group))

    def take_up(self, life: Life, now: float, unix_s: float) -> None:
        """A task that an earlier execution left running: it is asked about at once, and gets the whole time-out."""
        age_s = max(unix_s - (life.submitted_at or unix_s), 0.0)
        life.born = life.found_running_at = now - age_s
        life.watched_since = now
        life.polls_here = 0
        self.timing.begin(life.group, life.key)
        self._agenda.put(life.key, now)

    def end(self, life: Life) -> None:
        """A row is gone, however it ended."""
        self._agenda.drop(life.key)
        self.timing.give_up(life.group, life.key)

    def take_due(self, now: float, most: int) -> list[bytes]:
        """At most `most` tasks to ask about now; each comes back through `note`."""
        most = self._pace.room(now, most)
        keys = self._agenda.take_due(now, most)
        self.polls += len(keys)
        self._pace.sent(len(keys), now)
        return keys

    def next_at(self) -> float | None:
        """When the next poll is due."""
        due = self._agenda.next_due()
        return None if due is None else max(due, self._pace.ready_at())

    def asks_upstream(self, life: Life) -> bool:
        """Should this poll have the router refresh? Now and then, once a task is late. After `completed` without
        results not at first (api.md: asking again without brings them), then by turns."""
        if life.shuns_upstream:
            return life.odd_replies >= 2 and life.polls_here % 2 == 0
        return life.polls_here >= UPSTREAM_EVERY and life.polls_here % UPSTREAM_EVERY == 0

    def is_overdue(self, life: Life, now: float) -> bool:
        return now >= self._deadline(life)

    def _deadline(self, life: Life) -> float:
        # In one place: rounded another way, a poll at this moment would not be late enough, and asked again at once.
        return life.watched_since + self._task_timeout_s

    def note(self, life: Life, event: Event, now: float) -> None:
        """What a poll's reply tells about latencies, and when to ask next; the row has moved already."""
        if not isinstance(event, Unheard):
            self._pace.answered(now)
        match event:
            case Answered() | TaskFailed():
                self.timing.see(life.group, life.found_running_at - life.born, now - life.born, now, life.key)
                return
            case Running():
                wait_s = self.timing.next_poll_s(life.group, now - life.born, life.key)
            case Unheard(is_rate=True):
                # Only a poll can find a task overdue: none is held longer than a task is watched.
                self._pace.throttle(now, event.retry_after_s, self._task_timeout_s)
                wait_s = SPREAD_S * self._draw()
            case Unheard() | Missing():
                wait_s = retry_delay_s(max(life.unheard, life.odd_replies), self._draw())
            case Halted():
                wait_s = 1.0
            case _:
                raise AssertionError(event)
        if life.state is State.RUNNING:
            self._agenda.put(life.key, max(min(now + wait_s, self._deadline(life)), now))
