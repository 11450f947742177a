"""The signals that ask a process to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stopping_by_signals(stop: Callable[[int], None]) -> Iterator[None]:
    """While the block runs, `stop` is told the number of each that comes."""
    loop = asyncio.get_running_loop()
    handled = []
    for number in SIGNALS:
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: the caller has the signals
            loop.add_signal_handler(number, stop, number)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
