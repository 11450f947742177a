"""What a request may cost, from the price list: good for an estimate, never for a promise.

Source: api.md, `GET /api/pricing`: `quota_type` 1 is a fixed price a call, 0 goes by tokens and ratios; a ratio of 1
stands for one credit per 500,000 tokens (the convention of routers of this kind). Tokens of media are from the seeds
(a 30-second clip: 20,000 or more).
"""

from __future__ import annotations

from typing import Any

import msgspec

from batchfox.core.job import Job
from batchfox.core.nearest import nearest
from batchfox.errors import UserError

TOKENS_A_CREDIT = 500_000
USUAL_COMPLETION = 1_024
PROMPT_TOKENS = {"text": 1_000, "vision": 3_000, "video": 40_000, "audio": 10_000, "custom": 5_000}


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """One model's price: fixed a call, or by tokens."""

    fixed: float | None = None
    ratio: float = 0.0
    completion_ratio: float = 1.0

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Credits for one call."""
        if self.fixed is not None:
            return self.fixed
        return (prompt_tokens + completion_tokens * self.completion_ratio) * self.ratio / TOKENS_A_CREDIT


def read_prices(listed: Any) -> dict[str, Price]:
    """Price by model from the endpoint's answer; entries that make no sense are passed over."""
    data = listed.get("data") if isinstance(listed, dict) else None
    groups = listed.get("group_ratio") if isinstance(listed, dict) else None
    factor = (
        max((value for value in groups.values() if _is_number(value)), default=1.0) if isinstance(groups, dict) else 1.0
    )
    prices: dict[str, Price] = {}
    for entry in data if isinstance(data, list) else []:
        if not isinstance(entry, dict) or not isinstance(name := entry.get("model_name"), str):
            continue
        if entry.get("quota_type") == 1 and _is_number(entry.get("model_price")):
            prices[name] = Price(fixed=entry["model_price"] * factor)
        elif _is_number(entry.get("model_ratio")):
            more: Any = entry.get("completion_ratio")
            prices[name] = Price(
                ratio=entry["model_ratio"] * factor, completion_ratio=more if _is_number(more) else 1.0
            )
    return prices


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12


def estimate(prices: dict[str, Price], model: str | None, shape: str, max_tokens: int | None) -> float | None:
    """Credits one request may reserve; a model that is not listed costs as the dearest listed one. None: no list."""
    if not prices:
        return None
    completion = USUAL_COMPLETION if max_tokens is None else max_tokens
    prompt = PROMPT_TOKENS.get(shape, PROMPT_TOKENS["custom"])
    price = prices.get(model or "")
    if price is not None:
        return price.of(prompt, completion)
    return max(price.of(prompt, completion) for price in prices.values())


def refuse_unpriced(job: Job, prices: dict[str, Price]) -> None:
    """Raises `UserError` where a limit of credits is set and the price list cannot tell what the job's model costs."""
    if job.limits.credits is None and job.limits.credits_per_day is None:
        return
    key = "limits.credits_per_day" if job.limits.credits is None else "limits.credits"
    if not prices:
        raise UserError(
            f"{key} is set, but the API gives no price list, so no estimate can be made before the first "
            f"reservation is seen; take {key} out, or try again later"
        )
    model = job.request.get("model")
    if isinstance(model, str) and "{" not in model and model not in prices:
        raise UserError(
            f'{key} is set, but the price list does not name "{model}"{nearest(model, prices)}, so its cost '
            f"cannot be estimated; take {key} out, or use a listed model"
        )
