"""The book: what was received, refused and billed, and what became of it. Crash tests take it as proof."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from batchfox.simulator.rates import MINUTE_S, Window
from batchfox.simulator.tasks import Task, status_at


class Counts(msgspec.Struct, kw_only=True):
    """The counters that a restart takes over. `refused`: by HTTP status, or `reset`, `close`, `hang`."""

    submits: int = 0
    refused: dict[str, int] = {}
    polls: int = 0
    streams: int = 0
    uploads: int = 0
    most_in_60_s: int = 0
    most_in_1_s: int = 0


class Book:
    """Every billed submit in order, with the totals. `earlier`: the tasks of a former life, in their order."""

    def __init__(self, counts: Counts | None = None, earlier: Iterable[Task] = ()) -> None:
        self._counts = counts or Counts()
        self._refused = Counter(self._counts.refused)
        self._minute = Window(MINUTE_S, most=self._counts.most_in_60_s)
        self._second = Window(1.0, most=self._counts.most_in_1_s)
        self._tasks: list[Task] = []
        self._open: list[tuple[float, int, float, float]] = []
        self._reserved = 0.0
        self._held = 0.0
        self._charged = 0.0
        for task in earlier:
            self._enter(task)
            self._minute.note(task.created)
            self._second.note(task.created)

    def submit_arrived(self, now: float) -> None:
        """A submit reached the server, whatever becomes of it."""
        self._counts.submits += 1
        self._minute.note(now)
        self._second.note(now)

    def submit_refused(self, how: str) -> None:
        """No task was made of a submit."""
        self._refused[how] += 1

    def submit_billed(self, task: Task) -> None:
        """A task was made: entered for good."""
        self._enter(task)
        # Settles what has ended, so that the open ones are few.
        self.spent(task.created)

    def poll_arrived(self) -> None:
        """A poll reached the server."""
        self._counts.polls += 1

    def stream_opened(self) -> None:
        """A stream was asked for."""
        self._counts.streams += 1

    def upload_taken(self) -> None:
        """An upload was kept."""
        self._counts.uploads += 1

    def spent(self, now: float) -> float:
        """Credits charged for what has ended and held for what has not."""
        while self._open and self._open[0][0] <= now:
            _, _, reserved, charge = heapq.heappop(self._open)
            self._held -= reserved
            self._charged += charge
        return self._held + self._charged

    def counts(self) -> Counts:
        """The counters as they are to be kept."""
        return msgspec.structs.replace(
            self._counts,
            refused=dict(self._refused),
            most_in_60_s=self._minute.most,
            most_in_1_s=self._second.most,
        )

    def totals(self, now: float) -> dict[str, Any]:
        """The figures without the entries."""
        self.spent(now)
        return {
            "submits_received": self._counts.submits,
            "submits_accepted": len(self._tasks),
            "submits_refused": dict(sorted(self._refused.items())),
            "polls": self._counts.polls,
            "streams": self._counts.streams,
            "uploads": self._counts.uploads,
            "credits_reserved": round(self._reserved, 6),
            "credits_charged": round(self._charged, 6),
            "max_submits_in_60_s": self._minute.most,
            "max_submits_in_1_s": self._second.most,
        }

    def entries(self, now: float) -> list[dict[str, Any]]:
        """One entry for every billed submit, in order."""
        return [_entry(task, now) for task in self._tasks]

    def _enter(self, task: Task) -> None:
        self._tasks.append(task)
        self._reserved += task.reserved
        self._held += task.reserved
        heapq.heappush(self._open, (task.finish_at, task.seq, task.reserved, task.charge))


def _entry(task: Task, now: float) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "digest": task.brief.digest,
        "submit_number": task.number,
        "model": task.brief.model,
        "shape": task.brief.shape,
        "prompt_head": task.brief.prompt_head,
        "media": list(task.brief.media),
        "fate": task.fate,
        "fault": task.struck,
        "status": status_at(task, now),
        "created": task.created,
        "finish_at": None if math.isinf(task.finish_at) else task.finish_at,
        "credits_reserved": task.reserved,
        "credits": task.charge,
        "answered": task.is_answered,
        "polls": task.polls,
        "streams": task.streams,
    }
