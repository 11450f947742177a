"""Lines of JSON and CSV of which only the id is taken, until one is to be read as a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from batchfox.core.row import id_text, keys_of
from batchfox.records import Record, csv_lines, csv_record, is_text, parser, raw_lines
from batchfox.skimming import Line


class JsonLines:
    """A file of JSON lines; a line's bytes are None where it is too long."""

    def __init__(self, path: str, id_column: str | None, *, with_digest: bool) -> None:
        self._lines = raw_lines(path)
        self._parse = parser(with_digest=with_digest)
        named = msgspec.defstruct("Named", [("id", Any, msgspec.field(name=id_column or "id", default=None))])
        self._decode = msgspec.json.Decoder(named).decode

    def take(self, most: int, most_bytes: int) -> list[Line]:
        taken: list[Line] = []
        size = 0
        for line in self._lines:
            taken.append(line)
            size += len(line[1] or b"")
            if len(taken) >= most or size >= most_bytes:
                break
        return taken

    def keys(self, lines: Sequence[Line]) -> list[bytes] | None:
        texts = self.raw(lines)
        if texts is None:
            return None
        decode = self._decode
        try:
            return keys_of([id_text(decode(text).id) for text in texts])  # type: ignore[attr-defined]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def raw(self, lines: Sequence[Line]) -> list[bytes] | None:
        texts = [text for _, text, _ in lines if text is not None]
        return texts if len(texts) == len(lines) else None

    def records(self, lines: Sequence[Line]) -> Iterator[Record]:
        return map(self._parse, lines)

    def close(self) -> None:
        self._lines.close()


class CsvLines:
    """A CSV file with ids; a line's values are text where it is no CSV. A line that is damaged anywhere is a row."""

    def __init__(self, path: str, id_column: str) -> None:
        self._lines = csv_lines(path)
        header = next(self._lines)[1]
        assert not isinstance(header, str)
        self._header = header
        self._place = header.index(id_column) if id_column in header else None

    def take(self, most: int, most_bytes: int) -> list[Line]:
        taken: list[Line] = []
        size = 0
        for line in self._lines:
            taken.append(line)
            size += sum(map(len, line[1]))
            if len(taken) >= most or size >= most_bytes:
                break
        return taken

    def keys(self, lines: Sequence[Line]) -> list[bytes] | None:
        place, width = self._place, len(self._header)
        if place is None:
            return None
        return keys_of(
            [
                id_text(values[place])
                if not isinstance(values, str) and len(values) == width and is_text("".join(values))
                else None
                for _, values, _ in lines
            ]
        )

    def raw(self, lines: Sequence[Line]) -> list[bytes] | None:
        return None

    def records(self, lines: Sequence[Line]) -> Iterator[Record]:
        return (csv_record(self._header, line, with_digest=False) for line in lines)

    def close(self) -> None:
        self._lines.close()
