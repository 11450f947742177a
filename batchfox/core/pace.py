"""The rate of submits that the API allows, found by probing. Why so: docs/decisions/0010-pace.md.

`Pace` says how many submits a second may leave and until when nothing may; the hand that holds the clock and the
limiter obeys. A rate limit in the job is a ceiling; without one the pace starts low and seeks.

    SEEK ──refused──▶ HOLD ──paid for──▶ HOLD, a step higher: a probe ──refused──▶ back to the step that held
                        │ many refused                                 └─held──▶ the next, larger step
                        ▼
                      FEEL ──one gets through──▶ HOLD, at half the pace where that was refused which had held
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from batchfox.core.evidence import MOST_NOISE, LastMinute, Refusals

# Without a limit: the first second's pace, and how it grows while nobody complains.
START_PER_S = 10.0
SEEK_EVERY_S = 1.0
SEEK_FACTOR = 2.0
SEEK_AGAIN = 1.5

# A pace is held so long before a higher one is tried, and until what the last trouble cost is paid for: so many
# submits got through for each refused, and so many seconds passed for each of waiting.
HOLD_S = 15.0
PAY_SUBMITS = 60.0
MOST_PAY_S = 60.0
PAY_WAITS = 9.0
PAY_DEAR_WAITS = 15.0
# A probe: so long, at least so many replies. Below a pace that was refused it halves the distance; where that distance
# is small, and above it, strides double from the first to the last.
PROBE_S = 3.0
PROBE_REPLIES = 8
NEAR = 1.05
FAR = 1.2
FIRST_STRIDE = 0.03
LAST_STRIDE = 0.5
# A refused probe that makes everybody wait for longer than this is dear: no stride is longer then.
DEAR_WAIT_S = 5.0
DEAR_STRIDE = 0.06
DEAR_PROBE_S = 3.0
DEAR_CUT = 0.88

# What is kept of a pace that had held and is refused: by many refusals, by a lone one at least and at most, and what of
# the last minute's successes.
CUT = 0.5
MOST_CUT = 0.25
LONE_CUT_LEAST = 0.85
LONE_CUT_MOST = 0.93
MINUTE_SHARE = 0.98
# Lone refusals that go on although the pace came down so far come whatever the pace is.
REPEATED = 3
NOISE_REFUSALS = 3

# After many refusals: how fast submits go out until one gets through, at first and at last.
FEEL_PER_S = 2.0
LEAST_FEEL_PER_S = 0.125
# A standstill of so long is the end of a minute's ration.
STANDSTILL_S = 3.0
# A `Retry-After` that names the moment when the first submit's minute is over, give or take so much, tells the same.
SLACK_S = 2.0
# A minute's ration that is known: no probe goes beyond so much of it until so much of it got through in a minute.
RATION_PROBE = 1.5
RATION_GROWN = 1.05
RATION_HOLD_S = 30.0
RATION_LEAST = 0.75

USED_SHARE = 0.5
LEAST_PER_S = 1.0 / 60.0
MOST_PER_S = 1e6

# A 429 that asks for no particular wait: this long, doubling while they follow one another.
WAIT_S = 1.0
MOST_WAIT_S = 60.0


class Stage(Enum):
    SEEK = auto()
    HOLD = auto()
    FEEL = auto()


class Step(msgspec.Struct, gc=False):
    """A pace since a moment, and the replies to what was sent at it. `seen_at`: when the first came in."""

    per_s: float
    since: float
    seen_at: float | None = None
    accepted: int = 0
    refused: int = 0

    @property
    def replies(self) -> int:
        return self.accepted + self.refused

    def recount(self) -> None:
        """Counts anew from the next reply on."""
        self.seen_at, self.accepted, self.refused = None, 0, 0


class Slide(msgspec.Struct, gc=False):
    """Lone refusals that follow one another while the pace comes down: from where, and among how many replies."""

    from_per_s: float
    refused: int = 0
    replies: int = 0
    in_vain: int = 0


class Pace:
    """The rate of submits as the run learns it. All times are the run's clock in seconds."""

    def __init__(self, per_minute: float | None) -> None:
        self._ceiling = per_minute / 60.0 if per_minute is not None else MOST_PER_S
        self.per_s = self._ceiling if per_minute is not None else START_PER_S
        self._stage = Stage.SEEK if per_minute is None else Stage.HOLD
        # The pace that held, and above it the steps of the probe.
        self._steps = [Step(per_s=self.per_s, since=float("-inf"))]
        self._refused_at: float | None = None
        self._stride = FIRST_STRIDE
        self._cut_at = float("-inf")
        self._holds_until = 0.0
        self._owed = 0.0
        self._pays = False
        self._sought_at = 0.0
        self._slide: Slide | None = None
        self._minute = LastMinute()
        self._refusals = Refusals()
        self._strikes = 0
        # Of the standstill: what to go back to, since when, what the minute before it had let through.
        self._target = self.per_s
        self._stands_since: float | None = None
        self._felt = 0
        self._got_per_s = 0.0
        self._went_on_at = float("-inf")
        self._was_soon = False
        self._names_end = False
        self._ration_per_s: float | None = None
        self._first_at: float | None = None
        self._is_dear = False
        self.resumes_at = 0.0
        self.throttles = 0

    @property
    def per_minute(self) -> float:
        return self.per_s * 60.0

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
        self._minute.note(now)
        if self._first_at is None:
            self._first_at = sent_at
        self._refusals.note(is_refused=False, learns=self._is_at_base)
        self._owed = max(self._owed - 1.0, 0.0)
        if self._slide is not None:
            self._slide.replies += 1
        if sent_at < self._cut_at:
            return
        self._strikes = 0
        if self._stage is Stage.FEEL:
            self._go_on(now)
            return
        self._count(sent_at, now).accepted += 1
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
        if self.noise and not self._refusals.are_many and not self._is_over(sent_at, now):
            return
        if self._pays:
            self._owed = min(self._owed + PAY_SUBMITS, MOST_PAY_S * self.per_s + PAY_SUBMITS)
        self._wait(now, retry_after_s)
        if is_news and not self.noise:
            self._count(sent_at, now).refused += 1
        if is_news:
            self._cut(now, sent_at, retry_after_s)
        elif self._refusals.are_many and self._stage is not Stage.FEEL:
            target = self._slide.from_per_s * CUT if self._slide is not None else self.per_s
            self._slide = None
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
            self._felt += 1
            self._set(max(self.per_s * CUT, min(LEAST_FEEL_PER_S, self._target)))
            return
        at = max((i for i, step in enumerate(self._steps) if sent_at >= step.since), default=0)
        refused = self._steps[at].per_s
        are_many, is_seeking = self._refusals.are_many, self._stage is Stage.SEEK
        if at > 0:
            self._refused_at = refused
            target = self._steps[at - 1].per_s
            if self._ration_per_s is not None:
                target = max(min(target, self._minute_per_s(now)), target * CUT)
            elif self._is_dear:
                target = min(target, refused * DEAR_CUT)
        elif are_many and self._trusts_ration(now):
            target = max(min(refused, self._minute_per_s(now)), refused * CUT)
        elif are_many or is_seeking:
            self._ration_per_s = None
            step = self._steps[at]
            share = max(step.accepted / max(step.replies, 1), MOST_CUT)
            self._slide = None
            self._refusals.noise = 0.0
            self._refused_at, target = refused, refused * min(share, CUT)
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
        self._refusals.noise = 0.0
        slide = self._slide = self._slide or Slide(from_per_s=per_s)
        slide.refused += 1
        slide.replies += 1
        if self._ration_per_s is None and slide.refused == REPEATED:
            return min(per_s, slide.from_per_s * CUT)
        if self._ration_per_s is None and slide.refused > REPEATED:
            slide.in_vain += 1
            share = slide.refused / slide.replies
            if slide.in_vain < NOISE_REFUSALS:
                return per_s
            if share <= MOST_NOISE:
                self._refusals.noise = share
                self._slide = self._refused_at = None
                return slide.from_per_s
            self._slide = None
            return per_s * CUT
        step = self._steps[0]
        got = (step.accepted + 1.0) / (step.replies + 1.0)
        target = min(max(self._minute_per_s(now), per_s * LONE_CUT_LEAST), per_s * LONE_CUT_MOST, per_s * got)
        return max(target, min(per_s, RATION_LEAST * (self._ration_per_s or 0.0)))

    def _trusts_ration(self, now: float) -> bool:
        """Many refusals at what is held to be the ration of a minute: once they may come, soon after, of how uneven the
        minute before was."""
        if self._ration_per_s is None:
            return False
        was_soon, self._was_soon = self._was_soon, now - self._went_on_at < STANDSTILL_S
        return not (was_soon and self._was_soon)

    def _minute_per_s(self, now: float) -> float:
        """A little less than what got through in the last minute."""
        return MINUTE_SHARE * self._minute.count(now) / 60.0

    def _stand(self, now: float, target: float, asked_s: float | None) -> None:
        """Hardly anything gets through: feel for the moment when something does."""
        self._target = target
        self._stage = Stage.FEEL
        self._stands_since = now
        self._felt = 0
        first_minute_left_s = (self._first_at or 0.0) + 60.0 - now
        self._names_end = asked_s is not None and abs(asked_s - first_minute_left_s) <= SLACK_S < first_minute_left_s
        self._got_per_s = self._minute.count(now) / 60.0
        self._set(min(target, FEEL_PER_S))

    def _go_on(self, now: float) -> None:
        """Something got through again."""
        assert self._stands_since is not None
        is_over_minute = self._names_end or (self._felt > 0 and now - self._stands_since > STANDSTILL_S)
        if (is_over_minute or self._ration_per_s is not None) and 0.0 < self._got_per_s < self._target:
            self._ration_per_s, self._refused_at = self._got_per_s, None
            self._target = MINUTE_SHARE * self._got_per_s
        self._refusals.calm()
        self._went_on_at = now
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
        self._slide = None
        following = self._next(now, is_seeking=is_seeking)
        if following <= self.per_s:
            step.recount()
            return
        self._set(following)
        if self._ration_per_s is not None and following == MINUTE_SHARE * self._ration_per_s:
            self._begin(now, following)
            self._holds_until = now + RATION_HOLD_S
            self._stride = FIRST_STRIDE
            return
        self._steps.append(Step(per_s=self.per_s, since=now))

    def _next(self, now: float, *, is_seeking: bool) -> float:
        """The pace to try after this one."""
        if is_seeking:
            return self.per_s * SEEK_FACTOR
        refused_at = self._refused_at if self._ration_per_s is None else None
        most = DEAR_STRIDE if self._is_dear else LAST_STRIDE
        if refused_at is not None and refused_at > self.per_s * NEAR:
            return min((self.per_s + refused_at) / 2.0, self.per_s * (1.0 + most))
        stride, self._stride = self._stride, min(self._stride * 2.0, most)
        following = self.per_s * (1.0 + stride)
        if refused_at is not None and following > refused_at:
            self._refused_at = None
        if self._ration_per_s is not None:
            known = MINUTE_SHARE * self._ration_per_s
            if self.per_s < known:
                return min(following, known)
            if self._minute.count(now) / 60.0 <= RATION_GROWN * self._ration_per_s:
                return min(following, RATION_PROBE * self._ration_per_s)
            self._ration_per_s = None
        return following

    def _set(self, per_s: float) -> None:
        self.per_s = min(max(per_s, min(LEAST_PER_S, self._ceiling)), self._ceiling)
