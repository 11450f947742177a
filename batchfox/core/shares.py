"""One rate for the runs of one key: how many submits may a run take from it now, and until when may they leave.

A run that is alone goes by its own limiter. Several draw on one leaky bucket: what is drawn has to leave within
`KEEPS_S`, so that all that leaves in a minute was drawn in a window so much longer, and the bucket drips that
much slower. It begins empty, and stays in use for a window after the others have gone. Why the limit holds over every
sliding minute, also over those in which one way follows the other: docs/decisions/0017-schedule.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from batchfox.core.bucket import Bucket, bucket

WINDOW_S = 60.0
# How long drawn submits may wait, and how long a run that is free to go need not ask again.
KEEPS_S = 0.5
FREE_S = 1.0
# The longest time after which a run that waits for its turn asks again.
LOOK_AGAIN_S = 0.25
# What is left to clocks.
MARGIN = 0.999


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """`submits` may leave until `until`; None: as many as the run's own limiter lets pass. 0: ask again in `wait_s`.
    `is_shared`: other runs that live draw on the same rate."""

    submits: int | None
    until: float = 0.0
    wait_s: float = 0.0
    is_shared: bool = False


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """The bucket as it was left: what was in it, when, at which rate, and until when it is to be drawn on by whoever is
    left alone."""

    room: float = 0.0
    at: float = 0.0
    per_minute: float | None = None
    shared_until: float = 0.0


def shared_bucket(per_minute: float) -> Bucket:
    """Half a second's worth at once, as much as a run's own bucket holds at least; with what drips in while a minute
    passes, and what was drawn before and kept, no more than `per_minute`."""
    capacity = max(bucket(per_minute).capacity, per_minute / WINDOW_S * KEEPS_S)
    whole = per_minute if per_minute < 1 else float(int(per_minute))
    drip = (per_minute - capacity) if per_minute > WINDOW_S else whole
    return Bucket(capacity, drip / (WINDOW_S + KEEPS_S) * MARGIN)


def draw(
    level: Level, limits: Sequence[float | None], others_free_until: float, most: int, now: float
) -> tuple[Grant, Level]:
    """Draws for one run. `limits`: requests a minute of all runs that live, its own included; `others_free_until`: when
    the last of the others that goes by its own limiter asks again. Times are of one clock for all runs."""
    lowest = min((limit for limit in limits if limit is not None), default=None)
    if now < level.at:  # the machine was started anew, and its clock with it
        level = Level(at=now)
    shared_until = now + WINDOW_S + KEEPS_S if len(limits) > 1 and lowest is not None else level.shared_until
    if lowest is None or now >= shared_until:
        return Grant(submits=None, until=now + FREE_S), Level(at=now)
    if now < others_free_until:
        return Grant(submits=0, wait_s=others_free_until - now, is_shared=True), Level(
            at=now, shared_until=shared_until
        )
    capacity, per_s = shared_bucket(lowest)
    room = min(_room(level, now), capacity)
    share = max(int(capacity / len(limits)), 1)
    submits = min(most, share, int(room + 1e-9))
    left = Level(room=room - submits, at=now, per_minute=lowest, shared_until=shared_until)
    if submits == 0:
        wait_s = min(max((1.0 - room) / per_s, 0.002), LOOK_AGAIN_S)
        return Grant(submits=0, wait_s=wait_s, is_shared=len(limits) > 1), left
    return Grant(submits=submits, until=now + KEEPS_S), left


def _room(level: Level, now: float) -> float:
    """What is in the bucket now; nothing when it begins."""
    if level.per_minute is None:
        return 0.0
    capacity, per_s = shared_bucket(level.per_minute)
    return min(level.room + (now - level.at) * per_s, capacity)


def token_share(per_minute: float, others: Sequence[tuple[float, float, bool]]) -> tuple[float, bool]:
    """Tokens of any sliding minute that a run may have now, 0 where the others have them all, as yet; and whether that
    is its whole part.

    `others`: of each its limit, what may count for it at most, and whether it lives; of one that has ended within the
    last minute that counts alone. An equal part of the lowest limit for each that lives; and all that may count for
    all of them never is more than that, also while parts change.
    """
    limits = [per_minute, *(limit for limit, _, is_live in others if is_live)]
    lowest = min(limits)
    part, left = lowest / len(limits), lowest - sum(may for _, may, _ in others)
    return max(min(part, left), 0.0), left >= part - 1e-6
