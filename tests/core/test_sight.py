"""What a value looks like: a medium of which kind, given how."""

from __future__ import annotations

from typing import Any

import pytest

from batchfox.core.sight import Sight, ends_with_answer, is_chat, sight_of

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("https://x.org/a.JPG?size=2#x", ("image", "url")),
        ("https://x.org/a.mp4", ("video", "url")),
        ("https://www.youtube.com/shorts/abc", ("video", "url")),
        ("https://youtu.be/abc", ("video", "url")),
        ("https://x.org/a.m4a", ("audio", "url")),
        ("https://x.org/a.pdf", ("file", "url")),
        ("https://x.org/page.html", (None, "url")),
        ("https://x.org/image/17", (None, "url")),
        ("media/My photo.png", ("image", "path")),
        ("file:///srv/a.wav", ("audio", "path")),
        ("data:image/png;base64,AAAA", ("image", "data URI")),
        ("data:application/pdf;base64,AAAA", ("file", "data URI")),
        (PNG, ("image", "bytes")),
        ({"bytes": PNG, "path": None}, ("image", "bytes")),
        ({"bytes": None, "path": "a.flac"}, ("audio", "path")),
    ],
)
def test_a_medium_is_seen_by_its_ending_head_or_first_bytes(value: Any, seen: tuple[Any, Any]) -> None:
    kind, way = seen
    assert sight_of(value) == Sight(kind=kind, way=way)


@pytest.mark.parametrize("value", [["a.png", "b.jpg"], '["https://x.org/a.png"]', [PNG]])
def test_a_list_of_one_kind_is_seen_also_as_json_text(value: Any) -> None:
    sight = sight_of(value)
    assert sight is not None
    assert (sight.kind, sight.is_list) == ("image", True)


@pytest.mark.parametrize(
    "value",
    [
        "a lighthouse",
        "see fig.1",
        ".png",
        "line\nbreak.png",
        "https://x.org/a.png and more",
        "x" * 400 + ".png",
        "data:,plain",
        b"nothing known",
        ["a.png", "b.mp4"],
        ["a.png", 3],
        [["a.png"]],
        [],
        "[not json",
        {"bytes": None, "path": None},
        {"url": "a.png"},
        3,
        None,
        True,
    ],
)
def test_what_is_no_medium_is_not_seen_as_one(value: Any) -> None:
    assert sight_of(value) is None


def test_a_conversation_is_a_list_of_roles_and_contents() -> None:
    asked = [{"role": "user", "content": "hi"}]
    answered = [*asked, {"role": "assistant", "content": "yes?"}]
    assert is_chat(asked)
    assert is_chat('[{"role": "user", "content": "hi"}]')
    assert not is_chat([])
    assert not is_chat([{"from": "human", "value": "hi"}])
    assert not is_chat("[1")
    assert ends_with_answer(answered)
    assert not ends_with_answer(asked)
    assert not ends_with_answer(answered[1:])
