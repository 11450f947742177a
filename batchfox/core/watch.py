"""The watch over running tasks: which are to be asked about, and when next. Polls never wait for submits.

Times are the run's clock in seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Literal

from batchfox.core.agenda import Agenda
from batchfox.core.event import Answered, Event, Halted, Missing, Running, TaskFailed, Unheard
from batchfox.core.freshness import Freshness
from batchfox.core.latency import SHORTEST_S
from batchfox.core.lateness import Lateness
from batchfox.core.lifecycle import Life, State
from batchfox.core.poll_pace import PollPace
from batchfox.core.timing import Timing, retry_delay_s

# Every so many polls of a late task the router is asked to refresh from upstream.
UPSTREAM_EVERY = 3
# A task whose poll got 429 is due again after so long at most, and half of that at least; the pace may hold it longer.
SPREAD_S = 1.0


class Watch:
    """The running tasks of a fleet, by key."""

    def __init__(self, timing: Timing, task_timeout_s: float, draw: Callable[[], float]) -> None:
        self.timing = timing
        self._task_timeout_s = task_timeout_s
        self._draw = draw
        self._agenda = Agenda()
        self._pace = PollPace()
        self._freshness: defaultdict[str, Freshness] = defaultdict(Freshness)
        # Tasks whose next poll asks for a refresh: to check the cache, or because it is known to be stale.
        self._refreshing: dict[bytes, Literal["check", "always"]] = {}
        self.polls = 0
        self.lateness = Lateness()

    @property
    def throttles(self) -> int:
        """Polls that got 429."""
        return self._pace.throttles

    def _put(self, life: Life, due: float) -> None:
        life.poll_due = due
        self._agenda.put(life.key, due)

    def begin(self, life: Life, now: float) -> None:
        """A task was accepted. One that is streamed is asked about once its stream is over, or overdue."""
        self.timing.begin(life.group, life.key)
        self._choose(life)
        due = self._deadline(life) if life.is_streamed else now + self.timing.first_poll_s(life.group)
        self._put(life, due)

    def hear(self, life: Life, now: float) -> None:
        """The stream of a task is over: where it told all, a poll tells the price at once."""
        if life.key not in self._agenda:
            return  # it is being asked about
        age_s = now - life.born
        due = now if life.is_told else now + self.timing.next_poll_s(life.group, age_s)
        self._put(life, min(due, self._deadline(life)))

    def take_up(self, life: Life, now: float, unix_s: float) -> None:
        """A task that an earlier execution left running: it is asked about at once, and gets the whole time-out."""
        age_s = max(unix_s - (life.submitted_at or unix_s), 0.0)
        life.born = life.found_running_at = now - age_s
        life.watched_since = now
        life.polls_here = 0
        self.timing.begin(life.group, life.key)
        self._put(life, now)

    def end(self, life: Life) -> None:
        """A row is gone, however it ended."""
        self._agenda.drop(life.key)
        self._refreshing.pop(life.key, None)
        self.timing.give_up(life.group, life.key)

    def take_due(self, now: float, most: int) -> list[bytes]:
        """At most `most` tasks to ask about now; each comes back through `note`."""
        most = self._pace.room(now, most)
        keys = self._agenda.take_due(now, most)
        self.polls += len(keys)
        self._pace.sent(len(keys), now)
        return keys

    def sent(self, life: Life, now: float) -> None:
        """A task is asked about now. Late is what this machine or `polls_per_minute` held up, not what the API did."""
        if self._pace.per_s is None:
            self.lateness.see(now - max(life.poll_due, self._pace.resumes_at))

    def next_at(self) -> float | None:
        """When the next poll is due."""
        due = self._agenda.next_due()
        return None if due is None else max(due, self._pace.ready_at())

    def behind_s(self, now: float) -> float:
        """How long the poll that is due first waits for its turn, 0 where none does."""
        due = self._agenda.next_due()
        return 0.0 if due is None else max(now - due, 0.0)

    def asks_upstream(self, life: Life) -> bool:
        """Should this poll have the router refresh? Where its cache was found behind, and now and then once a task is
        late. After `completed` without results not at first (api.md: asking again without brings them), then by
        turns."""
        if life.shuns_upstream:
            return life.odd_replies >= 2 and life.polls_here % 2 == 0
        return life.key in self._refreshing or _is_late(life.polls_here)

    def _choose(self, life: Life) -> None:
        """Settles whether the next poll asks for a refresh because the cache is stale."""
        freshness = self._freshness[life.group]
        if freshness.is_stale and not freshness.is_compared(self._draw()):
            self._refreshing[life.key] = "always"

    def _compare(self, life: Life, event: Event) -> Literal["behind", "check"] | None:
        """What a reply tells about the router's cache: it was behind, or that is to be checked by asking again."""
        freshness = self._freshness[life.group]
        asked = self._refreshing.pop(life.key, None)
        if asked == "check":
            was_behind = isinstance(event, Answered | TaskFailed)
            freshness.note(was_behind=was_behind)
            return "behind" if was_behind else None
        is_plain = asked is None and not life.shuns_upstream and not _is_late(life.polls_here - 1)
        if not is_plain or not isinstance(event, Running) or self._pace.per_s is not None:
            return None
        # Before a schedule is learned most polls come long before a task's end, and a check of them shows nothing.
        if not self.timing.has_learned(life.group) or not freshness.is_checked(self._draw()):
            return None
        self._refreshing[life.key] = "check"
        return "check"

    def is_at_rest(self, life: Life) -> bool:
        """Is the task one that nobody is asking about just now?"""
        return life.key in self._agenda

    def is_overdue(self, life: Life, now: float) -> bool:
        return now >= self._deadline(life)

    def _deadline(self, life: Life) -> float:
        # In one place: rounded another way, a poll at this moment would not be late enough, and asked again at once.
        return life.watched_since + self._task_timeout_s

    def note(self, life: Life, event: Event, now: float) -> None:
        """What a poll's reply tells about latencies, and when to ask next; the row has moved already."""
        if not isinstance(event, Unheard):
            self._pace.answered(now)
        found = self._compare(life, event)
        age_s = now - life.born
        match event:
            case Answered() | TaskFailed():
                # What a cache that is behind said of a running task is no observation.
                low_s = 0.0 if found == "behind" else life.found_running_at - life.born
                self.timing.see(life.group, low_s, age_s, now, life.key)
                return
            case Running() if found == "check":
                wait_s = SHORTEST_S
            case Running() if life.told is not None:
                self._refreshing[life.key] = "always"  # the stream has ended: the cache is behind
                wait_s = retry_delay_s(life.polls_here, self._draw())
            case Running():
                wait_s = self.timing.next_poll_s(life.group, age_s, life.key)
                self._choose(life)
            case Unheard(is_rate=True):
                # Only a poll can find a task overdue: none is held longer than a task is watched.
                self._pace.throttle(now, event.retry_after_s, self._task_timeout_s)
                wait_s = SPREAD_S * (0.5 + 0.5 * self._draw())
            case Unheard() | Missing():
                wait_s = retry_delay_s(max(life.unheard, life.odd_replies), self._draw())
            case Halted():
                wait_s = 1.0
            case _:
                raise AssertionError(event)
        if life.state is State.RUNNING:
            self._put(life, max(min(now + wait_s, self._deadline(life)), now))


def _is_late(polls: int) -> bool:
    """Is it a late task's turn, after so many polls, to be refreshed?"""
    return polls >= UPSTREAM_EVERY and polls % UPSTREAM_EVERY == 0
