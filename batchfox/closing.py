"""How an execution ended: its exit status, why it stopped early, and its summary."""

from __future__ import annotations

import signal
from typing import Any

import msgspec

from batchfox.core.dispatch import Fleet
from batchfox.core.drift import told
from batchfox.core.event import ApiError
from batchfox.core.gate import Gate
from batchfox.feed import Fed
from batchfox.history import Run
from batchfox.pool import Pool
from batchfox.summary import Causes, Summary, Used
from batchfox.words import credit, drift_words, outage_words

AGAIN = "run the same command again to go on"
LOOK = (
    "look at the answers; where they are as they should be, raise that limit in [guard], or set guard.since to today "
    "to measure from now on, then run the same command again"
)
REASONS = {
    "key": "the API refused the key: check the key, then run the same command again",
    "gateway": "the gateway in front of the API refused this client (1010): check api.base_url and the network",
    "balance": "the balance is spent: top it up, then run the same command again",
    "time": f"the time limit is reached: {AGAIN}",
    "window": "the window of the schedule is over: the next scheduled run goes on",
    "idle": f"the API took nothing for a whole day: {AGAIN} once it is back",
    "pause": f"paused for a whole day: {AGAIN}",
    "ctl": f"stopped by `batchfox ctl`: {AGAIN}",
    "signal": f"stopped by a signal: {AGAIN}",
}


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What the loops left when they ended. `signal`: the number of the first one that came, if any."""

    pool: Pool
    fed: Fed
    progress: dict[str, Any]
    signal: int | None
    unix_s: float

    @property
    def fleet(self) -> Fleet:
        return self.pool.fleet

    @property
    def is_finished(self) -> bool:
        """The run came to the end of its input: the next one is a new run."""
        return self.fleet.stopped is None and not self.fed.is_limited

    @property
    def left_in_doubt(self) -> int:
        """POSTs on the wire whose reply was not waited for."""
        return self.fleet.on_the_wire

    @property
    def left_in_flight(self) -> int:
        """Tasks that the next run picks up."""
        return self.fleet.in_flight - self.fleet.on_the_wire

    def told(self) -> dict[str, Any]:
        """What the log keeps of it."""
        return {
            "exit_status": self.exit_status,
            "reason": self.reason,
            "in_flight": self.left_in_flight,
            "in_doubt": self.left_in_doubt,
            "is_limited": self.fed.is_limited,
            "polls": self.fleet.watch.polls,
            "polls_late_p99_s": round(self.fleet.watch.lateness.within_s(0.99), 4),
            **self.pool.ledger.tally.by_status,
        }

    @property
    def exit_status(self) -> int:
        """The contract's table."""
        if self.pool.error is not None:
            return self.pool.error.exit_status
        if self.fleet.stopped is None:
            settled = self.pool.ledger.tally.by_status
            is_short = settled.total() > settled["completed"] or self.fed.has_incomplete
            return 3 if is_short else 0
        return 128 + (self.signal or signal.SIGINT) if self.fleet.stopped == "signal" else 4

    @property
    def reason(self) -> str | None:
        """Why the run stopped early, in plain words; None where it did not."""
        stopped, said = self.fleet.stopped, self.fleet.stop_error
        if self.pool.error is not None:
            return str(self.pool.error)
        if stopped is None:
            return None
        if stopped == "guard":
            return f"the guard stopped the run: {'; '.join(map(drift_words, self.pool.drifted))}: {LOOK}"
        reason = _credits_reason(self.fleet.gate) if stopped == "credits" else REASONS.get(stopped, stopped)
        if said is not None and said.message:
            reason += f" (the API said: {said.message})"
        outage = self.progress["outage"]
        if outage is not None and stopped in ("time", "window", "idle", "ctl", "signal"):
            reason += f" ({outage_words(outage, self.unix_s)})"
        return reason


def _credits_reason(gate: Gate) -> str:
    budget = gate.budget
    if budget.is_day_binding and budget.purse is not None:
        return (
            f"the day's credits are spent: the next request may cost {credit(gate.too_dear)} (estimate), and "
            f"{credit(budget.purse.used())} of limits.credits_per_day = {credit(budget.purse.limit or 0.0)} are "
            "spent or set aside by the runs of this key: run the same command again after midnight, or raise the limit"
        )
    aside = f", {credit(budget.standing)} set aside for what is in doubt" if budget.standing > 1e-9 else ""
    return (
        f"the credit limit is reached: the next request may cost {credit(gate.too_dear)} (estimate), and "
        f"{credit(max(budget.left, 0.0))} of limits.credits = {credit(budget.limit or 0.0)} are left "
        f"({credit(budget.spent)} spent{aside}): raise limits.credits, then run the same command again"
    )


def summarize(
    ending: Ending,
    run: Run,
    output: str,
    by_status: dict[str, int],
    *,
    causes: Causes,
    retry_gone: int,
    retry_left: int,
    outdated: int,
) -> Summary:
    """The record of an execution. `by_status`: rows of the whole output."""
    top = causes.top()
    unlearned = ending.pool.looks.unlearned
    tally, progress, gate = ending.pool.ledger.tally, ending.progress, ending.fleet.gate
    return Summary(
        run_id=run.run_id,
        run_date=run.run_date,
        output=output,
        exit_status=ending.exit_status,
        reason=ending.reason,
        stopped=ending.fleet.stopped,
        is_resume=run.is_resume,
        is_limited=ending.fed.is_limited,
        by_status=by_status,
        settled=dict(tally.by_status),
        completed_before=max(by_status.get("completed", 0) - tally.by_status["completed"], 0),
        duplicates=ending.fed.duplicates,
        outdated=outdated,
        deduped=tally.copies,
        saved_credits=tally.saved_credits,
        left_in_flight=ending.left_in_flight,
        left_in_doubt=ending.left_in_doubt,
        maybe_billed_twice=tally.twice,
        in_doubt_held=gate.doubts.held,
        here=used(progress["here"]),
        whole_run=used(progress),
        credits_in_doubt=gate.budget.standing,
        estimates_low={} if gate.budget.limit is None else dict(gate.budget.low),
        causes=top,
        more_causes=causes.kinds - len(top),
        retry_gone=retry_gone,
        retry_left=retry_left,
        late_collected=ending.pool.looks.collected,
        late_credits=ending.pool.looks.collected_credits,
        late_unheard=unlearned.rows,
        retry_unpaid=unlearned.not_paid,
        late_error=said_of(unlearned.last),
        drift=ending.pool.drifted or told(ending.pool.drift.total, ending.pool.drift.before),
        given_up=ending.pool.tail.given_up,
        stragglers=ending.pool.tail.oldest,
    )


def running_summary(run: Run, output: str, progress: dict[str, Any]) -> dict[str, Any]:
    """As much of a summary as is known while the run goes on."""
    return {
        "run_id": run.run_id,
        "run_date": run.run_date,
        "output": output,
        "is_resume": run.is_resume,
        "here": msgspec.to_builtins(used(progress["here"])),
        "whole_run": msgspec.to_builtins(used(progress)),
    }


def said_of(error: ApiError | None) -> str | None:
    """An error in a few words; None where nothing was said."""
    return None if error is None else error.message or error.code or error.type


def used(figures: dict[str, Any]) -> Used:
    """What was sent and spent, of figures of either scope."""
    return Used(**{field.name: figures[field.name] for field in msgspec.structs.fields(Used)})
