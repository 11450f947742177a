"""What a run did, as one record: what the command prints at the end and the Python API returns."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

import msgspec

from batchfox.core.drift import Drifted
from batchfox.core.outcome import STALE, Outcome
from batchfox.core.tail import Straggler

RETRYABLE = ("failed", "timed_out", "in_doubt", "invalid")


class Cause(msgspec.Struct, kw_only=True):
    """Rows that ended the same way, with one of them as the example."""

    status: str
    code: str
    rows: int
    example_row: str
    example_message: str


class Causes:
    """Counts why rows did not complete. Bounded: beyond 200 different causes the rest is one."""

    MOST = 200

    def __init__(self) -> None:
        self._rows: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], tuple[str, str]] = {}

    def see(self, outcome: Outcome) -> None:
        error = outcome.error
        code = (error.code or error.type or f"http_{outcome.http_status}") if error else "unknown"
        cause = (outcome.status, code)
        if cause not in self._rows:
            if len(self._rows) >= self.MOST:
                cause = (outcome.status, "other")
            message = (error.message or "") if error else ""
            self._examples.setdefault(cause, (outcome.row_id, message))
        self._rows[cause] += 1

    @property
    def kinds(self) -> int:
        return len(self._rows)

    def top(self, most: int = 10) -> list[Cause]:
        found = []
        for (status, code), rows in self._rows.most_common(most):
            row_id, message = self._examples[(status, code)]
            found.append(Cause(status=status, code=code, rows=rows, example_row=row_id, example_message=message))
        return found


class Used(msgspec.Struct, kw_only=True):
    """What was sent and spent. `submits`: POSTs that were or may have been billed."""

    submits: int = 0
    polls: int = 0
    throttles: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    credits_spent: float = 0.0
    elapsed_s: float = 0.0


class Summary(msgspec.Struct, kw_only=True):
    """One execution of a job.

    Of the whole output: `by_status`, in rows. Of the run, all executions of it: `whole_run`, `credits_in_doubt`.
    Everything else is of this execution: `settled` and the other counts of rows, `here`, `causes` (the commonest, and
    `more_causes`: how many kinds there are besides).

    `exit_status` is the contract's table. `reason`: why the run stopped early, in plain words, and `stopped`
    in one: "window", "credits", "time" and so on. `is_limited`: rows
    beyond `limit` were not taken. `outdated`: rows whose task, begun earlier, answers their request as it was before an
    edit. `deduped`: rows that got the outcome of another row with the same request, and `saved_credits` what those
    cost. `left_in_flight`: tasks that the next run picks up; `left_in_doubt`: POSTs without a reply, whose fate is
    unknown. `estimates_low`: with a credit limit, requests (model|shape) that came to more than was expected: the
    estimate, and what was reserved or charged, in credits. `late_collected`: rows that were `timed_out` and whose tasks
    had ended meanwhile; `late_credits`: what those cost, paid when they were submitted. `late_unheard`: rows that stay
    `timed_out` because nothing could be learned of their tasks; `retry_unpaid`: those of them that `retry` named, and
    that were not paid for anew therefore; `late_error`: what the last of those polls met. `given_up`: tasks that
    `limits.straggle` did not wait for, and `stragglers` the oldest of them. `drift`: what of the answers is not as in
    the last runs.
    """

    run_id: str
    run_date: str
    output: str
    exit_status: int
    reason: str | None = None
    stopped: str | None = None
    is_resume: bool = False
    is_limited: bool = False
    by_status: dict[str, int]
    settled: dict[str, int]
    completed_before: int = 0
    duplicates: int = 0
    outdated: int = 0
    deduped: int = 0
    saved_credits: float = 0.0
    left_in_flight: int = 0
    left_in_doubt: int = 0
    maybe_billed_twice: int = 0
    in_doubt_held: int = 0
    here: Used = msgspec.field(default_factory=Used)
    whole_run: Used = msgspec.field(default_factory=Used)
    credits_in_doubt: float = 0.0
    estimates_low: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    causes: list[Cause] = msgspec.field(default_factory=list)
    more_causes: int = 0
    retry_gone: int = 0
    retry_left: int = 0
    late_collected: int = 0
    late_credits: float = 0.0
    late_unheard: int = 0
    retry_unpaid: int = 0
    late_error: str | None = None
    given_up: int = 0
    stragglers: list[Straggler] = msgspec.field(default_factory=list)
    drift: list[Drifted] = msgspec.field(default_factory=list)

    @property
    def data(self) -> str:
        """The folder with the results, a Parquet dataset."""
        return f"{self.output}/data"

    def next_step(self, command: list[str]) -> str | None:
        """The line to type next, where there is one. `command`: this run's own.

        The same command resumes, without `--retry`: the rows it named are marked, and those of them that failed again
        are not to be paid for a third time.
        """
        plain = _without_option(command, "--fresh", has_value=False)
        for option in ("--retry", "--where"):
            plain = _without_option(plain, option, has_value=True)
        if self.exit_status in (4, 129, 130, 143) or self.is_limited or self.given_up:
            return shlex.join(plain)  # of tasks that were given up the answers come free
        # With exit 0 rows that did not complete have left the input: nothing can be done about them.
        again = [status for status in RETRYABLE if self.exit_status == 3 and self.by_status.get(status)]
        again += [STALE] if self.outdated else []
        if self.exit_status in (0, 3) and again:
            return shlex.join([*plain, "--retry", ",".join(again)])
        return None

    @property
    def needs_mending(self) -> bool:
        """Does `next_step` take rows that end the same way again unless the input or the job is mended?"""
        return self.exit_status == 3 and not self.is_limited and bool(self.by_status.get("invalid"))

    @property
    def asks_or_pays(self) -> bool:
        """Does `next_step` pay anew for tasks that a run without it would ask about for free?"""
        is_free = self.is_limited or self.given_up > 0
        return self.exit_status == 3 and not is_free and bool(self.by_status.get("timed_out"))

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def _without_option(command: list[str], option: str, *, has_value: bool) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in command:
        if skip:
            skip = False
        elif word == option:
            skip = has_value
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept
