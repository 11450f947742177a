"""Any bytes in, one clear outcome out: readers of broken files, a client of broken servers, preparers of any row.

JSONL line by line is `test_source.py`'s, replies as such `test_wire.py`'s, templates and rules have theirs in
`tests/core`. Here are whole files (packed, cut, changed), whole HTTP replies, and the way from a line to a body.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import resource
import time
from pathlib import Path
from typing import Any, get_args

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import MODEL, raw_server
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batchfox.api import Api
from batchfox.core.carry import Carry
from batchfox.core.complaint import Complaint
from batchfox.core.event import PollEvent, SubmitEvent
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import COLUMNS
from batchfox.core.prepare import Invalid, Preparer, outcome_of
from batchfox.core.render import Renderer
from batchfox.core.row import Row
from batchfox.core.rulebook import RuleBook
from batchfox.core.sections import Media, Rules
from batchfox.core.wire import Reply, read_poll, read_submit
from batchfox.errors import InputError
from batchfox.kept import decode_columns, encode_columns
from batchfox.loading import Loader
from batchfox.media import MediaDoor
from batchfox.source import open_source

IN_FOLDER = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read(path: Path, id_column: str | None = "id") -> tuple[list[Row], InputError | None]:
    """The rows of a file, and what ended the reading before its end."""
    rows: list[Row] = []
    try:
        source = open_source([str(path)], id_column=id_column, with_digest=True)
        source.is_batch_form()
        for batch in source.batches():
            rows += batch
        assert source.types is None or isinstance(source.types, dict)
    except InputError as error:
        return rows, error
    return rows, None


def check_rows(rows: list[Row]) -> None:
    """Each has a place, a name and a key, and either columns or a problem; with what may be said and stored."""
    assert [row.index for row in rows] == list(range(len(rows)))
    for row in rows:
        assert (row.problem is None) or row.problem.isprintable() or "\n" not in row.problem
        row.id.encode()
        (row.problem or "").encode()
        assert len(row.key) in (8, 16)
        assert decode_columns(encode_columns(row.columns)).keys() == row.columns.keys()


# Files.


LINES = b"".join(b'{"id": "r%d", "prompt": "%s"}\n' % (n, str(n * 7919).encode() * 40) for n in range(400))
PACKED: dict[str, bytes] = {
    "in.jsonl.gz": gzip.compress(LINES, 1),
    "in.jsonl.zst": zstandard.ZstdCompressor(write_checksum=True).compress(LINES),
    "in.jsonl": LINES,
}
WHOLE = [f"r{n}" for n in range(400)]


def changed(data: bytes, changes: list[tuple[int, int]], cut: int | None) -> bytes:
    broken = bytearray(data)
    for place, value in changes:
        broken[place % len(broken)] = value
    return bytes(broken[: len(broken) if cut is None else cut % (len(broken) + 1)])


_changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)


@pytest.mark.parametrize("name", PACKED)
@IN_FOLDER
@given(changes=_changes, cut=st.none() | st.integers(0, 10**6), tail=st.binary(max_size=40))
def test_a_file_that_is_changed_or_cut_anywhere_gives_rows_and_then_says_so(
    tmp_path: Path, name: str, changes: list[tuple[int, int]], cut: int | None, tail: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(changed(PACKED[name], changes, cut) + tail)
    rows, error = read(path)
    check_rows(rows)
    if not changes:
        sound = [row.id for row in rows if row.problem is None][: len(WHOLE)]
        assert sound == WHOLE[: len(sound)], "what was read before the break is right"
    assert error is None or "cannot be read" in str(error)


@IN_FOLDER
@given(data=st.binary(max_size=300), name=st.sampled_from(["in.jsonl.gz", "in.jsonl.zst", "in.jsonl"]))
@example(data=b"\x1f\x8b", name="in.jsonl.gz")
@example(data=b"\x28\xb5\x2f\xfd", name="in.jsonl")
@example(data=b"\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", name="in.jsonl.zst")
@example(data=b"\x1f\x8b\x08\xff" + b"\x00" * 40, name="in.jsonl")
def test_bytes_that_only_call_themselves_an_archive_are_an_error_or_rows(
    tmp_path: Path, data: bytes, name: str
) -> None:
    for head in (b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"):
        path = tmp_path / name
        path.write_bytes(head + data)
        check_rows(read(path)[0])


_csv_texts = st.text(st.sampled_from('ab,"\n\r\0 ;\t\ufeff1ü\udcff'), max_size=60).map(
    lambda text: text.encode("utf-8", "surrogateescape")
)


@IN_FOLDER
@given(
    data=_csv_texts | st.binary(max_size=200), header=st.sampled_from([b"", b"id,prompt\n", b"\xef\xbb\xbfid,p\r\n"])
)
@example(data=b'"', header=b"id,prompt\n")
@example(data=b"\0", header=b"")
def test_any_bytes_as_csv_are_rows_or_an_error_about_the_header(tmp_path: Path, data: bytes, header: bytes) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(header + data if header else data.decode("utf-8", "ignore").encode())
    rows, error = read(path)
    check_rows(rows)
    assert error is None or not header, "a file with a header is read to its end"


def parquet_bytes() -> bytes:
    table = pa.table({"id": [f"r{n}" for n in range(50)], "n": list(range(50)), "tags": [["a"], None] * 25})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=20)
    return sink.getvalue()


PARQUET = parquet_bytes()


@IN_FOLDER
@given(cut=st.integers(0, len(PARQUET)), tail=st.binary(max_size=30))
def test_a_parquet_file_that_is_cut_anywhere_is_an_error(tmp_path: Path, cut: int, tail: bytes) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(PARQUET[:cut] + tail)
    rows, error = read(path)
    check_rows(rows)
    assert error is not None or len(rows) == 50


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b" \t\x0b\x0c\n"], ids=["lf", "crlf", "spaces"])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv"])
def test_a_million_empty_lines_are_read_fast_and_in_no_memory(tmp_path: Path, line: bytes, suffix: str) -> None:
    if suffix == ".csv" and b" " in line:
        pytest.skip("a line of spaces is a value of CSV")
    row = b'{"id": "last"}\n' if suffix != ".csv" else b"last\n"
    data = (b"id\n" if suffix == ".csv" else b"") + line * 1_000_000 + row
    path = tmp_path / f"in{suffix}"
    path.write_bytes(gzip.compress(data, 1) if suffix.endswith("gz") else data)
    began_s = time.process_time()
    with gzip.open(path) if suffix.endswith("gz") else path.open("rb") as lines:
        assert sum(1 for _ in lines) == 1_000_001 + (suffix == ".csv")
    looking_s = time.process_time() - began_s
    before = resource.getrusage(resource.RUSAGE_SELF)
    rows, error = read(path)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert error is None
    assert [(row.index, row.columns) for row in rows] == [(0, {"id": "last"})]
    assert rows[0].line == 1_000_001 + (suffix == ".csv")
    assert after.ru_utime - before.ru_utime < 3.0 + 20 * looking_s, "of what it costs to look at them in Python"
    assert after.ru_maxrss - before.ru_maxrss < 40_000, "kB"


# From a line to a body.


HOSTILE: dict[str, bytes] = {
    "NUL": b'{"id": "a", "prompt": "x\\u0000y"}',
    "a raw NUL": b'{"id": "a", "prompt": "x\0y"}',
    "a lone surrogate": b'{"id": "a", "prompt": "\\ud800"}',
    "a surrogate as an id": b'{"id": "\\udfff", "prompt": "x"}',
    "bytes of a surrogate": b'{"id": "a", "prompt": "\xed\xa0\x80"}',
    "NaN": b'{"id": "a", "prompt": "x", "temperature": NaN}',
    "NaN as an id": b'{"id": NaN, "prompt": "x"}',
    "a number without end": b'{"id": "a", "prompt": "x", "n": ' + b"9" * 6000 + b"}",
    "an exponent without end": b'{"id": "a", "prompt": "x", "max_tokens": 1e999}',
    "deep lists": b'{"id": "a", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"id": "a", "prompt": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep and cut": b'{"id": "a", "prompt": ' + b"[" * 100_000,
    "deep messages": b'{"id": "a", "messages": [{"role": "user", "content": ' + b"[" * 190 + b"]" * 190 + b"}]}",
    "3 MB": b'{"id": "a", "prompt": "' + b"x" * 3_000_000 + b'"}',
    "3 MB of messages": b'{"id": "a", "messages": [{"role": "user", "content": "' + b"x" * 3_000_000 + b'"}]}',
    "3 MB of escapes": b'{"id": "a", "messages": [{"role": "user", "content": "' + b"\\n\\u00e4" * 300_000 + b'"}]}',
    "3 MB of an id": b'{"id": "' + b"x" * 3_000_000 + b'", "prompt": "x"}',
    "a key twice": b'{"id": "a", "id": "b", "prompt": "x", "prompt": "y"}',
    "an empty key": b'{"id": "a", "": 1, "prompt": "x"}',
    "10,000 columns": b'{"id": "a", "prompt": "x"' + b"".join(b',"c%d":1' % n for n in range(10_000)) + b"}",
    "own columns": b'{"id": "a", "prompt": "x", "status": 1, "Input_Extra": 2, "row_id": [], "ROW_ID": {}}',
    "a template": b'{"id": "a", "prompt": "{{ 1/0 }}{% x %}"}',
    "controls": b'{"id": "\\u001b[2J\\r\\n", "prompt": "\\u001b]0;x\\u0007", "max_tokens": "\\u202e"}',
}


def prepared(row: Row, request: dict[str, Any] | None = None) -> Life | Invalid:
    renderer = Renderer({"model": MODEL} | (request or {}), fields=["*"])
    return Preparer(Carry(["*"], set(COLUMNS)), renderer, RuleBook.build(Rules())).prepare(row)


def check_prepared(row: Row, made: Life | Invalid, root: Path) -> None:
    """A life whose body is JSON as the API takes it, or an outcome with a reason that can be shown and stored."""
    if isinstance(made, Life):
        assert made.request is not None
        media = Media(root=str(root))
        loader = Loader(MediaDoor(media), media, RuleBook.build(Rules()))
        load = loader.weigh(made.request)
        body, complaints = (b"", [load]) if isinstance(load, Complaint) else loader.make(load, {})
        if body:
            assert not isinstance(load, Complaint)
            assert load.size >= len(body) > 0
            assert msgspec.json.decode(body) == msgspec.json.decode(msgspec.json.encode(made.request))
        complaint = " ".join(complaint.message for complaint in complaints)
    else:
        outcome = outcome_of(made, unix_s=0.0, run_id="run", run_date="2026-01-01")
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(outcome), type=type(outcome)) == outcome
        complaint = made.error.message or ""
        assert complaint, "no reason"
    complaint.encode()
    assert len(complaint) < 3000, "a reason that people can read"
    encode_columns(made.kept)


@pytest.mark.parametrize("template", [None, "{{ prompt }}", "> {{ prompt }} {{ row | length }}"])
@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_line_is_one_row_with_a_body_or_a_reason(tmp_path: Path, line: bytes, template: str | None) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"id": "first"}\n' + line + b'\n{"id": "last"}\n')
    began_at = time.process_time()
    rows, error = read(path)
    assert error is None
    check_rows(rows)
    assert [rows[0].id, rows[-1].id, len(rows)] == ["first", "last", 3]
    check_prepared(rows[1], prepared(rows[1], {"prompt": template} if template else None), tmp_path)
    assert time.process_time() - began_at < 30.0, "CPU time, of milliseconds: quadratic would be minutes"


_texts = st.text(max_size=6) | st.sampled_from(
    ["\0", "\ud800", "{{ x }}", "data:image/png;base64,AA==", "file:x", "http://["]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_NAMES: tuple[str, ...] = (
    "id",
    "prompt",
    "messages",
    "image_urls",
    "video_urls",
    "audio_url",
    "max_tokens",
    "temperature",
    "model",
)
_NAMES += ("sync", "stream", "reasoning", "system_prompt", "top_p", "stop", "content", "body", "custom_id", "ü", "")


@IN_FOLDER
@given(columns=st.dictionaries(st.sampled_from(_NAMES), _values, max_size=6), is_rendered=st.booleans())
def test_any_row_is_a_body_or_a_reason(tmp_path: Path, columns: dict[str, Any], is_rendered: bool) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(json.dumps(columns, ensure_ascii=True).encode() + b"\n")
    rows, error = read(path)
    assert error is None
    check_rows(rows)
    (row,) = rows
    request = {"prompt": "{{ prompt }} {{ id | default('') }}", "max_tokens": "{{ max_tokens }}"}
    check_prepared(row, prepared(row, request if is_rendered else None), tmp_path)


# Replies.


SUBMITTED: dict[str, Any] = {"id": "task-1", "status": "pending", "usage": {"credits_reserved": 1.5}, "stream": None}
POLLED: dict[str, Any] = {
    "id": "task-1",
    "status": "completed",
    "progress": 100,
    "results": [
        {
            "object": "chat.completion",
            "model": "m",
            "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        }
    ],
    "error": None,
    "usage": {"credits_charged": 0.5},
}
REFUSED: dict[str, Any] = {"error": {"message": "no", "type": "invalid_request_error", "code": "invalid_param"}}
RAW = [
    *("null", "true", "-0", "0.0", "1e999", "-1e999", "NaN", "Infinity", "9" * 4000, "9" * 6000, "1." + "1" * 6000),
    *('""', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"completed"', '"failed"', '"' + "x" * 3_000_000 + '"'),
    *("[]", "{}", "[null]", "[[]]", "[{}]", '{"":{}}', '{"message":{"content":[{"type":"text","text":1}]}}'),
    *("[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "[" * 100_000, "tru", "'x'", "", '"\xff'),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every node of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, item in inner for place in places(item, (*path, name)))]


def with_raw(value: Any, place: tuple[Any, ...], raw: str) -> bytes:
    """The value as JSON, with this text in the place of one node."""
    mark = "\x01here\x01"

    def put(value: Any, place: tuple[Any, ...]) -> Any:
        if not place:
            return mark
        copy = value.copy()
        copy[place[0]] = put(value[place[0]], place[1:])
        return copy

    return json.dumps(put(value, place)).replace(json.dumps(mark), raw).encode("latin-1", "replace")


def check_event(event: SubmitEvent | PollEvent, kinds: Any) -> None:
    assert type(event) in get_args(kinds)
    error = getattr(event, "error", None)
    text = msgspec.json.encode(msgspec.to_builtins(event))
    assert msgspec.json.decode(text) is not None
    assert error is None or len(error.message or "") <= 2000
    for value in (getattr(event, "reserved", None), getattr(getattr(event, "answer", None), "credits", None)):
        assert value is None or 0 <= value < 2**63


@pytest.mark.parametrize("whole", [SUBMITTED, POLLED, REFUSED], ids=["submit", "poll", "error"])
def test_any_text_in_the_place_of_any_node_of_a_reply_is_one_event(whole: dict[str, Any]) -> None:
    for place in places(whole):
        for raw in RAW:
            body = with_raw(whole, place, raw)
            statuses = (400, 422, 429, 502) if whole is REFUSED else (200,)
            for status in statuses:
                got = Reply(status=status, body=body)
                check_event(read_poll(got, 0.0, "task-1"), PollEvent)
                for is_sync in (False, True):
                    check_event(read_submit(got, 0.0, is_sync=is_sync), SubmitEvent)


_lines = st.sampled_from(
    [
        *(
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200\r\n",
            b"HTTP/1.0 200 OK\r\n",
            b"HTTP/9.9 999 x\r\n",
            b"HTTP/1.1 -1 x\r\n",
        ),
        *(b"Content-Length: 2\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"Content-Encoding: br, deflate\r\n"),
        *(b"Content-Type: text/html; charset=\xff\r\n", b"Retry-After: \xff\xfe\r\n", b"Location: http://[\r\n"),
        *(b"X: \0\r\n", b": x\r\n", b" folded\r\n", b"Set-Cookie: a=b; expires=never\r\n", b"\xff\xfe: \x80\r\n"),
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"0\r\n\r\n",
            b"2\r\n{}\r\n",
            b"zz\r\n",
            b"ffffffffffffffff\r\n",
            b'{"id": "t"}',
            b"{}",
        ),
        *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", b"\x16\x03\x01\x02"),
    ]
)
_replies = st.lists(_lines, max_size=8).map(b"".join) | st.binary(max_size=100)


@settings(max_examples=60, deadline=None)
@given(replies=st.lists(_replies, min_size=1, max_size=6))
def test_any_bytes_as_a_http_reply_are_one_event(replies: list[bytes]) -> None:
    asyncio.run(ask_for(replies))


async def ask_for(replies: list[bytes]) -> None:
    left = iter(replies * 2)

    async def talk(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(left, b""))
        await writer.drain()
        writer.close()

    async with raw_server(talk) as server, Api(server.url, "sk-x", connections=1) as api:
        for _ in replies:
            check_event(await api.submit(b"{}", is_sync=False), SubmitEvent)
            check_event(await api.poll("task-1", sync_upstream=False), PollEvent)
        posts = [request for request in server.requests if request.startswith(b"POST")]
        assert len(posts) <= len(replies), "a submit was repeated"
