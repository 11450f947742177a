"""The output's columns: names, order and types exactly as the contract's table, and the values that stand in them."""

from __future__ import annotations

import msgspec

from batchfox.core.event import Answer, ApiError
from batchfox.core.outcome import COLUMNS, EXTRA, STATUSES, Outcome

# contract.md, "The output", line for line.
CONTRACT = """
row_index int64
row_id string
status string
text string
reasoning string
finish_reason string
model string
task_id string
completion string
prompt_tokens int64
completion_tokens int64
total_tokens int64
credits float64
error_code string
error_type string
error_message string
http_status int16
submits int16
maybe_billed_twice bool
polls int32
submitted_at timestamp
finished_at timestamp
latency_s float64
request_hash string
media list<string>
run_id string
run_date date32
"""

ANSWER = Answer(
    completion='{"choices":[]}',
    text="t",
    reasoning="r",
    finish_reason="stop",
    model="answered-model",
    prompt_tokens=1,
    completion_tokens=2,
    total_tokens=3,
)
COMPLETED = Outcome(
    row_index=7,
    row_id="seven",
    status="completed",
    answer=ANSWER,
    model="asked-model",
    task_id="task-1",
    credits=0.5,
    http_status=200,
    submits=2,
    maybe_billed_twice=True,
    polls=4,
    submitted_at=1_700_000_000.25,
    finished_at=1_700_000_010.5,
    latency_s=10.25,
    request_hash="ab",
    media=["inline", "url"],
    run_id="run-1",
    run_date="2026-01-31",
)


def as_dict(outcome: Outcome) -> dict[str, object]:
    return dict(zip(COLUMNS, outcome.record(), strict=True))


def test_the_columns_are_those_of_the_contract_in_its_order() -> None:
    assert [f"{name} {kind}" for name, kind in COLUMNS.items()] == CONTRACT.split("\n")[1:-1]
    assert STATUSES == ("completed", "failed", "invalid", "in_doubt", "timed_out")
    assert EXTRA == "input_extra"


def test_a_completed_row_fills_every_column_but_the_errors() -> None:
    assert as_dict(COMPLETED) == {
        "row_index": 7,
        "row_id": "seven",
        "status": "completed",
        "text": "t",
        "reasoning": "r",
        "finish_reason": "stop",
        "model": "answered-model",
        "task_id": "task-1",
        "completion": '{"choices":[]}',
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "credits": 0.5,
        "error_code": None,
        "error_type": None,
        "error_message": None,
        "http_status": 200,
        "submits": 2,
        "maybe_billed_twice": True,
        "polls": 4,
        "submitted_at": 1_700_000_000_250_000,
        "finished_at": 1_700_000_010_500_000,
        "latency_s": 10.25,
        "request_hash": "ab",
        "media": ["inline", "url"],
        "run_id": "run-1",
        "run_date": "2026-01-31",
    }


def test_a_row_that_was_never_sent_says_why_and_has_nulls_elsewhere() -> None:
    error = ApiError(code="prompt_length", type="invalid_row", message="prompt: found 100001 characters")
    row = as_dict(
        Outcome(
            row_index=0,
            row_id="line:1",
            status="invalid",
            error=error,
            finished_at=1.0,
            run_id="run-1",
            run_date="2026-01-31",
        )
    )
    assert (row["error_code"], row["error_type"], row["error_message"]) == (error.code, error.type, error.message)
    filled = {name for name, value in row.items() if value is not None}
    assert filled == {
        *("row_index", "row_id", "status", "error_code", "error_type", "error_message", "submits"),
        *("maybe_billed_twice", "polls", "finished_at", "media", "run_id", "run_date"),
    }


def test_the_model_asked_for_stands_where_the_answer_names_none() -> None:
    answer = msgspec.structs.replace(ANSWER, model=None)
    assert as_dict(msgspec.structs.replace(COMPLETED, answer=answer))["model"] == "asked-model"


def test_more_submits_than_the_column_holds_do_not_break_the_part() -> None:
    assert as_dict(msgspec.structs.replace(COMPLETED, submits=100_000))["submits"] == 32_767


def test_an_outcome_survives_the_checkpoint() -> None:
    for outcome in (COMPLETED, msgspec.structs.replace(COMPLETED, answer=None, error=ApiError(code="c"))):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(outcome), type=Outcome) == outcome
