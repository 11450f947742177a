"""A task and how it looks at a given moment. Nothing runs for it: its state is a function of the clock."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from batchfox.simulator import answers
from batchfox.simulator.answers import Brief
from batchfox.simulator.draws import letters, number_of

Fate = Literal["completed", "task_failed", "task_rejected", "media_unfetched", "stuck", "expired", "late"]
Status = Literal["pending", "processing", "completed", "failed", "gone"]

SUBMIT_PATH = "/v1/llm/generations"
LATE_TIMES = 20.0
UNFETCHED = "Failed to download a medium from its URL"

_PENDING_SHARE = 0.1
_MOST_UNFINISHED = 99


class Task(msgspec.Struct, kw_only=True, gc=False):
    """One billed submit. Written once, but for three counters: a copy per poll would be dearer than the poll.

    `number`: which submit of this digest it was, from 1. `latency_s`: until it ends, the fate's doing included.
    `struck`: the fault that hit the answer to its submit. `charge`: what its end costs; until then `reserved` is held.
    """

    seq: int
    id: str
    brief: Brief
    number: int
    created: float
    latency_s: float
    fate: Fate
    struck: str | None
    reserved: float
    charge: float
    has_stream: bool
    is_answered: bool = False
    polls: int = 0
    streams: int = 0

    @property
    def finish_at(self) -> float:
        """When it ends, unix seconds; never for a stuck one."""
        return math.inf if self.fate == "stuck" else self.created + self.latency_s

    @property
    def key(self) -> tuple[str, int]:
        """What its draws depend on."""
        return self.brief.digest, self.number


def task_id(seed: int, brief: Brief, number: int, created: float, salt: int) -> str:
    """`task-llmrouter-<unix>-<8 letters>`, `task-llm-…` for the custom shape.

    The microseconds are drawn upon too: a restart within the second gives other letters to the same request.
    """
    kind = "llm" if brief.shape == "custom" else "llmrouter"
    drawn = letters(seed, "id", brief.digest, number, int(created * 1e6), salt)
    return f"task-{kind}-{int(created)}-{drawn}"


def status_at(task: Task, now: float) -> Status:
    """Where the task is; `gone` when an expired one would have finished."""
    if now >= task.finish_at:
        match task.fate:
            case "task_failed" | "task_rejected" | "media_unfetched":
                return "failed"
            case "expired":
                return "gone"
            case _:
                return "completed"
    return "pending" if now < task.created + task.latency_s * _PENDING_SHARE else "processing"


def progress_at(task: Task, now: float) -> int:
    """0 to 100 by the clock."""
    if now >= task.finish_at:
        return 100
    share = (now - task.created) / task.latency_s if task.latency_s else 1.0
    return max(0, min(_MOST_UNFINISHED, int(100 * share)))


def submitted(task: Task) -> dict[str, Any]:
    """The answer to its submit."""
    return _frame(task) | {"usage": {"credits_reserved": task.reserved}}


def polled(task: Task, now: float) -> dict[str, Any]:
    """The answer to a poll at `now`, faults aside; the task must not be gone."""
    status = status_at(task, now)
    said = _frame(task) | {"status": status, "progress": progress_at(task, now)}
    said["usage"] = {"credits_reserved": task.reserved}
    if status in ("completed", "failed"):
        said["usage"]["credits_charged"] = task.charge
    if status == "completed":
        said["results"] = [answers.completion(task.brief)]
    if status == "failed":
        said["error"] = failure(task)
    if task.has_stream:
        said["data"] = {"content": written_at(task, now)}
    return said


def written_at(task: Task, now: float) -> str:
    """How much of the answer of a streamed task has been written."""
    text = answers.content(task.brief)
    return text if status_at(task, now) == "completed" else text[: len(text) * progress_at(task, now) // 100]


def failure(task: Task) -> dict[str, str]:
    """The error of a failed task."""
    if task.fate == "task_failed":
        return _error("upstream_error", "The upstream is temporarily unavailable, please try again later")
    if task.fate == "media_unfetched":
        return _error("media_download_failed", UNFETCHED)
    if number_of(0, task.brief.digest) % 2:
        return _error("content_policy_violation", "The request was rejected by the content policy")
    return _error("invalid_param", "The upstream could not read the request: invalid content")


def legacy(said: dict[str, Any]) -> dict[str, Any]:
    """The same answer with its results in the older form: `results[0].message.content`."""
    if said["results"]:
        choice = said["results"][0]["choices"][0]
        said["results"] = [{"message": choice["message"], "finish_reason": choice["finish_reason"]}]
    return said


def unfinished(said: dict[str, Any], status: str) -> dict[str, Any]:
    """The same answer with another status word and nothing of the end."""
    reserved = {"credits_reserved": said["usage"]["credits_reserved"]}
    progress = min(said["progress"], _MOST_UNFINISHED)
    return said | {"status": status, "progress": progress, "results": None, "error": None, "usage": reserved}


def _error(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message, "type": "task_error"}


def _frame(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "object": "llm.generation.task",
        "type": "llm",
        "model": task.brief.model,
        "status": "pending",
        "progress": 0,
        "created": int(task.created),
        "stream": {"url": f"{SUBMIT_PATH}/{task.id}/stream"} if task.has_stream else None,
        "results": None,
        "error": None,
    }
