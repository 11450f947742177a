"""Mistakes that all rows of a job would share are the job's: told once, before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from batchfox.core.first_look import FirstLook, refuse_constants
from batchfox.core.render import Renderer
from batchfox.core.row import Row
from batchfox.core.rulebook import RuleBook
from batchfox.core.sections import Input, Rules
from batchfox.errors import JobError

MESSAGES = [{"role": "user", "content": "hi"}]
WHOLE = {"model": "m", "prompt": "p"}


def row(columns: dict[str, Any], *, problem: str | None = None) -> Row:
    return Row(index=0, id="0", key=b"k", columns=columns, line=1, problem=problem)


def look(
    request: dict[str, Any], *rows: dict[str, Any] | None, id_column: str | None = None, **given: Any
) -> FirstLook:
    """After these rows; None is one that could not be read."""
    renderer = Renderer(request, fields=given.get("fields"))
    first = FirstLook(renderer, Input(path="x", **given), id_column=id_column)
    for columns in rows:
        first.see(row(columns) if columns is not None else row({}, problem="no JSON"))
    return first


# The constants.


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"temperature": 3, "prompt": "{{ t }}"}, "request.temperature: found 3; allowed: a number from 0 to 2"),
        ({"temperature": float("nan")}, "request.temperature: found NaN"),
        ({"max_tokens": 0}, "request.max_tokens: found 0"),
        ({"model": ""}, "request.model"),
        ({"image_urls": ["https://x/a.png"] * 11}, "request.image_urls: found a list of 11"),
        ({"image_urls": ["a.png"], "video_urls": ["https://x/a.mp4"]}, "together"),
        ({"messages": []}, "request.messages: found an empty list"),
        ({"messages": MESSAGES, "model": "gpt-5.5", "max_tokens": 8}, "16 or more for gpt-5.5"),
        ({"model": "claude-opus-4-7", "prompt": "{{ t }}", "audio_url": "https://x/a.mp3"}, "claude"),
        ({"stream": "always"}, "request.stream"),
        ({"stream": "yes please"}, "request.stream"),
    ],
)
def test_what_is_wrong_whatever_the_rows_hold_is_the_jobs_mistake(request_: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError) as refused:
        refuse_constants(Renderer(request_), RuleBook())
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        WHOLE,
        {"temperature": 3},  # allowed with messages, which the rows may bring
        {"temperature": 3, "messages": MESSAGES},
        {"temperature": "{{ t }}", "prompt": "p"},
        {"model": "claude-opus-4-7", "messages": MESSAGES},  # max_tokens may come from the rows
        {"model": "gpt-5.5", "max_tokens": 8},  # enough for a prompt
        {"image_urls": ["local.png"]},
        {"system_prompt": "s"},
    ],
)
def test_what_rows_can_mend_is_not(request_: dict[str, Any]) -> None:
    refuse_constants(Renderer(request_), RuleBook())


def test_a_rule_that_is_off_refuses_no_constant() -> None:
    renderer = Renderer({"temperature": 3, "prompt": "p"})
    with pytest.raises(JobError, match=r'\[rules\] off = \["temperature"\]'):
        refuse_constants(renderer, RuleBook())
    refuse_constants(renderer, RuleBook.build(Rules(off=["temperature"])))


# The first rows.


def test_a_variable_in_none_of_the_rows_is_named_with_its_neighbour() -> None:
    first = look({"model": "m", "prompt": "{{ titel }}"}, {"title": "a", "id": 1}, None, {"url": "u"})
    assert not first.is_settled
    assert first.verdict() == (
        'request.prompt: the variable "titel" is no column of the first 2 rows (did you mean "title"?); '
        "columns: title, id, url; a template that can do without it says titel | default(…)"
    )


@pytest.mark.parametrize(
    ("request_", "rows"),
    [
        ({"prompt": "p"}, [{}]),
        ({"prompt": "{{ a }}"}, [{"b": 1}, {"a": None}]),
        ({"prompt": "{{ a | default('') }}"}, [{"b": 1}]),
        ({"prompt": "{{ a }}"}, []),
        ({"prompt": "{{ a }}"}, [None, None]),
    ],
)
def test_no_verdict_where_nothing_is_missing_or_nothing_was_seen(request_: dict[str, Any], rows: list[Any]) -> None:
    assert look({"model": "m"} | request_, *rows).verdict() is None


def test_a_hundred_rows_settle_it() -> None:
    request = {"model": "m", "prompt": "{{ a }}"}
    first = look(request, *[{"b": 1}] * 99)
    assert not first.is_settled
    first.see(row({"b": 1}))
    assert first.is_settled
    first.see(row({"a": 1}))
    assert first.verdict() is not None
    assert look(request, {"a": 1}).is_settled


def test_an_id_column_that_no_row_has_is_named_with_its_neighbour() -> None:
    verdict = look(WHOLE, {"image_id": 1}, {"url": "x"}, id_column="imageid").verdict()
    assert verdict == (
        'input.id: "imageid" is no column of the first 2 rows (did you mean "image_id"?); columns: image_id, url'
    )
    assert look(WHOLE, {"image_id": None}, id_column="image_id").verdict() is None, (
        "null in all rows is the rows' fault"
    )
    missing = FirstLook(Renderer(WHOLE), Input(path="x"), id_column="id")
    missing.see(row({"a": 1}, problem="missing id"))
    assert missing.verdict() is not None, "a row whose id is missing was read"


def test_batch_lines_under_another_id_are_told_about_custom_id() -> None:
    line = {"custom_id": "a", "body": {"model": "m", "messages": MESSAGES}}
    verdict = look({}, line, id_column="chat_id").verdict()
    assert verdict is not None
    assert "--id custom_id" in verdict
    assert look({}, line, id_column="custom_id").verdict() is None


@pytest.mark.parametrize(
    ("request_", "columns", "fields", "says"),
    [
        ({"prompt": "p"}, {"a": 1}, None, "request.model: missing; neither [request] nor a column of the first row"),
        ({"prompt": "p"}, {"model": "m"}, ["prompt"], "the column model is not in input.fields"),
        (
            {"model": "m"},
            {"text": "a"},
            None,
            "request.prompt: missing; neither [request] nor a column of the first row",
        ),
        ({"model": "m"}, {"custom_id": "a", "body": {"model": "m"}}, None, "request.prompt: missing"),
        ({"model": "m"}, {"prompt": None}, None, None),
        ({"model": "m"}, {"audio_url": "a.mp3"}, None, None),
        ({"model": "{{ m | default('x') }}"}, {"messages": MESSAGES}, None, None),
        ({"prompt": "p"}, {"model": "m"}, None, None),
    ],
)
def test_a_model_and_content_come_from_somewhere(
    request_: dict[str, Any], columns: dict[str, Any], fields: list[str] | None, says: str | None
) -> None:
    verdict = look(request_, columns, fields=fields).verdict()
    assert (verdict is None) == (says is None)
    assert (says or "") in (verdict or "")


def test_rules_that_are_off_ask_for_nothing() -> None:
    first = FirstLook(Renderer({}), Input(path="x"), id_column=None, off=frozenset({"model", "prompt"}))
    first.see(row({"a": 1}))
    assert first.verdict() is None


def test_columns_named_in_vain_are_a_warning_since_a_later_row_may_have_them() -> None:
    first = look(WHOLE, {"title": 1}, keep=["titel", "meta_*", "*"], fields=["seed"])
    assert first.verdict() is None
    told = {(event, values["column"], values["named_in"]) for event, values in first.warnings()}
    assert told == {("column_missed", "titel", "input.keep"), ("column_missed", "seed", "input.fields")}
    assert any('did you mean "title"' in values["found"] for _, values in first.warnings())
    first.see(row({"titel": 1, "seed": 2}))
    assert list(first.warnings()) == []


@pytest.mark.parametrize(
    ("request_", "columns", "told"),
    [
        ({"prompt": "p"}, {"messages": MESSAGES, "image_urls": ["a"]}, {"messages": "[request] has prompt"}),
        ({"image_urls": ["a"]}, {"video_urls": ["b"]}, {"video_urls": "[request] has image_urls"}),
        ({"messages": MESSAGES}, {"prompt": "p", "audio_url": "a"}, dict.fromkeys(["prompt", "audio_url"], "messages")),
        ({"prompt": "p"}, {"custom_id": "a", "body": {"messages": MESSAGES}}, {"messages": "[request] has prompt"}),
        ({"prompt": "{{ messages }}"}, {"messages": MESSAGES}, {}),
        ({"prompt": "p"}, {"messages": None, "prompt": "q", "model": "m"}, {}),
        ({"prompt": "p"}, {"messages": []}, {}),
    ],
)
def test_content_that_request_keeps_out_is_told(
    request_: dict[str, Any], columns: dict[str, Any], told: dict[str, str]
) -> None:
    first = look({"model": "m"} | request_, columns)
    found = {values["column"]: values["because"] for event, values in first.warnings() if event == "column_passed_over"}
    assert found.keys() == told.keys()
    assert all(told[name] in reason for name, reason in found.items())
