"""Row → request: what wins, what fills, what is parsed, what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.coercion import coerce
from batchfox.core.complaint import Complaint
from batchfox.core.render import Renderer, request_hash
from batchfox.core.row import Row
from batchfox.core.shape import WANTS
from batchfox.errors import JobError

MESSAGES = [{"role": "user", "content": "hi"}]


def row(columns: dict[str, Any], *, problem: str | None = None) -> Row:
    return Row(index=0, id="0", key=b"k", columns=columns, line=1, problem=problem)


def render(request: dict[str, Any], columns: dict[str, Any], fields: list[str] | None = None) -> Any:
    before = copy.deepcopy((request, columns))
    made = Renderer(request, fields=fields).render(row(columns))
    assert (request, columns) == before
    return made


@pytest.mark.parametrize(
    ("request_", "columns", "made"),
    [
        # [request] wins; a column of the same name fills a field left out; null does not fill.
        ({"model": "m"}, {"model": "x", "prompt": "p"}, {"model": "m", "prompt": "p"}),
        ({}, {"model": "x", "prompt": None, "id": 1}, {"model": "x"}),
        ({"prompt": None}, {"prompt": "p"}, {"prompt": "p"}),
        ({"prompt": "{{ t }}!"}, {"t": "a", "prompt": "p"}, {"prompt": "a!"}),
        # Other parameters only where they are asked for.
        ({"seed": 1}, {"n": 2, "user": "u", "top_p": 0.5, "stop": "x"}, {"seed": 1, "top_p": 0.5, "stop": "x"}),
        # Templates at any depth; the rest is passed on.
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "{{ t }}"}, {"type": "x", "n": "{{ n }}"}]}
                ]
            },
            {"t": "a", "n": 3},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "x", "n": 3}]}]},
        ),
        ({"image_urls": ["{{ a }}", "b"]}, {"a": "x"}, {"image_urls": ["x", "b"]}),
        # One family of content; what stands in [request] decides which.
        ({"prompt": "p"}, {"messages": MESSAGES, "image_urls": ["i"]}, {"prompt": "p", "image_urls": ["i"]}),
        ({"audio_url": "a"}, {"messages": MESSAGES}, {"audio_url": "a"}),
        (
            {"messages": MESSAGES},
            {"prompt": "p", "image_urls": ["i"], "video_urls": ["v"], "audio_url": "a", "system_prompt": "s"},
            {"messages": MESSAGES},
        ),
        ({"image_urls": ["i"]}, {"prompt": "p", "video_urls": ["v"]}, {"image_urls": ["i"], "prompt": "p"}),
        ({}, {"messages": MESSAGES, "prompt": "", "image_urls": ""}, {"messages": MESSAGES}),
        # Text-only input.
        ({}, {"max_tokens": "64", "sync": "", "image_urls": "u"}, {"max_tokens": 64, "image_urls": ["u"]}),
        ({"max_tokens": "{{ n }}"}, {"n": "64"}, {"max_tokens": 64}),
        ({"max_tokens": "{{ n | default('') }}"}, {"max_tokens": 5}, {}),
        ({"image_urls": "{{ u }}"}, {"u": '["a", "b"]'}, {"image_urls": ["a", "b"]}),
        # The OpenAI batch form.
        (
            {"model": "m"},
            {
                "custom_id": "1",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "x", "messages": MESSAGES, "weird": [1], "n": "2", "stop": None},
                "max_tokens": 5,
            },
            {"model": "m", "messages": MESSAGES, "weird": [1], "n": "2"},
        ),
        ({"prompt": "p"}, {"custom_id": "1", "body": {"messages": MESSAGES}}, {"prompt": "p"}),
        ({"prompt": "{{ body.x }}"}, {"custom_id": "1", "body": {"x": "a"}}, {"prompt": "a", "x": "a"}),
        ({}, {"custom_id": "1", "body": "text", "prompt": "p"}, {"prompt": "p"}),
        ({}, {"body": {"a": 1}, "prompt": "p"}, {"prompt": "p"}),
    ],
)
def test_a_row_becomes_a_request(request_: dict[str, Any], columns: dict[str, Any], made: dict[str, Any]) -> None:
    assert render(request_, columns) == made


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ([], {}),
        (["prompt"], {"prompt": "p"}),
        (["seed", "prompt", "prompt"], {"seed": 7, "prompt": "p"}),
        (["nowhere"], {}),
    ],
)
def test_fields_selects_the_columns_that_may_fill(fields: list[str], made: dict[str, Any]) -> None:
    assert render({}, {"prompt": "p", "max_tokens": 5, "seed": "7"}, fields) == made


@pytest.mark.parametrize(
    ("request_", "columns", "rule", "field"),
    [
        ({}, {"messages": MESSAGES, "prompt": "p"}, "family", "prompt"),
        ({}, {"messages": MESSAGES, "system_prompt": "p"}, "family", "system_prompt"),
        ({"system_prompt": "s"}, {"messages": MESSAGES}, "family", "system_prompt"),
        ({}, {"custom_id": "1", "body": {}, "url": "/v1/embeddings"}, "batch", "url"),
        ({}, {"custom_id": "1", "body": {}, "method": "GET"}, "batch", "method"),
        ({}, {"custom_id": "1", "body": {}, "method": 5}, "batch", "method"),
        ({"prompt": "{{ t }}"}, {"t": None}, "template", "prompt"),
        ({"messages": [{"role": "user", "content": "{{ t }}"}]}, {}, "template", "messages"),
    ],
)
def test_what_cannot_become_a_request_is_a_complaint(
    request_: dict[str, Any], columns: dict[str, Any], rule: str, field: str
) -> None:
    complaint = render(request_, columns)
    assert isinstance(complaint, Complaint)
    assert (complaint.rule, complaint.field, complaint.severity) == (rule, field, "refusal")
    assert complaint.message.startswith(f"{field}: ")


def test_a_job_that_mixes_messages_and_a_prompt_is_refused() -> None:
    with pytest.raises(JobError, match=r"request\.prompt: not allowed beside request\.messages"):
        Renderer({"messages": [], "prompt": "p"})


def test_the_place_of_a_broken_template_is_its_key_path() -> None:
    with pytest.raises(JobError, match=r"request\.messages\[0\]\.content\[1\]\.text: line 2: "):
        Renderer({"messages": [{"content": ["a", {"text": "x\n{{ }}"}]}]})


def test_taken_fields_are_the_columns_that_fill() -> None:
    renderer = Renderer({"model": "m", "prompt": "p"})
    columns = {"model": "x", "max_tokens": 5, "messages": MESSAGES, "id": 1, "image_urls": ["i"], "stop": None}
    assert renderer.taken_fields(row(columns)) == ["image_urls", "max_tokens"]
    batch = {"custom_id": "1", "body": {"model": "x", "n": 1, "stop": None}}
    assert renderer.taken_fields(row(batch)) == ["body.n"]


def test_one_row_does_not_leave_a_trace_in_the_next() -> None:
    renderer = Renderer({"image_urls": ["{{ a }}"], "prompt": "{{ b }}", "stop": ["x"]})
    first = renderer.render(row({"a": "1", "b": "2", "max_tokens": 3}))
    second = renderer.render(row({"a": "4", "b": "5"}))
    assert first == {"image_urls": ["1"], "prompt": "2", "stop": ["x"], "max_tokens": 3}
    assert second == {"image_urls": ["4"], "prompt": "5", "stop": ["x"]}


@pytest.mark.parametrize(
    ("field", "value", "coerced"),
    [
        ("max_tokens", "64", 64),
        ("max_tokens", " 64 ", 64),
        ("max_tokens", "64.0", 64),
        ("max_tokens", 64.0, 64),
        ("max_tokens", 64.5, 64.5),
        ("max_tokens", "64.5", "64.5"),
        ("max_tokens", "many", "many"),
        ("max_tokens", "nan", "nan"),
        ("max_tokens", "9" * 5000, "9" * 5000),
        ("max_tokens", "", None),
        ("max_tokens", True, True),
        ("temperature", "0.5", 0.5),
        ("temperature", "1e-1", 0.1),
        ("temperature", "inf", "inf"),
        ("temperature", "  ", None),
        ("sync", "true", True),
        ("sync", "False", False),
        ("stream", "0", False),
        ("reasoning", "maybe", "maybe"),
        ("image_urls", "https://e.com/a,b.png", ["https://e.com/a,b.png"]),
        ("image_urls", ' ["a","b"]', ["a", "b"]),
        ("image_urls", "[broken", "[broken"),
        ("image_urls", b"\x89PNG", [b"\x89PNG"]),
        ("video_urls", "", None),
        ("audio_url", " a.wav ", "a.wav"),
        ("audio_url", "", None),
        ("messages", '[{"role":"user","content":"hi"}]', MESSAGES),
        ("messages", "hi", "hi"),
        ("messages", "[" * 100_000, "[" * 100_000),
        ("stop", "END", "END"),
        ("stop", '["a"]', ["a"]),
        ("response_format", '{"type":"json_object"}', {"type": "json_object"}),
        ("prompt", "", ""),
        ("prompt", "64", "64"),
        ("prompt", None, None),
        ("unknown", "64", "64"),
        ("unknown", "", ""),
    ],
)
def test_text_is_parsed_where_the_field_wants_something_else(field: str, value: Any, coerced: Any) -> None:
    made = coerce(field, value)
    assert made == coerced
    assert type(made) is type(coerced)


@given(st.sampled_from([*WANTS, "unknown"]), st.text() | st.sampled_from(["[", "{", "\ud800", "[\ud800", "1_0", "٣"]))
def test_any_text_in_any_field_is_parsed_or_left(field: str, value: str) -> None:
    coerce(field, value)


def test_the_hash_is_of_the_content_whatever_the_order() -> None:
    one = {"model": "m", "prompt": "ä", "image_urls": ["a.png"], "x": {"b": 1, "a": 2.5}}
    two = {"x": {"a": 2.5, "b": 1}, "image_urls": ["a.png"], "prompt": "ä", "model": "m"}
    assert request_hash(one) == request_hash(two) == "1998a472a84a967d676582aff88c97e5"
    assert request_hash({**one, "image_urls": ["b.png"]}) != request_hash(one)
    assert request_hash({"image_urls": [b"a"]}) != request_hash({"image_urls": [b"b"]})


@given(st.dictionaries(st.sampled_from(["prompt", "t", "image_urls", "max_tokens", "stop"]), st.text() | st.none()))
def test_rendering_any_columns_gives_a_request_or_a_complaint(columns: dict[str, Any]) -> None:
    made = TEMPLATED.render(row(columns))
    if columns.get("t") is None:
        assert isinstance(made, Complaint)
    else:
        assert isinstance(made, dict)
        assert made["prompt"] == f"<{columns['t']}>"


TEMPLATED = Renderer({"model": "m", "prompt": "<{{ t }}>"})
