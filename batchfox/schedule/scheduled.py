"""One scheduled run, whoever starts it: waits for its jitter, remembers that it began and how it ended."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import FrameType

from batchfox.errors import BatchfoxError, TooLateError
from batchfox.schedule.memory import Memory
from batchfox.schedule.planned import Planned, read_time


class StoppedError(BatchfoxError):
    """A signal came before the run began."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} before the run began: nothing was sent")
        self.exit_status = 128 + number


def run_scheduled(planned: Planned, text: str, run: Callable[[datetime], int]) -> int:
    """Runs the job for the time that `--scheduled` says, and returns its exit status; `run` is given the time.

    Raises `TooLateError` where its window is over, and what `run` raises.
    """
    scheduled = read_time(text, planned, datetime.now(UTC))
    now = datetime.now(UTC)
    ends = planned.nights.ends_at(scheduled, now)
    if ends is not None and now >= ends:
        raise TooLateError(
            f"{planned.path}: the window {planned.job.schedule.window} of the run scheduled for "
            f"{show(scheduled, planned)} is over: nothing was sent; the next scheduled run goes on"
        )
    with _signals_told():
        _wait_until(planned.nights.begins_at(scheduled, str(planned.place)))
    memory = Memory(planned.place)
    memory.begin(scheduled, time.time())
    status = 1
    try:
        status = run(scheduled)
    except BatchfoxError as error:
        status = error.exit_status
        raise
    finally:
        if status != 5:  # who holds the output may be the run of this very time
            memory.end(scheduled, time.time(), status)
    return status


def show(at: datetime, planned: Planned) -> str:
    """ "2026-01-31 01:30 CET"."""
    return f"{at.astimezone(planned.nights.zone):%Y-%m-%d %H:%M %Z}"


def _wait_until(at: datetime) -> None:
    while (left_s := (at - datetime.now(UTC)).total_seconds()) > 0:
        time.sleep(min(left_s, 60.0))


@contextlib.contextmanager
def _signals_told() -> Iterator[None]:
    def stop(number: int, _: FrameType | None) -> None:
        raise StoppedError(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
