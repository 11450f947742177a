"""Makes the views that a display shows: the run's figures, and how far the input is read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from batchfox.core.job import Job, Limits
from batchfox.errors import InputError
from batchfox.monitor import View
from batchfox.pool import Pool

# The time left follows the pace of so long.
RECENT_S = 60.0


class Rows(Protocol):
    """The input, as far as a view needs it."""

    def total_rows(self) -> int | None: ...
    def progress(self) -> float | None: ...


class Viewer:
    """One execution's views. How many rows there are is asked once, in a thread: it may take a while to know."""

    def __init__(self, job: Job, rows: Rows, pool: Pool, *, limit: int | None, now: Callable[[], float]) -> None:
        self._job = job
        self._rows = rows
        self._pool = pool
        self._limit = limit
        self._now = now
        self._total: int | None = None
        self._ends: deque[tuple[float, int]] = deque()
        # The limits as they are now.
        self.limits: Callable[[], Limits] = lambda: job.limits
        self._counting: asyncio.Future[None] | None = None

    def view(self) -> View:
        gate, limits = self._pool.fleet.gate, self.limits()
        self._ends.append((self._now(), self._pool.ledger.tally.by_status.total()))
        while self._ends[-1][0] - self._ends[0][0] > RECENT_S:
            self._ends.popleft()
        return View(
            title=self._job.name,
            figures=self._pool.progress(),
            total_rows=self._total,
            row_limit=self._limit,
            input_share=self._rows.progress(),
            limit_per_minute=limits.requests_per_minute,
            in_flight_limit=limits.in_flight,
            credits_limit=limits.credits,
            is_cooling_for_s=max(gate.pace.resumes_at - self._now(), 0.0),
            recent_per_s=self._recent_per_s(),
        )

    def _recent_per_s(self) -> float | None:
        (began_at, before), (now, ended) = self._ends[0], self._ends[-1]
        return (ended - before) / (now - began_at) if now - began_at > RECENT_S / 2 else None

    def count_rows(self, thread: Executor) -> None:
        """Begins to count the rows, as far as the files tell without being read."""
        self._counting = asyncio.get_running_loop().run_in_executor(thread, self._count)

    def _count(self) -> None:
        try:
            self._total = self._rows.total_rows()
        except InputError:
            pass  # the feed meets it too, and tells it
