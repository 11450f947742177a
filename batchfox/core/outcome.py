"""How a row ended, and the columns of the output that say so.

Source of the columns, their order and their types: contract.md, "The output".
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchfox.core.event import Answer, ApiError

Status = Literal["completed", "failed", "invalid", "in_doubt", "timed_out"]
STATUSES: tuple[Status, ...] = ("completed", "failed", "invalid", "in_doubt", "timed_out")
# No status of its own: rows of any status whose request has changed since they were answered. `--retry` takes it.
STALE = "stale"
# What `--retry` calls rows that somebody marked so in `batchfox view`, whatever their status.
MARKED = "marked"

# Column → type, in the words of Arrow; the carried input columns stand behind them, then `input_extra`.
COLUMNS: dict[str, str] = {
    "row_index": "int64",
    "row_id": "string",
    "status": "string",
    "text": "string",
    "reasoning": "string",
    "finish_reason": "string",
    "model": "string",
    "task_id": "string",
    "completion": "string",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "total_tokens": "int64",
    "credits": "float64",
    "error_code": "string",
    "error_type": "string",
    "error_message": "string",
    "http_status": "int16",
    "submits": "int16",
    "maybe_billed_twice": "bool",
    "polls": "int32",
    "submitted_at": "timestamp",
    "finished_at": "timestamp",
    "latency_s": "float64",
    "request_hash": "string",
    "media": "list<string>",
    "run_id": "string",
    "run_date": "date32",
}
EXTRA = "input_extra"


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """How one row ended. Times are unix seconds, `latency_s` submit to settled; None where a thing never was."""

    row_index: int
    row_id: str
    status: Status
    answer: Answer | None = None
    error: ApiError | None = None
    model: str | None = None
    task_id: str | None = None
    credits: float | None = None
    http_status: int | None = None
    submits: int = 0
    maybe_billed_twice: bool = False
    polls: int = 0
    submitted_at: float | None = None
    finished_at: float
    latency_s: float | None = None
    request_hash: str | None = None
    media: list[str] = msgspec.field(default_factory=list)
    run_id: str
    run_date: str
    # Later than the other fields, and left out by older versions: what its request shares with those of other rows.
    twin: bytes | None = None

    def record(self) -> tuple[Any, ...]:
        """One value for each of `COLUMNS`, in order: times as whole microseconds, `run_date` as "YYYY-MM-DD"."""
        answer = self.answer or _NO_ANSWER
        error = self.error or _NO_ERROR
        return (
            self.row_index,
            self.row_id,
            self.status,
            answer.text,
            answer.reasoning,
            answer.finish_reason,
            answer.model or self.model,
            self.task_id,
            answer.completion or None,
            answer.prompt_tokens,
            answer.completion_tokens,
            answer.total_tokens,
            self.credits,
            error.code,
            error.type,
            error.message,
            self.http_status,
            min(self.submits, 32_767),
            self.maybe_billed_twice,
            self.polls,
            _micros(self.submitted_at),
            _micros(self.finished_at),
            self.latency_s,
            self.request_hash,
            self.media,
            self.run_id,
            self.run_date,
        )


_NO_ANSWER = Answer(completion="")
_NO_ERROR = ApiError()


def _micros(unix_s: float | None) -> int | None:
    return None if unix_s is None else int(unix_s * 1_000_000)
