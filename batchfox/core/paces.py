"""The paces of a job's models. A 429 holds back the model that it is about; the job's own limit is for all together.

With one model its pace is the job's rate, and the limiter alone enforces it. With several the limiter enforces their
sum, or the job's limit where that is less, and each model has a bucket of its own here.
"""

from __future__ import annotations

import re

from batchfox.core.bucket import Drip
from batchfox.core.event import ApiError
from batchfox.core.pace import Pace
from batchfox.core.pace_rules import MOST_WAIT_S

# So many models have a pace of their own; any further ones share one.
MOST_MODELS = 64
_OTHERS = "\0others"
# Before the first replies nothing is known: in a run's first seconds so many POSTs are on the wire at most, and one
# more for each that got through. (A limit set far too high would else cost a second's worth of refusals.)
FIRST_ON_THE_WIRE = 32
FIRST_S = 2.0
# A 429 in these words is not about one model.
_EVERYBODYS = re.compile(r"\b(?:account|organi[sz]ation|workspace|project|api key|all models)\b", re.IGNORECASE)


def is_everybodys(error: ApiError) -> bool:
    """Is a 429 about the account rather than about the model that was asked for?"""
    return any(text is not None and _EVERYBODYS.search(text) for text in (error.code, error.type, error.message))


class Paces:
    """By model; None is a model too. All times are the run's clock in seconds."""

    def __init__(self, per_minute: float | None) -> None:
        self._limit = per_minute
        self._paces: dict[str | None, Pace] = {}
        self._drips: dict[str | None, tuple[Drip, float]] = {}
        self._first = Pace(per_minute)
        self._began_at: float | None = None
        self._got_through = 0

    def of(self, model: str | None) -> Pace:
        """A model's pace."""
        return self._paces.get(model) or self._paces[self._known(model)]

    def _known(self, model: str | None) -> str | None:
        """The model under whose name its pace is kept."""
        if model not in self._paces:
            if len(self._paces) >= MOST_MODELS:
                model = _OTHERS
            if model not in self._paces:
                self._paces[model] = Pace(self._limit) if self._paces else self._first
        return model

    @property
    def limit_per_minute(self) -> float | None:
        """The job's limit of all submits."""
        return self._limit

    def limit(self, per_minute: float, now: float) -> None:
        """Another limit from now on."""
        self._limit = per_minute
        for pace in {id(pace): pace for pace in (self._first, *self._paces.values())}.values():
            pace.limit(per_minute, now)

    # All of them together.

    @property
    def per_minute(self) -> float:
        """The rate of all submits."""
        if len(self._paces) <= 1:
            return self._first.per_minute
        total = sum(pace.per_minute for pace in self._paces.values())
        return total if self._limit is None else min(total, self._limit)

    @property
    def is_limited(self) -> bool:
        """Does a model go slower than the job allows because the API said so?"""
        return any(pace.is_limited for pace in self._paces.values())

    @property
    def throttles(self) -> int:
        return sum(pace.throttles for pace in self._paces.values())

    @property
    def resumes_at(self) -> float:
        """Until then every model waits."""
        return min((pace.resumes_at for pace in self._paces.values()), default=0.0)

    def is_open(self, now: float) -> bool:
        """False during a cool-down of all models."""
        return now >= self.resumes_at

    def may_be_on_the_wire(self, now: float) -> int | None:
        """How many POSTs at most, None: no bound."""
        if now >= self.is_wide_at(now):
            return None
        return FIRST_ON_THE_WIRE + self._got_through

    def is_wide_at(self, now: float) -> float:
        """When there is no bound any more on what is on the wire."""
        return FIRST_S + (now if self._began_at is None else self._began_at)

    # One of them.

    def opens_at(self, model: str | None, now: float) -> float:
        """When a submit of this model may leave, as far as its own pace goes."""
        pace = self.of(model)
        if len(self._paces) <= 1:
            return max(now, pace.resumes_at)
        drip = self._drip(model, pace, now)
        return max(drip.ready_at(now), pace.resumes_at)

    def take(self, model: str | None, now: float) -> None:
        """A submit of this model is chosen."""
        if self._began_at is None:
            self._began_at = now
        pace = self.of(model)
        if len(self._paces) > 1:
            self._drip(model, pace, now).take(now)

    def _drip(self, model: str | None, pace: Pace, now: float) -> Drip:
        model = self._known(model)
        drip, per_minute = self._drips.get(model) or (Drip(), 0.0)
        if per_minute != pace.per_minute:
            drip.resize(pace.per_minute, now)
            self._drips[model] = drip, pace.per_minute
        if pace.resumes_at > now:
            drip.calm(pace.resumes_at)
        return drip

    # What came of it.

    def accept(self, model: str | None, now: float, sent_at: float) -> None:
        """A submit of this model got through."""
        self._got_through += 1
        self.of(model).accept(now, sent_at)

    def throttle(
        self, model: str | None, now: float, sent_at: float, retry_after_s: float | None, error: ApiError
    ) -> None:
        """A submit of this model got 429."""
        for pace in self._paces.values() if is_everybodys(error) else (self.of(model),):
            pace.throttle(now, sent_at, retry_after_s)

    def own_wait_s(self, model: str | None, now: float, asked_s: float | None) -> float:
        """How long a row that got 429 waits by itself: not at all, where its model waits."""
        return min(asked_s or 0.0, MOST_WAIT_S) if self.of(model).is_open(now) else 0.0
