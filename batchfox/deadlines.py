"""Time-outs for many requests with one timer, that of the earliest: not one set and cancelled for each request."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """Cancels what runs longer than it may. For one event loop."""

    def __init__(self) -> None:
        self._due: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> _Within:
        """Raises `TimeoutError` in the body, which runs in the current task, once `seconds` have passed."""
        return _Within(self, seconds)

    def begin(self, task: asyncio.Task[object], seconds: float) -> None:
        """`task` has so long from now on."""
        loop = asyncio.get_running_loop()
        due = self._due[task] = loop.time() + seconds
        if self._timer is None or due < self._timer.when():
            self.close()
            self._timer = loop.call_at(due, self._sweep)

    def end(self, task: asyncio.Task[object]) -> bool:
        """`task` is through. Had its time run out?"""
        del self._due[task]
        if task not in self._expired:
            return False
        self._expired.discard(task)
        return True

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


class _Within:
    """A block with a deadline. By hand, since every request passes through one."""

    __slots__ = ("_deadlines", "_seconds", "_task")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] = task
        self._deadlines.begin(task, self._seconds)

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        is_late = self._deadlines.end(self._task)
        # Somebody else may have cancelled the task too: then that counts, and the cancel goes on.
        if is_late and isinstance(error, asyncio.CancelledError) and self._task.uncancel() == 0:
            raise TimeoutError(f"nothing for {self._seconds:.0f} s") from None
