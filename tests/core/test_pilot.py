"""The sample of a pilot, and what its intervals are worth."""

from __future__ import annotations

import itertools
import random

import pytest

from batchfox.core.pilot import Sampler, Tried, extrapolate, share_out, student, wilson


def test_a_sample_lies_evenly_over_each_kind_in_bounded_memory() -> None:
    sampler: Sampler[int] = Sampler(20)
    for index in range(100_000):
        sampler.see("rare" if index % 1_000 == 7 else "video" if index < 30_000 else "text", index)
    assert all(len(kind.kept) <= 40 for kind in sampler._kinds.values())
    chosen = sampler.choose()
    assert {kind: len(found) for kind, found in chosen.items()} == {"text": 13, "video": 6, "rare": 1}
    assert sampler.rows == {"video": 29_970, "rare": 100, "text": 69_930}
    text = chosen["text"]
    gaps = [after - before for before, after in itertools.pairwise(text)]
    assert text[0] < 40_000
    assert text[-1] > 90_000
    assert max(gaps) < 2.5 * min(gaps), "no stretch of the input is passed over"


def test_the_shares_are_by_size_and_no_kind_is_left_out_while_there_is_room() -> None:
    assert share_out({"a": 5, "b": 3}, 20) == {"a": 5, "b": 3}
    assert share_out({"a": 900, "b": 90, "c": 10}, 10) == {"a": 8, "b": 1, "c": 1}
    assert share_out({"a": 900, "b": 90, "c": 10}, 2) == {"a": 1, "b": 1, "c": 0}


def test_the_interval_of_a_rate_is_wilsons() -> None:
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0.1, 20) == pytest.approx((0.0279, 0.3010), abs=1e-4)
    assert wilson(0.0, 0) == (0.0, 1.0)
    assert [round(student(freedom), 2) for freedom in (1, 5, 12, 30, 120)] == [12.71, 2.57, 2.18, 2.04, 1.98]


def test_the_interval_of_the_cost_holds_what_the_rows_cost_nearly_always() -> None:
    """Two kinds of rows, one ten times as dear; of 300 pilots of 20 rows, those whose interval holds the truth."""
    draw = random.Random(11)
    rows = [("image", draw.uniform(0.8, 1.2)) for _ in range(1_600)]
    rows += [("video", draw.lognormvariate(2.3, 0.3)) for _ in range(400)]
    truth = sum(cost for _, cost in rows)
    sizes = {"image": 1_600, "video": 400}
    held, widths = 0, []
    for _ in range(300):
        picked = draw.sample(rows[:1_600], 16) + draw.sample(rows[1_600:], 4)
        found = extrapolate([Tried(kind=kind, status="completed", credits=cost) for kind, cost in picked], sizes)
        assert found.credits is not None
        _, low, high = found.credits
        held += low <= truth <= high
        widths.append((high - low) / truth)
    assert held >= 0.9 * 300, held
    assert sorted(widths)[150] < 0.7


def test_failed_rows_cost_nothing_and_what_is_not_known_is_not_guessed() -> None:
    tried = [Tried(kind="a", status="failed"), *[Tried(kind="a", status="completed", credits=2.0)] * 3]
    found = extrapolate(tried, {"a": 100})
    assert (found.rows, found.tried, found.failed, found.failures[0]) == (100, 4, 1, 0.25)
    assert found.credits is not None
    assert found.credits[0] == pytest.approx(150.0)
    assert found.credits[1] >= 6.0, "what is spent is spent"
    assert extrapolate([Tried(kind="a", status="completed")] * 4, {"a": 100}).credits is None
