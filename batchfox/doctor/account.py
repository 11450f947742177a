"""What the API says to this key, by requests that cost nothing: is the key taken, what is left, what time it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from batchfox.api import Api
from batchfox.core.balance import SUBSCRIPTION_PATH, USAGE_PATH, read_balance
from batchfox.core.job import Job
from batchfox.core.retry_after import moment_of
from batchfox.core.wire import MODELS_PATH, Reply
from batchfox.doctor.reaching import find_obstacle
from batchfox.doctor.remark import Remark, note
from batchfox.errors import ApiGoneError, UserError
from batchfox.jobfile import find_key
from batchfox.offers import read_listed
from batchfox.rehearsal import api_of
from batchfox.words import count, credit

ANSWER_S = 3.5
_BALANCE_S = 3.0
_MOST_OFFSET_S = 60.0


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    """`took_s`: until the list of models was there; `offset_s`: this clock less the API's."""

    models: Reply
    subscription: Any = None
    usage: Any = None
    took_s: float
    offset_s: float | None = None


def ask_around(job: Job) -> Iterator[Remark]:
    """Way, key, balance and clock of the job's API. Ends after ten seconds or so, whatever the network does."""
    try:
        key = find_key(job)
    except UserError as error:
        key = ""
        yield Remark(what=str(error))
    shown = job.api.base_url
    with api_of(job, state=None) as base_url:
        obstacle = find_obstacle(base_url, shown)
        if obstacle is not None:
            yield obstacle
            if key:
                yield note(f"the key in {job.api.key_env} is there; the API could not be asked about it")
            return
        try:
            heard = asyncio.run(_hear(base_url, key))
        except ApiGoneError as error:
            yield Remark(what=f"connected, and no answer came ({error})", where=shown, next="try again later")
            return
    yield from _describe(job, heard, has_key=bool(key))


async def _hear(base_url: str, key: str) -> _Heard:
    """Raises `ApiGoneError` where the list of models is not to be had; without the balance it can do."""
    began = time.monotonic()
    async with Api(base_url, key, connections=3) as api:
        try:
            async with asyncio.timeout(ANSWER_S):
                subscription, usage, models = await asyncio.gather(
                    _try(api, SUBSCRIPTION_PATH), _try(api, USAGE_PATH), api.ask(MODELS_PATH)
                )
        except TimeoutError as error:
            raise ApiGoneError(f"within {ANSWER_S:g} s") from error
    date = moment_of(models.date)
    offset_s = None if date is None else time.time() - date
    took_s = time.monotonic() - began
    return _Heard(models=models, subscription=subscription, usage=usage, took_s=took_s, offset_s=offset_s)


async def _try(api: Api, path: str) -> Any:
    try:
        async with asyncio.timeout(_BALANCE_S):
            return await api.fetch(path)
    except (TimeoutError, ApiGoneError):
        return None


def _describe(job: Job, heard: _Heard, *, has_key: bool) -> Iterator[Remark]:
    shown = job.api.base_url
    yield note(f"answers in {heard.took_s:.2f} s", where=shown)
    yield from _compare_clocks(heard.offset_s)
    if not has_key:
        return
    try:
        listed = read_listed(heard.models, shown, job.api.key_env)
    except UserError as error:
        yield Remark(what=str(error))
        return
    except ApiGoneError as error:
        yield Remark(what=f"gives no list of models now ({error})", where=shown, next="try again later")
        return
    models = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(models, list):
        yield Remark(what="its answer is no list of models", where=shown, next="is api.base_url right?")
        return
    yield note(f"the API takes the key, and lets it use {count(len(models), 'model')}")
    yield _weigh(heard)


def _compare_clocks(offset_s: float | None) -> Iterator[Remark]:
    """The header tells whole seconds: what it says is that much off, and half the time of the answer."""
    if offset_s is None:
        return
    if abs(offset_s) <= _MOST_OFFSET_S:
        yield note("the clock agrees with the API's")
        return
    which = "ahead of" if offset_s > 0 else "behind"
    yield Remark(
        what=f"this machine's clock is {abs(offset_s):,.0f} s {which} the API's",
        next="set the clock: times in the output, run_date and schedules come from it",
    )


def _weigh(heard: _Heard) -> Remark:
    balance = read_balance(heard.subscription, heard.usage)
    if balance is None:
        return note("the API does not tell the balance")
    if balance.limit is None:
        return note(f"the balance has no limit; {credit(balance.spent)} is spent")
    spent = f"{credit(balance.spent)} of {credit(balance.limit)} is spent"
    if balance.left <= 0:
        return Remark(what=f"the balance is gone: {spent}", next="top it up: the API takes no submit before that")
    return note(f"the balance is {credit(balance.left)}: {spent}")
