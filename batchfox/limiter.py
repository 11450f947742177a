"""The pace, enforced: aiolimiter's leaky bucket, a new instance for each new pace, filled as the last one was.

Four facts measured on aiolimiter (design.md): its capacity is also its burst, a new instance is empty, waiters are
served smallest amount first, and its drip never changes. Hence one waiter per limiter, and a fresh one when the pace
changes. A first one is filled at once: a resume begins without a free burst. So does what follows a change of pace, or
a time in which everybody waited.
"""

from __future__ import annotations

import asyncio

from aiolimiter import AsyncLimiter

from batchfox.core.bucket import Bucket, bucket

# Tokens that drip in while a group of intents is being synced: so many rows are recorded ahead of their tokens.
AHEAD_S = 0.01
MOST_AHEAD = 64


class Limiter:
    """Lets at most so many submits a minute pass. One coroutine may wait at a time."""

    def __init__(self, per_minute: float) -> None:
        self._room = 0.0
        self._resize(per_minute)

    def _resize(self, per_minute: float) -> None:
        self.per_minute = per_minute
        self._bucket: Bucket = bucket(per_minute)
        capacity, per_s = self._bucket
        self._limiter = AsyncLimiter(capacity, capacity / per_s)
        self._is_filled = False
        # The bucket's level when it was last taken from, and when that was: aiolimiter says whether there is room,
        # not when there will be.
        self._level = 0.0
        self._at = 0.0

    def change(self, per_minute: float) -> None:
        """Another pace from now on. What has dripped in is kept, as far as the new bucket holds it."""
        self._room = self._room_now()
        self._resize(per_minute)

    def calm(self) -> None:
        """Everybody waited until now: no burst follows, whatever has dripped in meanwhile."""
        if self._room_now() > 1.0:
            self._room = 1.0
            self._resize(self.per_minute)

    def _room_now(self) -> float:
        if not self._is_filled:
            return min(self._room, self._bucket.capacity)
        return max(self._bucket.capacity - self._level_now(), 0.0)

    def _level_now(self) -> float:
        return max(self._level - (asyncio.get_running_loop().time() - self._at) * self._bucket.per_s, 0.0)

    async def _fill(self, amount: float) -> None:
        await self._limiter.acquire(amount)
        self._level = self._level_now() + amount
        self._at = asyncio.get_running_loop().time()

    async def _start(self) -> None:
        if not self._is_filled:
            self._is_filled = True
            if (amount := self._bucket.capacity - self._room) > 0.0:
                await self._fill(amount)

    async def ready_in_s(self) -> float:
        """Seconds until a token is there, 0 if one is."""
        await self._start()
        if self._limiter.has_capacity(1):
            return 0.0
        capacity, per_s = self._bucket
        gone_s = asyncio.get_running_loop().time() - self._at
        return max((self._level + 1.0 - capacity) / per_s - gone_s, 0.001)

    def ahead(self, sync_s: float = 0.0) -> int:
        """How many rows may be recorded now: those whose token is there or drips in during a sync, which took `sync_s`
        lately, and during the next."""
        return min(1 + int(self._bucket.per_s * max(AHEAD_S, 2.0 * sync_s)), MOST_AHEAD)

    async def take(self, most: int = 1) -> int:
        """Returns when the next submits may leave, and how many: `most`, or one where there are not so many tokens."""
        await self._start()
        tokens = most if self._limiter.has_capacity(most) else 1
        await self._fill(tokens)
        return tokens
