"""A command of `[hooks]`: a process group of its own, which ends in time, whole."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys

# A command that is not done by then is ended: a run always ends.
MOST_S = 900.0


class Hook:
    """`command` with `said` on its standard input, and without the variable `without`: the key is not for others."""

    def __init__(self, command: str, said: bytes, *, without: str) -> None:
        self._command = command
        self._said = said
        self._env = {name: value for name, value in os.environ.items() if name != without}
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> str | None:
        """Runs it to its end. What went wrong, to be said behind its name; None where nothing did."""
        try:
            self._process = process = subprocess.Popen(
                shlex.split(self._command), stdin=subprocess.PIPE, stdout=_stderr(), env=self._env, process_group=0
            )
        except (OSError, ValueError) as error:
            return f": {getattr(error, 'strerror', None) or error}"
        try:
            process.communicate(self._said, MOST_S)
        except subprocess.TimeoutExpired:
            self.end()
            return f" was ended: not done after {MOST_S / 60:.3g} minutes"
        return _said_of(process.returncode)

    def end(self) -> None:
        """Ends it where it still runs, and what it has started."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _said_of(status: int) -> str | None:
    if status >= 0:
        return f" ended with status {status}" if status else None
    try:
        return f" was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f" was killed by signal {-status}"


def _stderr() -> int:
    """Where a command's output goes: standard output is for results."""
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # a notebook's
        return subprocess.DEVNULL
