"""What a person reads at the end of a run, and while one stops."""

from __future__ import annotations

from typing import Any

from batchfox.show import describe
from batchfox.summary import Summary
from batchfox.words import stop_words


def summary(**values: Any) -> Summary:
    values = {"by_status": {"completed": 3}, "settled": {"completed": 3}, "exit_status": 0, **values}
    return Summary(run_id="r", run_date="2026-01-31", output="out", **values)


def test_an_estimate_that_proved_low_is_shown() -> None:
    text = describe(summary(estimates_low={"gemini-2.5-pro|vision": (2.0, 3.5)}), ["batchfox", "run", "job.toml"])
    assert "estimate proved low: gemini-2.5-pro (vision) 2.00 expected, 3.50 came of it" in text
    assert "proved low" not in describe(summary(), ["batchfox", "run", "job.toml"])


def test_a_stop_says_what_it_still_waits_for() -> None:
    figures = {"stopped": "signal", "leaves_in_s": 29.6, "on_the_wire": 1, "in_flight": 41}
    assert stop_words(figures) == (
        "stopping (signal): up to 30 s for 1 submit on the wire; a second signal leaves at once"
    )
    figures |= {"stopped": "credits", "leaves_in_s": None}
    assert stop_words(figures) == "stopping (credits): nothing more is submitted, 41 tasks to be finished"
