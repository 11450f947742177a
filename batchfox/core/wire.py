"""The API's dialect: replies → events. With `completion.py`, `shape.py` and `rules.py` the only place that knows
JSON field names.

Any bytes may come in; what comes out is always one event. Source: api.md and the seeds 000-004.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import msgspec

from batchfox.core import verdict
from batchfox.core.completion import charge_of, read_answer
from batchfox.core.event import (
    Accepted,
    Answered,
    ApiError,
    Deferred,
    Doubted,
    Halted,
    Missing,
    PollEvent,
    Refused,
    Running,
    StreamEnd,
    SubmitEvent,
    TaskFailed,
    Unheard,
)
from batchfox.core.lenient import has_surrogate, loads, text_of
from batchfox.core.retry_after import moment_of, retry_after_s

SUBMIT_PATH = "/v1/llm/generations"
MODELS_PATH = "/v1/configs/llm_generations_models"
PRICES_PATH = "/api/pricing"
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_PATH = re.compile(r"/(?!/)[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*")
_TASK_OBJECT = "llm.generation.task"
_MOST_MESSAGE = 2000


def task_path(task_id: str) -> str:
    """The path that polls a task; the id, which came from outside, is quoted."""
    if _PLAIN_ID.fullmatch(task_id):
        return f"/v1/tasks/{task_id}"
    return f"/v1/tasks/{quote(task_id, safe='')}"


def stream_path(task_id: str, offered: Any) -> str | None:
    """The path (and query) of a task's stream, as the submit's reply offers it; None where it offers none.

    What is offered is a path of this API, or the documented one stands in for it: the key goes to no other host.
    """
    if not isinstance(offered, dict):
        return None
    url = offered.get("url")
    if isinstance(url, str) and _PLAIN_PATH.fullmatch(url) and ".." not in url:
        return url
    return f"{SUBMIT_PATH}/{quote(task_id, safe='')}/stream"


class Reply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One HTTP reply, whole. `retry_after`, `date`: those headers as they stood."""

    status: int
    body: bytes
    retry_after: str | None = None
    date: str | None = None


class _Task(msgspec.Struct, gc=False):
    """A task object, lazily: what is not looked at is not decoded."""

    id: Any = None
    status: Any = None
    progress: Any = None
    object: Any = None
    results: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None
    usage: Any = None
    stream: Any = None


_decode_task = msgspec.json.Decoder(_Task).decode
_decode_raw_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_submit(reply: Reply, now_unix_s: float, *, is_sync: bool) -> SubmitEvent:
    """The event of a submit's reply. `now_unix_s` serves a `Retry-After` given as a date, where the reply does not say
    itself what time it is."""
    if 200 <= reply.status < 300:
        return _read_submitted(reply, is_sync=is_sync)
    error = read_error(reply)
    meaning = verdict.of_submit(reply.status, error, reply.body)
    match meaning:
        case "refused":
            return Refused(error=error, http_status=reply.status)
        case "rate" | "service" | "row":
            wait_s = retry_after_s(reply.retry_after, moment_of(reply.date) or now_unix_s)
            return Deferred(error=error, scope=meaning, http_status=reply.status, retry_after_s=wait_s)
        case "key" | "balance" | "gateway":
            return Halted(cause=meaning, error=error, http_status=reply.status)
        case "doubt":
            return Doubted(error=error, http_status=reply.status)


def _read_submitted(reply: Reply, *, is_sync: bool) -> SubmitEvent:
    task = _open(reply.body)
    if task is not None:
        if is_sync and (answer := read_answer(reply.body, charge_of(task.usage, final=True))) is not None:
            return Answered(answer=answer, http_status=reply.status)
        if isinstance(task.id, str) and task.id and task.object != "chat.completion" and not has_surrogate(task.id):
            reserved = charge_of(task.usage, final=False)
            stream = stream_path(task.id, task.stream)
            return Accepted(task_id=task.id, reserved=reserved, stream=stream, http_status=reply.status)
    message = f"HTTP {reply.status} whose body is no task: {_glimpse(reply.body)}"
    said = ApiError(code="unreadable_reply", message=message)
    return Doubted(error=said, http_status=reply.status)


def read_poll(reply: Reply, now_unix_s: float, task_id: str) -> PollEvent:
    """The event of a poll's reply. `task_id`: the task that was asked about."""
    if 200 <= reply.status < 300:
        return _read_polled(reply, task_id)
    error = read_error(reply)
    meaning = verdict.of_poll(reply.status, error, reply.body)
    match meaning:
        case "missing":
            return Missing(error=error)
        case "key" | "gateway":
            return Halted(cause=meaning, error=error, http_status=reply.status)
        case "rate" | "again":
            wait_s = retry_after_s(reply.retry_after, moment_of(reply.date) or now_unix_s)
            is_rate = meaning == "rate"
            return Unheard(error=error, http_status=reply.status, retry_after_s=wait_s, is_rate=is_rate)


def read_no_stream(reply: Reply, now_unix_s: float) -> StreamEnd:
    """What a reply means that should have been a stream and is none."""
    error = msgspec.structs.replace(read_error(reply), code="no_stream")
    wait_s = retry_after_s(reply.retry_after, moment_of(reply.date) or now_unix_s)
    passes = verdict.of_poll(reply.status, error, reply.body) in ("rate", "again") and reply.status >= 400
    return StreamEnd(error=error, http_status=reply.status, may_open_again=passes, retry_after_s=wait_s)


def _read_polled(reply: Reply, task_id: str) -> PollEvent:
    task = _open(reply.body)
    if task is None or not isinstance(task.status, str):
        said = ApiError(code="unreadable_reply", message=f"a poll's body is no task: {_glimpse(reply.body)}")
        return Unheard(error=said, http_status=reply.status)
    if _is_another(task, task_id):
        said = ApiError(code="other_task", message=f"asked about {task_id}, told of another: {_glimpse(reply.body)}")
        return Unheard(error=said, http_status=reply.status)
    if task.status == "failed":
        error = error_of(task.error, default_code="task_failed")
        return TaskFailed(error=error, transient=verdict.is_transient(error), http_status=reply.status)
    if task.status != "completed":
        progress = task.progress if isinstance(task.progress, (int, float)) else None
        return Running(progress=progress)
    first = _first_result(task.results)
    if first is not None and (answer := read_answer(first, charge_of(task.usage, final=True))) is not None:
        return Answered(answer=answer, http_status=reply.status)
    said = ApiError(code="no_results", message=f"completed, but without a readable result: {_glimpse(reply.body)}")
    return Unheard(error=said, http_status=reply.status, without_results=True)


def _is_another(task: _Task, task_id: str) -> bool:
    """Does the reply name a task, and not the one asked about? One row must never get another row's answer.

    A reply may name none, or the completion (`chatcmpl-…`): an id counts as a task's by the object it is of, or where
    it begins as the one asked about (seeds: `llm.generation.task`, `task-…`).
    """
    found = task.id
    if not isinstance(found, str) or not found or found == task_id or task.object == "chat.completion":
        return False
    return task.object == _TASK_OBJECT or found.partition("-")[0] == task_id.partition("-")[0]


def _open(body: bytes) -> _Task | None:
    """The body as a task object, or None where it is no JSON object in UTF-8."""
    try:
        return _decode_task(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:  # lone surrogates and NaN are refused by the fast decoder, taken by the standard one
        value = json.loads(body.decode("utf-8-sig", "surrogatepass"))
        if not isinstance(value, dict):
            return None
        results = msgspec.Raw(json.dumps(value.get("results")).encode())
    except (ValueError, RecursionError):
        return None
    rest = {name: value.get(name) for name in ("id", "status", "progress", "object", "error", "usage", "stream")}
    return _Task(results=results, **rest)


def _first_result(results: msgspec.Raw) -> bytes | None:
    """The first of a task's results, undecoded where it can be; None where there is none."""
    try:
        listed = _decode_raw_list(results)
        return bytes(listed[0]) if listed else None
    except (msgspec.DecodeError, RecursionError):
        pass
    try:  # a NaN in the answer must not lose it: it is paid for
        value = json.loads(bytes(results))
        return json.dumps(value[0]).encode() if isinstance(value, list) and value else None
    except (ValueError, RecursionError):
        return None


def read_error(reply: Reply) -> ApiError:
    """The error in a reply's body. HTML, empty and broken bodies are shown by their beginning."""
    value = loads(reply.body) if reply.body else None
    inner = value.get("error") if isinstance(value, dict) else None
    error = error_of(inner, default_code=None)
    return error if error != ApiError() else ApiError(message=f"HTTP {reply.status}: {_glimpse(reply.body)}")


def error_of(value: Any, *, default_code: str | None) -> ApiError:
    """An error object, or a text in its place. A part that holds no letter says nothing and is None."""
    if isinstance(value, dict):
        code = value.get("code")
        code = str(code) if isinstance(code, int) and not isinstance(code, bool) else code
        return ApiError(
            code=_said(code) or default_code, type=_said(value.get("type")), message=_said(value.get("message"))
        )
    return ApiError(code=default_code, message=_said(value))


def _said(value: Any) -> str | None:
    text = text_of(value)
    return _short(text) if text and any(letter.isprintable() and not letter.isspace() for letter in text) else None


def _short(text: str) -> str:
    return text if len(text) <= _MOST_MESSAGE else text[: _MOST_MESSAGE - 1] + "…"


def _glimpse(body: bytes) -> str:
    text = " ".join(body[:400].decode("utf-8", "replace").split())
    return (text[:160] + "…" if len(text) > 160 else text) or "an empty body"
