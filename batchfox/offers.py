"""`batchfox models`: asks the API what the key may use and what it costs, and shows it."""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import Iterator
from typing import Any

import msgspec

from batchfox.api import Api
from batchfox.core.complaint import printable
from batchfox.core.job import Job
from batchfox.core.offer import KINDS, Offer, read_offers
from batchfox.core.prices import read_prices
from batchfox.core.rulebook import RuleBook
from batchfox.core.verdict import of_poll
from batchfox.core.wire import MODELS_PATH, PRICES_PATH, Reply, read_error
from batchfox.errors import ApiGoneError, UserError
from batchfox.jobfile import find_key
from batchfox.rehearsal import api_of
from batchfox.words import credit, shorten

MOST_S = 20.0


class Offered(msgspec.Struct, kw_only=True):
    """The models that the key may use; `prices_unknown`: why there are no prices, or ""."""

    base_url: str
    models: list[Offer]
    prices_unknown: str = ""


def ask_offers(job: Job) -> Offered:
    """Asks the job's API. Raises `UserError` where the key is missing or refused, `ApiGoneError` where it is gone."""
    key, shown = find_key(job), job.api.base_url
    book = RuleBook.build(job.rules)
    with api_of(job, state=None) as base_url:
        listed, prices, absence = asyncio.run(_ask(base_url, key, shown, job.api.key_env))
    offers = read_offers(listed, read_prices(prices), book)
    if offers is None:
        raise UserError(f"{shown}: its answer is no list of models; is api.base_url right?")
    return Offered(base_url=shown, models=offers, prices_unknown=absence)


async def _ask(base_url: str, key: str, shown: str, key_env: str) -> tuple[Any, Any, str]:
    """The list of models, the price list or None, and why there is none."""
    async with Api(base_url, key, connections=2) as api:
        try:
            async with asyncio.timeout(MOST_S):
                listed = read_listed(await api.ask(MODELS_PATH), shown, key_env)
        except TimeoutError as error:
            raise ApiGoneError(f"{shown} gave no list of models within {MOST_S:g} s; try again later") from error
        except ApiGoneError as error:
            raise ApiGoneError(f"{shown} cannot be asked for its models ({error}); try again later") from error
        try:
            async with asyncio.timeout(MOST_S):
                prices = await api.fetch(PRICES_PATH)
        except (TimeoutError, ApiGoneError) as error:
            return listed, None, str(error) or "no answer in time"
    return listed, prices, "" if read_prices(prices) else "the API gives no price list"


def read_listed(reply: Reply, shown: str, key_env: str) -> Any:
    """The list of models that the API gives; None where that is no JSON. Raises `UserError`, `ApiGoneError`."""
    if reply.status == 200:
        try:
            return msgspec.json.decode(reply.body)
        except (ValueError, RecursionError):
            return None
    error = read_error(reply)
    status = f"HTTP {reply.status}"
    said = shorten(error.message or error.code or error.type or status)
    whole = said if said.startswith(status) else f"{status}: {said}"
    if reply.status == 429 or reply.status >= 500:
        raise ApiGoneError(whole)
    meaning = of_poll(reply.status, error, reply.body)
    if meaning == "key":
        raise UserError(f"{shown} refuses the key in {key_env} ({said}); put a key there that it takes")
    if meaning == "gateway":
        raise UserError(f"the gateway of {shown} refuses this client ({said}); try another network")
    raise UserError(f"{shown} gives no list of models ({whole}); is api.base_url right?")


# -- shown ------------------------------------------------------------------------------------------------------------


def describe(offered: Offered) -> Iterator[str]:
    """Lines for standard output, as wide as the terminal."""
    if not offered.models:
        yield f"{offered.base_url}: this key may use no model"
        return
    yield _table(offered)
    yield ""
    yield "image, video: how many a prompt takes, at most; max_tokens: with messages"
    if offered.prices_unknown:
        yield f"no prices: {offered.prices_unknown}"
    else:
        yield "in, out: credits for a million tokens, by the price list: no promise"


def _table(offered: Offered) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = max(60, shutil.get_terminal_size((80, 24)).columns)
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0))
    drawn.add_column("model", overflow="fold", min_width=min(26, max(len(offer.id) for offer in offered.models)))
    for kind in KINDS:
        drawn.add_column(kind, justify="right", width=5)
    has_prices = not offered.prices_unknown
    for name in ("in", "out") if has_prices else ():
        drawn.add_column(name, justify="right", no_wrap=True, min_width=4)
    drawn.add_column("notes", overflow="fold", ratio=1)
    for offer in offered.models:
        cells = [printable(offer.id), *(_takes(offer, kind) for kind in KINDS)]
        cells += _prices(offer) if has_prices else []
        drawn.add_row(*map(Text, [*cells, "; ".join(_notes(offer))]))
    written = io.StringIO()
    Console(file=written, width=width, color_system=None, highlight=False, legacy_windows=False).print(drawn)
    return "\n".join(line.rstrip() for line in written.getvalue().rstrip("\n").split("\n"))


def _takes(offer: Offer, kind: str) -> str:
    if offer.media is None:
        return "?"
    if kind not in offer.media:
        return "-"
    most = {"image": offer.most_images, "video": offer.most_videos}.get(kind)
    return "yes" if most is None else str(most)


def _prices(offer: Offer) -> list[str]:
    if offer.credits_per_call is not None:
        return [credit(offer.credits_per_call), "a call"]
    into, out = offer.credits_per_million_prompt_tokens, offer.credits_per_million_completion_tokens
    return ["?" if into is None else credit(into), "?" if out is None else credit(out)]


def _notes(offer: Offer) -> Iterator[str]:
    if not offer.is_known:
        yield "no rules known: the API decides"
    if offer.refused:
        yield f"batchfox's rules refuse {', '.join(offer.refused)}: see [[rules.models]]"
    if offer.requires_max_tokens:
        yield "max_tokens needed"
    if offer.least_max_tokens is not None:
        yield f"max_tokens {offer.least_max_tokens}+"
    if offer.is_one_visual:
        yield "one visual"
    if offer.thinks:
        yield "thinks"
    if offer.youtube and "video" in (offer.media or ()):
        yield "YouTube"
    if offer.audio_formats is not None and len(offer.audio_formats) < 4:
        yield f"audio: {', '.join(offer.audio_formats)}"
