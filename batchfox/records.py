"""Lines of text files → records: JSONL (plain, gzip, zstd) and CSV. Every non-blank line is one record, read or not."""

from __future__ import annotations

import csv
import io
import json
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from batchfox.errors import InputError
from batchfox.words import count

MOST_LINE_BYTES = 64 << 20
MOST_DEPTH = 200
_CHUNK = 1 << 20
_BLANK = b" \t\r\n\x0b\x0c"
_NOT_FINITE = (b"NaN", b"Infinity")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


# The number of a line of CSV, its values (text: why it has none), and how far the file is read.
CsvLine = tuple[int, list[str] | str, int]


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One record as read. `position`: bytes of the file read so far (compressed ones where it is compressed). `name`:
    the file below the input's folder that the record is, where it is one."""

    columns: dict[str, Any]
    line: int
    size: int
    position: int
    problem: str | None = None
    digest: bytes = b""
    name: str = ""


def read_jsonl(path: str, *, with_digest: bool) -> Iterator[Record]:
    """One record a non-blank line."""
    return map(parser(with_digest=with_digest), raw_lines(path))


def raw_lines(path: str) -> Generator[tuple[int, bytes | None, int]]:
    """Number and bytes (None: too long) of each non-blank line, and how far the file is read."""
    file, position = _open(path)
    with file:
        for line, raw in _lines(path, file):
            yield line, raw, position()


def parser(*, with_digest: bool) -> Callable[[tuple[int, bytes | None, int]], Record]:
    """Makes records of lines."""
    decode = msgspec.json.Decoder().decode

    def parse(read: tuple[int, bytes | None, int]) -> Record:
        line, raw, position = read
        if raw is None:
            too_long = f"longer than {MOST_LINE_BYTES >> 20} MB"
            return Record(columns={}, line=line, size=0, position=position, problem=too_long, digest=b"\0" * 16)
        digest = blake2b(raw, digest_size=16).digest() if with_digest else b""
        columns, problem = _parse(raw, decode)
        return Record(columns=columns, line=line, size=len(raw), position=position, problem=problem, digest=digest)

    return parse


def _parse(raw: bytes, decode: Callable[[bytes], Any]) -> tuple[dict[str, Any], str | None]:
    try:
        value = decode(raw)
    except msgspec.DecodeError as error:
        if not any(name in raw for name in _NOT_FINITE):
            return {}, _say_broken(raw, str(error))
        try:
            value = _decode_not_finite(raw)
        except (ValueError, RecursionError) as broken:
            return {}, _say_broken(raw, str(broken))
    except (UnicodeDecodeError, RecursionError):
        return {}, _say_broken(raw, "too deeply nested")
    if type(value) is not dict:
        kind = {list: "an array", str: "text", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
        return {}, f"no object but {kind}; every line must be a JSON object"
    if raw.count(b"[") + raw.count(b"{") > MOST_DEPTH and _depth(value) > MOST_DEPTH:
        return {}, f"nested more than {MOST_DEPTH} levels deep"
    return value, None


def _decode_not_finite(raw: bytes) -> Any:
    """JSON with NaN and Infinity, which Python and pandas write and JSON does not know. Raises ValueError.

    Slower than msgspec, so only for lines that need it, and as strict in all else.
    """
    value = json.loads(raw.decode())
    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return value


def _say_broken(raw: bytes, reason: str) -> str:
    if raw.startswith(_UTF16) or b"\0" in raw[:8]:
        return "not UTF-8 (it looks like UTF-16): convert the file to UTF-8"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte {raw[error.start]:#04x} at column {error.start + 1}"
    if "ecursion" in reason or "deep" in reason:
        return "too deeply nested"
    return f"no JSON: {reason}"


def _depth(value: Any) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        item, depth = stack.pop()
        deepest = max(deepest, depth)
        if isinstance(item, dict):
            stack.extend((inner, depth + 1) for inner in item.values() if isinstance(inner, (dict, list)))
        elif isinstance(item, list):
            stack.extend((inner, depth + 1) for inner in item if isinstance(inner, (dict, list)))
    return deepest


def _open(path: str) -> tuple[IO[bytes], Callable[[], int]]:
    """The decompressed stream, and how many bytes of the file itself were read so far."""
    try:
        raw = sys.stdin.buffer if path == "-" else Path(path).open("rb", buffering=_CHUNK)  # noqa: SIM115
        buffered = cast(io.BufferedReader, raw)
        head = buffered.peek(4)[:4]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error

    def position() -> int:
        return 0 if path == "-" else buffered.tell()

    if head.startswith(_GZIP):
        return io.BufferedReader(_Gunzip(buffered), _CHUNK), position
    if head == _ZSTD:
        return io.BufferedReader(_Unzstd(buffered), _CHUNK), position
    return buffered, position


class _Unpacked(io.RawIOBase):
    """A compressed stream unpacked as it is read: several members (frames) are one stream, a cut one is EOFError."""

    def __init__(self, packed: io.BufferedReader) -> None:
        self._packed = packed
        self._unpacker: Any = None
        self._ready = b""

    def begin(self) -> Any:
        """An unpacker for the next member, with `decompress`, `eof` and `unused_data`."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._unpacker.unused_data if self._unpacker is not None and self._unpacker.eof else b""
            packed = packed or self._packed.read1(_CHUNK)
            if not packed:
                if self._unpacker is not None and not self._unpacker.eof:
                    raise EOFError("the archive is cut short")
                return 0
            if self._unpacker is None or self._unpacker.eof:
                self._unpacker = self.begin()
            self._ready = self._unpacker.decompress(packed)
        taken = min(len(buffer), len(self._ready))
        buffer[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken

    def close(self) -> None:
        self._packed.close()
        super().close()


class _Gunzip(_Unpacked):
    def begin(self) -> Any:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)


class _Unzstd(_Unpacked):
    def begin(self) -> Any:
        import zstandard

        return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()


def _lines(path: str, file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Line number and bytes of each non-blank line without its ending; None for one that is too long."""
    number = 0
    try:
        while raw := file.readline(MOST_LINE_BYTES + 2):
            number += 1
            if len(raw) > MOST_LINE_BYTES + 1 and not raw.endswith(b"\n"):
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(_CHUNK)
                yield number, None
                continue
            if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                raw = raw[3:]
            text = raw.strip(_BLANK)
            if text:
                yield number, raw.rstrip(b"\r\n")
    except (EOFError, zlib.error, OSError) as error:
        raise _broken(path, number, error) from error
    except Exception as error:
        if type(error).__module__.startswith("zstd") or type(error).__name__ == "ZstdError":
            raise _broken(path, number, error) from error
        raise


def _broken(path: str, line: int, error: Exception) -> InputError:
    return InputError(
        f"{path}: cannot be read beyond line {line}: {error}; the rows before it are safe: mend or replace the file, "
        "then run the same command again"
    )


def read_csv(path: str, *, with_digest: bool) -> Iterator[Record]:
    """One record a line, every value as text, by the header's names. A ragged line is a record with its problem."""
    lines = csv_lines(path)
    header = next(lines)[1]
    assert not isinstance(header, str)
    for line in lines:
        yield csv_record(header, line, with_digest=with_digest)


def csv_lines(path: str) -> Generator[CsvLine]:
    """The header, then each line that is not empty."""
    file, position = _open(path)
    with file:
        reader = _csv_reader(file)
        yield 1, _header(path, reader), position()
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader, None)
            except csv.Error as error:
                yield line, str(error), position()
                continue
            if values is None:
                return
            if values:
                yield line, values, position()


def csv_header(path: str) -> list[str]:
    """The names of a CSV file's columns. Raises `InputError`."""
    file, _ = _open(path)
    with file:
        reader = _csv_reader(file)  # lives until the file is closed, or Python warns
        return _header(path, reader)


def _csv_reader(file: IO[bytes]) -> Any:
    csv.field_size_limit(MOST_LINE_BYTES)
    return csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=""), strict=True)


def _header(path: str, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise InputError(f"{path}: no CSV header: {error}") from error
    if not header:
        raise InputError(f"{path}: empty; the first line of a CSV file names its columns")
    if len(header) == 1 and (separator := next((mark for mark in ";\t|" if mark in header[0]), None)):
        raise InputError(f"{path}: its columns seem to be separated by {separator!r}; batchfox reads commas only")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f'{path}: the header names "{twice[0]}" twice')
    if not all(map(is_text, header)):
        raise InputError(f"{path}: its header is not UTF-8: convert the file to UTF-8")
    return header


def is_text(value: str) -> bool:
    """Not so where `surrogateescape` stood in for bytes that are no UTF-8."""
    return value.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in value)


def csv_record(header: list[str], read: CsvLine, *, with_digest: bool) -> Record:
    """Makes a record of a line."""
    line, values, position = read
    if isinstance(values, str):
        return Record(columns={}, line=line, size=0, position=position, problem=f"no CSV: {values}")
    size = sum(map(len, values))
    digest = b""
    if with_digest:
        joined = "\x1f".join(values).encode("utf-8", "surrogateescape")
        digest = blake2b(joined, digest_size=16).digest()
    problem = None
    if len(values) != len(header):
        problem = f"{count(len(values), 'value')}, but the header names {count(len(header), 'column')}"
    elif not all(map(is_text, values)):
        problem = "not UTF-8"
    columns = {} if problem else dict(zip(header, values, strict=True))
    return Record(columns=columns, line=line, size=size, position=position, problem=problem, digest=digest)
