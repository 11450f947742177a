"""What the loops of a run share: the clock, how they wait, and what each asks of the pool that runs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from batchfox.core.event import Event
from batchfox.core.lifecycle import Life
from batchfox.errors import MachineError

_Item = TypeVar("_Item")


class Clock(Protocol):
    """`now` for intervals, `unix` for the record."""

    def now(self) -> float: ...
    def unix(self) -> float: ...


class Crew(Protocol):
    """The pool, as its loops see it."""

    def spawn(self, request: Coroutine[Any, Any, None]) -> None: ...
    def receive(self, life: Life, event: Event) -> None: ...
    def check_done(self) -> None: ...
    def check_limits(self) -> None: ...
    def stop_for_machine(self, error: MachineError) -> None: ...


async def wait_for(wake: asyncio.Event, wait_s: float | None) -> None:
    """Until woken, or `wait_s` have passed."""
    if wait_s is None:
        await wake.wait()
        return
    timer = asyncio.get_running_loop().call_later(wait_s, wake.set)
    try:
        await wake.wait()
    finally:
        timer.cancel()


async def read_in(thread: Executor, items: Iterator[_Item]) -> AsyncIterator[_Item]:
    """The items, each fetched in a thread."""
    loop = asyncio.get_running_loop()
    while (item := await loop.run_in_executor(thread, next, items, None)) is not None:
        yield item
