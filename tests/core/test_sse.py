"""Server-sent events: what the standard says, wherever the bytes are split, whatever the bytes are."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.sse import Message, Parser


def parse(*chunks: bytes, most_bytes: int = 1 << 20) -> list[Message]:
    parser = Parser(most_bytes)
    found = [message for chunk in chunks for message in parser.feed(chunk)]
    return found + parser.finish()


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"event: chunk\ndata: 1\n\ndata: 2\n\n", [("chunk", "1"), ("", "2")]),
        (b"data: 1\r\n\r\ndata: 2\r\rdata: 3\n\r\n", [("", "1"), ("", "2"), ("", "3")]),
        (b"data: {\ndata:  1\ndata\ndata:}\n\n", [("", "{\n 1\n\n}")]),
        (b": comment\n\n:\n\ndata: 1\n: in between\nid: 7\nretry: 1\nunknown\n\n", [("", "1")]),
        (b"event: ping\n\ndata: 1\n\n", [("", "1")]),
        (b"event: a\nevent: b\ndata:1\n\n", [("b", "1")]),
        (b"\xef\xbb\xbfdata: 1\n\n", [("", "1")]),
        (b"data: \xc3\xa9\xff\n\n", [("", "é�")]),
        (b"data: [DONE]", [("", "[DONE]")]),
        (b"data: 1\n\ndata: 2\n", [("", "1"), ("", "2")]),
        (b"data: a:b\x0b\x0cc\n\n", [("", "a:b\x0b\x0cc")]),
        (b"", []),
    ],
)
def test_events_are_what_the_standard_says(stream: bytes, expected: list[tuple[str, str]]) -> None:
    assert [(message.name, message.data) for message in parse(stream)] == expected
    single = [stream[at : at + 1] for at in range(len(stream))]
    assert [(message.name, message.data) for message in parse(*single)] == expected


_LINES = st.sampled_from(
    [b"data: x", b"data", b"data:", b"event: chunk", b"event", b": c", b"", b"id: 1", b"\xef\xbb\xbfdata: y", b"\xff:"]
)
_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
_STREAMS = st.one_of(
    st.binary(max_size=60),
    st.lists(st.tuples(_LINES, _ENDS), max_size=12).map(lambda lines: b"".join(line + end for line, end in lines)),
)


@given(stream=_STREAMS, cuts=st.lists(st.integers(0, 80), max_size=8), most=st.sampled_from([5, 12, 1 << 20]))
def test_any_split_of_any_bytes_gives_the_same_events(stream: bytes, cuts: list[int], most: int) -> None:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[low:high] for low, high in itertools.pairwise(places)]
    assert parse(*chunks, most_bytes=most) == parse(stream, most_bytes=most)


def test_an_event_is_told_as_soon_as_its_last_byte_is_there() -> None:
    parser = Parser()
    assert parser.feed(b"data: 1\r\n") == []
    assert parser.feed(b"\r") == [Message("", "1")]
    assert parser.feed(b"\ndata: 2\n\n") == [Message("", "2")]


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 50, b"data: x\n", b":" + b"x" * 200])
def test_an_event_without_an_end_is_given_up(chunk: bytes) -> None:
    parser = Parser(most_bytes=100)
    assert parser.feed(b"data: 1\n\n") == [Message("", "1")]
    for _ in range(50):
        assert parser.feed(chunk) == []
    assert parser.is_overflowed
    assert parser.feed(b"\n\ndata: 2\n\n") == []
    assert parser.finish() == []


def test_many_events_are_no_large_one() -> None:
    assert len(parse(b"data: 123456789\n\n" * 1000, most_bytes=20)) == 1000
