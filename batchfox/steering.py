"""Carries out what `batchfox ctl` asks of a running job. Why so: docs/decisions/0019-steering-and-display.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batchfox.core.job import Job
from batchfox.core.sections import Limits
from batchfox.core.steer import Order, change_limit
from batchfox.descriptors import raise_descriptor_limit
from batchfox.errors import JobError, UserError
from batchfox.words import count, credit, duration

if TYPE_CHECKING:
    from batchfox.crew import Clock
    from batchfox.pool import Pool
    from batchfox.reviving import Reviver

ONCE = "this execution only: change the job file too to keep it"


class Steering:
    """Of one execution. `job` is the job as it began; `limits` as they are now."""

    def __init__(
        self,
        job: Job,
        *,
        pool: Pool,
        reviver: Reviver,
        clock: Clock,
        note: Callable[[str, dict[str, Any]], None],
        share: Callable[[float], None] | None = None,
    ) -> None:
        """`note`: told of whatever was done, for the log. `share`: told of another rate, for the other runs of the
        key."""
        self._job = job
        self._pool = pool
        self._reviver = reviver
        self._clock = clock
        self._note = note
        self._share = share
        self.limits = job.limits

    async def carry_out(self, order: Order) -> str:
        """Does it, and says what was done. Raises `UserError` that says why nothing was."""
        match order.do:
            case "pause":
                return self._pause()
            case "resume":
                return self._resume()
            case "stop":
                return self._stop()
            case "set":
                return self._set(order.key or "", order.value)
            case "retry":
                if not order.row:
                    raise UserError("retry: which row? Its id, or its position where rows have none")
                said = await self._reviver.retry(order.row)
                self._note("row_retried", {"row": order.row})
                return said

    def _refuse_stopping(self) -> None:
        if (cause := self._pool.fleet.stopped) is not None or self._pool.is_over:
            raise UserError(f"the run is stopping already ({cause or 'it has come to its end'})")

    def _pause(self) -> str:
        self._refuse_stopping()
        fleet, now = self._pool.fleet, self._clock.now()
        if fleet.paused_at is not None:
            raise UserError(f"the run is paused already, for {duration(now - fleet.paused_at)}")
        fleet.pause(now)
        self._note("run_paused", {})
        return f"paused: nothing more is submitted, {count(fleet.in_flight, 'task')} in flight go on being asked about"

    def _resume(self) -> str:
        self._refuse_stopping()
        fleet, now = self._pool.fleet, self._clock.now()
        if fleet.paused_at is None:
            raise UserError("the run is not paused")
        paused_s = now - fleet.paused_at
        fleet.resume(now)
        self._pool.look_again()
        self._note("run_unpaused", {"paused_s": round(paused_s, 1)})
        return f"submitting again, after a pause of {duration(paused_s)}"

    def _stop(self) -> str:
        self._refuse_stopping()
        fleet = self._pool.fleet
        wire, tasks = fleet.on_the_wire, fleet.in_flight - fleet.on_the_wire
        self._note("stop_requested", {"by": "ctl"})
        self._pool.leave("ctl")
        return (
            f"stopping: {count(wire, 'submit')} on the wire to be recorded, {count(tasks, 'task')} in flight left for "
            "the next run, which pays nothing for them; the run ends with exit 4"
        )

    def _set(self, key: str, value: Any) -> str:
        self._refuse_stopping()
        job = Job.from_dict(self._job.to_dict() | {"limits": _tables(self._job, self.limits)})
        limits = change_limit(job, key, value)
        name = key.partition(".")[2]
        was, now_is = getattr(self.limits, name), getattr(limits, name)
        self._apply(name, limits)
        self.limits = limits
        self._pool.look_again()
        self._note("limit_changed", {"key": key, "was": _plain(was), "now": _plain(now_is)})
        return f"{key} = {_shown(name, now_is)} (was {_shown(name, was)}); {ONCE}"

    def _apply(self, name: str, limits: Limits) -> None:
        pool, fleet = self._pool, self._pool.fleet
        match name:
            case "requests_per_minute":
                assert limits.requests_per_minute is not None
                fleet.gate.pace.limit(limits.requests_per_minute, self._clock.now())
                if self._share is not None:
                    self._share(limits.requests_per_minute)
            case "in_flight":
                raise_descriptor_limit(limits.in_flight)
                fleet.limit_in_flight(limits.in_flight)
            case "credits":
                if fleet.gate.budget.limit is None:
                    raise JobError(_say_unknown("limits.credits", "what its requests cost"))
                fleet.gate.limit_credits(limits.credits or 0.0)
            case "tokens_per_minute":
                if fleet.gate.tokens.per_minute is None:
                    raise JobError(_say_unknown("limits.tokens_per_minute", "how many tokens its requests take"))
                if pool.token_share is None:
                    fleet.gate.tokens.limit(limits.tokens_per_minute or 0.0)
                else:  # other runs of the key have a say in it
                    pool.token_share.per_minute = limits.tokens_per_minute or 0.0
                    pool.token_share.look()
            case _:
                pool.limit_time(None if limits.time is None else float(limits.time))


def _say_unknown(key: str, what: str) -> str:
    return (
        f"{key}: this run began without it and has not counted {what}: `batchfox ctl DIR stop`, then the same command "
        f"again with --set {key}=..."
    )


def _tables(job: Job, limits: Limits) -> dict[str, Any]:
    import msgspec

    tables: dict[str, Any] = msgspec.structs.replace(job, limits=limits).to_dict()["limits"]
    return tables


def _plain(value: Any) -> float | None:
    return None if value is None else float(value)


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name == "time":
        return duration(value)
    return credit(value) if name == "credits" else f"{value:,.10g}"
