"""What is left of an account, by the API's word.

Source: api.md, "Around it": `/dashboard/billing/subscription` (`hard_limit_usd`; 100,000,000 means unlimited) and
`/dashboard/billing/usage` (`total_usage`, hundredths).
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

SUBSCRIPTION_PATH = "/dashboard/billing/subscription"
USAGE_PATH = "/dashboard/billing/usage"
_UNLIMITED = 100_000_000
_A_WHOLE = 100


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """In the account's own units. `limit` None: there is none."""

    limit: float | None
    spent: float

    @property
    def left(self) -> float:
        """What may still be spent: infinite without a limit, and less than nothing where more was spent."""
        return math.inf if self.limit is None else self.limit - self.spent


def read_balance(subscription: Any, usage: Any) -> Balance | None:
    """Of the two answers, decoded; None where they do not tell."""
    limit, spent = _number_in(subscription, "hard_limit_usd"), _number_in(usage, "total_usage")
    if limit is None or spent is None:
        return None
    return Balance(limit=None if limit >= _UNLIMITED else limit, spent=spent / _A_WHOLE)


def _number_in(answer: Any, name: str) -> float | None:
    value = answer.get(name) if isinstance(answer, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
