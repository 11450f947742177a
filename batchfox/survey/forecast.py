"""What a job will roughly take: tokens by rule of thumb, credits by the API's price list, time by its limits."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from batchfox.api import Api
from batchfox.core.job import Job
from batchfox.core.prices import USUAL_COMPLETION, Price, read_prices
from batchfox.core.shape import Medium
from batchfox.core.wire import PRICES_PATH
from batchfox.errors import ApiGoneError
from batchfox.rehearsal import api_of

CHARACTERS_A_TOKEN = 4
TOKENS_A_MEDIUM = {"image": 1_000, "video": 20_000, "audio": 5_000, "file": 3_000}
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
    """Sums over the requests. `credits` at most, those of `unpriced` models aside; None without a price list."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    credits: float | None = None
    credits_unknown: str = ""
    unpriced: dict[str, int] = msgspec.field(default_factory=dict)
    minutes: float | None = None
    rounds: int = 0

    @classmethod
    def begin(cls, listed: PriceList) -> Forecast:
        return cls(credits=0.0 if listed.prices else None, credits_unknown=listed.absence)

    def add(self, request: dict[str, Any], media: list[Medium], listed: PriceList) -> None:
        """One request that is to be sent."""
        prompt = characters(request) // CHARACTERS_A_TOKEN + sum(TOKENS_A_MEDIUM.get(m.kind, 0) for m in media)
        most = request.get("max_tokens")
        completion = most if isinstance(most, int) else USUAL_COMPLETION
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
        pace = job.limits.requests_per_minute
        self.minutes = requests / pace if pace else None
        self.rounds = -(-requests // job.limits.in_flight)


def characters(value: Any) -> int:
    """Characters of text in a request, media aside."""
    if isinstance(value, str):
        return 0 if value.startswith(("data:", "http://", "https://")) else len(value)
    if isinstance(value, dict):
        return sum(characters(item) for item in value.values())
    if isinstance(value, list):
        return sum(characters(item) for item in value)
    return 0
