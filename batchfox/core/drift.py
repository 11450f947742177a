"""Drift: do the answers of this run look like those of the last runs? Sums of a few figures, and what is beyond
chance.

A figure is taken for off only where chance does not explain it: it is off by three standard errors more than is
allowed. The limits are looked at all the time, and many honest runs would be stopped otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from batchfox.core.outcome import Outcome

Name = Literal["refused", "empty", "length", "tokens", "credits", "latency"]
SHARES: tuple[Name, ...] = ("refused", "empty")
FACTORS: tuple[Name, ...] = ("length", "tokens", "credits", "latency")
_ERRORS = 3.0
# What is told at the end of a run though nobody set a limit: a factor, and for shares so much more of the rows.
TOLD_FACTOR = 1.5
TOLD_SHARE = 0.02
LEAST_TOLD_ROWS = 50
_REFUSAL = re.compile(
    r"\W*(?:i[’']?m (?:very |really )?sorry|i am sorry|sorry,|i can(?:not|[’']?t)\b"
    r"|i (?:am|[’']?m) (?:unable|not able)\b|as an ai\b)",
    re.IGNORECASE,
)


class Sums(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Over rows that were sent: completed or failed. Of `length` (characters of text), `tokens`, `credits` and the
    logarithm of `latency` (seconds) the sum and that of the squares."""

    rows: int = 0
    refused: int = 0
    completed: int = 0
    empty: int = 0
    length: tuple[float, float] = (0.0, 0.0)
    tokens: tuple[float, float] = (0.0, 0.0)
    tokens_rows: int = 0
    credits: tuple[float, float] = (0.0, 0.0)
    credits_rows: int = 0
    latency: tuple[float, float] = (0.0, 0.0)
    latency_rows: int = 0

    def see(self, outcome: Outcome) -> None:
        """One more outcome; such as say nothing of an answer do not count."""
        if outcome.status not in ("completed", "failed"):
            return
        self.rows += 1
        self.refused += is_refused(outcome)
        answer = outcome.answer
        if outcome.status != "completed" or answer is None:
            return
        text = answer.text or ""
        self.completed += 1
        self.empty += not text.strip()
        self.length = _more(self.length, len(text))
        if answer.total_tokens is not None:
            self.tokens, self.tokens_rows = _more(self.tokens, answer.total_tokens), self.tokens_rows + 1
        if outcome.credits is not None:
            self.credits, self.credits_rows = _more(self.credits, outcome.credits), self.credits_rows + 1
        if outcome.latency_s:
            self.latency, self.latency_rows = _more(self.latency, math.log(outcome.latency_s)), self.latency_rows + 1

    def share(self, name: Name) -> tuple[int, int]:
        """How many of how many rows."""
        return (self.refused, self.rows) if name == "refused" else (self.empty, self.completed)

    def mean(self, name: Name) -> tuple[float, float] | None:
        """A mean and its standard error, of the latency's logarithm; None where there is nothing to take it of."""
        rows = self.completed if name == "length" else getattr(self, f"{name}_rows")
        if rows == 0:
            return None
        total, squares = getattr(self, name)
        mean = total / rows
        return mean, math.sqrt(max(squares / rows - mean * mean, 0.0) / rows)


def is_refused(outcome: Outcome) -> bool:
    """Did the API refuse or fail the row, or the model decline it: by its finish reason, or in so many words?"""
    if outcome.status == "failed":
        return True
    answer = outcome.answer
    return answer is not None and (
        answer.finish_reason in ("content_filter", "refusal") or _REFUSAL.match(answer.text or "") is not None
    )


def pool(runs: Iterable[Sums]) -> Sums:
    """The sums over several runs."""
    found = Sums()
    for sums in runs:
        for name in _COUNTS:
            setattr(found, name, getattr(found, name) + getattr(sums, name))
        for name in FACTORS:
            (one, squares), (other, more) = getattr(found, name), getattr(sums, name)
            setattr(found, name, (one + other, squares + more))
    return found


_COUNTS = tuple(field.name for field in msgspec.structs.fields(Sums) if field.name not in FACTORS)


class Drifted(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that is off: what it is now, what it was in the last runs (None: no matter), what was allowed."""

    name: Name
    now: float
    before: float | None
    allowed: float
    rows: int


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What is allowed: shares of rows at most, and factors to what was in the last runs. None: anything."""

    refused: float | None = None
    empty: float | None = None
    length: float | None = None
    tokens: float | None = None
    credits: float | None = None
    latency: float | None = None


def bounds_of(guard: Any) -> Bounds:
    """`guard`: the job file's `[guard]`."""
    return Bounds(**{field.name: getattr(guard, field.name) for field in msgspec.structs.fields(Bounds)})


def unmeasured(bounds: Bounds, before: Sums) -> list[Name]:
    """Of the factors that are bounded, those to which the last runs give no measure."""
    return [name for name in FACTORS if getattr(bounds, name) is not None and before.mean(name) is None]


def beyond(now: Sums, before: Sums, bounds: Bounds) -> Iterator[Drifted]:
    """What is off, beyond chance. A mean without another to compare it with is not."""
    for name in SHARES:
        most = getattr(bounds, name)
        share = _share_beyond(now, name, most) if most is not None else None
        if share is not None:
            number, of = before.share(name)
            yield Drifted(name=name, now=share, before=number / of if of else None, allowed=most, rows=now.rows)
    for name in FACTORS:
        factor = getattr(bounds, name)
        if factor is not None and (drifted := _mean_beyond(now, before, name, factor)) is not None:
            yield drifted


def told(now: Sums, before: Sums) -> list[Drifted]:
    """What is worth a line at the end of a run, whatever its bounds."""
    if min(now.rows, before.rows) < LEAST_TOLD_ROWS:
        return []
    shares = {name: (number / of if of else 0.0) + TOLD_SHARE for name in SHARES for number, of in [before.share(name)]}
    return list(beyond(now, before, Bounds(**shares, **dict.fromkeys(FACTORS, TOLD_FACTOR))))


class DriftWatch:
    """One execution's. Its rows are looked at in the last `after` to twice as many, so that a change in the middle of a
    long run shows too; `total` is over all of them."""

    def __init__(self, bounds: Bounds, after: int, before: Sums) -> None:
        """`before`: the last runs."""
        self._bounds = bounds
        self._is_bounded = bounds != Bounds()
        self._after = after
        self._every = max(after // 10, 1)
        self.before = before
        self.total = Sums()
        self._earlier, self._latest = Sums(), Sums()

    def see(self, outcome: Outcome) -> list[Drifted]:
        """One more outcome. Returns what is off by now."""
        rows = self.total.rows
        self.total.see(outcome)
        if self.total.rows == rows:
            return []
        if not self._is_bounded:
            return []
        self._latest.see(outcome)
        recent = pool([self._earlier, self._latest]) if self._latest.rows % self._every == 0 else None
        if self._latest.rows >= self._after:
            self._earlier, self._latest = self._latest, Sums()
        if recent is None or recent.rows < self._after:
            return []
        return list(beyond(recent, self.before, self._bounds))


def _more(sums: tuple[float, float], value: float) -> tuple[float, float]:
    return sums[0] + value, sums[1] + value * value


def _share_beyond(now: Sums, name: Name, most: float) -> float | None:
    number, of = now.share(name)
    if of == 0:
        return None
    share = number / of
    # By the error that the allowed share would have: at 0 % and 100 % the share's own is none.
    error = math.sqrt(max(most * (1 - most), 0.25 / of) / of)
    return share if share > most + _ERRORS * error else None


def _mean_beyond(now: Sums, before: Sums, name: Name, factor: float) -> Drifted | None:
    ours, theirs = now.mean(name), before.mean(name)
    if ours is None or theirs is None:
        return None
    (mean, error), (base, base_error) = ours, theirs
    if name == "latency":  # logarithms
        is_off = mean - base - _ERRORS * math.hypot(error, base_error) > math.log(factor)
        mean, base = math.exp(mean), math.exp(base)
    else:
        is_off = mean - factor * base > _ERRORS * math.hypot(error, factor * base_error)
        if name == "length":
            is_off = is_off or base - factor * mean > _ERRORS * math.hypot(factor * error, base_error)
    if not is_off:
        return None
    return Drifted(name=name, now=mean, before=base, allowed=factor, rows=now.rows)
