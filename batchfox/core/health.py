"""Is the API there? Since when it takes no submits or answers no polls, how often that was, and what was said last.

For people only: nothing is decided by it. Breaker and gate hold submits back by themselves; while they do, people see
why. Times are the run's clock.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from batchfox.core.event import (
    ApiError,
    Deferred,
    Doubted,
    Event,
    Halted,
    Unheard,
    Unreached,
    Unsendable,
)

# A single lost reply is no outage. This many in a row that no verdict came back for are; so are a few over a while,
# which is longer where the API is there and only says "later".
MOST_IN_A_ROW = 8
LEAST_TRIES = 3
SILENT_FOR_S = 10.0
REFUSING_FOR_S = 60.0


class Trouble(msgspec.Struct, kw_only=True):
    """Tries in a row that the API did not serve. `silent`: those of them without any verdict."""

    what: Literal["submits", "polls"]
    since: float
    last_at: float
    tries: int = 0
    silent: int = 0
    error: ApiError = ApiError()
    http_status: int | None = None

    @property
    def is_outage(self) -> bool:
        if self.silent >= MOST_IN_A_ROW:
            return True
        least_s = SILENT_FOR_S if self.silent == self.tries else REFUSING_FOR_S
        return self.tries >= LEAST_TRIES and self.last_at - self.since >= least_s

    @property
    def kind(self) -> str:
        """What the last try met, in a word or two."""
        code = self.error.code or self.error.type
        if self.http_status is None:
            return code or "no answer"
        return f"HTTP {self.http_status}" + (f" {code}" if code else "")


class Health:
    """What came back lately, of submits and of polls apart: each may fail while the other works."""

    def __init__(self) -> None:
        self._submits: Trouble | None = None
        self._polls: Trouble | None = None

    def note_submit(self, event: Event, now: float) -> None:
        match event:
            case Unsendable() | Halted():
                pass
            case Deferred():
                is_silent = event.scope == "service"
                self._submits = _worse(self._submits, "submits", event, event.http_status, now, is_silent=is_silent)
            case Unreached():
                self._submits = _worse(self._submits, "submits", event, None, now, is_silent=True)
            case Doubted():
                self._submits = _worse(self._submits, "submits", event, event.http_status, now, is_silent=True)
            case _:
                self._submits = None

    def note_question(self, now: float, *, is_there: bool) -> None:
        """What came of the free question that goes before a probe: one more try, if nothing did."""
        if self._submits is not None and not is_there:
            self._submits.last_at = now
            self._submits.tries += 1
            self._submits.silent += 1

    def note_poll(self, event: Event, now: float) -> None:
        if isinstance(event, Unheard) and not event.without_results:
            self._polls = _worse(self._polls, "polls", event, event.http_status, now, is_silent=not event.is_rate)
        elif not isinstance(event, Halted):
            self._polls = None

    def outage(self, *, is_submitting: bool, is_polling: bool, is_held_back: bool = False) -> Trouble | None:
        """The outage there is, as far as it is in anybody's way. `is_held_back`: the breaker holds submits back, so
        that whatever they met is one."""
        for trouble, is_wanted in ((self._submits, is_submitting), (self._polls, is_polling)):
            is_certain = is_held_back and trouble is self._submits
            if trouble is not None and is_wanted and (trouble.is_outage or is_certain):
                return trouble
        return None


def _worse(
    trouble: Trouble | None,
    what: Literal["submits", "polls"],
    event: Deferred | Unreached | Doubted | Unheard,
    http_status: int | None,
    now: float,
    *,
    is_silent: bool,
) -> Trouble:
    if trouble is None:
        trouble = Trouble(what=what, since=now, last_at=now)
    trouble.last_at = now
    trouble.tries += 1
    trouble.silent += is_silent
    trouble.error, trouble.http_status = event.error, http_status
    return trouble
