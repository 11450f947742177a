"""A pilot: a few rows that stand for all, and what their answers say of the rest.

Rows are told apart by model and shape, and of each kind those are taken that lie evenly over the input: neighbours are
alike more often than not. Bounded in memory, the same rows for the same input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, variance
from typing import Generic, TypeVar

import msgspec

MOST_KINDS = 32
OTHERS = "others"
SHARE = 0.95
Item = TypeVar("Item")

# Student's t, two-sided 95 %, by degrees of freedom from 1; beyond them by an expansion.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


class _Kind(Generic[Item]):
    """Rows of one kind: every so-manyth of them, of which there are never more than twice what is wanted."""

    def __init__(self, most: int) -> None:
        self._most = 2 * most
        self._step = 1
        self.rows = 0
        self.kept: list[Item] = []

    def see(self, item: Item) -> None:
        if self.rows % self._step == 0:
            if len(self.kept) == self._most:
                self.kept = self.kept[::2]
                self._step *= 2
            if self.rows % self._step == 0:
                self.kept.append(item)
        self.rows += 1

    def choose(self, number: int) -> list[Item]:
        """So many, from the middle of as many equal stretches."""
        return [self.kept[int((at + 0.5) * len(self.kept) / number)] for at in range(number)]


class Sampler(Generic[Item]):
    """Sees every row once; then `choose`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kinds: dict[str, _Kind[Item]] = {}

    def see(self, kind: str, item: Item) -> None:
        """A row of this kind."""
        if kind not in self._kinds and len(self._kinds) >= MOST_KINDS:
            kind = OTHERS
        self._kinds.setdefault(kind, _Kind(self._most)).see(item)

    @property
    def rows(self) -> dict[str, int]:
        """How many rows there are of each kind."""
        return {name: kind.rows for name, kind in self._kinds.items()}

    def choose(self) -> dict[str, list[Item]]:
        """The sample by kind: one of each kind at least where there is room, else of the largest; the rest by size."""
        shares = share_out(self.rows, self._most)
        return {name: self._kinds[name].choose(number) for name, number in shares.items() if number}


def share_out(rows: Mapping[str, int], most: int) -> dict[str, int]:
    """How many of each kind are taken: `most` together, or all there are."""
    order = sorted(rows, key=lambda name: -rows[name])
    if (total := sum(rows.values())) <= most:
        return dict(rows)
    shares = {name: int(number < most) for number, name in enumerate(order)}
    while sum(shares.values()) < most:
        # Whoever is furthest below its share of the rows comes next.
        open_ = [name for name in order if shares[name] < rows[name]]
        shares[max(open_, key=lambda name: rows[name] / total * most - shares[name])] += 1
    return shares


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the pilot as it ended. `credits` None: nothing tells what it cost."""

    kind: str
    status: str
    credits: float | None = None


class Extrapolation(msgspec.Struct, frozen=True, kw_only=True):
    """What all rows that were left are expected to come to, the pilot's included; each with its interval (95 %).

    `failures`: the share of rows that do not complete. `credits` None: too few costs are known. `is_rough`: the
    interval stands on so little that it says no more than the order.
    """

    rows: int
    tried: int
    failed: int
    failures: tuple[float, float, float]
    credits: tuple[float, float, float] | None
    is_rough: bool


def extrapolate(tried: Sequence[Tried], rows: Mapping[str, int]) -> Extrapolation:
    """`rows`: how many there are of each kind."""
    total = sum(rows.values())
    kinds = {name: [one for one in tried if one.kind == name] for name in rows}
    seen = {name: ones for name, ones in kinds.items() if ones}
    weight = sum(rows[name] for name in seen)
    failing = sum(rows[name] * fmean(one.status != "completed" for one in ones) for name, ones in seen.items())
    share = failing / weight if weight else 0.0
    return Extrapolation(
        rows=total,
        tried=len(tried),
        failed=sum(one.status != "completed" for one in tried),
        failures=(share, *wilson(share, len(tried))),
        credits=_credits(seen, rows, total),
        is_rough=len(tried) - len(seen) < 5,
    )


def wilson(share: float, number: int) -> tuple[float, float]:
    """The interval of a share seen in so many tries (Wilson's: it holds for few tries, and for none or all)."""
    if number == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + SHARE / 2)
    spread = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    centre, by = share + z * z / (2 * number), 1 + z * z / number
    return max((centre - spread) / by, 0.0), min((centre + spread) / by, 1.0)


def _credits(
    seen: Mapping[str, Sequence[Tried]], rows: Mapping[str, int], total: int
) -> tuple[float, float, float] | None:
    """The mean of each kind times its rows; the spread as of a stratified sample, that of kinds with a single row taken
    from the others. A failed task costs nothing."""
    costs = {name: found for name, ones in seen.items() if (found := [_cost(one) for one in ones if _is_known(one)])}
    known = sum(len(found) for found in costs.values())
    weight = sum(rows[name] for name in costs)
    if known < 2 or not weight:
        return None
    whole = total / weight  # kinds of which nothing is known cost as the others do
    expected = whole * sum(rows[name] * fmean(found) for name, found in costs.items())
    freedom = sum(len(found) - 1 for found in costs.values())
    if freedom:
        pooled = sum((len(found) - 1) * variance(found) for found in costs.values() if len(found) > 1) / freedom
    else:  # one of each kind: as if they were one kind
        freedom, pooled = known - 1, variance([cost for found in costs.values() for cost in found])
    spread = doubt = 0.0
    for name, found in costs.items():
        each, of = (variance(found), len(found) - 1) if len(found) > 1 else (pooled, freedom)
        left = max(1 - len(found) / rows[name], 0.0)
        part = rows[name] ** 2 * left * each / len(found)
        spread, doubt = spread + part, doubt + part**2 / of
    # Satterthwaite's degrees of freedom: those of the kind that the spread comes from count most.
    half = whole * student(int(spread**2 / doubt) if doubt else freedom) * math.sqrt(spread)
    spent = sum(sum(found) for found in costs.values())
    return expected, max(expected - half, spent), expected + half


def _is_known(one: Tried) -> bool:
    return one.credits is not None or one.status in ("failed", "invalid")


def _cost(one: Tried) -> float:
    return one.credits or 0.0


def student(freedom: int) -> float:
    """Student's t for the interval, at these degrees of freedom."""
    if freedom <= len(_T):
        return _T[max(freedom, 1) - 1]
    z = NormalDist().inv_cdf(0.5 + SHARE / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
