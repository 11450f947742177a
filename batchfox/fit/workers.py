"""The worker processes, as the run sees them: as many as cores, started when they are needed, ended with the run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import msgspec

from batchfox.core.sections import Media
from batchfox.errors import MachineError, UserError
from batchfox.fit.orders import Answer, Order, RefusedError

MOST_WORKERS = 8
# A worker is let go after so many media: what libraries leak does not add up.
MOST_MEDIA = 500
_MOST_ANSWER_BYTES = 65_536
_START = "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from batchfox.fit.worker import main; main()"
# Of the environment a worker gets these, and so no key.
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_PACKAGES = {"image": (("PIL", "Pillow"), ("pillow_heif", "pillow-heif")), "video": (("av", "av"),)}


class WorkersClosedError(Exception):
    """The run leaves."""


class _DeadError(Exception):
    """The worker ended before it answered."""


def number_of_workers() -> int:
    """One for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def missing_package(kind: str) -> str | None:
    """A package that making this kind fit needs and that is not installed, by its name in the registry."""
    for module, name in _PACKAGES["video" if kind == "audio" else kind]:
        if find_spec(module) is None:
            return name
    return None


def demand_packages(media: Media) -> None:
    """Raises `UserError` where a job wants media to be made to fit and what does that is not installed."""
    for kind in ("image", "video", "audio"):
        if getattr(media, kind) is not None and (missing := missing_package(kind)) is not None:
            raise UserError(
                f"[media.{kind}] needs {missing}, which is not installed: pip install 'batchfox[media]', or leave "
                f"[media.{kind}] out"
            )


class _Worker:
    """One process and the line to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")}
        # Of this very batchfox, wherever it was loaded from.
        path = [str(Path(__file__).parents[2]), *sys.path]
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _START, str(theirs.fileno()), json.dumps(path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=environment,
                    process_group=0,  # Ctrl-C is for the run, which ends its workers itself
                )
            except OSError as error:
                ours.close()
                raise MachineError(
                    f"no process can be started to make media fit: {error.strerror}; mend it, then run the same "
                    "command again"
                ) from error
        self._line = ours
        self.media = 0

    def ask(self, order: bytes, handles: list[int], limit_s: float) -> Answer:
        """Raises TimeoutError, `_DeadError`."""
        self.media += 1
        self._line.settimeout(limit_s)
        try:
            socket.send_fds(self._line, [order], handles)
            said = b""
            while not said.endswith(b"\n"):
                if not (block := self._line.recv(_MOST_ANSWER_BYTES)):
                    raise _DeadError
                said += block
            return msgspec.json.decode(said, type=Answer)
        except (ConnectionError, BrokenPipeError, msgspec.DecodeError) as error:
            raise _DeadError from error

    def end(self) -> str:
        """Kills it if it still lives; how it ended."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)  # whoever waits for its answer hears of it
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)
        self.process.kill()
        status = self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._line.close()
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
        return f"exit status {status}"


class Workers:
    """Threads may share it; as many as ask at once, so many processes there are, `most` at most."""

    def __init__(self, limit_s: float, most: int | None = None) -> None:
        """`limit_s`: seconds for one medium. `most`: by default as many as cores."""
        self._limit_s = limit_s
        self._places = threading.Semaphore(most or number_of_workers())
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._is_closed = False

    def ask(self, order: Order, source: int, target: int | None = None) -> Answer:
        """What became of the medium behind the handle `source`. A worker that dies is replaced, and the medium tried
        once more. Raises `RefusedError`, `MachineError`, `UserError`, `WorkersClosedError`."""
        handles = [source] if target is None else [source, target]
        with self._places:
            return _judged(self._answer(msgspec.json.encode(order), handles))

    def _answer(self, line: bytes, handles: list[int]) -> Answer:
        for is_last in (False, True):
            source, *targets = handles
            os.lseek(source, 0, os.SEEK_SET)
            for target in targets:
                os.ftruncate(target, 0)
                os.lseek(target, 0, os.SEEK_SET)
            worker = self._take()
            try:
                answer = worker.ask(line, handles, self._limit_s)
            except TimeoutError as error:
                self._end(worker)
                raise RefusedError(f"it takes more than {self._limit_s:g} s (media.fit_time)") from error
            except _DeadError as error:
                how = self._end(worker)
                if is_last:
                    raise RefusedError(f"the process that decodes it dies of it, twice: {how}") from error
                continue
            except BaseException:
                self._end(worker)
                raise
            self._give_back(worker)
            return answer
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Ends all of them, those at work too."""
        with self._lock:
            self._is_closed = True
            there = [*self._idle, *self._busy]
            self._idle.clear()
        for worker in there:
            worker.process.kill()
        for worker in there:
            if worker not in self._busy:  # of the others, those who wait for them hear
                worker.end()

    def _take(self) -> _Worker:
        with self._lock:
            if self._is_closed:
                raise WorkersClosedError
            worker = self._idle.pop() if self._idle else _Worker()
            self._busy.add(worker)
            return worker

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            if not self._is_closed and worker.media < MOST_MEDIA:
                self._idle.append(worker)
                return
        worker.end()

    def _end(self, worker: _Worker) -> str:
        how = worker.end()
        with self._lock:
            self._busy.discard(worker)
            if self._is_closed:
                raise WorkersClosedError
        return how


def _judged(answer: Answer) -> Answer:
    if answer.problem is None:
        return answer
    if answer.fault == "machine":
        raise MachineError(
            f"a medium cannot be made to fit: {answer.problem}; mend it, then run the same command again"
        )
    if answer.fault == "package":
        raise UserError(f"a medium cannot be made to fit: {answer.problem}; pip install 'batchfox[media]'")
    raise RefusedError(answer.problem)
