"""Time-outs for many requests with one timer, that of the earliest: not one set and cancelled for each request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Deadlines:
    """Cancels what runs longer than it may. For one event loop."""

    def __init__(self) -> None:
        self._due: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Raises `TimeoutError` in the body, which runs in the current task, once `seconds` have passed."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        due = self._due[task] = loop.time() + seconds
        if self._timer is None or due < self._timer.when():
            self.close()
            self._timer = loop.call_at(due, self._sweep)
        try:
            yield
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task too: then that counts, and the cancel goes on.
            if task in self._expired and task.uncancel() == 0:
                raise TimeoutError(f"nothing for {seconds:.0f} s") from None
            raise
        finally:
            del self._due[task]
            self._expired.discard(task)

    def _sweep(self) -> None:
        """Cancels what is due, and comes back for the earliest of the rest; most have ended by then."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, due in self._due.items():
            if due <= now and task not in self._expired:
                self._expired.add(task)
                task.cancel()
        earliest = min((due for task, due in self._due.items() if task not in self._expired), default=None)
        self._timer = None if earliest is None else loop.call_at(earliest, self._sweep)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
