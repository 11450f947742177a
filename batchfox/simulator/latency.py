"""How long a task takes: seeded distributions, each a pure function of two draws."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal, get_args

import msgspec

Kind = Literal["constant", "uniform", "lognormal", "bimodal"]

# Each hump of a bimodal latency is log-normal with this sigma: narrow, yet no two tasks alike.
_HUMP_SIGMA = 0.1
_FORMS = "constant:1, uniform:a,b, lognormal:median,sigma or bimodal:m1,m2,share2 (seconds, 0 or more)"


class LatencyError(ValueError):
    """A latency that cannot be read; the message says what is expected."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One distribution over seconds."""

    kind: Kind
    numbers: tuple[float, ...]

    def seconds(self, first: float, second: float) -> float:
        """The latency for two draws from [0, 1)."""
        match self.kind:
            case "constant":
                return self.numbers[0]
            case "uniform":
                low, high = self.numbers
                return low + (high - low) * first
            case "lognormal":
                median, sigma = self.numbers
                return _lognormal(median, sigma, first)
            case "bimodal":
                low, high, share = self.numbers
                return _lognormal(high if second < share else low, _HUMP_SIGMA, first)


def _lognormal(median: float, sigma: float, draw: float) -> float:
    # The normal's inverse has no value at 0 and 1; a draw can be 0.
    return median * math.exp(sigma * NormalDist().inv_cdf(min(max(draw, 1e-12), 1 - 1e-12)))


def parse_latency(text: str) -> Latency:
    """Reads a latency as the settings and the command line write it. Raises LatencyError."""
    kind, _, rest = text.partition(":")
    try:
        numbers = tuple(float(part) for part in rest.split(","))
    except ValueError:
        numbers = ()
    for known in get_args(Kind):
        if kind == known and _is_possible(known, numbers):
            return Latency(kind=known, numbers=numbers)
    raise LatencyError(f'latency: expected {_FORMS}, found "{text}"')


def _is_possible(kind: Kind, numbers: tuple[float, ...]) -> bool:
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        return False
    match kind, numbers:
        case "constant", (_,):
            return True
        case "lognormal", (_, _):
            return True
        case "uniform", (low, high):
            return low <= high
        case "bimodal", (_, _, share):
            return share <= 1
        case _:
            return False
