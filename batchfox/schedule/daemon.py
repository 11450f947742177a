"""The scheduler: starts each job's process at its times, never two on one output, and ends them when it is ended."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import FrameType

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from batchfox.output import own_outputs
from batchfox.schedule.memory import Memory
from batchfox.schedule.planned import Planned
from batchfox.schedule.scheduled import show
from batchfox.schedule.trigger import NightTrigger
from batchfox.status import is_held
from batchfox.words import duration, exit_means

# Without `catch_up` a machine that wakes up later than this has missed the night.
LATE_S = 300
# How often a run is tried whose output another run holds.
BUSY_EVERY_S = 5.0
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
Tell = Callable[[str], None]


class Daemon:
    """Runs jobs until a signal ends it. `command`: the words that start batchfox, and `options` those that follow
    `run JOB`. `tell` gets a line for each thing that happens, from any thread."""

    def __init__(
        self,
        jobs: Sequence[Planned],
        *,
        command: list[str],
        options: list[str],
        in_order: bool,
        tell: Tell,
        busy_every_s: float = BUSY_EVERY_S,
    ) -> None:
        self._jobs = jobs
        self._command = command
        self._options = options
        self._most = 1 if in_order else len(jobs)
        self._tell = tell
        self._busy_every_s = busy_every_s
        self._outputs: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._stopped = threading.Event()
        self._signal: signal.Signals | None = None

    def run(self) -> int:
        """Returns the exit status: 128 and the signal's number."""
        logging.getLogger("apscheduler").addHandler(logging.NullHandler())
        logging.getLogger("apscheduler").propagate = False
        scheduler = BackgroundScheduler(timezone=UTC, executors={"default": ThreadPoolExecutor(self._most)})
        scheduler.add_listener(self._note, EVENT_JOB_ERROR | EVENT_JOB_MAX_INSTANCES | EVENT_JOB_MISSED)
        with self._signals():
            for number, planned in enumerate(self._jobs):
                scheduler.add_job(
                    self._run_night,
                    NightTrigger(planned.nights, Memory(planned.place)),
                    (planned,),
                    id=f"{number:06d}",  # jobs of the same time start in this order
                    name=planned.path,
                    coalesce=True,
                    max_instances=1,
                    misfire_grace_time=None if planned.nights.catch_up else LATE_S,
                )
            scheduler.start()
            for job in scheduler.get_jobs():
                planned = self._jobs[int(job.id)]
                self._tell(f"{planned.path}: next run {show(job.next_run_time, planned)}")
            while not self._stopped.wait(1.0):  # a wait without end would not see signals everywhere
                pass
            scheduler.shutdown(wait=True)
        assert self._signal is not None
        return 128 + self._signal

    def _run_night(self, planned: Planned) -> None:
        scheduled = planned.nights.due(datetime.now(UTC))
        with self._outputs[planned.output]:
            self._run_until_had(planned, scheduled)

    def _run_until_had(self, planned: Planned, scheduled: datetime) -> None:
        """Runs the job; again and again while another run holds its output, until that has done this night's work."""
        memory = Memory(planned.place)
        is_told = False
        while not self._stopped.is_set():
            if not any(map(is_held, own_outputs(planned.job))) and self._run_child(planned, scheduled) != 5:
                return
            if not is_told:
                self._tell(f"{planned.path}: another run holds its output; looked at every {self._busy_every_s:g} s")
                is_told = True
            self._stopped.wait(self._busy_every_s)
            if (had := memory.had()) is not None and had >= scheduled:
                self._tell(f"{planned.path}: the run scheduled for {show(scheduled, planned)} has ended by itself")
                return
            if planned.nights.after(scheduled) <= datetime.now(UTC):
                self._tell(f"{planned.path}: given up, the next time has come")
                return

    def _run_child(self, planned: Planned, scheduled: datetime) -> int:
        words = [*self._command, "run", str(planned.place), "--scheduled", scheduled.isoformat(), *self._options]
        began_at = time.monotonic()
        # A group of its own: Ctrl-C in a terminal reaches this process alone, which ends its children once.
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, process_group=0)
        self._children[child.pid] = child
        self._tell(f"{planned.path}: run scheduled for {show(scheduled, planned)} begun (process {child.pid})")
        if self._signal is not None:  # it came while the child was being made
            child.send_signal(self._signal)
        status = child.wait()
        del self._children[child.pid]
        if status != 5:
            self._tell(f"{planned.path}: {_ended(status)}, after {duration(time.monotonic() - began_at)}")
        return status

    def _note(self, event: JobEvent) -> None:
        planned = self._jobs[int(event.job_id)]
        if event.code == EVENT_JOB_ERROR:
            self._tell(f"{planned.path}: could not be run: {event.exception}")
        elif event.code == EVENT_JOB_MISSED:
            self._tell(f"{planned.path}: its time passed while nothing ran here, and schedule.catch_up is off")
        else:
            self._tell(f"{planned.path}: still running, so this time is passed over")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """A signal ends the children as it would end a run, and then this; a second one is passed on too."""

        def stop(number: int, _: FrameType | None) -> None:
            self._signal = signal.Signals(number)
            self._stopped.set()
            for child in list(self._children.values()):
                child.send_signal(number)

        before = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ended(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}; resumable"
    means = exit_means(status)
    return f"ended with exit status {status}{f' ({means})' if means else ''}"
