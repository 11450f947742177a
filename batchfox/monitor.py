"""Watches a run for people: figures to the display, events to the log. It never ends a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from batchfox.core.complaint import Complaint
from batchfox.core.event import Streamed
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import Outcome
from batchfox.core.pulse import Pulse
from batchfox.core.row import Row
from batchfox.core.vitals import Shown
from batchfox.errors import DiskFullError, MachineError
from batchfox.log import Log
from batchfox.reserve import remedy
from batchfox.summary import Causes

THROTTLES_EVERY_S = 10.0


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a display may show: the run's figures, and what is shown beside them."""

    figures: dict[str, Any]
    shown: Shown

    @property
    def title(self) -> str:
        return self.shown.title


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
        self._outage: dict[str, Any] | None = None
        self._throttles = 0
        self._throttles_told_at = float("-inf")
        self.causes = Causes()
        self.pulse = Pulse()
        self._began_at = time.monotonic()
        self._warned: set[str] = set()
        self.view: Callable[[], View] | None = None

    def warned(self, row: Row, complaint: Complaint) -> None:
        """A rule warns of a row that is sent all the same: told once a rule."""
        if complaint.rule not in self._warned:
            self._warned.add(complaint.rule)
            self._log.warning("rule_warned", rule=complaint.rule, row=row.id, message=complaint.message)

    def settled(self, outcome: Outcome) -> None:
        self._feel(outcome)
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

    def note_stream(self, life: Life, event: Streamed) -> None:
        """The stream of a row's task is over; one that broke is a line, as the row is answered all the same."""
        if event.error is not None:
            self._log.info(
                "stream_broken",
                row=life.id,
                task_id=life.task_id,
                error_code=event.error.code,
                error_message=event.error.message,
                reasoning_characters=len(event.reasoning),
            )
        elif self._log.debugs():
            self._log.debug("stream_ended", row=life.id, task_id=life.task_id)

    def _feel(self, outcome: Outcome) -> None:
        """A latency that began before this execution tells how long nobody looked, not how long the API took."""
        now, latency_s = time.monotonic(), outcome.latency_s
        is_known = outcome.status == "completed" and latency_s is not None and latency_s <= now - self._began_at
        self.pulse.see(now, latency_s if is_known else None)

    def show(self) -> None:
        if self.view is None:
            return
        try:
            view = self.view()
            self._note_outage(view.figures["outage"])
            self._note_throttles(view.figures)
            self._display.update(view)
        except Exception as error:
            self._log.warning("display_failed", error=repr(error))
            self._display = Silence()

    def _note_outage(self, outage: dict[str, Any] | None) -> None:
        """One line when an outage begins, and one when it is over, however many tries it takes."""
        before, self._outage = self._outage, outage
        if outage is not None and before is None:
            since = datetime.fromtimestamp(outage["since"], UTC).isoformat(timespec="seconds")
            told = {"what": outage["what"], "since": since, "error": outage["kind"], "message": outage["message"]}
            self._log.warning("outage_begun", **told)
        elif outage is None and before is not None:
            lasted_s = round(time.time() - before["since"], 1)
            self._log.warning("outage_ended", what=before["what"], lasted_s=lasted_s, tries=before["tries"])

    def _note_throttles(self, figures: dict[str, Any]) -> None:
        """How many 429s there were, at most one line in `THROTTLES_EVERY_S`; a report draws them."""
        here = figures["here"]["throttles"] + figures["here"]["polls_throttled"]
        now = time.monotonic()
        if here > self._throttles and now - self._throttles_told_at >= THROTTLES_EVERY_S:
            self._log.info("throttled", times=here - self._throttles, per_minute=round(figures["per_minute"]))
            self._throttles, self._throttles_told_at = here, now

    def trouble(self) -> MachineError | None:
        """The disk under the log is full: the run must end, as nobody could tell any more what it did."""
        if self._log.full is None:
            return None
        what = f"the log cannot be written: {self._log.full.strerror}"
        return DiskFullError(f"{what}; {remedy(self._log.full)}, then run the same command again")
