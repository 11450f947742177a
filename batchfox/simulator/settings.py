"""What a simulator can be told, and the refusal of what makes no sense. Some of it can change while it runs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from batchfox.simulator import faults
from batchfox.simulator.latency import LatencyError, parse_latency

Outage = Literal["503", "500", "close"]

# The server and its sockets are built with these: they cannot change while it runs.
FIXED = frozenset({"body_limit_bytes"})


class SettingsError(ValueError):
    """A setting that makes no sense; the message names it, what was found and what is allowed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One simulator's settings. Seconds end in `_s`, sizes in `_bytes`; `None` means no limit.

    `latency`: `constant:1`, `uniform:a,b`, `lognormal:median,sigma` or `bimodal:m1,m2,share2`. `faults`: rate (0 to 1)
    by the name of the fault. `rate_limit`: `rpm` over a sliding minute, or as a bucket of `burst` that refills at
    `rpm`. `balance`: credits in all, those already spent included. `model_rpm`: the same over a sliding minute for
    single models. `retry_after_s`: what every 429 asks for, whatever the true wait is. `keys`: those that are taken;
    empty: any `sk-…`. `gateway`: refuse default user agents. `models`: served beside the built-in ones, by the rules of
    the family that the name begins with. `cache_lag_s`: how old a poll's answer is without `sync_upstream`.
    `upload_life_s`: how long an upload is kept.
    """

    seed: int = 0
    latency: str = "lognormal:2,0.5"
    faults: dict[str, float] = {}
    rpm: int | None = None
    rate_limit: Literal["window", "bucket"] = "window"
    burst: int = 10
    model_rpm: dict[str, int] = {}
    poll_rpm: int | None = None
    retry_after: Literal["seconds", "date", "none"] = "seconds"
    retry_after_s: float | None = None
    balance: float | None = None
    keys: tuple[str, ...] = ()
    key_refused: bool = False
    outage: Outage | None = None
    gateway: bool = True
    models: tuple[str, ...] = ()
    slow_s: float = 3.0
    cache_lag_s: float = 0.0
    body_limit_bytes: int = 100_000_000
    upload_limit_bytes: int = 100_000_000
    upload_life_s: float | None = 86_400.0

    def __post_init__(self) -> None:
        try:
            parse_latency(self.latency)
        except LatencyError as error:
            raise SettingsError(str(error)) from error
        for name, rate in self.faults.items():
            if faults.named(name) is None:
                names = ", ".join(fault.name for fault in faults.TABLE)
                close = difflib.get_close_matches(name, [fault.name for fault in faults.TABLE], n=1)
                hint = f' (did you mean "{close[0]}"?)' if close else ""
                raise SettingsError(f'faults: no fault is named "{name}"{hint}; expected one of {names}')
            if not 0 <= rate <= 1:
                raise SettingsError(f"faults.{name}: expected a rate from 0 to 1, found {rate}")
        for model, rpm in self.model_rpm.items():
            if rpm < 1:
                raise SettingsError(f"model_rpm.{model}: expected 1 or more, found {rpm}")
        for field, least in _LEAST.items():
            value = getattr(self, field)
            if value is not None and not value >= least:
                raise SettingsError(f"{field}: expected {least} or more, found {value}")


_LEAST: dict[str, float] = {
    "rpm": 1,
    "poll_rpm": 1,
    "burst": 1,
    "retry_after_s": 0,
    "balance": 0,
    "slow_s": 0,
    "cache_lag_s": 0,
    "body_limit_bytes": 1,
    "upload_limit_bytes": 1,
    "upload_life_s": 0,
}


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """`settings` with `changes`, checked as if new. Raises SettingsError; `faults` is replaced as a whole."""
    if fixed := sorted(FIXED & changes.keys()):
        raise SettingsError(f"{', '.join(fixed)}: cannot change while the simulator runs")
    try:
        return msgspec.convert({**msgspec.to_builtins(settings), **changes}, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(str(error)) from error
