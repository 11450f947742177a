"""What a person reads at the end of a run, and while one stops."""

from __future__ import annotations

from typing import Any

import pytest

from batchfox.core.event import ApiError
from batchfox.core.outcome import Outcome
from batchfox.log import Log
from batchfox.show import describe
from batchfox.summary import Causes, Summary, Used
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
    figures |= {"stopped": "key"}
    assert stop_words(figures) == "stopping (key): nothing more is submitted, 41 tasks in flight left for the next run"


RUN = ["batchfox", "run", "job.toml"]


def lines_of(command: list[str] | None = None, **values: Any) -> list[str]:
    return describe(summary(**values), command or RUN).splitlines()


def test_a_limited_run_says_that_rows_are_left_and_names_the_same_command() -> None:
    text = lines_of([*RUN, "--limit", "3", "--retry", "failed", "--fresh"], is_limited=True)
    assert "exit 0: every row taken is completed; rows beyond --limit or --pilot were not taken" in text
    assert text[-1] == "next: batchfox run job.toml --limit 3"
    assert not any("every row is completed" in line for line in text)
    short = lines_of(is_limited=True, exit_status=3, by_status={"failed": 3}, settled={"failed": 3})
    assert short[-1] == "next: batchfox run job.toml", "first the rows that were never tried"


def test_invalid_rows_are_not_to_be_tried_again_as_they_are() -> None:
    text = lines_of(exit_status=3, by_status={"failed": 2, "invalid": 3})
    assert text[-1] == "next: batchfox run job.toml --retry failed,invalid"
    assert text[-2] == "first: mend the input or the job; a row that is invalid ends as invalid again as it is"
    for fine in (lines_of(exit_status=3, by_status={"failed": 2}), lines_of(is_limited=True, by_status={"invalid": 1})):
        assert not any(line.startswith("first:") for line in fine)


def test_rows_that_did_not_complete_before_are_told_apart_from_the_causes_of_this_time() -> None:
    text = lines_of(exit_status=3, by_status={"completed": 1, "failed": 2, "invalid": 3}, settled={"failed": 2})
    assert "not completed before this time: 3 rows; why: batchfox report out" in text
    all_now = lines_of(exit_status=3, by_status={"failed": 2}, settled={"failed": 2})
    assert not any("before this time" in line for line in all_now)


@pytest.mark.parametrize(("kinds", "said"), [(10, None), (11, "1 more kind"), (13, "3 more kinds")])
def test_the_causes_that_are_not_listed_are_counted_by_kind(kinds: int, said: str | None) -> None:
    causes = Causes()
    for number in range(kinds):
        error = ApiError(code=f"code-{number}", message="why")
        causes.see(
            Outcome(
                row_index=number,
                row_id="r",
                status="failed",
                error=error,
                finished_at=0.0,
                run_id="r",
                run_date="2026-01-31",
            )
        )
    top = causes.top()
    text = lines_of(exit_status=3, causes=top, more_causes=causes.kinds - len(top))
    assert [line for line in text if "of causes" in line] == ([f"  and {said} of causes"] if said else [])


def test_figures_of_this_time_and_of_the_whole_run_stand_on_lines_of_their_own() -> None:
    here = Used(submits=1, polls=7, prompt_tokens=5, credits_spent=0.0123, elapsed_s=3.0)
    whole = Used(submits=41, polls=107, throttles=1, prompt_tokens=205, credits_spent=4.5, elapsed_s=63.0)
    resumed = lines_of(is_resume=True, here=here, whole_run=whole, settled={"completed": 1})
    assert (
        "this time: 1 row in 0:03 (0.3 rows/s); 1 submit, 7 polls, 0 times throttled; 5 + 0 tokens; 0.0123 credits"
        in resumed
    )
    assert "whole run: 1:03; 41 submits, 107 polls, 1 time throttled; 205 + 0 tokens; 4.50 credits" in resumed
    new = lines_of(here=here, whole_run=here)
    assert any(line.startswith("this run: ") for line in new)
    assert not any("whole run" in line for line in new)


def test_tasks_in_flight_and_submits_in_doubt_are_told_apart() -> None:
    text = lines_of(exit_status=130, left_in_flight=1, left_in_doubt=2)
    assert "  still in flight at the API: 1 task, picked up by the next run" in text
    assert any(line.startswith("  2 submits in doubt: on the wire at the end, maybe billed") for line in text)
    assert text[-1] == "next: batchfox run job.toml"


def test_the_results_are_pointed_to_with_the_words_that_started_the_program() -> None:
    text = lines_of([".venv/bin/batchfox", "run", "job.toml"])
    assert "results: out/data (Parquet); as one file: .venv/bin/batchfox export out results.jsonl" in text
    assert not any(line.startswith("results") for line in lines_of(by_status={}, settled={}))


def test_what_rows_say_is_one_line_and_no_command_to_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """Else a row's id could write a line of its own, or change the terminal's title."""
    causes = Causes()
    row_id, message = "b\nexit 0: every row is completed", "\x1b]0;title\x07 \u202e refused"
    error = ApiError(code="\x1b[2J", message=message)
    outcome = Outcome(
        row_index=0, row_id=row_id, status="failed", error=error, finished_at=0.0, run_id="r", run_date="2026-01-31"
    )
    causes.see(outcome)
    log = Log(None, level="debug")
    log.info("row_settled", row=row_id, error_message=message)
    log.close()
    said = describe(summary(causes=causes.top()), ["batchfox"]) + capfd.readouterr().err
    assert "\\u001b]0;title\\u0007 \\u202e refused" in said
    assert all(letter.isprintable() or letter == "\n" for letter in said)
    assert "row b exit 0" in said
