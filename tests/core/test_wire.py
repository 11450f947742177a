"""Bytes → events: any reply becomes exactly one event, and what an answer says arrives as it was said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchfox.core.event import (
    Accepted,
    Answered,
    ApiError,
    Deferred,
    Doubted,
    Halted,
    Missing,
    PollEvent,
    Refused,
    Running,
    SubmitEvent,
    TaskFailed,
    Unheard,
)
from batchfox.core.outcome import COLUMNS, Outcome, Status
from batchfox.core.retry_after import retry_after_s
from batchfox.core.wire import Reply, read_error, read_poll, read_submit, task_path

NOW = 1_700_000_000.0
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1776874490,
    "model": "gemini-2.5-pro",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Zwei Füchse."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 20100, "completion_tokens": 12, "total_tokens": 20112},
}
# The answer to a submit, word for word as the seeds give it.
TASK: dict[str, Any] = {
    "id": "task-llmrouter-1776874481-rj6bs3yb",
    "object": "llm.generation.task",
    "type": "llm",
    "model": "gemini-2.5-pro",
    "status": "pending",
    "progress": 0,
    "created": 1776874481,
    "stream": None,
    "results": None,
    "error": None,
}


def reply(body: Any, status: int = 200, retry_after: str | None = None) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status=status, body=raw, retry_after=retry_after)


def submitted(body: Any, status: int = 200, retry_after: str | None = None, *, is_sync: bool = False) -> SubmitEvent:
    return read_submit(reply(body, status, retry_after), NOW, is_sync=is_sync)


def polled(body: Any, status: int = 200, retry_after: str | None = None) -> PollEvent:
    return read_poll(reply(body, status, retry_after), NOW, TASK["id"])


def error_body(message: str = "no", kind: str | None = None, code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": code}}


def answer_of(event: SubmitEvent | PollEvent) -> Any:
    assert isinstance(event, Answered), event
    return event.answer


# Submits.


def test_the_submits_reply_of_the_seeds_is_an_accepted_task() -> None:
    assert submitted(TASK) == Accepted(task_id="task-llmrouter-1776874481-rj6bs3yb", reserved=None)


def test_a_reservation_is_read_and_unknown_fields_are_passed_over() -> None:
    event = submitted(TASK | {"usage": {"credits_reserved": 1.5}, "new_thing": {"a": [1]}, "id": "task-llm-1-x"})
    assert event == Accepted(task_id="task-llm-1-x", reserved=1.5)


@pytest.mark.parametrize("reserved", [-1, True, "3", None, [], 1e400, 10**400, float("nan")], ids=repr)
def test_a_reservation_that_is_no_amount_is_none(reserved: Any) -> None:
    event = submitted(TASK | {"usage": {"credits_reserved": reserved}})
    assert event == Accepted(task_id=TASK["id"], reserved=None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b'"task-1"',
        b"<html>busy</html>",
        b'{"id":"task-1","status":"pen',
        b'\xff\xfe{"id":"task-1"}',
        b'{"id":"task-\xff"}',
        b"[" * 100_000,
        b'{"id":' * 50_000,
        {},
        TASK | {"id": None},
        TASK | {"id": 5},
        TASK | {"id": ""},
        TASK | {"id": ["task-1"]},
        TASK | {"id": "task-\ud800"},
        COMPLETION,
        error_body(),
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_200_without_a_readable_task_is_in_doubt(body: Any) -> None:
    event = submitted(body)
    assert isinstance(event, Doubted)
    assert event.http_status == 200
    assert event.error.code == "unreadable_reply"


def test_a_synchronous_submit_brings_the_answer_itself() -> None:
    raw = json.dumps(COMPLETION | {"usage": COMPLETION["usage"] | {"credits_charged": 0.25}}).encode()
    answer = answer_of(submitted(raw, is_sync=True))
    assert (answer.text, answer.total_tokens, answer.credits) == ("Zwei Füchse.", 20112, 0.25)
    assert answer.completion == raw.decode()


def test_a_synchronous_submit_that_gets_a_task_is_watched_like_any_other() -> None:
    assert submitted(TASK, is_sync=True) == Accepted(task_id=TASK["id"])


@pytest.mark.parametrize("body", [b"", b"{}", b'{"choices":[]}', b"<html>", b'{"choices":[{"message":'])
def test_a_synchronous_submit_without_a_readable_answer_is_in_doubt(body: bytes) -> None:
    assert isinstance(submitted(body, is_sync=True), Doubted)


BODIES: list[Any] = [b"", b"<html><h1>502 Bad Gateway</h1></html>", b"\xff\xfe\x00", b'{"error":"\xff"}', b'{"error":']


@pytest.mark.parametrize("body", [*BODIES, error_body("no", "t", "c"), [], {"error": None}, {"error": 3}], ids=repr)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Refused) for status in (400, 404, 413, 422, 403)),
        *((status, Halted) for status in (401, 402)),
        *((status, Deferred) for status in (429, 503)),
        *((status, Doubted) for status in (408, 500, 502, 504, 520, 524, 301, 307, 308)),
    ],
)
def test_the_status_of_a_refused_submit_decides_whatever_its_body(status: int, kind: type, body: Any) -> None:
    event = submitted(body, status)
    assert type(event) is kind
    assert isinstance(event, (Refused, Halted, Deferred, Doubted))
    assert event.http_status == status
    assert event.error.message is None or len(event.error.message) <= 2000
    assert event.error != ApiError(), "there is always something to show a person"


def test_a_deferred_submit_says_whose_trouble_it_is() -> None:
    scopes = [
        submitted(error_body("slow down", "rate_limit_error"), 429, "7"),
        submitted(error_body("busy", "service_unavailable"), 503, "9"),
        submitted(error_body("none", "service_unavailable_error", "no_compatible_channel"), 422),
    ]
    assert [(e.scope, e.http_status, e.retry_after_s) for e in scopes if isinstance(e, Deferred)] == [
        ("rate", 429, 7.0),
        ("service", 503, 9.0),
        ("row", 422, None),
    ]


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (401, error_body("bad key", "authentication_error"), "key"),
        (403, error_body("bad key", "authentication_error"), "key"),
        (402, error_body("empty", None, "insufficient_quota"), "balance"),
        (403, b"error code: 1010", "gateway"),
    ],
)
def test_what_stops_the_run_says_why(status: int, body: Any, cause: str) -> None:
    event = submitted(body, status)
    assert isinstance(event, Halted)
    assert event.cause == cause


# Polls.


@pytest.mark.parametrize("word", ["pending", "processing", "queued", "COMPLETED", "done", "succeeded", "", "failed "])
def test_any_status_word_but_two_means_not_finished(word: str) -> None:
    assert polled(TASK | {"status": word, "progress": 40}) == Running(progress=40)


@pytest.mark.parametrize("progress", [None, "40", [], {}], ids=repr)
def test_a_progress_that_is_no_number_is_none(progress: Any) -> None:
    assert polled(TASK | {"progress": progress}) == Running(progress=None)


def test_a_completed_task_brings_its_completion() -> None:
    event = polled(TASK | {"status": "completed", "progress": 100, "results": [COMPLETION]})
    answer = answer_of(event)
    assert json.loads(answer.completion) == COMPLETION
    assert msgspec.structs.astuple(answer)[1:] == (
        "Zwei Füchse.",
        None,
        "stop",
        "gemini-2.5-pro",
        20100,
        12,
        20112,
        None,
    )


def test_the_completion_is_kept_letter_for_letter_as_received() -> None:
    # Spaces, the order of keys, escapes, repeated keys and number forms: none of it survives a decode and encode.
    inner = '{ "x":1.0e+2 ,"usage":{}, "model":"m\\u00fc","choices":[ {"message":{"content":"a\\/b"}} ],"x" : 1.10 }'
    body = f'{{"status":"completed","id":"t","results":[ {inner} , {{}}]}}'.encode()
    answer = answer_of(polled(body))
    assert answer.completion == inner
    assert (answer.text, answer.model) == ("a/b", "mü")


def test_the_form_of_seed_004_is_read_too() -> None:
    answer = answer_of(
        polled(TASK | {"status": "completed", "results": [{"message": {"content": "hi"}, "model": "m"}]})
    )
    assert (answer.text, answer.model, answer.finish_reason) == ("hi", "m", None)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        (None, None),
        (5, None),
        ({}, None),
        ([], None),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}, 3], "ab"),
        ("a\x00b😀", "a\x00b😀"),
    ],
)
def test_the_text_is_the_messages_content(content: Any, text: str | None) -> None:
    completion = {"choices": [{"message": {"content": content}}]}
    assert answer_of(polled({"status": "completed", "results": [completion]})).text == text


def test_only_the_first_choice_and_the_first_result_count() -> None:
    two = {"choices": [{"message": {"content": "first"}}, {"message": {"content": "second"}}]}
    assert answer_of(polled({"status": "completed", "results": [two, COMPLETION]})).text == "first"


def test_an_answer_without_content_is_still_the_answer() -> None:
    # Refusals and tool calls come without content, and they are paid for.
    completion = {"choices": [{"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"}]}
    answer = answer_of(polled({"status": "completed", "results": [completion]}))
    assert (answer.text, answer.finish_reason) == (None, "tool_calls")


@pytest.mark.parametrize(
    "results",
    [
        None,
        [],
        {},
        "x",
        3,
        True,
        [None],
        [[]],
        ["x"],
        [{}],
        [{"choices": []}],
        [{"choices": [{}]}],
        [{"choices": [None]}],
        [{"choices": [{"message": "x"}]}],
        [{"choices": {}, "message": 3}],
    ],
    ids=repr,
)
def test_completed_without_readable_results_is_asked_again(results: Any) -> None:
    event = polled(TASK | {"status": "completed", "results": results})
    assert isinstance(event, Unheard)
    assert event.without_results
    assert event.error.code == "no_results"


def test_completed_without_the_field_results_is_asked_again() -> None:
    event = polled({"id": "t", "status": "completed"})
    assert isinstance(event, Unheard)
    assert event.without_results


def test_a_completion_that_is_not_utf8_is_asked_again() -> None:
    event = polled(b'{"status":"completed","results":[{"choices":[{"message":{"content":"\xff"}}]}]}')
    assert isinstance(event, Unheard)
    assert not isinstance(event, Answered)


def test_a_failed_task_brings_its_error() -> None:
    error = {"code": "upstream_timeout", "message": "took too long", "type": "task_error"}
    said = ApiError(code="upstream_timeout", type="task_error", message="took too long")
    assert polled(TASK | {"status": "failed", "error": error}) == TaskFailed(error=said, transient=True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, ApiError(code="task_failed")),
        ("boom", ApiError(code="task_failed", message="boom")),
        ({}, ApiError(code="task_failed")),
        ([], ApiError(code="task_failed")),
        ({"code": 17, "message": 3, "type": []}, ApiError(code="17")),
        ({"code": True, "message": "m"}, ApiError(code="task_failed", message="m")),
        ({"code": "c\ud800", "message": "m\udfff"}, ApiError(code="c?", message="m?")),
    ],
    ids=repr,
)
def test_a_failed_task_whose_error_is_odd_is_failed_all_the_same(error: Any, said: ApiError) -> None:
    event = polled(TASK | {"status": "failed", "error": error})
    assert isinstance(event, TaskFailed)
    assert event.error == said
    assert not event.transient


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b'{"status":"comp',
        b'{"status":"\xff"}',
        b"[" * 100000,
        {},
        {"status": None},
        {"status": 3},
        {"status": ["completed"]},
        error_body(),
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_poll_without_a_readable_task_is_asked_again(body: Any) -> None:
    event = polled(body)
    assert isinstance(event, Unheard)
    assert (event.http_status, event.without_results, event.is_rate) == (200, False, False)


@pytest.mark.parametrize(
    "ending",
    [
        {"status": "completed", "results": [COMPLETION]},
        {"status": "failed", "error": {"code": "x", "message": "no"}},
        {"status": "processing"},
    ],
    ids=lambda ending: str(ending["status"]),
)
def test_a_poll_that_tells_of_another_task_is_asked_again(ending: dict[str, Any]) -> None:
    for named in (
        {"id": "task-llm-2-other"},
        {"id": "task-llm-2-other", "object": None},
        {"id": "gen-2"},
        {"id": "task-3", "object": "t"},
    ):
        event = polled(TASK | ending | named)
        assert isinstance(event, Unheard)
        assert (event.error.code, event.without_results, event.is_rate) == ("other_task", False, False)
        assert TASK["id"] in (event.error.message or "")


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"id": None},
        {"id": ""},
        {"id": 7},
        {"id": TASK["id"]},
        {"id": "chatcmpl-1"},
        {"id": "chatcmpl-1", "object": "chat.completion"},
        {"id": "task-2", "object": "chat.completion"},
    ],
    ids=str,
)
def test_a_poll_that_names_no_other_task_brings_the_answer(named: dict[str, Any]) -> None:
    event = polled({"status": "completed", "results": [COMPLETION]} | named)
    assert answer_of(event).text == "Zwei Füchse."


@pytest.mark.parametrize("body", [*BODIES, error_body("no", "t", "c")], ids=repr)
@pytest.mark.parametrize(
    ("status", "kind", "is_rate"),
    [
        (404, Missing, False),
        (401, Halted, False),
        (429, Unheard, True),
        *((status, Unheard, False) for status in (400, 402, 403, 408, 413, 422, 500, 502, 503, 504, 524, 302)),
    ],
)
def test_the_status_of_a_refused_poll_decides_whatever_its_body(
    status: int, kind: type, is_rate: bool, body: Any
) -> None:
    event = polled(body, status, "5")
    assert type(event) is kind
    if isinstance(event, Unheard):
        assert (event.http_status, event.is_rate, event.retry_after_s) == (status, is_rate, 5.0)


# What the fast decoder refuses.


def test_nan_and_lone_surrogates_lose_no_answer() -> None:
    body = b'{"status":"completed","progress":NaN,"results":[{"choices":[{"message":{"content":"a\\ud800b"}}]}]}'
    answer = answer_of(polled(body))
    assert answer.text == "a?b"
    answer.completion.encode()
    assert json.loads(answer.completion)["choices"][0]["message"]["content"] == "a\ud800b"


def test_no_depth_of_nesting_breaks_the_reader() -> None:
    for depth in (10, 100, 500, 900, 950, 980, 990, 1000, 1500, 3000, 50_000, 200_000):
        for core in (b"1", b"NaN"):
            body = b'{"id":"t","status":"completed","results":' + b"[" * depth + core + b"]" * depth + b"}"
            for event in (submitted(body), submitted(body, is_sync=True), polled(body), submitted(body, 400)):
                assert isinstance(event, (Accepted, Doubted, Unheard, Refused))
            deep = b'{"status":"completed","results":[{"choices":[{"message":{"content":"x"}}],"deep":'
            event = polled(deep + b"[" * depth + core + b"]" * depth + b"}]}")
            assert isinstance(event, (Answered, Unheard))
            assert isinstance(event, Answered) or depth > 400, "moderate nesting must not cost an answer"


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (5, 5),
        (5.0, 5),
        (0, 0),
        (None, None),
        ("5", None),
        (True, None),
        (1e300, None),
        (2**63, None),
        (10**400, None),
        (float("nan"), None),
        (float("inf"), None),
        ([], None),
    ],
    ids=repr,
)
def test_a_token_count_is_an_integer_of_64_bits_or_none(value: Any, count: int | None) -> None:
    completion = COMPLETION | {"usage": dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), value)}
    answer = answer_of(polled({"status": "completed", "results": [completion]}))
    assert [answer.prompt_tokens, answer.completion_tokens, answer.total_tokens] == [count] * 3


# Errors.


def test_an_error_is_cut_and_cleaned_for_people() -> None:
    assert read_error(reply(b"", 502)).message == "HTTP 502: an empty body"
    assert read_error(reply(b"<html>\n  <b>Bad</b>\t gateway", 502)).message == "HTTP 502: <html> <b>Bad</b> gateway"
    long = read_error(reply(error_body("x" * 10_000), 400)).message
    assert long is not None
    assert len(long) == 2000
    assert long.endswith("…")


@pytest.mark.parametrize("said", ["", {"message": ""}, {"code": " ", "type": "\n", "message": "\0"}, {}, [], 7, None])
def test_an_error_that_says_nothing_is_told_by_its_status_and_body(said: Any) -> None:
    body = json.dumps({"error": said}).encode()
    error = read_error(reply(body, 422))
    assert (error.code, error.type) == (None, None)
    assert error.message == f"HTTP 422: {body.decode()}"
    failed = read_poll(reply({"id": "t", "status": "failed", "error": said}), NOW, "t")
    assert isinstance(failed, TaskFailed)
    assert (failed.error.code, failed.error.message) == ("task_failed", None)


def test_a_task_id_from_outside_cannot_change_the_path() -> None:
    assert task_path("task-llm-1-a") == "/v1/tasks/task-llm-1-a"
    assert task_path("../x?y=1#z&é") == "/v1/tasks/..%2Fx%3Fy%3D1%23z%26%C3%A9"


# Retry-After.

_soon = datetime.fromtimestamp(NOW + 30, UTC)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("5", 5.0),
        (" 5 ", 5.0),
        ("0", 0.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("99999999", 3600.0),
        ("1e300", 3600.0),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("", None),
        ("soon", None),
        ("5 seconds", None),
        (format_datetime(_soon, usegmt=True), 30.0),
        (format_datetime(_soon.astimezone(timezone(timedelta(hours=5, minutes=30)))), 30.0),
        (format_datetime(_soon - timedelta(minutes=5), usegmt=True), 0.0),
        (format_datetime(_soon + timedelta(days=300), usegmt=True), 3600.0),
        (_soon.strftime("%A, %d-%b-%y %H:%M:%S GMT"), 30.0),
        ("Tue, 99 Foo 2023 22:13:50 GMT", None),
        ("Mon, 31 Dec 9999 23:59:59 -2359", 3600.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_insane(header: str | None, wait_s: float | None) -> None:
    assert retry_after_s(header, NOW) == wait_s


def test_a_retry_after_given_as_a_date_counts_from_the_replys_own_date_not_from_our_clock() -> None:
    found = read_submit(
        Reply(
            status=429,
            body=b"{}",
            retry_after="Wed, 21 Oct 2026 07:28:07 GMT",
            date="Wed, 21 Oct 2026 07:28:00 GMT",
        ),
        NOW,
        is_sync=False,
    )
    assert isinstance(found, Deferred)
    assert found.retry_after_s == 7.0


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [-+GMT\d]*")))
def test_no_retry_after_at_all_raises(header: str) -> None:
    wait_s = retry_after_s(header, NOW)
    assert wait_s is None or 0.0 <= wait_s <= 3600.0


# Any bytes, any JSON.

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**30, 10**31).map(lambda n: n**13),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.sampled_from(
        ["completed", "failed", "pending", "task-1", "chat.completion", "\ud800", "a\udfffb", "1010", "x" * 3000]
    ),
)
_json = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["message", "content", "choices", "code", "type", "text", "usage"]), inner),
    ),
    max_leaves=8,
)


def _perhaps(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(usual, _json)


_usage = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "credits_reserved", "credits"]), _json
)
_message = st.fixed_dictionaries({"content": _json}, optional={"reasoning_content": _json})
_choice = st.fixed_dictionaries({"message": _perhaps(_message)}, optional={"finish_reason": _json})
_completion = st.fixed_dictionaries(
    {"choices": _perhaps(st.lists(_perhaps(_choice), max_size=2))}, optional={"usage": _perhaps(_usage), "model": _json}
)
_error = st.fixed_dictionaries({}, optional={"code": _json, "type": _json, "message": _json})
_task = st.fixed_dictionaries(
    {"id": _perhaps(st.just("task-1")), "status": _perhaps(st.sampled_from(["completed", "failed", "pending"]))},
    optional={
        "object": _json,
        "progress": _json,
        "results": _perhaps(st.lists(_perhaps(_completion), max_size=2)),
        "error": _perhaps(_error),
        "usage": _perhaps(_usage),
    },
)
_bodies = st.one_of(
    st.binary(max_size=60),
    st.one_of(_json, _task, _completion, st.fixed_dictionaries({"error": _perhaps(_error)})).map(
        lambda value: json.dumps(value).encode()
    ),
    _task.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.tuples(_task, st.integers(0, 200)).map(lambda pair: json.dumps(pair[0]).encode()[: pair[1]]),
)
_statuses = st.one_of(
    st.sampled_from([200, 200, 200, 201, 204, 400, 401, 402, 403, 404, 422, 429, 500, 503]), st.integers(100, 999)
)


def _assert_storable(event: SubmitEvent | PollEvent) -> None:
    """The event can be kept: in the checkpoint (msgpack), and in a part's columns (UTF-8, 64 bits, finite)."""
    status: Status = "completed" if isinstance(event, Answered) else "failed"
    outcome = Outcome(
        row_index=0,
        row_id="0",
        status=status,
        answer=getattr(event, "answer", None),
        error=getattr(event, "error", None),
        task_id=getattr(event, "task_id", None),
        credits=getattr(event, "reserved", None),
        http_status=getattr(event, "http_status", None),
        finished_at=NOW,
        run_id="run",
        run_date="2026-01-01",
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(outcome), type=Outcome) == outcome
    record = dict(zip(COLUMNS, outcome.record(), strict=True))
    for name, kind in COLUMNS.items():
        value = record[name]
        if kind == "string" and value is not None:
            value.encode()
        elif kind in ("int64", "int16", "int32") and value is not None:
            assert type(value) is int
            assert abs(value) < 2 ** (int(kind[3:]) - 1) + 1


@settings(max_examples=600, deadline=None)
@given(body=_bodies, status=_statuses, retry_after=st.one_of(st.none(), st.text(max_size=10)), is_sync=st.booleans())
def test_any_bytes_are_exactly_one_event_that_can_be_stored(
    body: bytes, status: int, retry_after: str | None, is_sync: bool
) -> None:
    got = Reply(status=status, body=body, retry_after=retry_after)
    submit_event = read_submit(got, NOW, is_sync=is_sync)
    assert type(submit_event) in get_args(SubmitEvent)
    _assert_storable(submit_event)
    poll_event = read_poll(got, NOW, TASK["id"])
    assert type(poll_event) in get_args(PollEvent)
    _assert_storable(poll_event)
