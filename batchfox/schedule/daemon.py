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
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.schedulers.background import BackgroundScheduler

from batchfox.errors import BatchfoxError
from batchfox.output import own_outputs
from batchfox.schedule.memory import Memory
from batchfox.schedule.planned import Planned
from batchfox.schedule.rereading import JobFile
from batchfox.schedule.scheduled import show
from batchfox.schedule.trigger import NightTrigger
from batchfox.schedule.turns import Queue, Turns
from batchfox.status import is_held
from batchfox.telling import After
from batchfox.words import duration, exit_means

# Without `catch_up` a machine that wakes up later than this has missed the night.
LATE_S = 300
# How often a run is tried whose output another run holds.
BUSY_EVERY_S = 5.0
# How often it is looked whether a job file has changed.
LOOK_EVERY_S = 10.0
# With `catch_up` a run that was killed is begun again after this, so often a night.
KILLED_WAIT_S = 60.0
MOST_KILLED = 3
# A run that could not begin is out of the way by then: APScheduler starts none beside it.
LEFT_BY = timedelta(seconds=1)
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
Tell = Callable[[str], None]


class Daemon:
    """Runs jobs until a signal ends it. `command`: the words that start batchfox, and `options` those that follow
    `run JOB`. `tell` gets a line for each thing that happens, from any thread."""

    def __init__(
        self, jobs: Sequence[Planned], *, command: list[str], options: list[str], in_order: bool, tell: Tell
    ) -> None:
        self._files = [JobFile(planned) for planned in jobs]
        self._command = command
        self._options = options
        self._turns = Turns(1 if in_order else len(jobs))
        self._tell = tell
        self._outputs: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._looking = threading.Lock()
        self._busy: set[int] = set()
        self._stopped = threading.Event()
        self._signal: signal.Signals | None = None
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": Queue(len(jobs), self._turns)})

    def run(self) -> int:
        """Returns the exit status: 128 and the signal's number."""
        logging.getLogger("apscheduler").addHandler(logging.NullHandler())
        logging.getLogger("apscheduler").propagate = False
        scheduler = self._scheduler
        scheduler.add_listener(self._note, EVENT_JOB_ERROR | EVENT_JOB_MAX_INSTANCES | EVENT_JOB_MISSED)
        with self._signals():
            for number, file in enumerate(self._files):
                scheduler.add_job(
                    self._fire,
                    args=(number,),
                    id=_id(number),
                    name=file.planned.path,
                    coalesce=True,
                    max_instances=1,
                    **_timing(file.planned),
                )
            scheduler.start()
            for job in scheduler.get_jobs():
                planned = self._files[int(job.id)].planned
                self._tell(f"{planned.path}: next run {show(job.next_run_time, planned)}")
            looked_at = time.monotonic()
            while not self._stopped.wait(min(1.0, LOOK_EVERY_S)):  # a wait without end would not see signals everywhere
                if time.monotonic() - looked_at >= LOOK_EVERY_S:
                    for number in range(len(self._files)):
                        self._look_again(number, at_once=False)
                    looked_at = time.monotonic()
            scheduler.shutdown(wait=True)
        assert self._signal is not None
        return 128 + self._signal

    def _fire(self, number: int) -> None:
        """The job's time has come."""
        due = self._files[number].planned.nights.due(datetime.now(UTC))
        try:
            is_moved = self._look_again(number, at_once=True)
            if is_moved and self._files[number].planned.nights.due(datetime.now(UTC)) != due:
                return
            self._busy.add(number)
            if self._turns.take(number, lambda: self._may_wait(number)):
                try:
                    self._run_night(number)
                finally:
                    self._turns.give()
            elif not self._stopped.is_set():
                planned = self._files[number].planned
                self._pass_over(number, planned, planned.nights.due(datetime.now(UTC)))
        finally:
            self._busy.discard(number)
            self._turns.leave(number)

    def _may_wait(self, number: int) -> bool:
        planned = self._files[number].planned
        return not self._stopped.is_set() and not _is_too_late(planned, planned.nights.due(datetime.now(UTC)))

    def _run_night(self, number: int) -> None:
        planned = self._files[number].planned
        scheduled = planned.nights.due(datetime.now(UTC))
        with self._outputs[planned.output]:
            self._run_until_had(number, planned, scheduled)

    def _run_until_had(self, number: int, planned: Planned, scheduled: datetime) -> None:
        """Runs the job; again and again while another run holds its output, until that has done this night's work, or
        the window is over."""
        memory = Memory(planned.place)
        is_told, killed = False, 0
        while not self._stopped.is_set():
            if _is_too_late(planned, scheduled):
                self._pass_over(number, planned, scheduled)
                return
            status = 5 if any(map(is_held, own_outputs(planned.job))) else self._run_child(planned, scheduled)
            if status < 0 and planned.nights.catch_up and killed < MOST_KILLED and not self._stopped.is_set():
                killed += 1
                self._tell(f"{planned.path}: begun again in {KILLED_WAIT_S:g} s, as schedule.catch_up is on")
                self._stopped.wait(KILLED_WAIT_S)
                continue
            if status != 5 and not _came_too_late(status, planned, scheduled, memory):
                return
            if status == 5 and not is_told:
                self._tell(f"{planned.path}: another run holds its output; looked at every {BUSY_EVERY_S:g} s")
                is_told = True
            self._stopped.wait(BUSY_EVERY_S if status == 5 else 0)
            if (had := memory.had()) is not None and had >= scheduled:
                self._tell(f"{planned.path}: the run scheduled for {show(scheduled, planned)} has ended by itself")
                return
            if planned.nights.after(scheduled) <= datetime.now(UTC):
                self._tell(f"{planned.path}: given up, the next time has come")
                return

    def _pass_over(self, number: int, planned: Planned, scheduled: datetime) -> None:
        """The window was over before the run could begin. The next one takes it up, which with `catch_up` may be as
        soon as the window opens."""
        memory = Memory(planned.place)
        memory.pass_over(scheduled, time.time())
        now = datetime.now(UTC)
        start = max(planned.nights.next_start(now, memory.had()), now + LEFT_BY)
        self._scheduler.modify_job(_id(number), next_run_time=start)
        self._tell(
            f"{planned.path}: its window {planned.job.schedule.window} was over before its turn came: nothing was "
            f"sent; it waits for the next run, {show(start, planned)}"
        )

    def _look_again(self, number: int, *, at_once: bool) -> bool:
        """Reads the job file again where it has changed. Has its schedule? One that cannot be understood any more stays
        as it was, and that is said once, to those too whom the job would tell."""
        with self._looking:
            file = self._files[number]
            before, found = file.planned, file.again(at_once=at_once)
        if isinstance(found, BatchfoxError):
            said = f"{before.path}: cannot be used as it stands now, so its schedule stays as it was: {found}"
            self._tell(said)
            self._warn(before, "its job file cannot be used", said)
            return False
        if found is None or found.nights == before.nights:
            return False
        timing = _timing(found)
        now = datetime.now(UTC)
        had = now if number in self._busy else Memory(found.place).had()
        start = found.nights.next_start(now, had)
        self._scheduler.modify_job(_id(number), next_run_time=start, **timing)
        self._tell(f"{found.path}: its schedule has changed: next run {show(start, found)}")
        return True

    def _warn(self, planned: Planned, title: str, said: str) -> None:
        """Tells those whom the job would tell, in a thread that holds nothing up."""

        def warn() -> None:
            try:
                After(planned.job).warn(title, said)
            except BatchfoxError as error:
                self._tell(f"{planned.path}: nobody could be told: {error}")

        threading.Thread(target=warn, name="warn", daemon=True).start()

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
            said = f"{planned.path}: {_ended(status)}, after {duration(time.monotonic() - began_at)}"
            self._tell(said)
            if status < 0 and self._signal is None:  # it could tell nobody itself
                self._warn(planned, f"its run was killed by {signal.Signals(-status).name}", said)
        return status

    def _note(self, event: JobEvent) -> None:
        number = int(event.job_id)
        planned = self._files[number].planned
        if event.code == EVENT_JOB_ERROR:
            self._tell(f"{planned.path}: could not be run: {event.exception}")
        elif event.code == EVENT_JOB_MISSED:
            self._turns.leave(number)
            self._tell(f"{planned.path}: its time passed while nothing ran here, and schedule.catch_up is off")
        else:
            self._tell(f"{planned.path}: still running, or waiting to, so this time is passed over")

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


def _id(number: int) -> str:
    return f"{number:06d}"  # jobs of the same time start in this order


def _timing(planned: Planned) -> dict[str, Any]:
    """When APScheduler starts this job, in its words."""
    return {
        "trigger": NightTrigger(planned.nights, Memory(planned.place)),
        "misfire_grace_time": None if planned.nights.catch_up else LATE_S,
    }


def _is_too_late(planned: Planned, scheduled: datetime) -> bool:
    """Is the window over in which this run may submit?"""
    now = datetime.now(UTC)
    ends = planned.nights.ends_at(scheduled, now)
    return ends is not None and ends <= now


def _came_too_late(status: int, planned: Planned, scheduled: datetime, memory: Memory) -> bool:
    """Was it just too late for a run that ended so, before it began?"""
    night = memory.last()
    has_begun = night is not None and night.scheduled_at == scheduled
    return status == 4 and not has_begun and _is_too_late(planned, scheduled)


def _ended(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}; resumable"
    means = exit_means(status)
    return f"ended with exit status {status}{f' ({means})' if means else ''}"
