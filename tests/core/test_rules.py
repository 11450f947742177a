"""What the API refuses: every rule at both sides of its boundary, and what holds for any input at all."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.complaint import show
from batchfox.core.render import request_hash
from batchfox.core.rules import RuleBook, check, check_body, rewrite, rewrite_shorts, rule_names
from batchfox.core.sections import ModelRule, Rules
from batchfox.errors import JobError

BOOK = RuleBook.build(Rules())
PNG = "https://example.com/a.png"
MP4 = "https://example.com/a.mp4"
DATA = "data:image/png;base64,iVBORw0KGgo="


def text(**fields: Any) -> dict[str, Any]:
    return {"model": "some-model", "prompt": "p", **fields}


def chat(*blocks: Any, model: str = "some-model", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": list(blocks) or "hi"}], **fields}


def block(kind: str, url: Any) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}


def broken(request: Any, *, final: bool = True, book: RuleBook = BOOK) -> list[str]:
    """Names of the refusing rules, then of the warning ones with a "?"."""
    found = check(request, book, final=final)
    return [c.rule for c in found if not c.is_warning] + [c.rule + "?" for c in found if c.is_warning]


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


SOUND: list[dict[str, Any]] = [
    # The five examples of the seeds.
    {
        "model": "claude-opus-4-7",
        "prompt": "Describe this image in one sentence.",
        "image_urls": [PNG],
        "max_tokens": 64,
    },
    {"model": "gemini-2.5-pro", "prompt": "What?", "video_urls": [MP4], "max_tokens": 128, "temperature": 0.3},
    {"model": "gpt-5.5", "messages": [{"role": "user", "content": "count"}], "stream": False, "max_tokens": 32},
    {"model": "gemini-2.5-pro", "audio_url": "https://example.com/a.wav"},
    text(),
    text(prompt="x" * 100_000, system_prompt="y" * 10_000),
    text(prompt="😀" * 100_000),
    text(system_prompt=None, max_tokens=None, temperature=None, reasoning=None, top_p=None, stop=None),
    text(max_tokens=1, temperature=0, reasoning=True, sync=True, stream=False, top_p=0.5, stop=["a"]),
    text(temperature=2),
    text(image_urls=[PNG] * 10),
    text(image_urls=[DATA, "DATA:image/svg+xml;base64,AAAA"]),
    text(
        image_urls=["http://1.2.3.4:8080/x?y#z", "https://[::1]/a", "HTTPS://EXAMPLE.COM", "https://bücher.example/ä"]
    ),
    text(
        video_urls=[
            "https://e.com/A.MP4?x=.avi",
            "https://e.com/a.mpeg",
            "https://e.com/a.mpg#t",
            "https://e.com/a.mov",
        ]
    ),
    text(video_urls=["https://e.com/a.webm", "data:video/mp4;base64,AAAA"]),
    text(model="gemini-2.5-pro", video_urls=["https://www.youtube.com/watch?v=abc", "https://youtu.be/abc?t=1"]),
    text(model="gemini-2.5-pro", video_urls=["https://m.youtube.com/watch?list=x&v=abc"]),
    text(video_urls=["https://youtu.be/abc"]),
    text(unknown_parameter={"a": [1, None]}),
    text(n=2**63, seed=-(2**63)),
    {"model": "m", "audio_url": "https://e.com/stream", "prompt": None},
    {"model": "nemotron-3-nano-omni", "audio_url": "https://e.com/a.MP3"},
    *(
        {"model": "gemini-x", "audio_url": f"https://e.com/a.{name}"}
        for name in ("wav", "mp3", "aiff", "aac", "ogg", "flac", "m4a")
    ),
    {"model": "gemini-x", "audio_url": "data:audio/mpeg;base64,AAAA"},
    chat(temperature=-5.5, reasoning={"effort": "low"}, frequency_penalty=0.1),
    chat({"type": "text", "text": ""}, block("image_url", PNG), block("video_url", MP4), block("audio_url", PNG)),
    chat(block("file_url", "https://e.com/a.pdf"), block("file_url", "data:application/pdf;base64,AAAA")),
    chat({"type": "image_url", "image_url": PNG}),
    chat(model="claude-x", max_tokens=1),
    chat({"type": "text", "text": "t"}, block("file_url", "https://e.com/a.pdf"), model="claude-x", max_tokens=1),
    chat(model="gpt-5.4", max_tokens=16),
    chat(model="gpt-5.4"),
    chat(model="gpt-5.5", max_tokens=None),
    text(model="gpt-5.4", max_tokens=1),
    text(model="claude-x"),
    text(model="gpt-5.5", image_urls=[PNG]),
    text(model="kimi-k2.6", image_urls=[PNG, PNG]),
    text(model="nemotron-3-nano-omni", video_urls=[MP4]),
    text(model="GEMINI-2.5-pro", video_urls=["https://youtu.be/abc"]),
    {"model": "m", "messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
    {"model": "m", "messages": [{"role": "assistant", "tool_calls": [{}]}, {"role": "tool", "content": "3"}]},
    text(deep=nested(99)),
]


@pytest.mark.parametrize("request_", SOUND, ids=range(len(SOUND)))
def test_what_the_api_takes_passes(request_: dict[str, Any]) -> None:
    assert broken(request_) == []
    assert broken(request_, final=False) == []


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("model", {"prompt": "p"}),
    ("model", text(model="")),
    ("model", text(model=None)),
    ("model", text(model=5)),
    ("prompt", {"model": "m"}),
    ("prompt", {"model": "m", "image_urls": [PNG]}),
    ("prompt", {"model": "m", "video_urls": [MP4]}),
    ("prompt", text(prompt="x" * 100_001)),
    ("prompt", text(prompt=5)),
    ("prompt", {"model": "m", "audio_url": PNG, "prompt": ["p"]}),
    ("system_prompt", text(system_prompt="y" * 10_001)),
    ("system_prompt", text(system_prompt=1)),
    ("max_tokens", text(max_tokens=0)),
    ("max_tokens", text(max_tokens=-1)),
    ("max_tokens", text(max_tokens=True)),
    ("max_tokens", text(max_tokens=64.0)),
    ("max_tokens", text(max_tokens="64")),
    ("max_tokens", chat(max_tokens=0)),
    ("temperature", text(temperature=2.0001)),
    ("temperature", text(temperature=-0.0001)),
    ("temperature", text(temperature=True)),
    ("temperature", chat(temperature="hot")),
    ("top_p", text(top_p="a")),
    ("top_p", text(top_p=False)),
    ("flags", text(reasoning="true")),
    ("flags", text(sync="true")),
    ("flags", text(stream=1)),
    ("flags", text(stream=None)),
    ("media_count", text(image_urls=[])),
    ("media_count", text(image_urls=[PNG] * 11)),
    ("media_count", text(video_urls=[MP4] * 11)),
    ("media_count", text(image_urls=PNG)),
    ("media_url", text(image_urls=[5])),
    ("media_url", text(image_urls=[None])),
    ("media_url", text(image_urls=[""])),
    ("media_url", text(image_urls=["ftp://x/y.png"])),
    ("media_url", text(image_urls=["https://"])),
    ("media_url", text(image_urls=["https:///a.png"])),
    ("media_url", text(image_urls=["https://e.com/a b.png"])),
    ("media_url", text(image_urls=["https://e.com/a\n.png"])),
    ("media_url", text(image_urls=["https://e.com/a\x07.png"])),
    ("media_url", text(image_urls=["https://e.com:99999/"])),
    ("media_url", text(image_urls=["javascript:alert(1)"])),
    ("media_url", {"model": "m", "audio_url": ["https://e.com/a.wav"]}),
    ("data_uri", text(image_urls=["data:video/mp4;base64,AAAA"])),
    ("data_uri", text(image_urls=["data:image/png,AAAA"])),
    ("data_uri", text(image_urls=["data:image/png;base64,"])),
    ("data_uri", text(image_urls=["data:image/png;base64,AAA"])),
    ("data_uri", text(image_urls=["data:image/png;base64,AA-_"])),
    ("data_uri", text(image_urls=["data:image/png;base64,=AAA"])),
    ("data_uri", text(image_urls=["data:image/png;base64," + "é" + "A" * 999])),
    ("data_uri", text(image_urls=["data:image/png;base64," + "A" * 995 + "é" + "AAAA"])),
    ("video_extension", text(video_urls=["https://e.com/a.avi"])),
    ("video_extension", text(video_urls=["https://e.com/a"])),
    ("video_extension", text(video_urls=["https://e.mp4"])),
    ("video_extension", text(video_urls=["https://e.com/a?name=b.mp4"])),
    ("youtube", text(model="nemotron-3-nano-omni", video_urls=["https://youtu.be/abc"])),
    ("youtube", text(model="gemini-x", video_urls=["https://www.youtube.com/embed/abc"])),
    ("youtube", text(model="gemini-x", video_urls=["https://www.youtube.com/shorts/abc"])),
    ("audio_format", {"model": "gemini-x", "audio_url": "https://e.com/a.wma"}),
    ("audio_format", {"model": "nemotron-3-nano-omni", "audio_url": "https://e.com/a.ogg"}),
    ("audio_format", {"model": "nemotron-3-nano-omni", "audio_url": "data:audio/flac;base64,AAAA"}),
    ("family", text(image_urls=[PNG], video_urls=[MP4])),
    ("family", text(image_urls=[PNG], audio_url=PNG)),
    ("family", chat(prompt="p")),
    ("family", chat(system_prompt="p")),
    ("messages", {"model": "m", "messages": []}),
    ("messages", {"model": "m", "messages": "hi"}),
    ("messages", {"model": "m", "messages": ["hi"]}),
    ("messages", {"model": "m", "messages": [{"content": "hi"}]}),
    ("messages", {"model": "m", "messages": [{"role": 5, "content": "hi"}]}),
    ("messages", {"model": "m", "messages": [{"role": "user"}]}),
    ("messages", {"model": "m", "messages": [{"role": "user", "content": None, "tool_calls": [{}]}]}),
    ("messages", {"model": "m", "messages": [{"role": "assistant", "content": None}]}),
    ("messages", {"model": "m", "messages": [{"role": "user", "content": []}]}),
    ("messages", {"model": "m", "messages": [{"role": "user", "content": 5}]}),
    ("block", chat("text")),
    ("block", chat({"type": "input_audio", "input_audio": {}})),
    ("block", chat({"type": ["text"], "text": "t"})),
    ("block", chat({"text": "t"})),
    ("block", chat({"type": "text"})),
    ("block", chat({"type": "image_url"})),
    ("media_url", chat({"type": "image_url", "image_url": {}})),
    ("media_url", chat(block("file_url", "ftp://e.com/a.pdf"))),
    ("data_uri", chat(block("audio_url", DATA))),
    ("max_tokens_required", chat(model="claude-opus-4-7")),
    ("max_tokens_required", chat(model="claude-opus-4-7", max_tokens=None)),
    ("max_tokens_least", chat(model="gpt-5.4", max_tokens=15)),
    ("max_tokens_least", chat(model="gpt-5.5", max_tokens=15)),
    ("max_tokens_least?", chat(model="gpt-4o", max_tokens=15)),
    ("sync_custom?", chat(sync=True)),
    ("video_extension?", chat(block("video_url", "https://e.com/a.avi"))),
    ("modality", text(model="claude-x", video_urls=[MP4])),
    ("modality", {"model": "claude-x", "audio_url": PNG}),
    ("modality", text(model="gpt-4o", video_urls=[MP4])),
    ("modality", chat(block("file_url", PNG), model="gpt-4o", max_tokens=20)),
    ("modality", chat(block("audio_url", PNG), model="kimi-k2.6")),
    ("model_media_count", text(model="gpt-5.5", image_urls=[PNG, PNG])),
    ("model_media_count", text(model="nemotron-3-nano-omni", image_urls=[PNG, PNG])),
    ("model_media_count", text(model="nemotron-3-nano-omni", video_urls=[MP4, MP4])),
    (
        "model_media_count",
        chat(block("image_url", PNG), block("video_url", MP4), model="nemotron-3-nano-omni"),
    ),
    ("json", text(a=math.nan)),
    ("json", text(temperature=math.inf)),
    ("json", text(a=[{"b": -math.inf}])),
    ("json", text(prompt="half \ud83d")),
    ("json", text(**{"\udc00": 1})),
    ("json", text(a={1: 2})),
    ("json", text(a=2**64)),
    ("json", text(a=-(2**63) - 1)),
    ("json", text(a=b"bytes")),
    ("json", text(a={1, 2})),
    ("json", text(deep=nested(100))),
    ("json", text(deep=nested(5000))),
]


@pytest.mark.parametrize(("rule", "request_"), BROKEN, ids=[f"{at}-{rule}" for at, (rule, _) in enumerate(BROKEN)])
def test_what_breaks_one_rule_breaks_that_rule_alone(rule: str, request_: dict[str, Any]) -> None:
    assert broken(request_) == [rule]
    [complaint] = check(request_, BOOK, final=True)
    assert complaint.message == f"{complaint.field}: found {complaint.found}; allowed: {complaint.allowed}"
    assert complaint.message.isprintable()
    assert len(complaint.message) < 500


def test_a_request_that_is_no_object_is_refused() -> None:
    assert broken([]) == ["json"]


@pytest.mark.parametrize(
    "medium", ["a.png", "../a.png", "/x/a.png", "file:a.png", "file:///x/a.png", b"\x89PNG", "C:/a.png"]
)
def test_a_local_medium_passes_before_media_handling_only(medium: Any) -> None:
    for request in (text(image_urls=[medium]), chat(block("image_url", medium))):
        assert broken(request, final=False) == []
        assert len(broken(request, final=True)) == 1


def test_messages_name_the_field_what_was_found_and_what_is_allowed() -> None:
    [complaint] = check(text(image_urls=[PNG, PNG, "ftp://x/y.png"]), BOOK)
    assert complaint.message == (
        'image_urls[2]: found "ftp://x/y.png"; allowed: an http(s) URL or data:image/<type>;base64,…'
    )
    [complaint] = check(text(max_tokens=0), BOOK)
    assert complaint.message == "max_tokens: found 0; allowed: an integer, 1 or more, or null"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://me:secret@e.com/a.avi?sig=secret#x", '"https://***@e.com/a.avi?***"'),
        ("data:image/png;base64,AAAA", '"data:image/png;base64,…" (26 characters)'),
        ("\x1b[31m\x9b", '"\\u001b[31m\\u009b"'),
        ("half \ud83d", '"half \\ud83d"'),
        ("x" * 200, '"' + "x" * 79 + '…"'),
        (None, "nothing"),
        (True, "true"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        pytest.param(10**5000, "a huge integer", id="huge"),
        (b"abc", "3 bytes"),
        ([1], "a list of 1"),
        ({"a": 1}, "an object with 1 key"),
        ({}, "an object with 0 keys"),
        (object(), "a value of type object"),
    ],
)
def test_found_values_are_shown_short_printable_and_without_secrets(value: Any, shown: str) -> None:
    assert show(value) == shown


@pytest.mark.parametrize(
    "shorts",
    [
        "https://www.youtube.com/shorts/a-B_9",
        "http://youtube.com/shorts/a-B_9/",
        "https://m.youtube.com/shorts/a-B_9?feature=share",
        "HTTPS://WWW.YouTube.com/shorts/a-B_9#x",
    ],
)
def test_shorts_are_rewritten_in_fields_and_blocks(shorts: str) -> None:
    for request in (
        text(model="gemini-x", video_urls=[MP4, shorts]),
        chat(block("video_url", shorts), model="gemini-x"),
    ):
        before = copy.deepcopy(request)
        assert broken(request, final=False) == []
        sent = rewrite_shorts(request)
        assert request == before
        assert "https://www.youtube.com/watch?v=a-B_9" in json.dumps(sent)
        assert broken(sent) == []


def test_what_needs_no_rewriting_is_the_same_object() -> None:
    request = chat({"type": "text", "text": "t"}, block("image_url", PNG))
    assert rewrite(request) is request


def test_blocks_are_rewritten_to_the_documented_form() -> None:
    request = chat(
        {"type": "image_url", "image_url": PNG, "text": None},
        {"type": "text", "text": "t", "image_url": None},
    )
    before = copy.deepcopy(request)
    assert rewrite(request)["messages"][0]["content"] == [block("image_url", PNG), {"type": "text", "text": "t"}]
    assert request == before


@pytest.mark.parametrize(
    ("request_", "limit"),
    [
        ({"model": "gemini-2.5-pro", "audio_url": PNG}, 20_000_000),
        ({"model": "nemotron-3-nano-omni", "audio_url": PNG}, 100_000_000),
        (text(), 100_000_000),
        (chat(), 100_000_000),
    ],
)
def test_the_body_may_be_as_long_as_the_limit(request_: dict[str, Any], limit: int) -> None:
    body = bytes(limit + 1)
    assert check_body(body[:-1], request_) == []
    [complaint] = check_body(body, request_)
    assert complaint.rule == "body_size"
    assert check_body(body, request_, RuleBook.build(Rules(off=["body_size"]))) == []


def test_every_rule_but_json_can_be_switched_off() -> None:
    names = [name for name in rule_names() if name != "json"]
    book = RuleBook.build(Rules(off=names))
    for rule, request in BROKEN:
        assert broken(request, book=book) == ([rule] if rule == "json" else [])
    one = RuleBook.build(Rules(off=["video_extension"]))
    assert broken(text(video_urls=["https://e.com/a.avi"], max_tokens=0), book=one) == ["max_tokens"]


def test_every_rule_that_refuses_is_listed() -> None:
    assert {rule.rstrip("?") for rule, _ in BROKEN} | {"body_size"} == set(rule_names())
    assert all("\n" not in line and line for line in rule_names().values())


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            Rules(off=["video_extensions"]),
            'rules.off[0]: no rule is called "video_extensions" (did you mean "video_ext',
        ),
        (Rules(off=["model", "json"]), 'rules.off[1]: "json" cannot be switched off'),
        (Rules(models=[ModelRule(match="a*b")]), "rules.models[0].match: expected"),
        (Rules(models=[ModelRule(match=" ")]), "rules.models[0].match: expected"),
    ],
)
def test_impossible_rules_are_refused_with_their_place(rules: Rules, said: str) -> None:
    with pytest.raises(JobError) as error:
        RuleBook.build(rules)
    assert str(error.value).startswith(said)


def test_a_user_can_add_a_model_and_knows_one_better() -> None:
    book = RuleBook.build(
        Rules(
            models=[
                ModelRule(match="fox-*", media=["image"], most_images=2, requires_max_tokens=True),
                ModelRule(match="fox-video", media=["video"], youtube=True),
                ModelRule(match="claude-*", least_max_tokens=5),
            ]
        )
    )
    assert broken(text(model="fox-1", image_urls=[PNG] * 3), book=book) == ["model_media_count"]
    assert broken(text(model="fox-1", video_urls=[MP4]), book=book) == ["modality"]
    assert broken(chat(model="fox-1"), book=book) == ["max_tokens_required"]
    assert broken(text(model="fox-video", video_urls=["https://youtu.be/abc"]), book=book) == []
    assert broken(text(model="claude-x", video_urls=[MP4]), book=book) == []
    assert broken(chat(model="claude-x", max_tokens=4), book=book) == ["max_tokens_least"]


FIELDS = (
    *("model", "prompt", "system_prompt", "image_urls", "video_urls", "audio_url", "messages"),
    *("max_tokens", "temperature", "top_p", "reasoning", "sync", "stream", "stop", "other"),
)
SPECIAL = (
    PNG,
    MP4,
    DATA,
    "a.png",
    "https://youtu.be/x",
    "data:",
    "http://[",
    "https://e.com:/",
    "user",
    "\ud83d",
    b"b",
)
scalars = st.sampled_from(SPECIAL) | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "image_url", "url", "role", "content"]), inner, max_size=3)
    ),
    max_leaves=6,
)
blocks = st.builds(block, st.sampled_from(["image_url", "file_url", "text"]), scalars)
messages = st.lists(
    st.fixed_dictionaries({"role": st.just("user"), "content": st.lists(blocks, max_size=2) | scalars}), max_size=2
)
nearly_sound = st.fixed_dictionaries(
    {"model": st.sampled_from(["gemini-x", "gpt-5.5", "m"]), "prompt": st.text(max_size=9)},
    optional={"image_urls": st.lists(scalars, max_size=2), "other": values, "max_tokens": scalars},
)
requests = nearly_sound | st.dictionaries(st.sampled_from(FIELDS), values | messages, max_size=5)


@given(requests, st.booleans())
def test_any_request_at_all_gets_complaints_or_passes_and_what_passes_can_be_sent(
    request: dict[str, Any], final: bool
) -> None:
    before = copy.deepcopy(request)
    rewrite(request)
    found = check(request, BOOK, final=final)
    assert repr(request) == repr(before)
    for complaint in found:
        complaint.message.encode()
        assert complaint.message.isprintable()
    if any(not complaint.is_warning for complaint in found):
        return
    assert len(request_hash(request)) == 32
    assert request_hash(dict(reversed(request.items()))) == request_hash(request)
    if final:
        assert msgspec.json.decode(msgspec.json.encode(request)) == request
