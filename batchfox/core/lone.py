"""Lone refusals at a pace that had held, one after the other: a limit a little lower than the pace, or chance?

A limit refuses nothing far below what it lets through; chance refuses the same share at every pace. So the pace slides
down, and where that does not help a trial far below tells. Without a trial nothing is ever taken for chance.
"""

from __future__ import annotations

import msgspec

from batchfox.core.evidence import MOST_NOISE, Refusals
from batchfox.core.pace_rules import BURST, CUT, DEAR_CUT, LONE_CUT_LEAST, LONE_CUT_MOST, Step

# After so many lone refusals one after the other the pace is halved, or set to so much of what got through since the
# first, waits and all, where that is more. After so many a trial tells whether they are chance.
HALVED_AFTER = 3
GOT_SHARE = 0.97
TRIED_AFTER = 5
# A trial of chance: so many refusals at the lower pace show it, if their share is at least so much of what it was. That
# it is a limit is shown by none where so many would be expected, or after so long; by one where twice as many would.
TRIAL_REFUSED = 2
TRIAL_EXPECTED = 5.0
TRIAL_S = 120.0
TRIAL_SHARE = 0.25
# The last so many refusals are lately, if so many got through since: twice a burst.
LATELY = 3
TELLING = 20
# It is made at so much of what really got through, waits and all, but for a burst: whatever limit there is lies above.
TRIAL_PACE = 0.9


class Slide(msgspec.Struct, gc=False):
    """Lone refusals that follow one another while the pace comes down: from where, since when, and what got through."""

    from_per_s: float
    since: float
    refused: int = 0
    accepted: int = 0
    # The last refusals: when, and how many had got through by then.
    lately: list[tuple[float, int]] = []

    def refuse(self, now: float) -> None:
        """One more was refused."""
        self.refused += 1
        self.lately = [*self.lately[1 - LATELY :], (now, self.accepted)]

    @property
    def share(self) -> float:
        """The share of submits that is refused; the refusal that it begins with is none of it."""
        return (self.refused - 1) / max(self.refused - 1 + self.accepted, 1)

    def got_per_s(self, now: float) -> float:
        """How many a second got through, waits and all: no limit is much below that. Lately, if that is less: the limit
        may have fallen since the first refusal."""
        return min(got / max(now - since, 1.0) for got, since in self._spans())

    def least_per_s(self, now: float) -> float:
        """The same without a burst that had been saved up; half of it, where that is all."""
        return min(max(got - BURST, got / 2.0) / max(now - since, 1.0) for got, since in self._spans())

    def _spans(self) -> list[tuple[int, float]]:
        """How many got through since when: in all, and since the last refusals, where that is enough to tell."""
        since, accepted = self.lately[0]
        lately = self.accepted - accepted
        return [(self.accepted, self.since), *([(lately, since)] if lately >= TELLING else [])]


class Trial(msgspec.Struct, gc=False):
    """Are the lone refusals of a slide chance? Far below what the API takes a limit refuses nothing; chance goes on."""

    slide: Slide
    began_at: float
    limit_per_s: float
    accepted: int = 0
    refused: int = 0

    def is_chance(self, now: float) -> bool | None:
        """None: not known yet."""
        replies, share = self.refused + self.accepted, self.slide.share
        if self.refused >= TRIAL_REFUSED:
            return TRIAL_SHARE * share <= self.refused / replies <= MOST_NOISE
        is_long = self.refused == 0 and now - self.began_at > TRIAL_S
        return False if is_long or replies * share >= TRIAL_EXPECTED * (1 + self.refused) else None


class Lone:
    """Times are the run's clock in seconds, paces a second."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._slide: Slide | None = None
        self._trial: Trial | None = None
        self._best_per_s = 0.0

    @property
    def is_trying(self) -> bool:
        """A trial is on: the pace stays where it is."""
        return self._trial is not None

    @property
    def from_per_s(self) -> float | None:
        """Where the refusals began that now follow one another."""
        return self._slide.from_per_s if self._slide is not None else None

    def end(self) -> None:
        """The pace rose since: what is refused next has nothing to do with what was."""
        self._slide = None

    def begin_anew(self) -> None:
        """Many were refused: whatever held before does so no more."""
        self._slide = self._trial = None
        self._best_per_s = 0.0

    def accept(self, now: float, sent_at: float) -> float | None:
        """A submit got through. The pace to go on with where that ends a trial."""
        if self._trial is not None:
            self._trial.accepted += 1
            return self._verdict(self._trial, now)
        if self._slide is not None and sent_at >= self._slide.since:
            self._slide.accepted += 1
        return None

    def refuse(self, now: float, per_s: float, step: Step, *, is_dear: bool, may_try: bool) -> float:
        """One was refused at this pace, in this step; dear: everybody waits for long. The pace to go on with."""
        if self._trial is not None:
            self._trial.refused += 1
            return self._verdict(self._trial, now) or per_s
        slide = self._slide = self._slide or Slide(from_per_s=per_s, since=now)
        slide.refuse(now)
        self._best_per_s = max(self._best_per_s, per_s)
        got_per_s = slide.got_per_s(now)
        if may_try and slide.share <= MOST_NOISE:
            if slide.refused == HALVED_AFTER and not is_dear:
                return min(max(GOT_SHARE * got_per_s, slide.from_per_s * CUT), per_s * LONE_CUT_MOST)
            if slide.refused >= TRIED_AFTER:
                limit_per_s = min(max(got_per_s, per_s * LONE_CUT_MOST), slide.from_per_s * LONE_CUT_MOST)
                self._trial, self._slide = Trial(slide=slide, began_at=now, limit_per_s=limit_per_s), None
                return min(TRIAL_PACE * slide.least_per_s(now), per_s)
        got_through = (step.accepted + 1.0) / (step.replies + 1.0)
        if is_dear:
            return per_s * max(min(DEAR_CUT, 1.0 - BURST / max(step.accepted, 1)), CUT)
        return per_s * max(min(LONE_CUT_MOST, got_through), LONE_CUT_LEAST)

    def _verdict(self, trial: Trial, now: float) -> float | None:
        """The pace to go on with once a trial is decided: the one before it all, where the refusals were chance, else
        one at which a limit would have let through what it did."""
        is_chance = trial.is_chance(now)
        if is_chance is None:
            return None
        self._trial = None
        if is_chance:
            self._refusals.explain(trial.refused, trial.refused + trial.accepted)
            return self._best_per_s
        return trial.limit_per_s
