"""A streamed answer folded into a ChatCompletion: what counts as the end, what as a break, and what it may cost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.chunks import Ear, Fold
from batchfox.core.completion import read_answer
from batchfox.core.sse import Message
from batchfox.core.wire import stream_path


def chunk(finish_reason: str | None = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice]}


def fold_of(*events: tuple[str, Any], most: int = 1 << 20) -> Fold:
    fold = Fold(most)
    for name, data in events:
        fold.take(Message(name, data if isinstance(data, str) else json.dumps(data)))
    return fold


def told(fold: Fold) -> dict[str, Any]:
    completion = fold.completion()
    assert completion is not None
    found: dict[str, Any] = json.loads(completion)
    return found


THOUGHT = [("chunk", chunk(role="assistant")), ("chunk", chunk(reasoning_content="be")), ("", chunk(content="h"))]
SAID = [*THOUGHT, ("", chunk(content="i")), ("chunk", chunk("stop") | {"usage": {"total_tokens": 3}})]


def test_chunks_named_or_not_become_one_completion() -> None:
    fold = fold_of(*SAID, ("done", {"total_chunks": 5}))
    assert fold.is_over
    assert fold.is_whole
    assert fold.reasoning == "be"
    message = {"role": "assistant", "content": "hi", "reasoning_content": "be"}
    assert told(fold) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "usage": {"total_tokens": 3},
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    answer = read_answer(fold.completion() or b"", fold.charge)
    assert answer is not None
    assert (answer.text, answer.reasoning, answer.finish_reason, answer.total_tokens) == ("hi", "be", "stop", 3)


@pytest.mark.parametrize(
    ("events", "is_whole"),
    [
        ([*SAID], True),
        ([*SAID, ("", "[DONE]")], True),
        ([*THOUGHT, ("", " [DONE] ")], True),
        ([*THOUGHT, ("done", {})], True),
        ([*SAID, ("ping", "x"), ("done", "x")], True),
        ([*SAID, ("done", {"total_chunks": 4})], True),
        ([*THOUGHT], False),
        ([*SAID, ("done", {"total_chunks": 6})], False),
        ([*THOUGHT, ("error", {"message": "no"})], False),
        ([*SAID, ("error", "no")], False),
        ([*SAID, ("", {"error": {"message": "no"}})], False),
        ([*THOUGHT, ("chunk", '{"choices": ['), *SAID], False),
        ([*SAID, ("chunk", {"choices": [3]})], False),
        ([*SAID, ("chunk", {"choices": [{"index": 1 << 40}]})], False),
        ([*SAID, ("", chunk(content="x", index=1))], False),
        ([("", "[DONE]")], False),
        ([("done", {"total_chunks": 0})], False),
        ([], False),
    ],
)
def test_it_is_whole_where_the_stream_says_so_or_every_choice_has_ended(
    events: list[tuple[str, Any]], is_whole: bool
) -> None:
    assert fold_of(*events).is_whole is is_whole


@pytest.mark.parametrize(
    ("event", "code", "message"),
    [
        (("error", {"message": "no"}), "stream_error", "no"),
        (("error", {"error": {"code": "c", "message": "no"}}), "c", "no"),
        (("error", "plain"), "stream_error", "plain"),
        (("", {"error": "no"}), "stream_error", "no"),
    ],
)
def test_an_error_ends_it_with_what_it_says(event: tuple[str, Any], code: str, message: str) -> None:
    fold = fold_of(*THOUGHT, event, *SAID)
    assert fold.is_over
    assert fold.error is not None
    assert (fold.error.code, fold.error.message) == (code, message)
    assert fold.reasoning == "be"


@pytest.mark.parametrize(
    ("event", "task_id"),
    [
        (("task", {"id": "task-1", "object": "llm.generation.task"}), "task-1"),
        (("", {"id": "t", "object": "llm.generation.task"}), "t"),
        (("chunk", chunk() | {"id": "task-llm-1"}), "task-llm-1"),
        (("chunk", chunk() | {"task_id": "x"}), "x"),
        (("chunk", chunk()), None),
        (("ping", {"task_id": 3}), None),
        (("", {"task_id": "\ud800"}), None),
    ],
)
def test_a_task_is_named_by_any_event(event: tuple[str, Any], task_id: str | None) -> None:
    fold = fold_of(event, ("", {"task_id": "later"}) if task_id else ("", {}))
    assert fold.task_id == task_id


def test_a_letter_in_two_halves_is_one_and_a_lone_half_is_none() -> None:
    halves = json.dumps("😀")[1:-1]
    events = [f'{{"choices": [{{"index": 0, "delta": {{"content": "{half}"}}}}]}}' for half in (halves[:6], halves[6:])]
    lone = f'{{"choices": [{{"index": 0, "delta": {{"reasoning_content": "a{halves[:6]}"}}}}]}}'
    fold = fold_of(*(("", event) for event in events), ("", lone), ("", "[DONE]"))
    assert told(fold)["choices"][0]["message"]["content"] == "😀"
    assert fold.reasoning == "a�"


def test_calls_of_tools_are_put_together() -> None:
    first = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
    fold = fold_of(
        ("", chunk(tool_calls=[first])),
        ("", chunk("tool_calls", tool_calls=[{"index": 0, "function": {"arguments": '":1}'}}])),
    )
    assert fold.is_whole
    message = told(fold)["choices"][0]["message"]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert message == {"role": "assistant", "content": None, "tool_calls": [call]}


def test_choices_are_kept_apart() -> None:
    fold = fold_of(("", chunk("stop", content="b", index=1)), ("", chunk("stop", content="a")))
    assert [choice["message"]["content"] for choice in told(fold)["choices"]] == ["a", "b"]


@pytest.mark.parametrize("delta", [{"content": "x" * 10}, {"reasoning_content": "x" * 10}, {"tool_calls": [{}]}])
def test_a_stream_that_tells_without_end_is_given_up(delta: dict[str, Any]) -> None:
    fold = fold_of(*[("", chunk(**delta))] * 200, most=1000)
    assert fold.is_over
    assert fold.error is not None
    assert fold.error.code == "stream_too_long"
    assert len(fold.reasoning) <= 1010


def test_long_texts_come_out_as_they_came_in() -> None:
    pieces = [f"{n} " for n in range(5000)]
    fold = fold_of(*(("", chunk(content=piece)) for piece in pieces), ("", "[DONE]"))
    assert told(fold)["choices"][0]["message"]["content"] == "".join(pieces)


def test_an_ear_has_heard_enough_at_the_end_and_gives_up_an_event_without_one() -> None:
    ear = Ear(most_bytes=500)
    assert not ear.hear(b"data: " + json.dumps(chunk(content="x")).encode() + b"\n\n")
    assert ear.hear(b"data: [DONE]\n\n")
    ear = Ear(most_bytes=100)
    assert ear.hear(b"data: " + b"x" * 200)
    assert ear.fold.error is not None
    ear = Ear()
    assert not ear.hear(b"data: " + json.dumps(chunk(content="x")).encode() + b"\n\ndata: [DONE]")
    ear.close()
    assert ear.fold.is_whole


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "index", "content", "tool_calls", "function", "arguments", "id", "error", "usage"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.tuples(st.sampled_from(["", "chunk", "done", "error", "x"]), _JSON | st.text(max_size=9))))
def test_nothing_that_a_stream_says_is_too_much(events: list[tuple[str, Any]]) -> None:
    fold = fold_of(*events)
    completion = fold.completion()
    if completion is not None:
        read_answer(completion, fold.charge)
    assert isinstance(fold.reasoning, str)
    fold.reasoning.encode()
    assert fold.error is None or fold.is_over


@pytest.mark.parametrize(
    ("offered", "path"),
    [
        ({"url": "/v1/x/task-1/stream?a=1"}, "/v1/x/task-1/stream?a=1"),
        ({"url": "https://elsewhere.example/x"}, "/v1/llm/generations/t%2F1/stream"),
        ({"url": "//elsewhere.example/x"}, "/v1/llm/generations/t%2F1/stream"),
        ({"url": "/a/../b"}, "/v1/llm/generations/t%2F1/stream"),
        ({"url": "/a\r\nHost: b"}, "/v1/llm/generations/t%2F1/stream"),
        ({"url": 3}, "/v1/llm/generations/t%2F1/stream"),
        ({}, "/v1/llm/generations/t%2F1/stream"),
        (None, None),
        ("/x", None),
    ],
)
def test_a_stream_is_at_a_path_of_this_api_and_nowhere_else(offered: Any, path: str | None) -> None:
    assert stream_path("t/1", offered) == path
