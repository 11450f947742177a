"""ChatCompletions: bytes → answer, and what was charged. Source: api.md and the seeds 000-004."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from batchfox.core.event import Answer
from batchfox.core.lenient import count_of, is_number, loads, text_of

_Count = Annotated[int, msgspec.Meta(ge=-(2**63), lt=2**63 - 1)] | None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    total_tokens: _Count = None


class _Completion(msgspec.Struct, gc=False):
    """A ChatCompletion in its documented form."""

    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None


_decode_completion = msgspec.json.Decoder(_Completion).decode


def read_answer(raw: bytes, charge: float | None) -> Answer | None:
    """The ChatCompletion in `raw`, or None where it is none: neither `choices` nor a `message` (seed 004's form)."""
    try:
        completion = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    try:
        known = _decode_completion(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_odd_answer(raw, completion, charge)
    if not known.choices:
        return _read_odd_answer(raw, completion, charge)
    choice, usage = known.choices[0], known.usage
    return Answer(
        completion=completion,
        text=choice.message.content,
        reasoning=choice.message.reasoning_content,
        finish_reason=choice.finish_reason,
        model=known.model,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        total_tokens=usage.total_tokens if usage else None,
        credits=charge,
    )


def _read_odd_answer(raw: bytes, completion: str, charge: float | None) -> Answer | None:
    """A completion that is not quite of the documented form: whatever of it can be read, part by part."""
    value = loads(raw)
    if not isinstance(value, dict):
        return None
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else value
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        return None
    message = choice["message"]
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Answer(
        completion=completion,
        text=_joined_text(message.get("content")),
        reasoning=text_of(message.get("reasoning_content")),
        finish_reason=text_of(choice.get("finish_reason")),
        model=text_of(value.get("model")),
        prompt_tokens=count_of(usage.get("prompt_tokens")),
        completion_tokens=count_of(usage.get("completion_tokens")),
        total_tokens=count_of(usage.get("total_tokens")),
        credits=charge,
    )


def _joined_text(content: Any) -> str | None:
    """A message's content as text; an array of blocks is joined by its text blocks."""
    if isinstance(content, list):
        texts = [block.get("text") for block in content if isinstance(block, dict)]
        content = "".join(text for text in texts if isinstance(text, str)) if texts else None
    return text_of(content)


def charge_of(usage: Any, *, final: bool) -> float | None:
    """Credits in a task's `usage`: the charge in a final reply, the reservation in a submit's."""
    if not isinstance(usage, dict):
        return None
    names = ("credits_charged", "credits_used", "credits_consumed", "credits") if final else ("credits_reserved",)
    for name in names:
        value = usage.get(name)
        if is_number(value) and value >= 0:
            return float(value)
    return None
