"""Drift: what is beyond chance is off, and nothing else is."""

from __future__ import annotations

import random

import pytest

from batchfox.core.drift import Bounds, DriftWatch, Sums, is_refused, pool, told
from batchfox.core.event import Answer
from batchfox.core.outcome import Outcome, Status

DRAW = random.Random(7)


def outcome(
    text: str = "an answer",
    *,
    status: Status = "completed",
    tokens: int = 100,
    price: float = 1.0,
    latency_s: float = 2.0,
) -> Outcome:
    answer = Answer(completion="{}", text=text, total_tokens=tokens) if status == "completed" else None
    return Outcome(
        row_index=0,
        row_id="r",
        status=status,
        answer=answer,
        credits=price,
        latency_s=latency_s,
        finished_at=0.0,
        run_id="x",
        run_date="2026-01-31",
    )


def usual() -> Outcome:
    """One of an honest night: lengths, prices and latencies vary by half and more."""
    words = int(DRAW.lognormvariate(5, 0.6)) + 1
    return outcome("a" * words, tokens=words + 20, price=words / 100, latency_s=DRAW.lognormvariate(3, 0.7))


def of_nights(nights: int, rows: int) -> Sums:
    sums = Sums()
    for _ in range(nights * rows):
        sums.see(usual())
    return sums


ALL = Bounds(refused=0.02, empty=0.02, length=1.5, tokens=1.5, credits=1.5, latency=1.5)
BEFORE = of_nights(3, 1_000)


def stopped_by(outcomes: list[Outcome], bounds: Bounds = ALL, after: int = 200) -> tuple[int, list[str]] | None:
    watch = DriftWatch(bounds, after, BEFORE)
    for number, one in enumerate(outcomes, 1):
        if found := watch.see(one):
            return number, [drifted.name for drifted in found]
    return None


def test_an_honest_night_is_never_stopped_however_long() -> None:
    assert stopped_by([usual() for _ in range(5_000)]) is None
    some_refused = [outcome(status="failed") if n % 60 == 0 else usual() for n in range(5_000)]
    assert stopped_by(some_refused) is None, "1.7 % of the allowed 2 %"


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (outcome("I'm sorry, but I can't help with that.", tokens=170, price=1.7, latency_s=20), ["refused", "length"]),
        (outcome(status="failed"), ["refused"]),
        (outcome(" ", tokens=170, price=1.7, latency_s=20), ["empty", "length"]),
        (outcome("a" * 1000, tokens=1000, price=1.7, latency_s=20), ["length", "tokens"]),
        (outcome("a" * 170, tokens=170, price=9.0, latency_s=90), ["credits", "latency"]),
    ],
)
def test_a_broken_night_is_stopped_at_the_least_number_of_rows(broken: Outcome, names: list[str]) -> None:
    assert stopped_by([broken] * 1000) == (200, names)
    assert stopped_by([broken] * 1000, Bounds()) is None
    half = [broken if n % 2 else usual() for n in range(1000)]
    found = stopped_by(half, Bounds(refused=0.02, empty=0.02))
    assert found is None or found[0] == 200


def test_a_change_in_the_middle_of_a_long_run_shows() -> None:
    night = [usual() for _ in range(3_000)] + [outcome("", tokens=170, price=1.7, latency_s=20)] * 500
    found = stopped_by(night)
    assert found is not None
    assert found[0] < 3_150
    assert found[1] == ["empty"]


def test_without_earlier_runs_only_shares_are_known() -> None:
    watch = DriftWatch(ALL, 10, Sums())
    assert not any(watch.see(outcome("a" * 10**6, tokens=10**6, latency_s=9e9)) for _ in range(100))
    watch = DriftWatch(ALL, 10, Sums())
    assert [name for _ in range(10) for drifted in watch.see(outcome("")) for name in [drifted.name]] == ["empty"]


def test_what_says_nothing_of_answers_does_not_count() -> None:
    sums = Sums()
    statuses: list[Status] = ["invalid", "in_doubt", "timed_out"]
    for status in statuses:
        sums.see(outcome(status=status))
    assert sums == Sums()
    assert pool([]) == Sums()
    assert pool([BEFORE, Sums()]) == BEFORE


def test_refusals_are_told_from_answers() -> None:
    for text in ("I’m sorry, but no.", "I cannot do that", "  I can't say", "As an AI model", "Sorry, that is not"):
        assert is_refused(outcome(text)), text
    for text in ("A sorry sight", "I cannon", "The dog says: I can't", "Sorrel", ""):
        assert not is_refused(outcome(text)), text


def test_at_the_end_of_a_run_what_is_off_is_told_though_nobody_asked() -> None:
    now = Sums()
    for _ in range(100):
        now.see(outcome("a" * 170, tokens=170, price=9.0, latency_s=20))
    assert [drifted.name for drifted in told(now, BEFORE)] == ["credits"]
    assert told(of_nights(1, 100), BEFORE) == []
    assert told(now, Sums()) == []
