"""What binds: the one thing that keeps a run from being faster now. Numbers in, a word out."""

from __future__ import annotations

from collections import Counter, deque

import msgspec

# What was found last weighs most: the word changes when it is another most of the time.
LOOKS = 11

# The word, and what it says.
BINDS = {
    "pause": "paused by ctl",
    "outage": "the API is away",
    "cool-down": "cooling down after a 429",
    "credits": "limits.credits: what is left does not pay for the next request",
    "in flight": "limits.in_flight: as many tasks as may be",
    "tokens": "limits.tokens_per_minute",
    "polls": "limits.polls_per_minute, or a 429 on polls",
    "media": "media are being read and uploaded",
    "disk": "records wait for the disk",
    "memory": "limits.bytes_in_flight: requests as large as may be held",
    "input": "the input is being read",
    "key": "the requests a minute that other runs of this key share",
    "server": "what the API takes: it refused more (429)",
    "rate": "limits.requests_per_minute",
    "seeking": "the pace is still rising",
    "tail": "all is submitted, the last tasks run",
}
# Recording takes so long a group before it is what binds.
SLOW_SYNC_S = 0.2
# So late are polls before it is they who hold back what waits for the end of a task.
SLOW_POLL_S = 1.0


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at a moment. `sync_s`: how long a group of records took lately; `preparing`: rows whose media are
    being read or uploaded; `queued`: rows that could be sent; `polls_late_s`: how long the poll that is due first waits
    for its turn; `is_key_short`: other runs of the key have what its rate lets pass."""

    is_paused: bool = False
    is_away: bool = False
    is_cooling: bool = False
    is_money_short: bool = False
    is_token_short: bool = False
    is_key_short: bool = False
    is_held_full: bool = False
    is_input_over: bool = False
    is_limited_by_server: bool = False
    has_limit: bool = False
    in_flight: int = 0
    in_flight_limit: int = 1
    queued: int = 0
    preparing: int = 0
    sync_s: float = 0.0
    polls_late_s: float = 0.0


def binding(scene: Scene) -> str | None:
    """The word for it, of `BINDS`; None where nothing is to be done."""
    is_idle = scene.queued == 0 and scene.preparing == 0
    is_tail = is_idle and scene.is_input_over and scene.in_flight > 0
    is_full = scene.in_flight - scene.preparing >= scene.in_flight_limit
    rules = (
        (scene.is_paused, "pause"),
        (scene.is_away, "outage"),
        (scene.polls_late_s >= SLOW_POLL_S and is_tail, "polls"),
        (is_tail, "tail"),
        (is_idle and scene.is_input_over, None),
        (scene.is_cooling, "cool-down"),
        (scene.is_money_short, "credits"),
        (scene.polls_late_s >= SLOW_POLL_S and is_full, "polls"),
        (is_full, "in flight"),
        (scene.is_token_short, "tokens"),
        (scene.sync_s >= SLOW_SYNC_S, "disk"),
        (scene.preparing > 0 and (scene.queued == 0 or scene.in_flight >= scene.in_flight_limit), "media"),
        (is_idle and scene.is_held_full, "memory"),
        (is_idle, "input"),
        (scene.is_key_short, "key"),
        (scene.is_limited_by_server, "server"),
        (scene.has_limit, "rate"),
        (True, "seeking"),
    )
    return next(word for holds, word in rules if holds)


class Steady:
    """The word of most of the last looks: one look alone may fall on an odd moment."""

    def __init__(self) -> None:
        self._looks: deque[str | None] = deque(maxlen=LOOKS)

    def see(self, word: str | None) -> str | None:
        """Adds a look; what is at once plain is told at once."""
        self._looks.append(word)
        if word in ("pause", "outage", "cool-down", "tail", None):
            return word
        return Counter(reversed(self._looks)).most_common(1)[0][0]
