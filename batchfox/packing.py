"""The file loop: closes a part when it is full or old, and what is left at the end; until then it writes ahead."""

from __future__ import annotations

import asyncio
from typing import Protocol

from batchfox.crew import Clock, Crew, wait_for
from batchfox.errors import DiskFullError, MachineError
from batchfox.ledger import PART_AGE_S, Unfiled
from batchfox.recorder import Recorder


class Filer(Protocol):
    """Files recorded outcomes as a part, and returns their keys; writes those of these slots to the open part."""

    async def file(self) -> list[bytes]: ...
    async def write_ahead(self, slots: list[int]) -> None: ...


class PartsCrew(Crew, Protocol):
    """The pool, as far as the file loop needs it."""

    def stop_for_machine(self, error: MachineError) -> None: ...


class Packing:
    """The loop over what is recorded and not filed yet."""

    def __init__(self, crew: PartsCrew, *, filer: Filer, recorder: Recorder, unfiled: Unfiled, clock: Clock) -> None:
        self._crew = crew
        self._filer = filer
        self._recorder = recorder
        self._unfiled = unfiled
        self._clock = clock
        self._wake = asyncio.Event()

    def look(self) -> None:
        """An outcome was recorded: is the next part full, or another group of its rows there?"""
        if self._unfiled.has_group() or self._unfiled.is_full():
            self._wake.set()

    async def run(self) -> None:
        """Ends only where there is no room for a part."""
        unfiled = self._unfiled
        while True:
            closes_at = unfiled.closes_at()
            await wait_for(self._wake, PART_AGE_S if closes_at is None else max(closes_at - self._clock.now(), 0.0))
            self._wake.clear()
            closes_at = unfiled.closes_at()
            is_old = closes_at is not None and self._clock.now() >= closes_at
            is_due = unfiled.is_full() or is_old
            if is_due or unfiled.has_group():
                await self._recorder.durable()
                try:
                    if is_due:
                        await self._file()
                    else:
                        await self._filer.write_ahead(unfiled.take_group())
                except DiskFullError as error:
                    self._crew.stop_for_machine(error)
                    return
                self.look()

    async def file_row(self, key: bytes) -> None:
        """Files what is recorded until this row is filed, while the loops go on. Where there is no room for a part, the
        run ends."""
        while self._unfiled.waits(key):
            await self._recorder.durable()
            try:
                if not await self._file():
                    return
            except DiskFullError as error:
                self._crew.stop_for_machine(error)
                raise

    async def file_rest(self) -> None:
        """Files what is recorded and not filed yet, as the last parts of this run.

        The checkpoint knows what that is, not this process: a part that was being filed when the loops ended has been
        filed by its thread all the same.
        """
        while await self._file():
            pass

    async def _file(self) -> bool:
        keys = await self._filer.file()
        self._unfiled.filed(keys, self._clock.now())
        return bool(keys)
