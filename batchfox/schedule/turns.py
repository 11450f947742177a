"""Whose turn it is, where only so many may run at once: first come, first served."""

from __future__ import annotations

import threading
from collections.abc import Callable

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job

# How often a waiting job looks whether it is still wanted.
LOOK_EVERY_S = 1.0


class Turns:
    """`most` may have their turn at once. Whoever is in the queue waits in a thread of its own: that a job waits is no
    misfire, which APScheduler's own queue would make of it."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._queue: list[int] = []
        self._change = threading.Condition()

    def queue(self, number: int) -> None:
        """This one comes next, after those that are in the queue."""
        with self._change:
            self._queue.append(number)

    def leave(self, number: int) -> None:
        """This one does not come after all."""
        with self._change:
            if number in self._queue:
                self._queue.remove(number)
            self._change.notify_all()

    def take(self, number: int, is_wanted: Callable[[], bool]) -> bool:
        """Waits for its turn. False where it is wanted no more before that comes: it leaves, then."""
        with self._change:
            while not self._free or self._queue[0] != number:
                if not is_wanted():
                    return False
                self._change.wait(LOOK_EVERY_S)
            self._queue.remove(number)
            self._free -= 1
            self._change.notify_all()
            return True

    def give(self) -> None:
        """A turn is over."""
        with self._change:
            self._free += 1
            self._change.notify_all()


class Queue(ThreadPoolExecutor):  # type: ignore[misc]
    """APScheduler's threads, one for each job; they take their turns in the order in which their times came."""

    def __init__(self, jobs: int, turns: Turns) -> None:
        super().__init__(jobs)
        self._turns = turns

    def _do_submit_job(self, job: Job, run_times: list[object]) -> None:
        self._turns.queue(int(job.id))
        super()._do_submit_job(job, run_times)
