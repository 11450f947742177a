"""Figures as people read them."""

from __future__ import annotations

import pytest

from batchfox.core.vitals import Shown
from batchfox.words import count, credit, duration, exit_means, moment, pace_words, shorten


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.0, "0"),
        (0.00001234, "0.0000123"),
        (0.0005, "0.0005"),
        (0.01, "0.01"),
        (0.0999, "0.0999"),
        (0.99999, "1"),
        (0.255, "0.255"),
        (1, "1.00"),
        (1234567.891, "1,234,567.89"),
        (-0.5, "-0.5"),
    ],
)
def test_credits_are_never_rounded_to_nothing_and_have_no_exponent(amount: float, text: str) -> None:
    assert credit(amount) == text


def test_one_is_singular() -> None:
    assert [count(number, "row") for number in (0, 1, 2, 2000)] == ["0 rows", "1 row", "2 rows", "2,000 rows"]
    assert (count(1, "try", "tries"), count(8, "try", "tries")) == ("1 try", "8 tries")


def test_spans_and_moments() -> None:
    assert [duration(seconds) for seconds in (0.9, 59, 61, 3600, 90061)] == [
        "0:00",
        "0:59",
        "1:01",
        "1:00:00",
        "25:01:01",
    ]
    assert moment(1_700_000_000.0, 1_700_000_001.0).count(":") == 2
    assert "-" in moment(1_700_000_000.0, 1_700_200_000.0), "another day has its date"


def test_long_texts_are_one_short_line() -> None:
    assert shorten("a\n  b") == "a b"
    assert (len(shorten("x" * 500)), shorten("x" * 500)[-1]) == (160, "…")


def test_a_limited_run_does_not_claim_every_row() -> None:
    assert exit_means(0) == "every row is completed"
    left = "rows beyond --limit or --pilot were not taken"
    assert exit_means(0, is_limited=True) == f"every row taken is completed; {left}"
    assert exit_means(4, is_limited=True) == exit_means(4)
    assert exit_means(5) == ""


def test_tokens_are_told_of_this_runs_part_of_them() -> None:
    figures = {"per_minute": 600.0, "tokens_of_minute": 12.0, "throttles": 0}
    alone = Shown(title="job", limit_per_minute=600, tokens_limit=5_500, tokens_share=5_500)
    assert pace_words(figures, alone) == "600/min, 12 of 5,500 tokens/min"
    shared = Shown(title="job", limit_per_minute=600, tokens_limit=5_500, tokens_share=10)
    assert pace_words(figures, shared) == "600/min, 12 of 10 tokens/min (its part of 5,500)"
