"""What a reply means, as tables: accepted, refused, try later, in doubt, stop the run.

Source: api.md, "Errors" and "Submit"; marks there say what is documented and what was observed. The rule behind the
submit's table: **refusals that the API documents mean that no task exists; everything else is in doubt.**
"""

from __future__ import annotations

import re
from typing import Literal

from batchfox.core.event import ApiError

SubmitMeaning = Literal["refused", "rate", "service", "row", "doubt", "key", "balance", "gateway"]
PollMeaning = Literal["missing", "rate", "again", "key", "gateway"]

SUBMIT_BY_STATUS: dict[int, SubmitMeaning] = {
    400: "refused",
    401: "key",
    402: "balance",
    403: "refused",
    404: "refused",
    413: "refused",
    422: "refused",
    429: "rate",
    503: "service",
}

# Codes and types that overrule the status.
SUBMIT_BY_WORD: dict[tuple[int, str], SubmitMeaning] = {
    (403, "authentication_error"): "key",
    (422, "no_compatible_channel"): "row",
    (422, "service_unavailable_error"): "row",
}

POLL_BY_STATUS: dict[int, PollMeaning] = {401: "key", 404: "missing", 429: "rate"}

# The gateway refuses a client by its user agent with a body that says so (api.md: 403 and `1010`).
_GATEWAY = re.compile(rb"\b1010\b")

# A failed task: which errors tell of the API's bad moment rather than of the request. What is not listed is not
# paid for again unless the job says `failed = "always"`: the safe choice costs a `--retry failed`, the other money.
_TRANSIENT = re.compile(
    r"time[d\s_-]*out|timeout|unavailable|overload|upstream|internal|server[_\s]error|rate[_\s-]?limit"
    r"|too many requests|try again|temporar|no_compatible_channel|capacity|connection|unreachable"
    r"|\b(?:429|500|502|503|504)\b",
    re.IGNORECASE,
)
_LASTING = re.compile(
    r"invalid|policy|safety|moderation|sensitive|unsupported|not[_\s]support|violation|too[_\s]large|no_available_model",
    re.IGNORECASE,
)


def of_submit(status: int, error: ApiError, body: bytes) -> SubmitMeaning:
    """What a submit's reply with this status means, 200 aside. An unlisted status is in doubt."""
    if status == 403 and _GATEWAY.search(body[:4096]):
        return "gateway"
    for word in (error.code, error.type):
        if word is not None and (meaning := SUBMIT_BY_WORD.get((status, word))):
            return meaning
    return SUBMIT_BY_STATUS.get(status, "doubt")


def of_poll(status: int, error: ApiError, body: bytes) -> PollMeaning:
    """What a poll's reply with this status means, 200 aside. A poll is free: what is not listed is asked again."""
    if status == 403:
        if _GATEWAY.search(body[:4096]):
            return "gateway"
        return "key" if "authentication_error" in (error.type, error.code) else "again"
    return POLL_BY_STATUS.get(status, "again")


def is_transient(error: ApiError) -> bool:
    """True where a failed task's error tells of a bad moment. The code speaks before the message."""
    for text in (error.code, error.message):
        if text:
            if _LASTING.search(text):
                return False
            if _TRANSIENT.search(text):
                return True
    return False
