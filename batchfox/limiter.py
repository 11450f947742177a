"""The pace, enforced: aiolimiter's leaky bucket, a new instance for each new pace, each started full.

Four facts measured on aiolimiter (design.md): its capacity is also its burst, a new instance is empty, waiters are
served smallest amount first, and its drip never changes. Hence one waiter per limiter, and a fresh one when the pace
changes, filled at once: a change of pace, and a resume, begin without a free burst.
"""

from __future__ import annotations

from aiolimiter import AsyncLimiter

from batchfox.core.pace import Bucket, bucket

# Tokens that drip in while a group of intents is being synced: so many rows are recorded ahead of their tokens.
AHEAD_S = 0.01
MOST_AHEAD = 64


class Limiter:
    """Lets at most so many submits a minute pass. One coroutine may wait at a time."""

    def __init__(self, per_minute: float) -> None:
        self.per_minute = per_minute
        self._bucket: Bucket = bucket(per_minute)
        capacity, per_s = self._bucket
        self._limiter = AsyncLimiter(capacity, capacity / per_s)
        self._is_full = False

    async def _start(self) -> None:
        if not self._is_full:
            self._is_full = True
            await self._limiter.acquire(self._bucket.capacity)

    async def ready_in_s(self) -> float:
        """Seconds until a token is there, 0 if one is."""
        await self._start()
        if self._limiter.has_capacity(1):
            return 0.0
        return min(1.0 / self._bucket.per_s, 1.0)

    def ahead(self) -> int:
        """How many rows may be recorded now: those whose token is there or drips in during a sync."""
        return min(1 + int(self._bucket.per_s * AHEAD_S), MOST_AHEAD)

    async def take(self) -> None:
        """Returns when the next submit may leave."""
        await self._start()
        await self._limiter.acquire(1)
