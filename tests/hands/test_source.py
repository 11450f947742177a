"""The input: any file in, one clear row or one clear error out."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import sys
from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchfox import columns
from batchfox.arrow_types import holds_binary, stored_type
from batchfox.core.row import Row, key_of_id, key_of_line, key_of_position
from batchfox.errors import InputError
from batchfox.kept import decode_columns, encode_columns
from batchfox.source import open_source

LINES = b'{"id": 1, "x": "a"}\n\n{"id": 2, "x": "b"}\r\n{"id": 3, "x": "\xc3\xa4"}'


def read(*paths: Path | str, id_column: str | None = None, with_digest: bool = False) -> list[Row]:
    source = open_source([str(path) for path in paths], id_column=id_column, with_digest=with_digest)
    return [row for batch in source.batches() for row in batch]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["in.jsonl", "in.ndjson", "in.jsonl.gz", "in.jsonl.zst"])
def test_jsonl_reads_the_same_however_it_is_packed(tmp_path: Path, name: str) -> None:
    packed = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    data = packed.get(Path(name).suffix, bytes)(LINES)
    rows = read(write(tmp_path / name, data), id_column="id")
    assert [(row.index, row.id, row.line, row.columns["x"]) for row in rows] == [
        (0, "1", 1, "a"),
        (1, "2", 3, "b"),
        (2, "3", 4, "ä"),
    ]
    assert [row.key for row in rows] == [key_of_id("1"), key_of_id("2"), key_of_id("3")]


def test_several_zstd_frames_are_one_file(tmp_path: Path) -> None:
    pack = zstandard.ZstdCompressor().compress
    path = write(tmp_path / "in.jsonl.zst", pack(b'{"a": 1}\n') + pack(b'{"a": 2}\n'))
    assert [row.columns["a"] for row in read(path)] == [1, 2]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"not json", "no JSON"),
        (b'{"a": NaN} {', "no JSON"),
        (b'{"a": "NaN}', "no JSON"),
        (b'{"a": NaN, "b": "\\ud800"}', "no JSON"),
        (b'{"a": NaN, "b": "\xff"}', "not UTF-8"),
        (b"NaN", "a number"),
        (b'{"a": [NaN,' + b"[" * 5000 + b"]" * 5000 + b"]}", "deep"),
        (b'{"a": NaN, "b": ' + b"1" * 5000 + b"}", "no JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[1]", "an array"),
        (b'"text"', "text"),
        (b"null", "null"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", "deep"),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "deep"),
        (b'{"a": "\\ud800"}', "no JSON"),
        (b'{"a": 1} trailing', "no JSON"),
    ],
)
def test_a_line_that_is_no_row_is_one_with_its_place_and_reason(tmp_path: Path, line: bytes, says: str) -> None:
    path = write(tmp_path / "in.jsonl", b'{"a": 0}\n' + line + b'\n{"a": 2}\n')
    good, bad, last = read(path)
    assert good.problem is None
    assert last.problem is None
    assert bad.problem is not None
    assert bad.problem.startswith(f"{path} line 2: ")
    assert says in bad.problem
    assert bad.columns == {}
    assert bad.key == key_of_position(1)


def test_numbers_that_json_does_not_know_are_read_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", b'{"a": NaN, "b": [Infinity, {"c": -Infinity}], "d": "NaN"}')
    (row,) = read(path)
    assert row.problem is None
    assert math.isnan(row.columns.pop("a"))
    assert row.columns == {"b": [math.inf, {"c": -math.inf}], "d": "NaN"}


def test_a_line_beyond_the_limit_is_passed_over_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": "')
        for _ in range(65):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"a": 2}\n')
    long, short = read(path)
    assert "longer than 64 MB" in (long.problem or "")
    assert (short.line, short.columns) == (2, {"a": 2})


def test_content_may_be_text_in_one_row_and_a_list_in_the_next(tmp_path: Path) -> None:
    rows = [{"messages": [{"content": "hi"}]}, {"messages": [{"content": [{"type": "text", "text": "hi"}]}]}]
    path = write(tmp_path / "in.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert [row.columns for row in read(path)] == rows


def test_a_file_in_utf16_is_told_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", '{"a": 1}\n'.encode("utf-16"))
    assert any("UTF-16" in (row.problem or "") for row in read(path))


def test_a_byte_order_mark_is_no_part_of_the_row(tmp_path: Path) -> None:
    assert read(write(tmp_path / "in.jsonl", b'\xef\xbb\xbf{"a": 1}\n'))[0].columns == {"a": 1}


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.jsonl.zst"])
def test_a_truncated_archive_gives_its_rows_and_then_says_so(tmp_path: Path, name: str) -> None:
    lines = b"".join(b'{"a": %d, "b": "%s"}\n' % (number, str(number * 7919).encode() * 9) for number in range(50_000))
    pack = gzip.compress if name.endswith("gz") else zstandard.ZstdCompressor().compress
    packed = pack(lines)
    path = write(tmp_path / name, packed[: len(packed) // 2])
    batches = open_source([str(path)], id_column=None, with_digest=False).batches()
    seen: list[Row] = []
    with pytest.raises(InputError, match="cannot be read beyond line"):
        seen.extend(row for batch in batches for row in batch)
    assert len(seen) > 1000


@pytest.mark.parametrize(("value", "text"), [("x", "x"), (7, "7"), (5.0, "5.0"), (True, "true"), (0, "0")])
def test_ids_are_text(tmp_path: Path, value: Any, text: str) -> None:
    (row,) = read(write(tmp_path / "in.jsonl", json.dumps({"id": value}).encode()), id_column="id")
    assert (row.id, row.key, row.problem) == (text, key_of_id(text), None)


@pytest.mark.parametrize("value", [None, "", [], {"a": 1}, [1]])
def test_a_row_without_an_id_is_named_by_its_line_and_keeps_its_columns(tmp_path: Path, value: Any) -> None:
    first = write(tmp_path / "a.jsonl", b'{"id": 1}\n{"id": 2}\n')
    second = write(tmp_path / "b.jsonl", b"\n" + json.dumps({"id": value, "x": 9}).encode())
    row = read(first, second, id_column="id")[-1]
    assert (row.id, row.line, row.key) == ("line:4", 2, key_of_line(4))
    assert row.columns["x"] == 9
    assert "missing id" in (row.problem or "")


def test_digests_tell_whether_a_row_changed(tmp_path: Path) -> None:
    one = read(write(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": 2}\n'), with_digest=True)
    crlf = read(write(tmp_path / "b.jsonl", b'{"a": 1}\r\n{"a": 3}\r\n'), with_digest=True)
    assert one[0].digest == crlf[0].digest
    assert one[1].digest != crlf[1].digest


def test_folders_and_globs_give_their_files_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "_hidden.jsonl", "notes.txt"):
        write(tmp_path / name, json.dumps({"from": name}).encode())
    assert [row.columns["from"] for row in read(tmp_path)] == ["a.jsonl", "b.jsonl"]
    assert [row.columns["from"] for row in read(tmp_path / "[ab].jsonl")] == ["a.jsonl", "b.jsonl"]


def test_a_folder_or_pattern_never_leads_into_an_output(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", b'{"from": "input"}')
    output = tmp_path / "deep" / "out"
    for folder in ("data", "_batchfox"):
        (output / folder).mkdir(parents=True)
    write(output / "data" / "part-00000.jsonl", b'{"from": "output"}')
    write(output / "_batchfox" / "log.jsonl", b'{"from": "log"}')
    for path in (tmp_path, tmp_path / "**" / "*.jsonl", tmp_path / "deep" / ".." / "*" / ".." / "*.jsonl"):
        assert {row.columns["from"] for row in read(path)} == {"input"}, path
    with pytest.raises(InputError, match=r"an output of batchfox; to read its results, name .*/data"):
        read(output)
    with pytest.raises(InputError, match="outputs of batchfox in it are passed over: 1"):
        read(tmp_path / "deep")
    assert [row.columns["from"] for row in read(output / "data")] == ["output"], "named outright it is an input"
    assert [row.columns["from"] for row in read(output / "data" / "*.jsonl")] == ["output"]


def test_a_pipe_is_refused_and_so_is_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in.jsonl")
    with pytest.raises(InputError, match=r"no regular file.*--input - < "):
        read(tmp_path / "in.jsonl")
    for name in ("a" * 300 + ".jsonl", "a" * 300 + "*.jsonl", "a" * 5000):
        with pytest.raises(InputError, match="File name too long"):
            read(tmp_path / name)


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="the working directory is gone"):
        read(write(tmp_path / "in.jsonl", LINES))


@pytest.mark.parametrize(
    ("path", "says"), [("inn.jsonl", "did you mean"), ("notes.txt", "unknown type"), ("*.parquet", "no input file")]
)
def test_a_wrong_path_says_what_there_is(tmp_path: Path, path: str, says: str) -> None:
    write(tmp_path / "in.jsonl", b"{}")
    write(tmp_path / "notes.txt", b"x")
    with pytest.raises(InputError, match=says):
        read(tmp_path / path)


def test_standard_input_is_read_once_and_a_peek_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b'{"custom_id": "a", "body": {}}\n{"custom_id": "b", "body": {}}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(lines))))
    source = open_source(["-"], id_column=None, with_digest=False)
    assert source.is_batch_form()
    rows = [row for batch in source.with_id("custom_id").batches() for row in batch]
    assert [row.id for row in rows] == ["a", "b"]


def test_csv_values_are_text_and_ragged_lines_are_rows_with_a_reason(tmp_path: Path) -> None:
    data = b'id,text\n1,"a, ""quoted""\nline"\n2\n3,\xff\n4,\n'
    rows = read(write(tmp_path / "in.csv", data), id_column="id")
    assert rows[0].columns == {"id": "1", "text": 'a, "quoted"\nline'}
    assert "1 value, but the header names 2 columns" in (rows[1].problem or "")
    assert rows[1].line == 4
    assert "not UTF-8" in (rows[2].problem or "")
    assert rows[3].columns == {"id": "4", "text": ""}


@pytest.mark.parametrize(("data", "says"), [(b"", "empty"), (b"a;b\n1;2\n", "commas only"), (b"a,a\n1,2\n", "twice")])
def test_a_csv_without_a_proper_header_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(write(tmp_path / "in.csv", data))


def parquet_table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array(["a", "b"]),
            "when": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
            "zoned": pa.array([1_700_000_000_123_456, 0], pa.timestamp("us", tz="Europe/Berlin")),
            "price": pa.array([Decimal("12.30"), None], pa.decimal128(9, 2)),
            "day": pa.array([19_000, None], pa.date32()),
            "tags": pa.array([["x", "y"], None], pa.list_(pa.string())),
            "deep": pa.array(
                [{"n": [1, 2], "t": 5}, None], pa.struct([("n", pa.list_(pa.int32())), ("t", pa.date32())])
            ),
            "kind": pa.array(["k", "k"]).dictionary_encode(),
            "blob": pa.array([b"\x00\xff", None]),
            "small": pa.array([1.5, None], pa.float32()),
            "nothing": pa.nulls(2),
        }
    )


def test_parquet_values_travel_and_come_back_as_they_were(tmp_path: Path) -> None:
    table = parquet_table()
    pq.write_table(table, tmp_path / "in.parquet")
    source = open_source([str(tmp_path / "in.parquet")], id_column="id", with_digest=True)
    assert source.total_rows() == 2
    rows = [row for batch in source.batches() for row in batch]
    assert rows[0].columns["tags"] == ["x", "y"]
    types = columns.infer([row.columns for row in rows], source.types)
    arrays, extra, misfits = columns.fit([row.columns for row in rows], types)
    assert not misfits
    assert extra == [None, None]
    for name, array in zip(types, arrays, strict=True):
        assert array.to_pylist() == table[name].to_pylist(), name
        if name not in ("kind", "nothing"):
            assert array.type == pq.read_schema(tmp_path / "in.parquet").field(name).type


STRINGS = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    "array",
    [
        pa.array([3_723_000_001, None, 0], pa.time64("us")),
        pa.array([3_723_000_000_001, None], pa.time64("ns")),
        pa.array([time(1, 2, 3), None], pa.time32("ms")),
        pa.array([5, None, -1], pa.duration("ms")),
        pa.array([1, None], pa.int16()).dictionary_encode(),
        pa.array([0, None], pa.timestamp("ms")).dictionary_encode(),
        pa.array([["a"], None], pa.list_(STRINGS)),
        pa.array([{"a": "x"}, None], pa.struct([("a", STRINGS)])),
        pa.array([[time(1, 2, 3)], None, []], pa.large_list(pa.time64("us"))),
        pa.array([[0, 1], None], pa.list_(pa.timestamp("us"), 2)),
        pa.array([[("a", 1)], None, [("b", None), ("c", 3)]], pa.map_(pa.string(), pa.timestamp("ms"))),
        pa.array([[("a", [("x", 1)])], None, []], pa.map_(pa.string(), pa.map_(pa.string(), pa.duration("ms")))),
        pa.array([b"a", None], pa.large_binary()),
        pa.array([b"a", None], pa.binary_view()),
        pa.array(["a", None], pa.string_view()),
        pa.array([["a", None], None], pa.list_(pa.string_view())),
        pa.array([["a", "b"], None], pa.list_(pa.string_view(), 2)),
        pa.array([{"a": b"x"}, None], pa.struct([("a", pa.binary_view())])),
        pa.array([[("a", b"x")], None], pa.map_(pa.string_view(), pa.binary_view())),
        pa.array([[1, 2], None], pa.list_view(pa.int64())),
        pa.array([[1, 2], None], pa.large_list_view(pa.int64())),
        pa.array(["a", None], pa.large_string()),
    ],
    ids=lambda array: str(array.type),
)
def test_every_type_of_parquet_travels_and_comes_back(tmp_path: Path, array: Any) -> None:
    pq.write_table(pa.table({"a": array}), tmp_path / "in.parquet")
    source = open_source([str(tmp_path / "in.parquet")], id_column=None, with_digest=True)
    rows = [decode_columns(encode_columns(row.columns)) for batch in source.batches() for row in batch]
    types = columns.infer(rows, source.types)
    (back,), extra, _ = columns.fit(rows, types)
    assert back.to_pylist() == array.to_pylist()
    assert not any(extra)
    value_type = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    assert back.type.equals(stored_type(value_type)) or pa.types.is_nested(value_type)
    assert "string_view" not in str(back.type)
    assert "binary_view" not in str(back.type)
    pa.table({"a": back}).filter(pa.array([True] * len(back)))


def test_values_that_do_not_fit_a_type_go_to_input_extra(tmp_path: Path) -> None:
    arrays, extra, misfits = columns.fit([{"t": "no time"}, {"t": "01:02:03"}], {"t": pa.time64("us")})
    assert arrays[0].to_pylist() == [None, time(1, 2, 3)]
    assert (extra, misfits) == (['{"t":"no time"}', None], {"t"})


@pytest.mark.parametrize(
    ("kind", "is_binary"),
    [
        (pa.binary(), True),
        (pa.large_binary(), True),
        (pa.binary(2), True),
        (pa.binary_view(), True),
        (pa.dictionary(pa.int32(), pa.binary()), True),
        (pa.list_(pa.struct([("a", pa.int8()), ("b", pa.large_list(pa.binary()))])), True),
        (pa.map_(pa.string(), pa.binary()), True),
        (pa.map_(pa.string(), pa.string()), False),
        (pa.list_(pa.struct([("a", pa.large_string())])), False),
        (STRINGS, False),
    ],
    ids=str,
)
def test_bytes_are_found_at_any_depth_of_a_type(kind: Any, is_binary: bool) -> None:
    assert holds_binary(kind) == is_binary


def test_a_folder_of_parquet_with_different_columns_is_one_input(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [2], "b": ["x"]}), tmp_path / "2.parquet")
    assert [row.columns for row in read(tmp_path)] == [{"a": 1}, {"a": 2, "b": "x"}]


def not_utf8(kind: pa.DataType) -> pa.Array:
    """Text as Parquet holds it where nobody looked at it: the second of three values is no UTF-8."""
    text = pa.array([b"a", b"\xff\xfe", "ä".encode()], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, text.buffers())
    if pa.types.is_dictionary(kind):
        return text.dictionary_encode()
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([text], ["t"])
    return pa.ListArray.from_arrays([0, 1, 2, 3], text) if pa.types.is_list(kind) else text.cast(kind)


@pytest.mark.parametrize("with_digest", [False, True])
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.list_(pa.string()), pa.struct([("t", pa.string())]), STRINGS], ids=str
)
def test_text_of_parquet_that_is_no_utf8_is_a_problem_of_its_row_alone(
    tmp_path: Path, kind: Any, with_digest: bool
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": ["x", "y", "z"], "t": not_utf8(kind)}), path)
    first, second, third = read(path, id_column="id", with_digest=with_digest)
    assert (first.id, second.id, third.id) == ("x", "line:2", "z")
    assert second.problem == f'{path} line 2: not UTF-8: column "t" holds byte 0xff'
    assert second.columns == {}
    assert len({row.digest for row in (first, second, third)}) == (3 if with_digest else 1)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), "x"),
        (pa.table({"s": pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["y", "y"])}), "s.y"),
    ],
)
def test_parquet_with_a_name_twice_is_refused(tmp_path: Path, table: pa.Table, name: str) -> None:
    pq.write_table(table, tmp_path / "in.parquet")
    source = open_source([str(tmp_path / "in.parquet")], id_column=None, with_digest=False)
    for look in (lambda: source.types, lambda: list(source.batches())):
        with pytest.raises(InputError, match=f'the name "{name}" stands there twice'):
            look()


def test_the_header_of_a_csv_file_may_be_long_and_must_be_utf8(tmp_path: Path) -> None:
    long = "h" * 200_000
    csv.field_size_limit(131_072)  # as a new process finds it
    path = write(tmp_path / "in.csv", f"id,{long}\n1,2\n".encode())
    assert open_source([str(path)], id_column=None, with_digest=False).types == {"id": pa.string(), long: pa.string()}
    assert [row.columns for row in read(path)] == [{"id": "1", long: "2"}]
    with pytest.raises(InputError, match="its header is not UTF-8"):
        read(write(tmp_path / "in.csv", b"id,\xff\n1,2\n"))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read(write(tmp_path / "in.parquet", b"PAR1 but not really"))


@given(st.binary(max_size=400))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_bytes_give_one_row_for_each_line_that_is_not_blank(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "any.jsonl", data if data[:2] != b"\x1f\x8b" and data[:4] != b"\x28\xb5\x2f\xfd" else b"")
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = [line for line in lines if line.strip(b" \t\r\n\x0b\x0c")]
    rows = read(path, id_column="id", with_digest=True)
    assert len(rows) == len(expected)
    assert len({row.key for row in rows if row.id.startswith("line:")}) == sum(row.problem is not None for row in rows)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from("abcA"), JSON, max_size=4), min_size=1, max_size=6), st.integers(0, 5))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_every_carried_value_is_in_its_column_or_in_input_extra(rows: list[dict[str, Any]], first: int) -> None:
    rows = [{name: value for name, value in row.items() if not _has_surrogate(value)} for row in rows]
    types = columns.infer(rows[: first + 1], None)
    arrays, extra, _ = columns.fit(rows, types)
    table = {name: array.to_pylist() for name, array in zip(types, arrays, strict=True)}
    for at, row in enumerate(rows):
        strays = json.loads(extra[at] or "{}")
        for name, value in row.items():
            if value is None:
                continue
            found = table[name][at] if name in table else None
            kept = (
                found == value or (isinstance(found, str) and json.loads(found) == value) or strays.get(name) == value
            )
            assert kept, (name, value, found, strays)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [None, float("nan")], "b": 2**70}, '{"a":[null,"NaN"],"b":1180591620717411303424}'),
        ([b"\xff", -(2**64), "\ud800"], '["/w==",-18446744073709551616,"?"]'),
        ([None, 1.5, {"ä": True}], '[null,1.5,{"ä":true}]'),
    ],
)
def test_what_json_cannot_carry_is_text_and_integers_stay_numbers(value: Any, text: str) -> None:
    assert columns.to_json(value) == text.replace("?", "\ufffd" * 3)
    assert json.loads(columns.to_json(value)) is not None


def test_kept_columns_come_back_as_they_went(tmp_path: Path) -> None:
    kept = {"big": [2**64, -(2**63) - 1, 10**400], "raw": b"\0", "deep": {"a": [None, 1.5, float("inf")]}}
    assert decode_columns(encode_columns(kept)) == kept


def _has_surrogate(value: Any) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in json.dumps(value, ensure_ascii=False))


# A folder of media.


def test_a_folder_of_media_is_one_row_a_file_in_the_order_of_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("c.PNG", "b/2.mp4", "b/1.wav", "a.jpg", "notes.txt", "_x.png", ".hidden/y.png"):
        (tmp_path / name).write_bytes(b"x" * 7)
    rows = read(tmp_path)
    assert [row.columns for row in rows] == [
        {"path": "a.jpg", "name": "a", "kind": "image", "size": 7, "image_urls": ["a.jpg"]},
        {"path": "b/1.wav", "name": "1", "kind": "audio", "size": 7, "audio_url": "b/1.wav"},
        {"path": "b/2.mp4", "name": "2", "kind": "video", "size": 7, "video_urls": ["b/2.mp4"]},
        {"path": "c.PNG", "name": "c", "kind": "image", "size": 7, "image_urls": ["c.PNG"]},
    ]
    places = [(row.index, Path(row.place).relative_to(tmp_path).as_posix()) for row in rows]
    assert places == [(0, "a.jpg"), (1, "b/1.wav"), (2, "b/2.mp4"), (3, "c.PNG")]
    digests = {
        row.digest
        for batch in open_source([str(tmp_path)], id_column=None, with_digest=True).batches()
        for row in batch
    }
    assert len(digests) == 4


def test_rows_in_a_folder_come_before_media_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    write(tmp_path / "in.jsonl", b'{"a": 1}\n')
    assert [row.columns for row in read(tmp_path)] == [{"a": 1}]


def test_a_media_file_whose_name_is_no_text_is_a_row_with_its_problem(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"x")
    (row,) = read(tmp_path)
    assert "not UTF-8" in (row.problem or "")
