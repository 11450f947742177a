"""Makes the views that a display shows: the run's figures, and how far the input is read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

import msgspec

from batchfox.core.binding import Steady, binding
from batchfox.core.job import Job
from batchfox.core.lifecycle import State
from batchfox.core.metrics import render
from batchfox.core.pulse import Pulse, quantile, tail_s
from batchfox.core.sections import Limits
from batchfox.core.vitals import Shown
from batchfox.errors import InputError
from batchfox.monitor import View
from batchfox.pool import Pool

# The time left follows the pace of so long.
RECENT_S = 60.0
# Before so long a pace of submits says nothing.
LEAST_S = 3.0
TAIL_EVERY_S = 2.0


class Rows(Protocol):
    """The input, as far as a view needs it."""

    def total_rows(self) -> int | None: ...
    def expected_rows(self) -> int | None: ...
    def progress(self) -> float | None: ...


class Viewer:
    """One execution's views. How many rows there are is asked once, in a thread: it may take a while to know."""

    def __init__(
        self, job: Job, rows: Rows, pool: Pool, pulse: Pulse, *, limit: int | None, now: Callable[[], float]
    ) -> None:
        self._job = job
        self._rows = rows
        self._pool = pool
        self._pulse = pulse
        self._limit = limit
        self._now = now
        self._total: int | None = None
        self._ends: deque[tuple[float, int, int]] = deque()
        self._steady = Steady()
        self._last: View | None = None
        self._tail_s: float | None = None
        self._tail_due = 0.0
        # The limits as they are now.
        self.limits: Callable[[], Limits] = lambda: job.limits
        self._counting: asyncio.Future[None] | None = None

    def view(self) -> View:
        """What there is to be seen now; it goes on record with the figures."""
        shown = self._shown()
        self._pool.shown = msgspec.to_builtins(shown)
        self._last = View(figures=self._pool.progress(), shown=shown)
        return self._last

    def metrics(self) -> str:
        """The figures as they are now, and the rest as it was seen last."""
        view = self._last or self.view()
        return render(self._pool.progress(), view.shown)

    def _shown(self) -> Shown:
        now, fleet, limits = self._now(), self._pool.fleet, self.limits()
        self._ends.append((now, self._pool.ledger.tally.by_status.total(), fleet.submits_sent))
        while self._ends[-1][0] - self._ends[0][0] > RECENT_S:
            self._ends.popleft()
        latencies = self._pulse.latencies()
        ended_per_s, sent_per_s = self._recent()
        return Shown(
            title=self._job.name,
            is_total_rough=self._total is None,
            total_rows=self._rows.expected_rows() if self._total is None else self._total,
            row_limit=self._limit,
            input_share=self._rows.progress(),
            limit_per_minute=limits.requests_per_minute,
            tokens_limit=limits.tokens_per_minute,
            tokens_share=fleet.gate.tokens.per_minute,
            in_flight_limit=limits.in_flight,
            credits_limit=limits.credits,
            cooling_s=max(fleet.cools_until - now, 0.0),
            recent_per_s=ended_per_s,
            sent_per_s=sent_per_s,
            binds=self._steady.see(binding(self._pool.scene())),
            p50_s=quantile(latencies, 0.5),
            p95_s=quantile(latencies, 0.95),
            rates=self._pulse.rates(now),
            medians=self._pulse.medians(),
            tail_s=self._tail(latencies, now),
        )

    def _recent(self) -> tuple[float | None, float | None]:
        """Rows ended and submits sent a second, in the last minute."""
        (began_at, ended_before, sent_before), (now, ended, sent) = self._ends[0], self._ends[-1]
        gone_s = now - began_at
        if gone_s <= RECENT_S / 2:
            return None, (sent - sent_before) / gone_s if gone_s >= LEAST_S else None
        return (ended - ended_before) / gone_s, (sent - sent_before) / gone_s

    def _tail(self, latencies: list[float], now: float) -> float | None:
        """How long the last tasks take: those that run, where nothing is left to be sent, else as many new ones. It is
        worked out every few seconds."""
        if now < self._tail_due:
            return self._tail_s
        self._tail_due = now + TAIL_EVERY_S
        fleet = self._pool.fleet
        running = [life for life in fleet.lives.values() if life.state is State.RUNNING]
        is_last = self._pool.is_tail
        ages = [now - life.born for life in running] if is_last else [0.0] * len(running)
        self._tail_s = tail_s(latencies, sorted(ages, reverse=True))
        return self._tail_s

    def count_rows(self, thread: Executor) -> None:
        """Begins to count the rows, as far as the files tell without being read."""
        self._counting = asyncio.get_running_loop().run_in_executor(thread, self._count)

    def _count(self) -> None:
        try:
            self._total = self._rows.total_rows()
        except InputError:
            pass  # the feed meets it too, and tells it
