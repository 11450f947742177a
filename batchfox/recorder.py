"""Group commits: what the run decides is collected here and made durable, a group at a time.

A small group is written by the event loop and synced by a thread: SQLite lets go of the interpreter with every
statement, and a thread that runs them beside a busy loop waits for it again each time. While one group is being synced
the next one grows, so the price of a sync is shared by all that happened meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from batchfox.checkpoint import Checkpoint
from batchfox.errors import MachineError
from batchfox.group import Group
from batchfox.reserve import Reserve

# Commits of a process that has a core to itself, and uses it, begin so far apart at least; of one that has been waiting
# lately, so much nearer. A sync costs a quarter of a millisecond of CPU: at a thousand rows a second this halves what
# each pays of it. Where there is time to spare, a row is not kept from being sent.
LEAST_APART_S = 0.008
LATELY_S = 0.25
# How soon the distance falls with the share of a core that is used: at 0.7 of a core it is a sixteenth.
FALLS_BY = 8


class Load:
    """The share of a core that this process used lately; who used two is no busier than who used one."""

    def __init__(self, now: float, used_s: float) -> None:
        self._seen_at, self._used_s = now, used_s
        self._share = 0.0

    def see(self, now: float, used_s: float) -> float:
        passed_s = now - self._seen_at
        if passed_s > 0.0:
            weight = min(passed_s / LATELY_S, 1.0)
            self._share += (min((used_s - self._used_s) / passed_s, 1.0) - self._share) * weight
            self._seen_at, self._used_s = now, used_s
        return self._share


class Recorder:
    """Owns the checkpoint's writing connection while `run` runs. `failed`: told of a commit that only the reserve made
    possible; the run must end, and what is on the wire can still be recorded."""

    def __init__(self, checkpoint: Checkpoint, thread: Executor, reserve: Reserve) -> None:
        self._checkpoint = checkpoint
        self._thread = thread
        self._reserve = reserve
        self.group = Group()
        self._waiters: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._is_closing = False
        self.commits = 0
        self.stamp: Callable[[], tuple[float, bytes, str]] | None = None
        self.failed: Callable[[MachineError], None] | None = None

    def touch(self) -> None:
        """Something was added to `group`: it will be durable soon."""
        self._wake.set()

    async def durable(self) -> None:
        """Returns once everything added so far is on disk. Raises what the commit raised."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wake.set()
        await waiter

    def close(self) -> None:
        """`run` returns after what has been added is on disk."""
        self._is_closing = True
        self._wake.set()

    async def run(self) -> None:
        """The loop. A failed commit fails everyone who waits for it, and ends the run."""
        loop = asyncio.get_running_loop()
        began_at = float("-inf")
        load = Load(loop.time(), time.process_time())
        while True:
            await self._wake.wait()
            now = loop.time()
            rest_s = began_at + LEAST_APART_S * load.see(now, time.process_time()) ** FALLS_BY - now
            if rest_s > 0.0 and not self._is_closing:
                await asyncio.sleep(rest_s)
            self._wake.clear()
            began_at = loop.time()
            group, self.group = self.group, Group()
            waiters, self._waiters = self._waiters, []
            if group:
                if self.stamp is not None:
                    group.progress = self.stamp()
                try:
                    await self._commit(group)
                except Exception as error:
                    for waiter in waiters:
                        if not waiter.done():
                            waiter.set_exception(error)
                            waiter.exception()
                    raise
                self.commits += 1
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
            if waiters:
                await asyncio.sleep(0)  # who waited goes on first: what it records next is of the next group
            if self._is_closing and not self.group and not self._waiters:
                return

    async def _commit(self, group: Group) -> None:
        loop = asyncio.get_running_loop()
        try:
            has_begun = self._checkpoint.begin(group)
            await loop.run_in_executor(self._thread, partial(self._checkpoint.commit, group, has_begun=has_begun))
        except MachineError as error:
            if self.failed is None or not self._reserve.release():
                raise
            self.failed(error)
            await loop.run_in_executor(self._thread, self._checkpoint.commit, group)
