"""The rate that the runs of a key share, as the submit loop sees it: draws from the ledger in a thread of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Protocol

from batchfox.core.shares import Grant
from batchfox.crew import Clock

# So many submits are drawn at most: more than can leave while they keep.
MOST = 10_000


class Ledger(Protocol):
    """What the runs of a key share."""

    def lease(self, most: int, now: float) -> Grant: ...


class Share:
    """One run's part of its key's rate. Without a ledger it is all of it. One coroutine may use it."""

    def __init__(self, ledger: Ledger | None = None, thread: Executor | None = None, *, clock: Clock) -> None:
        self._ledger = ledger
        self._thread = thread
        self._clock = clock
        self._grant = Grant(submits=0)

    async def ready_in_s(self) -> float:
        """Seconds until it makes sense to ask again; 0 where a submit may leave now."""
        if self.room > 0:
            return 0.0
        assert self._ledger is not None
        loop = asyncio.get_running_loop()
        self._grant = await loop.run_in_executor(self._thread, self._ledger.lease, MOST, self._clock.now())
        return 0.0 if self.room > 0 else max(self._grant.wait_s, 0.001)

    @property
    def is_short(self) -> bool:
        """Had other runs of the key what its rate lets pass, when this one last asked?"""
        return self._grant.submits == 0 and self._grant.is_shared

    def take(self, most: int) -> int:
        """So many submits leave now, 0 where none may."""
        taken, grant = min(most, self.room), self._grant
        if grant.submits is not None and taken > 0 and self._ledger is not None:
            self._grant = Grant(submits=grant.submits - taken, until=grant.until)
        return taken

    @property
    def room(self) -> int:
        """So many may leave now."""
        if self._ledger is None:
            return MOST
        if self._clock.now() >= self._grant.until:
            return 0
        return MOST if self._grant.submits is None else self._grant.submits
