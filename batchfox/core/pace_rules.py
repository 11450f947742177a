"""The numbers of the pace, with the reason of each, and the records that it works with."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import msgspec

# Without a limit: the first second's pace, and how it grows while nobody complains.
START_PER_S = 10.0
SEEK_EVERY_S = 1.0
SEEK_FACTOR = 2.0
SEEK_AGAIN = 1.5

# A pace is held so long before a higher one is tried, and until what the last trouble cost is paid for: so many
# submits got through for each refused, and so many seconds passed for each of waiting.
HOLD_S = 20.0
PAY_SUBMITS = 60.0
MOST_PAY_S = 60.0
PAY_WAITS = 9.0
PAY_DEAR_WAITS = 15.0
# A probe: so long, at least so many replies. Below a pace that was refused it halves the distance; where that distance
# is small, and above it, each stride is three times the one before, from the first to the last.
PROBE_S = 3.0
PROBE_REPLIES = 8
NEAR = 1.05
FAR = 1.2
FIRST_STRIDE = 0.03
STRIDE_GROWTH = 3.0
LAST_STRIDE = 0.5
# A refused probe that makes everybody wait for longer than this is dear: no stride is longer then.
DEAR_WAIT_S = 5.0
DEAR_STRIDE = 0.06
DEAR_PROBE_S = 3.0
DEAR_CUT = 0.88
DEAR_CUT_MOST = 0.83
# A long wait fills a bucket's burst (one of usual size): how soon it is used up tells how far above the limit the pace
# was. What is kept of the limit that this tells.
BURST = 10.0
BURST_SHARE = 0.97

# What is kept of a pace that had held and is refused: by many refusals, by a lone one at least and at most, and what of
# the last minute's successes.
CUT = 0.5
MOST_CUT = 0.25
LONE_CUT_LEAST = 0.85
LONE_CUT_MOST = 0.93
MINUTE_SHARE = 0.98
# After a standstill: what is kept at least of the pace that led to it, where so many replies tell which share of it got
# through.
FALLEN_CUT = 0.0625
FALLEN_REPLIES = 20

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


def limit_by_burst(steps: Sequence[Step], until: float) -> float:
    """The limit (a second) above which these steps, each higher than the last, sent a full burst up to `until`."""
    ends = [*(step.since for step in steps[1:]), until]
    sent, span_s, limit = -BURST, 0.0, 0.0
    for step, end in reversed(list(zip(steps, ends, strict=True))):
        if step.per_s <= limit:
            break
        sent, span_s = sent + step.per_s * (end - step.since), span_s + end - step.since
        limit = max(sent / span_s, 0.0) if span_s > 0.0 else 0.0
    return limit
