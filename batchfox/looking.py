"""Second looks: tasks that earlier runs gave up as timed out are asked about before the input is read, for free.

A row that `--retry` named is paid for anew only once the API has said that its task has no answer. Where nothing can be
learned of the task, the row keeps its outcome, its mark is taken off, and the summary says so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from batchfox.core.dispatch import Fleet
from batchfox.core.event import ApiError, PollEvent, Unheard
from batchfox.core.late import LOOKS, LOOKS_AT_STAKE, asks_upstream, has_no_answer
from batchfox.core.lifecycle import Life, State
from batchfox.core.timing import retry_delay_s
from batchfox.late import BATCH, Late

# So many tasks in a row of which nothing was learned, and the others are left for a later run: nobody is there.
UNHEARD_IN_A_ROW = 20
# So many tasks are looked at beside each other at most, those that wait to be asked about again among them.
MOST_AT_ONCE = 5 * BATCH
# Of them so many are on the wire: tasks in flight are asked about too meanwhile.
ON_THE_WIRE = 50
MOST_ASKED_S = 60.0


class LateTasks(Protocol):
    """The tasks that were given up. `is_at_stake`: some rows are to be paid for anew unless there is an answer."""

    is_at_stake: bool

    def batches(self) -> AsyncIterator[list[Late]]: ...

    async def unmark(self, keys: list[bytes]) -> int:
        """Takes rows off the order to pay anew, durably. Returns how many of them were on it."""
        ...


class LateCrew(Protocol):
    """The pool, as far as second looks need it."""

    def is_known(self, key: bytes) -> bool: ...
    def receive_late(self, late: Late, event: PollEvent) -> None: ...
    async def ask_freely(self, life: Life, *, sync_upstream: bool) -> PollEvent: ...


class Unlearned(msgspec.Struct):
    """Rows that stay as they are because nothing was learned of their tasks, those among them that `--retry` named
    (nothing is paid for them), and what the last poll met."""

    rows: int = 0
    not_paid: int = 0
    last: ApiError | None = None


class SecondLooks:
    """All of one execution's."""

    def __init__(self, fleet: Fleet, crew: LateCrew) -> None:
        self._fleet = fleet
        self._crew = crew
        self._in_a_row = 0
        self._unheard: list[bytes] = []
        self._active: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(ON_THE_WIRE)
        self.unlearned = Unlearned()
        self.is_over = False
        # Rows whose tasks had ended, and what those cost.
        self.collected = 0
        self.collected_credits = 0.0

    async def run(self, late: LateTasks) -> None:
        """Asks about each. When this returns, and the fleet was not stopped, no row is left on the order to pay anew
        whose task the API was not heard of."""
        looks = LOOKS_AT_STAKE if late.is_at_stake else LOOKS
        async with asyncio.TaskGroup() as group:
            async for batch in late.batches():
                rows = [row for row in batch if not self._crew.is_known(row.life.key)]
                if self._fleet.stopped is not None:
                    return
                if self._in_a_row >= UNHEARD_IN_A_ROW:
                    self._give_up(rows)
                    await self._unmark(late)
                    continue
                for row in rows:
                    task = group.create_task(self._look(row, looks))
                    self._active.add(task)
                    task.add_done_callback(self._active.discard)
                while len(self._active) > MOST_AT_ONCE - BATCH:
                    await asyncio.wait(self._active, return_when=asyncio.FIRST_COMPLETED)
                await self._unmark(late)
        await self._unmark(late)

    async def _look(self, row: Late, looks: int) -> None:
        fleet, life = self._fleet, row.life
        event: PollEvent | None = None
        for look in range(looks):
            if event is not None:
                await asyncio.sleep(_wait_s(look, event))
            if fleet.stopped is not None:
                return
            is_refreshed = asks_upstream(life)
            async with self._turns:
                event = await self._crew.ask_freely(life, sync_upstream=is_refreshed)
            self._crew.receive_late(row, event)
            if fleet.stopped is not None:
                return
            if life.state is State.SETTLED or has_no_answer(life, event, was_refreshed=is_refreshed):
                self._in_a_row = 0
                return
        self._in_a_row += 1
        self.unlearned.last = life.error or self.unlearned.last
        self._give_up([row])

    def _give_up(self, rows: list[Late]) -> None:
        self._unheard += [row.life.key for row in rows]
        self.unlearned.rows += len(rows)

    async def _unmark(self, late: LateTasks) -> None:
        keys, self._unheard = self._unheard, []
        if keys and late.is_at_stake:
            self.unlearned.not_paid += await late.unmark(keys)


def _wait_s(looks: int, event: PollEvent) -> float:
    asked_s = event.retry_after_s if isinstance(event, Unheard) else None
    return retry_delay_s(looks, random.random(), None if asked_s is None else min(asked_s, MOST_ASKED_S))
