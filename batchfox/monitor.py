"""Watches a run for people: figures to the display, events to the log. It never ends a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from batchfox.core.outcome import Outcome
from batchfox.log import Log
from batchfox.summary import Causes


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a display may show: the run's figures, and how far the input is read."""

    title: str
    figures: dict[str, Any]
    total_rows: int | None
    input_share: float | None
    limit_per_minute: float | None
    in_flight_limit: int
    credits_limit: float | None
    is_cooling_for_s: float
    is_breaker_open: bool


class Display(Protocol):
    """Shows views, a few a second. `close` leaves the terminal as it was."""

    def update(self, view: View) -> None: ...
    def close(self) -> None: ...


class Silence:
    """A display that shows nothing."""

    def update(self, view: View) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Monitor:
    """The pool's observer."""

    def __init__(self, log: Log, display: Display) -> None:
        self._log = log
        self._display = display
        self.causes = Causes()
        self.view: Callable[[], View] | None = None

    def settled(self, outcome: Outcome) -> None:
        if outcome.status == "completed":
            if self._log.debugs():
                self._log.debug("row_settled", row=outcome.row_id, task_id=outcome.task_id, status="completed")
            return
        self.causes.see(outcome)
        error = outcome.error
        self._log.info(
            "row_settled",
            row=outcome.row_id,
            task_id=outcome.task_id,
            status=outcome.status,
            error_code=error.code if error else None,
            error_message=error.message if error else None,
        )

    def show(self) -> None:
        if self.view is None:
            return
        try:
            self._display.update(self.view())
        except Exception as error:
            self._log.warning("display_failed", error=repr(error))
            self._display = Silence()
