"""The request's anatomy: shapes, media in order, replacing without changing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.shape import media_of, replace_media, shape_of

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("request_", "shape"),
    [
        ({}, "text"),
        ({"prompt": "a"}, "text"),
        ({"prompt": "a", "image_urls": ["u"]}, "vision"),
        ({"prompt": "a", "image_urls": None}, "text"),
        ({"prompt": "a", "video_urls": ["u"]}, "video"),
        ({"audio_url": "u"}, "audio"),
        ({"prompt": "a", "audio_url": "u"}, "audio"),
        ({"messages": []}, "custom"),
        ({"messages": None, "prompt": "a"}, "text"),
    ],
)
def test_the_shape_is_told_by_the_fields_present(request_: dict[str, Any], shape: str) -> None:
    assert shape_of(request_) == shape


MIXED = {
    "image_urls": ["i0", "i1"],
    "audio_url": "a",
    "messages": [
        {"role": "system", "content": "text"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t"},
                {"type": "video_url", "video_url": {"url": "v"}},
                {"type": "image_url", "image_url": "plain"},
                {"type": "file_url", "file_url": {}},
                {"type": "audio_url", "audio_url": None},
                {"type": ["unhashable"]},
                "no block",
            ],
        },
        "no message",
    ],
}


def test_media_come_in_order_with_kind_place_and_value() -> None:
    assert [(m.kind, m.place, m.value) for m in media_of(MIXED)] == [
        ("image", ("image_urls", 0), "i0"),
        ("image", ("image_urls", 1), "i1"),
        ("audio", ("audio_url",), "a"),
        ("video", ("messages", 1, "content", 1, "video_url", "url"), "v"),
        ("image", ("messages", 1, "content", 2, "image_url"), "plain"),
        ("file", ("messages", 1, "content", 3, "file_url", "url"), None),
    ]


def test_replacing_copies_the_way_down_and_nothing_else() -> None:
    before = copy.deepcopy(MIXED)
    new = {medium.place: f"new {at}" for at, medium in enumerate(media_of(MIXED))}
    replaced = replace_media(MIXED, new)
    assert before == MIXED
    assert [medium.value for medium in media_of(replaced)] == list(new.values())
    assert replaced["messages"][0] is MIXED["messages"][0]


@given(st.dictionaries(st.sampled_from(["messages", "image_urls", "video_urls", "audio_url", "prompt"]), json_like))
def test_any_value_in_any_field_is_looked_at_without_an_error(request_: dict[str, Any]) -> None:
    shape_of(request_)
    media = media_of(request_)
    replaced = replace_media(request_, {medium.place: "x" for medium in media})
    assert [medium.value for medium in media_of(replaced)] == ["x"] * len(media)
