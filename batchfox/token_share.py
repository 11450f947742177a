"""The tokens of a minute that the runs of a key share, as one run sees them: it tells and asks once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Protocol

from batchfox.core.tokens import Tokens
from batchfox.errors import MachineError


class Ledger(Protocol):
    """What the runs of a key share."""

    def share_tokens(
        self, account: str, per_minute: float, taken: float, was: float, now: float
    ) -> tuple[float, bool]: ...
    def leave_tokens(self, account: str, taken: float, now: float) -> None: ...


class TokenShare:
    """One run's part of `limits.tokens_per_minute`. `per_minute`: its own limit. Runs without one take no part."""

    def __init__(
        self, ledger: Ledger, thread: Executor, tokens: Tokens, *, account: str, now: Callable[[], float]
    ) -> None:
        """Takes part from now on; `tokens` has a limit. `thread`: that of the ledger. Raises `MachineError`."""
        assert tokens.per_minute is not None
        self.per_minute = tokens.per_minute
        self._ledger = ledger
        self._thread = thread
        self._tokens = tokens
        self._account = account
        self._now = now
        self._share = 0.0
        self._is_asking = False
        # Told of what makes it impossible to go on, and of another share.
        self.failed: Callable[[MachineError], None] = lambda error: None
        self.changed: Callable[[], None] = lambda: None
        self._apply(*self._ask(self.per_minute, tokens.taken(now()), 0.0, now()))

    def look(self) -> None:
        """Tells what counts by now, and asks for more, without waiting."""
        if self._is_asking:
            return
        self._is_asking = True
        now = self._now()
        ask = partial(self._ask, self.per_minute, self._tokens.taken(now), self._share, now)
        asyncio.get_running_loop().run_in_executor(self._thread, ask).add_done_callback(self._hear)

    def leave(self) -> None:
        """The run ends."""
        now = self._now()
        self._thread.submit(self._ledger.leave_tokens, self._account, self._tokens.taken(now), now).result()

    def _ask(self, per_minute: float, taken: float, was: float, now: float) -> tuple[float, bool]:
        return self._ledger.share_tokens(self._account, per_minute, taken, was, now)

    def _hear(self, asked: asyncio.Future[tuple[float, bool]]) -> None:
        self._is_asking = False
        if asked.cancelled():
            return
        match asked.exception():
            case None:
                self._apply(*asked.result())
            case MachineError() as error:
                self.failed(error)
            case error:
                raise error

    def _apply(self, share: float, is_whole: bool) -> None:
        if (share, is_whole) != (self._tokens.per_minute, self._tokens.may_exceed):
            self._share = share
            self._tokens.limit(share, may_exceed=is_whole)
            self.changed()
