"""What a job will roughly take: tokens by rule of thumb, credits by the API's price list, time by its limits."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec

from batchfox.api import Api
from batchfox.core.job import Job
from batchfox.core.prices import Price, read_prices
from batchfox.core.shape import Medium
from batchfox.core.tokens import expected_tokens
from batchfox.core.wire import PRICES_PATH
from batchfox.errors import ApiGoneError
from batchfox.rehearsal import api_of

MOST_S = 5.0


class PriceList(msgspec.Struct, frozen=True, kw_only=True):
    """Price by model, or why there is none. The list is free and needs no key."""

    prices: dict[str, Price] = msgspec.field(default_factory=dict)
    absence: str = "nobody asked for the price list"


def ask_prices(job: Job) -> PriceList:
    """The API's price list; a few seconds are enough, and having none is no error: `validate` works offline."""
    shown = job.api.base_url

    async def ask(base_url: str) -> Any:
        async with Api(base_url, "", connections=1) as api, asyncio.timeout(MOST_S):
            return await api.fetch(PRICES_PATH)

    with api_of(job, state=None) as base_url:
        try:
            prices = read_prices(asyncio.run(ask(base_url)))
        except TimeoutError:
            return PriceList(absence=f"{shown} gave no price list within {MOST_S:g} s")
        except ApiGoneError as error:
            return PriceList(absence=f"the price list of {shown} cannot be had now ({error})")
    return PriceList(prices=prices, absence="" if prices else f"{shown} gives no price list")


class Forecast(msgspec.Struct, kw_only=True):
    """Sums over the requests. `credits` at most, those of `unpriced` models aside; None without a price list.
    `minutes` by the limit that binds, `binding`: at least, but by tokens at most, since answers may be shorter."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    credits: float | None = None
    credits_unknown: str = ""
    unpriced: dict[str, int] = msgspec.field(default_factory=dict)
    minutes: float | None = None
    binding: str = ""
    rounds: int = 0

    @classmethod
    def begin(cls, listed: PriceList) -> Forecast:
        return cls(credits=0.0 if listed.prices else None, credits_unknown=listed.absence)

    def add(self, request: dict[str, Any], media: list[Medium], listed: PriceList) -> None:
        """One request that is to be sent."""
        prompt, completion = expected_tokens(request, media)
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        if self.credits is None:
            return
        model = str(request.get("model"))
        price = listed.prices.get(model)
        if price is not None:
            self.credits += price.of(prompt, completion)
        elif model in self.unpriced or len(self.unpriced) < 100:
            self.unpriced[model] = self.unpriced.get(model, 0) + 1

    def end(self, job: Job, requests: int) -> None:
        """All requests are in: how long will they take?"""
        limits = job.limits
        by_limit = {
            "limits.requests_per_minute": requests / (limits.requests_per_minute or math.inf),
            # A poll a task is the least there can be.
            "limits.polls_per_minute": requests / (limits.polls_per_minute or math.inf),
            "limits.tokens_per_minute": (self.prompt_tokens + self.completion_tokens)
            / (limits.tokens_per_minute or math.inf),
        }
        self.binding = max(by_limit, key=lambda name: by_limit[name])
        self.minutes = by_limit[self.binding] or None
        self.rounds = -(-requests // job.limits.in_flight)
