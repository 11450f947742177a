"""What can happen to a row, as records: the API's replies in the words of the domain, and the clock's verdicts.

`wire.py` and `verdict.py` make them from bytes; `lifecycle.py` is the only reader of what they mean for a row.
Times are absent on purpose: whoever delivers an event says when.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class _Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    pass


class ApiError(_Event, frozen=True, kw_only=True):
    """What the API said was wrong; each part may be missing. `message` is cut at 2,000 characters."""

    code: str | None = None
    type: str | None = None
    message: str | None = None


class Answer(_Event, frozen=True, kw_only=True):
    """One ChatCompletion. `completion` is the JSON as received; the rest are its parts, None where it has none."""

    completion: str
    text: str | None = None
    reasoning: str | None = None
    finish_reason: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    credits: float | None = None


class Accepted(_Event, frozen=True, kw_only=True):
    """A submit made a task: it is billed. `reserved`: credits set aside for it, where the reply says so. `stream`: the
    path at which it is streamed, where the reply offers one."""

    task_id: str
    reserved: float | None = None
    stream: str | None = None
    http_status: int = 200


class Answered(_Event, frozen=True, kw_only=True):
    """The answer is here: of a poll, or of a submit with `sync = true`."""

    answer: Answer
    http_status: int = 200


class Refused(_Event, frozen=True, kw_only=True):
    """The API will not take this request as it is: no task exists, asking again is useless."""

    error: ApiError
    http_status: int


class Deferred(_Event, frozen=True, kw_only=True):
    """ "Try later": no task exists. `scope` "rate" is a 429, and everybody's; "service": it serves nothing just now;
    "row": it cannot serve this request just now (no channel for its model)."""

    error: ApiError
    scope: Literal["rate", "service", "row"]
    http_status: int
    retry_after_s: float | None = None


class Unreached(_Event, frozen=True, kw_only=True):
    """No connection came about, so no task exists."""

    error: ApiError


class Doubted(_Event, frozen=True, kw_only=True):
    """The request went out and no readable verdict came back: a task may exist and be billed."""

    error: ApiError
    http_status: int | None = None


class Unsendable(_Event, frozen=True, kw_only=True):
    """The request could not be built after all (a local medium is gone or too large): it was not sent."""

    error: ApiError


class Halted(_Event, frozen=True, kw_only=True):
    """A refusal that concerns the whole run, not the row: key, balance, or the gateway in front."""

    cause: Literal["key", "balance", "gateway"]
    error: ApiError
    http_status: int


class Running(_Event, frozen=True, kw_only=True):
    """A poll found the task unfinished. `progress`: 0-100 where it was said."""

    progress: float | None = None


class TaskFailed(_Event, frozen=True, kw_only=True):
    """The task ended without an answer. `transient`: another attempt may well succeed."""

    error: ApiError
    transient: bool
    http_status: int = 200


class Missing(_Event, frozen=True, kw_only=True):
    """A poll got 404: the task is unknown, for the moment or for good."""

    error: ApiError


class Unheard(_Event, frozen=True, kw_only=True):
    """A poll brought no readable news (5xx, 429, lost connection, HTML): ask again; the task runs on."""

    error: ApiError
    http_status: int | None = None
    retry_after_s: float | None = None
    is_rate: bool = False
    without_results: bool = False


class StreamEnd(_Event, frozen=True, kw_only=True):
    """A connection that carried a stream is done with. `error`: why it broke; None: it came to its end. What the stream
    told is another matter. `may_open_again`: it did not even begin, for a reason that passes."""

    error: ApiError | None = None
    http_status: int = 200
    may_open_again: bool = False
    retry_after_s: float | None = None


class Streamed(_Event, frozen=True, kw_only=True):
    """A task's stream is over. `reasoning`: what it told of it. `answer`: what it told, where it told all; else `error`
    says why it did not. What it costs only a poll tells, and where it broke a poll tells the rest too."""

    reasoning: str = ""
    answer: Answer | None = None
    error: ApiError | None = None


SubmitEvent = Accepted | Answered | Refused | Deferred | Unreached | Doubted | Halted | Unsendable
PollEvent = Answered | Running | TaskFailed | Missing | Unheard | Halted
Event = SubmitEvent | PollEvent | Streamed
