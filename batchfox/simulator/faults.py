"""Every fault that can be asked for, as one table: where it strikes, how it looks, whether a task exists and is billed.

A submit's fault and a task's fate are drawn for the request and the number of its submit; a poll's for the number of
the poll as well, so that asking again gets through; a stream's for the number of the connection.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Where = Literal["submit", "fate", "task", "results", "poll", "stream"]
Way = Literal[
    "close",  # the connection is closed without a byte
    "reset",  # the connection is reset (RST) without a byte
    "hang",  # no answer ever comes
    "error",  # an error object with `status`
    "html",  # an HTML page with `status`
    "truncated",  # the answer stops in the middle, the length says that this is all
    "cut",  # the answer stops in the middle, the length promises more, the connection is closed
    "empty",  # an empty body
    "not_utf8",  # bytes that are no UTF-8
    "wrong_json",  # JSON that is no task
    "slow",  # the right answer, `slow_s` seconds late
    "redirect",  # a redirect to the same path
    "other",  # not a matter of the answer's bytes: what `says` says
]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. `is_task_made`: a task exists afterwards and is billed (for submits)."""

    name: str
    where: Where
    says: str
    way: Way = "other"
    status: int = 200
    is_task_made: bool = True
    kind: str = "server_error"
    code: str | None = None


def _made(name: str, way: Way, says: str, status: int = 200) -> Fault:
    return Fault(name=name, where="submit", way=way, status=status, says=says)


def _refused(
    name: str, way: Way, says: str, status: int = 200, kind: str = "server_error", code: str | None = None
) -> Fault:
    return Fault(name=name, where="submit", way=way, status=status, says=says, is_task_made=False, kind=kind, code=code)


def _poll(name: str, way: Way, says: str, status: int = 200, kind: str = "server_error") -> Fault:
    return Fault(name=name, where="poll", way=way, status=status, says=says, kind=kind)


def _other(name: str, where: Where, says: str) -> Fault:
    return Fault(name=name, where=where, says=says)


TABLE: tuple[Fault, ...] = (
    _refused("reset_before", "reset", "connection reset before a task is made"),
    _refused("hang_before", "hang", "no answer ever comes and no task is made"),
    _refused("http_500_before", "error", "500 although no task was made", 500),
    _refused("redirect_307", "redirect", "307 to the same path: following it submits again", 307),
    _refused("refuse_429", "error", "429 with Retry-After", 429, "rate_limit_error", "rate_limit_exceeded"),
    _refused("refuse_503", "error", "503, not accepted", 503, "service_unavailable", "service_unavailable"),
    _refused("refuse_503_html", "html", "503 as an HTML page, not accepted", 503),
    _refused(
        "no_channel",
        "error",
        "422: nothing serves the model just now",
        422,
        "service_unavailable_error",
        "no_compatible_channel",
    ),
    _refused(
        "refuse_403_model", "error", "403: this key may not use the model", 403, "permission_error", "model_not_allowed"
    ),
    _refused(
        "refuse_no_model",
        "error",
        "422: no model available for this key's group",
        422,
        "invalid_request_error",
        "no_available_model",
    ),
    _refused(
        "refuse_options",
        "error",
        "422: an advanced option is not supported",
        422,
        "invalid_request_error",
        "unsupported_advanced_options",
    ),
    _made("lost", "close", "task made, connection closed without a byte"),
    _made("reset_after", "reset", "task made, connection reset"),
    _made("hang", "hang", "task made, the answer never comes"),
    _made("http_500", "error", "task made, 500", 500),
    _made("http_502", "html", "task made, 502 as an HTML page", 502),
    _made("http_504", "html", "task made, 504 as an HTML page", 504),
    _made("http_408", "error", "task made, 408", 408),
    _made("http_520", "html", "task made, 520 as an HTML page", 520),
    _made("html_200", "html", "task made, 200 with an HTML page"),
    _made("truncated_200", "truncated", "task made, the JSON stops in the middle"),
    _made("cut_200", "cut", "task made, the connection is cut in the middle of the body"),
    _made("empty_200", "empty", "task made, 200 with no body"),
    _made("not_utf8_200", "not_utf8", "task made, bytes that are no UTF-8"),
    _made("wrong_json_200", "wrong_json", "task made, JSON that is no task"),
    _made("slow_answer", "slow", "task made, the right answer comes `slow_s` seconds late"),
    _other("task_rejected", "fate", "fails for its content, and so does every submit of the same request"),
    _other("task_failed", "fate", "fails upstream; another submit is drawn anew"),
    _other("stuck", "fate", "never finishes"),
    _other("expired", "fate", "404 for good from the moment it should have finished"),
    _other("late", "fate", "takes 20 times its latency"),
    _other("unknown_status", "task", 'says "queued" and "moderating": at the first two polls and until it is done'),
    _other("legacy_results", "task", "results[0].message.content instead of a ChatCompletion"),
    _other("null_results", "results", "completed with results null or [] when sync_upstream=true"),
    _other("null_results_cached", "results", "completed with results null or [] when not sync_upstream=true"),
    _poll("poll_500", "error", "500", 500),
    _poll("poll_502_html", "html", "502 as an HTML page", 502),
    _poll("poll_429", "error", "429 with Retry-After", 429, "rate_limit_error"),
    _poll("poll_hang", "hang", "no answer ever comes"),
    _poll("poll_reset", "reset", "connection reset"),
    _poll("poll_truncated", "truncated", "the JSON stops in the middle"),
    _poll("poll_cut", "cut", "the connection is cut in the middle of the body"),
    _poll("poll_404", "error", "404 although the task is there", 404, "not_found"),
    _poll("poll_not_utf8", "not_utf8", "bytes that are no UTF-8"),
    _other("stream_cut", "stream", "the connection is cut half-way, without `done`"),
    _other("stream_error", "stream", "`event: error` half-way"),
    _other("stream_slow", "stream", "a pause of `slow_s` seconds half-way"),
    _other("stream_end", "stream", "the stream ends half-way, without `done`, as if that were all"),
    _other("stream_hang", "stream", "silence from half-way on, the connection stays open"),
    _other("stream_scrap", "stream", "a chunk half-way is no JSON"),
    _other("stream_refused", "stream", "503 instead of the stream"),
    _other("stream_unnamed", "stream", "chunks come as events without a name"),
    _other("stream_marker", "stream", "`data: [DONE]` instead of `done`"),
    _other("stream_task", "stream", "the first event is the task, so that a synchronous call learns its id"),
    _other("stream_crlf", "stream", "lines end in LF, CRLF or CR, event by event"),
    _other("stream_comments", "stream", "comments, `id`, `retry`, unknown fields, events without data"),
    _other("stream_multiline", "stream", "data of several lines"),
    _other("stream_split", "stream", "bytes come in pieces of 1 to 7, split anywhere"),
)


def named(name: str) -> Fault | None:
    """The fault of that name, or None."""
    return next((fault for fault in TABLE if fault.name == name), None)
