"""What a display makes of the rows that ended: latencies, the pace, the tail, and what binds."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from batchfox.core.binding import BINDS, Scene, Steady, binding
from batchfox.core.pulse import Pulse, quantile, tail_s
from batchfox.core.vitals import Shown, Vitals, sparks


def test_latencies_and_rates_are_those_of_the_last_minutes_in_bounded_memory() -> None:
    pulse = Pulse()
    for second in range(2_000):
        for _ in range(50):
            pulse.see(float(second), 1.0 if second < 1_000 else 4.0)
        pulse.see(float(second), None)
    latencies = pulse.latencies()
    assert len(latencies) <= 4_000
    assert (latencies[0], quantile(latencies, 0.5)) == (4.0, 4.0), "what was a quarter of an hour ago counts no more"
    assert pulse.rates(2_000.0) == [51.0] * 20
    assert pulse.medians(3) == [4.0] * 3
    assert quantile([1.0] * 4, 0.5) is None


@pytest.mark.parametrize(("tasks", "age_s"), [(200, 0.0), (200, 6.0), (1, 0.0), (5_000, 0.0)])
def test_the_tail_is_how_long_the_last_of_so_many_tasks_takes(tasks: int, age_s: float) -> None:
    draw = random.Random(7)
    seen = sorted(draw.lognormvariate(1.4, 0.7) for _ in range(3_000))
    lasts = []
    for _ in range(100):
        left: list[float] = []
        while len(left) < min(tasks, 200):
            if (latency := draw.lognormvariate(1.4, 0.7)) > age_s:
                left.append(latency - age_s)
        lasts.append(max(left))
    found = tail_s(seen, [age_s] * tasks)
    assert found is not None
    middle = sorted(lasts)[50]
    if tasks <= 200:
        assert 0.7 * middle < found < 1.5 * middle
    else:
        assert found > middle
    assert tail_s(seen[:4], [0.0]) is None
    assert tail_s(seen, []) == 0.0
    older = tail_s(seen, [10 * seen[-1]])
    assert older is not None
    assert older > seen[-1], "who is older than any that ended runs about as long again"


def test_the_end_is_the_rows_to_come_at_their_pace_and_then_the_tail() -> None:
    figures = {
        "fed": {"rows": 1_000, "duplicates": 0, "is_over": True},
        "by_status": {"completed": 300},
        "here": {"elapsed_s": 30.0},
        "in_flight": 100,
    }
    shown = Shown(title="job", recent_per_s=10.0, sent_per_s=12.0, tail_s=25.0)
    assert Vitals(figures, shown).left_s == 600 / 12.0 + 25.0
    assert Vitals(figures | {"paused_s": 3.0}, shown).left_s is None
    assert Vitals(figures | {"by_status": {"completed": 900}}, shown).left_s == 25.0, "only the tail is left"


def test_what_binds_is_one_word() -> None:
    busy = Scene(queued=50, in_flight=20, in_flight_limit=200, has_limit=True)
    words: dict[str, dict[str, Any]] = {
        "rate": {},
        "seeking": {"has_limit": False},
        "server": {"is_limited_by_server": True},
        "cool-down": {"is_cooling": True},
        "pause": {"is_paused": True, "is_cooling": True},
        "outage": {"is_away": True},
        "credits": {"is_money_short": True},
        "tokens": {"is_token_short": True},
        "polls": {"in_flight": 200, "polls_late_s": 2.0},
        "key": {"is_key_short": True, "is_limited_by_server": True},
        "in flight": {"in_flight": 200},
        "media": {"in_flight": 200, "preparing": 150},
        "disk": {"sync_s": 0.5},
        "memory": {"queued": 0, "is_held_full": True},
        "input": {"queued": 0},
        "tail": {"queued": 0, "is_input_over": True},
    }
    found = {word: binding(msgspec.structs.replace(busy, **changes)) for word, changes in words.items()}
    assert found == {word: word for word in words}
    assert set(words) == set(BINDS)
    assert binding(Scene(is_input_over=True)) is None
    assert binding(Scene(is_input_over=True, in_flight=3, polls_late_s=2.0)) == "polls"
    assert binding(msgspec.structs.replace(busy, polls_late_s=2.0)) == "rate", "nothing waits for them"
    steady = Steady()
    assert [steady.see(word) for word in ("rate", "rate", "input", "rate", "pause")] == [*["rate"] * 4, "pause"]


def test_sparks() -> None:
    assert (sparks([0.0, 1.0, 2.0, 4.0]), sparks([1.0]), sparks([0.0, 0.0])) == ("▁▃▅█", "", "")
