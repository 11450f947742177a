"""The watch over running tasks: which are to be asked about, and when next. Polls never wait for submits.

Times are the run's clock in seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from batchfox.core.agenda import Agenda
from batchfox.core.event import Answered, Event, Halted, Missing, Running, TaskFailed, Unheard
from batchfox.core.lateness import Lateness
from batchfox.core.lifecycle import Life, State
from batchfox.core.timing import Timing, retry_delay_s

# Every so many polls of a late task the router is asked to refresh from upstream.
UPSTREAM_EVERY = 3
# All polls wait when the API says so, but no longer than this, nor than a task is watched: only a poll can find a task
# overdue.
MOST_HOLD_S = 300.0


class Watch:
    """The running tasks of a fleet, by key."""

    def __init__(self, timing: Timing, task_timeout_s: float, draw: Callable[[], float]) -> None:
        self.timing = timing
        self._task_timeout_s = task_timeout_s
        self._draw = draw
        self._agenda = Agenda()
        self._resumes_at = 0.0
        self.polls = 0
        self.throttles = 0
        self.lateness = Lateness()

    def _put(self, life: Life, due: float) -> None:
        life.poll_due = due
        self._agenda.put(life.key, due)

    def begin(self, life: Life, now: float) -> None:
        """A task was accepted."""
        self._put(life, now + self.timing.first_poll_s(life.group))

    def take_up(self, life: Life, now: float, unix_s: float) -> None:
        """A task that an earlier execution left running: it is asked about at once, and gets the whole time-out."""
        age_s = max(unix_s - (life.submitted_at or unix_s), 0.0)
        life.born = life.found_running_at = now - age_s
        life.watched_since = now
        life.polls_here = 0
        self._put(life, now)

    def end(self, key: bytes) -> None:
        self._agenda.drop(key)

    def take_due(self, now: float, most: int) -> list[bytes]:
        """At most `most` tasks to ask about now; each comes back through `note`."""
        if now < self._resumes_at:
            return []
        keys = self._agenda.take_due(now, most)
        self.polls += len(keys)
        return keys

    def sent(self, life: Life, now: float) -> None:
        """A task is asked about now. Late is what this machine or `polls_per_minute` held up, not what the API did."""
        self.lateness.see(now - max(life.poll_due, self._resumes_at))

    def next_at(self) -> float | None:
        """When the next poll is due."""
        due = self._agenda.next_due()
        return None if due is None else max(due, self._resumes_at)

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
        match event:
            case Answered() | TaskFailed():
                self.timing.see(life.group, life.found_running_at - life.born, now - life.born, now)
                return
            case Running():
                wait_s = self.timing.next_poll_s(life.group, now - life.born)
            case Unheard(is_rate=True):
                self.throttles += 1
                wait_s = retry_delay_s(life.unheard, self._draw(), event.retry_after_s)
                hold_s = min(event.retry_after_s or 1.0, self._task_timeout_s, MOST_HOLD_S)
                self._resumes_at = max(self._resumes_at, now + hold_s)
            case Unheard() | Missing():
                wait_s = retry_delay_s(max(life.unheard, life.odd_replies), self._draw())
            case Halted():
                wait_s = 1.0
            case _:
                raise AssertionError(event)
        if life.state is State.RUNNING:
            self._put(life, max(min(now + wait_s, self._deadline(life)), now))
