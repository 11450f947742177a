"""The rate of submits that the API allows, found by probing. Why so: docs/decisions/0010-pace.md.

`Pace` says how many submits a second may leave and until when nothing may; the hand that holds the clock and the
limiter obeys. A rate limit in the job is a ceiling; without one the pace starts low and seeks.

    SEEK ──refused──▶ HOLD ──paid for──▶ HOLD, a step higher: a probe ──refused──▶ back to the step that held
                        │ many refused                                 └─held──▶ the next, larger step
                        ▼
                      FEEL ──one gets through──▶ HOLD, at half the pace where that was refused which had held
"""

from __future__ import annotations

from batchfox.core.evidence import Refusals
from batchfox.core.lone import Lone
from batchfox.core.pace_rules import (
    BURST_SHARE,
    CUT,
    DEAR_CUT_MOST,
    DEAR_PROBE_S,
    DEAR_STRIDE,
    DEAR_WAIT_S,
    FALLEN_CUT,
    FALLEN_REPLIES,
    FAR,
    FEEL_PER_S,
    FIRST_STRIDE,
    HOLD_S,
    LAST_STRIDE,
    LEAST_FEEL_PER_S,
    LEAST_PER_S,
    MOST_CUT,
    MOST_PAY_S,
    MOST_PER_S,
    MOST_WAIT_S,
    NEAR,
    PAY_DEAR_WAITS,
    PAY_SUBMITS,
    PAY_WAITS,
    PROBE_REPLIES,
    PROBE_S,
    RATION_HOLD_S,
    SEEK_AGAIN,
    SEEK_EVERY_S,
    SEEK_FACTOR,
    START_PER_S,
    STRIDE_GROWTH,
    USED_SHARE,
    WAIT_S,
    Stage,
    Step,
    limit_by_burst,
)
from batchfox.core.ration import Ration


class Pace:
    """The rate of submits as the run learns it. All times are the run's clock in seconds."""

    def __init__(self, per_minute: float | None) -> None:
        self._ceiling = per_minute / 60.0 if per_minute is not None else MOST_PER_S
        self.per_s = self._ceiling if per_minute is not None else START_PER_S
        self._stage = Stage.SEEK if per_minute is None else Stage.HOLD
        # The pace that held, and above it the steps of the probe.
        self._steps = [Step(per_s=self.per_s, since=float("-inf"))]
        self._refused_at: float | None = None
        # The step that the last cut ended; replies to what was sent at it still come in.
        self._fallen = self._steps[0]
        self._stride = FIRST_STRIDE
        self._cut_at = float("-inf")
        self._holds_until = 0.0
        self._owed = 0.0
        self._pays = False
        self._sought_at = 0.0
        self._ration = Ration()
        self._refusals = Refusals()
        self._lone = Lone(self._refusals)
        self._strikes = 0
        # What to go back to after a standstill.
        self._target = self.per_s
        self._is_dear = False
        self.resumes_at = 0.0
        self.throttles = 0

    @property
    def per_minute(self) -> float:
        return self.per_s * 60.0

    def limit(self, per_minute: float, now: float) -> None:
        """Another ceiling from now on. A pace that stood at the old one goes to the new one; one that the API holds
        below it goes on from where it is."""
        was_at_ceiling = self.per_s >= self._ceiling
        self._ceiling = per_minute / 60.0
        self._target = min(self._target, self._ceiling)
        if self._stage is Stage.FEEL:
            self._set(self.per_s)
        elif was_at_ceiling or self.per_s > self._ceiling:
            self._lone.begin_anew()
            self._begin(now, self._ceiling)

    @property
    def noise(self) -> float:
        """The share of submits that are refused whatever the pace is."""
        return self._refusals.noise

    @property
    def is_limited(self) -> bool:
        """True once the pace stands below what the job allows because the API said so."""
        return self.throttles > 0 and self.per_s < self._ceiling

    def is_open(self, now: float) -> bool:
        """False during a cool-down that a 429 began."""
        return now >= self.resumes_at

    @property
    def _is_at_base(self) -> bool:
        """No probe is on, and none has just been refused."""
        return self._stage is Stage.HOLD and len(self._steps) == 1

    # Replies.

    def accept(self, now: float, sent_at: float) -> None:
        """A submit sent at `sent_at` got through."""
        self._ration.note(now, sent_at)
        self._refusals.note(is_refused=False, learns=self._is_at_base)
        self._owed = max(self._owed - 1.0, 0.0)
        if sent_at < self._cut_at:
            self._fallen.accepted += sent_at >= self._fallen.since
            return
        self._strikes = 0
        if self._stage is Stage.FEEL:
            self._go_on(now)
            return
        step = self._count(sent_at, now)
        step.accepted += 1
        if (target := self._lone.accept(now, sent_at)) is not None:
            self._refused_at = None
            self._begin(now, target)
        elif not self._lone.is_trying:
            self._look_up(now)

    def throttle(self, now: float, sent_at: float, retry_after_s: float | None) -> None:
        """A submit sent at `sent_at` got 429: everybody waits, and goes on slower.

        Replies to submits that were on the wire before the last cut tell nothing new of the pace.
        """
        self.throttles += 1
        self._refusals.note(is_refused=True, learns=self._is_at_base)
        is_news = sent_at >= self._cut_at
        if is_news:
            self._pays = self._stage is Stage.HOLD
        self._strikes += is_news
        self._fallen.refused += self._fallen.since <= sent_at < self._cut_at
        is_excused = self.noise > 0.0 and not self._refusals.are_many and not self._lone.is_trying
        if is_excused and not self._is_over(sent_at, now):
            return
        if self._pays:
            self._owe(self._excess(sent_at, now) if is_excused else 1.0)
        self._wait(now, retry_after_s)
        if is_news and not self.noise:
            self._count(sent_at, now).refused += 1
        if is_news:
            self._cut(now, sent_at, retry_after_s)
        elif self._refusals.are_many and self._stage is not Stage.FEEL:
            target = (self._lone.from_per_s or self.per_s / CUT) * CUT
            self._lone.begin_anew()
            self._stand(now, min(target, self.per_s), retry_after_s)
        if self._stage is Stage.FEEL:
            self._cut_at = self.resumes_at

    def _is_over(self, sent_at: float, now: float) -> bool:
        """Counts a refusal; are there more than chance explains?"""
        if sent_at < self._cut_at:
            return False
        step = self._count(sent_at, now)
        step.refused += 1
        return step.refused > self._refusals.by_chance(step.replies)

    def _excess(self, sent_at: float, now: float) -> float:
        """So many refusals of a step are not chance."""
        step = self._count(sent_at, now)
        return max(step.refused - self.noise * step.replies, 1.0)

    def _owe(self, refused: float) -> None:
        self._owed = min(self._owed + PAY_SUBMITS * refused, MOST_PAY_S * self.per_s + PAY_SUBMITS)

    def _count(self, sent_at: float, now: float) -> Step:
        """The step that a submit was sent at."""
        step = next((step for step in reversed(self._steps) if sent_at >= step.since), self._steps[0])
        if step.seen_at is None:
            step.seen_at = now
        return step

    def _wait(self, now: float, retry_after_s: float | None) -> None:
        own_wait_s = min(WAIT_S * 2.0 ** min(max(self._strikes - 1, 0), 16), MOST_WAIT_S)
        until = max(self.resumes_at, now + (own_wait_s if retry_after_s is None else retry_after_s))
        self.resumes_at = until
        self._is_dear = until - now > DEAR_WAIT_S
        if self._pays:
            self._holds_until = max(
                self._holds_until, until + (until - now) * (PAY_DEAR_WAITS if self._is_dear else PAY_WAITS)
            )

    # Down.

    def _cut(self, now: float, sent_at: float, asked_s: float | None) -> None:
        if self._stage is Stage.FEEL:
            self._ration.feel()
            self._set(max(self.per_s * CUT, min(LEAST_FEEL_PER_S, self._target)))
            return
        at = max((i for i, step in enumerate(self._steps) if sent_at >= step.since), default=0)
        self._fallen = self._steps[at]
        refused = self._fallen.per_s
        are_many, is_seeking = self._refusals.are_many, self._stage is Stage.SEEK
        if at > 0:
            self._refused_at = refused
            target = self._steps[at - 1].per_s
            if self._ration.per_s is not None:
                target = max(min(target, self._ration.minute_per_s(now)), target * CUT)
            elif self._is_dear:
                limit = BURST_SHARE * limit_by_burst(self._steps[1 : at + 1], sent_at)
                target = max(min(target, max(limit, refused * DEAR_CUT_MOST)), self._steps[0].per_s)
        elif are_many and self._ration.is_trusted(now):
            target = max(min(refused, self._ration.minute_per_s(now)), refused * CUT)
        elif are_many or is_seeking:
            self._ration.per_s = None
            step = self._steps[at]
            share = max(step.accepted / step.replies, MOST_CUT) if step.replies >= PROBE_REPLIES else CUT
            self._lone.begin_anew()
            self._refused_at, target = refused, refused * min(share, CUT)
            self._refusals.doubt()
            self._owed = min(self._owed, HOLD_S * target)
        else:
            target = self._slide_down(now, refused)
        self._stride = FIRST_STRIDE
        is_far = at > 0 and refused > FAR * target
        self._holds_until = max(self._holds_until, now + (PROBE_S if is_seeking or is_far else HOLD_S))
        self._begin(now, target)
        if is_seeking and not are_many and not self._is_dear and refused > SEEK_AGAIN * self._sought_at:
            self._stage, self._sought_at, self._refused_at = Stage.SEEK, refused, None
        if are_many:
            self._stand(now, self.per_s, asked_s)

    def _slide_down(self, now: float, per_s: float) -> float:
        """A lone refusal at the pace that had held: a little less, unless less has not helped."""
        was_trying = self._lone.is_trying
        may_try = self._ration.per_s is None
        target = self._lone.refuse(now, per_s, self._steps[0], is_dear=self._is_dear, may_try=may_try)
        if was_trying and not self._lone.is_trying:
            self._refused_at = None
        return max(target, min(per_s, self._ration.least_per_s))

    def _stand(self, now: float, target: float, asked_s: float | None) -> None:
        """Hardly anything gets through: feel for the moment when something does."""
        self._target = target
        self._stage = Stage.FEEL
        self._ration.stand(now, asked_s)
        self._set(min(target, FEEL_PER_S))

    def _go_on(self, now: float) -> None:
        """Something got through again."""
        if (target := self._ration.go_on(now, self._target)) is not None:
            self._target, self._refused_at = target, None
        elif self._fallen.replies >= FALLEN_REPLIES:
            share = max(self._fallen.accepted / self._fallen.replies, FALLEN_CUT)
            self._target = min(self._target, self._fallen.per_s * share)
        self._refusals.calm()
        self._begin(now, self._target)

    def _begin(self, now: float, per_s: float) -> None:
        """A pace below the one until now, as the one to hold."""
        self._stage = Stage.HOLD
        self._set(per_s)
        self._steps = [Step(per_s=self.per_s, since=now)]
        self._cut_at = now

    # Up.

    def _look_up(self, now: float) -> None:
        """Tries a higher pace once the present one held for its time and was used. (A pace that nobody uses tells
        nothing of what the API would take.)"""
        step = self._steps[-1]
        if step.seen_at is None or self.per_s >= self._ceiling:
            return
        since = now - step.seen_at
        is_seeking = self._stage is Stage.SEEK
        least_s = SEEK_EVERY_S if is_seeking else DEAR_PROBE_S if self._is_dear else PROBE_S
        if since < least_s or step.replies < PROBE_REPLIES:
            return
        if len(self._steps) == 1 and not is_seeking and (now < self._holds_until or self._owed > 0.0):
            return
        if step.replies < since * self.per_s * USED_SHARE:
            step.recount()
            return
        self._lone.end()
        following = self._next(now, is_seeking=is_seeking)
        if following <= self.per_s:
            step.recount()
            return
        self._set(following)
        if following == self._ration.safe_per_s:
            self._begin(now, following)
            self._holds_until = now + RATION_HOLD_S
            self._stride = FIRST_STRIDE
            return
        self._steps.append(Step(per_s=self.per_s, since=now))

    def _next(self, now: float, *, is_seeking: bool) -> float:
        """The pace to try after this one."""
        if is_seeking:
            return self.per_s * SEEK_FACTOR
        refused_at = self._refused_at if self._ration.per_s is None else None
        most = DEAR_STRIDE if self._is_dear else LAST_STRIDE
        if refused_at is not None and refused_at > self.per_s * NEAR:
            return min((self.per_s + refused_at) / 2.0, self.per_s * (1.0 + most))
        stride, self._stride = self._stride, min(self._stride * STRIDE_GROWTH, most)
        following = self.per_s * (1.0 + stride)
        if refused_at is not None and following > refused_at:
            self._refused_at = None
        return self._ration.bound(following, self.per_s, now)

    def _set(self, per_s: float) -> None:
        self.per_s = min(max(per_s, min(LEAST_PER_S, self._ceiling)), self._ceiling)
