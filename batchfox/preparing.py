"""Rows whose media are read or uploaded before their POST: each in a task of its own, as many as bytes allow.

The submit loop goes on meanwhile. A row is SENDING from the moment it is chosen; its intent goes on record only when
its body is ready, so whatever ends its preparation loses nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from batchfox.core.dispatch import Fleet
from batchfox.core.event import NotSent, Unsendable
from batchfox.core.lifecycle import Life
from batchfox.crew import Clock, Crew
from batchfox.errors import BatchfoxError, MachineError
from batchfox.loading import Load


class Held(Protocol):
    """Bytes of bodies."""

    def expect(self) -> None: ...
    def forget(self) -> None: ...
    async def hold(self, size: int) -> None: ...
    def drop(self, size: int) -> None: ...


class Preparer(Protocol):
    """Makes a body in two steps: how large it will be, then itself. Raises `BatchfoxError` where the machine cannot."""

    async def weigh(self, life: Life) -> Load | Unsendable: ...
    async def load(self, life: Life, load: Load) -> bytes | NotSent: ...
    def close(self) -> None: ...


class Preparing:
    """The rows in preparation, and those that are ready. `wake` is set with each that becomes so."""

    def __init__(
        self, fleet: Fleet, crew: Crew, *, preparer: Preparer, held: Held, clock: Clock, wake: asyncio.Event
    ) -> None:
        self._fleet = fleet
        self._crew = crew
        self._preparer = preparer
        self._held = held
        self._clock = clock
        self._wake = wake
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: deque[tuple[Life, bytes]] = deque()

    @property
    def rows(self) -> int:
        """How many are being read or uploaded."""
        return len(self._tasks)

    def begin(self, life: Life) -> None:
        """Takes a row that is SENDING."""
        self._held.expect()
        self._crew.spawn(self._run(life))

    def take(self, most: int) -> list[tuple[Life, bytes]]:
        """At most `most` rows that are ready, the oldest first. Their bytes are held."""
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def leave(self) -> None:
        """The run leaves: what is not ready is not sent."""
        for task in self._tasks:
            task.cancel()
        self._preparer.close()

    async def _run(self, life: Life) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            body = await self._prepare(life)
        except asyncio.CancelledError:
            self._put_back(life)
            raise
        except BatchfoxError as error:
            self._put_back(life)
            self._crew.stop_for_machine(error if isinstance(error, MachineError) else MachineError(str(error)))
            return
        finally:
            self._tasks.discard(task)
        if isinstance(body, bytes):
            self._ready.append((life, body))
            self._wake.set()
        else:
            self._crew.receive(life, body)

    async def _prepare(self, life: Life) -> bytes | NotSent:
        """The body, its bytes held; or why there is none, and nothing is."""
        try:
            load = await self._preparer.weigh(life)
        finally:
            self._held.forget()
        if not isinstance(load, Load):
            return load
        await self._held.hold(load.held)
        kept = 0
        try:
            body = await self._preparer.load(life, load)
            kept = len(body) if isinstance(body, bytes) else 0
        finally:
            self._held.drop(load.held - kept)
            self._wake.set()
        return body

    def _put_back(self, life: Life) -> None:
        self._fleet.unsend(life, self._clock.now())
        self._crew.check_done()
