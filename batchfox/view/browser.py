"""DuckDB over the parts of an output: pages of rows, counts, one row's place. Nothing is written, nothing loaded ahead.

A search is answered once, as a table of the rows that it found: page, total and facets all come from that.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from batchfox.core.outcome import COLUMNS
from batchfox.errors import OutputError, UserError
from batchfox.part_names import parts_so_far
from batchfox.view.question import MOST_ROWS, Question, as_text, demand_column, quote, text_condition

INSTALL = "batchfox view needs DuckDB: pip install 'batchfox[view]'"
SHOWN = 240
_BASE = ("row_index", "row_id", "status", "error_code", "model", "latency_s", "credits")
_OWN_NAMES = ("filename", "file_row_number")
# Arrow's word for a type → DuckDB's, where they differ.
_TYPES = {"string": "VARCHAR", "list<string>": "VARCHAR[]", "timestamp": "TIMESTAMPTZ", "date32": "DATE"} | {
    "int64": "BIGINT", "int32": "INTEGER", "int16": "SMALLINT", "float64": "DOUBLE", "bool": "BOOLEAN"
}  # fmt: skip
_EMPTY = {name: _TYPES[kind] for name, kind in COLUMNS.items()} | {"filename": "VARCHAR", "file_row_number": "BIGINT"}
# Before there is a part: the output's own columns, and no row.
_NOTHING = f"(SELECT {', '.join(f'CAST(NULL AS {kind}) AS {name}' for name, kind in _EMPTY.items())} LIMIT 0)"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of rows. `facets`: value and rows, the commonest first, by "status" and "code"; each without regard to
    its own choice."""

    total: int
    rows: list[dict[str, Any]]
    facets: dict[str, list[tuple[str, int]]]
    version: str


class Spot(msgspec.Struct, frozen=True):
    """Where a row is: its part, and its position in it."""

    path: Path
    at: int


class Browser:
    """For one thread at a time. Raises `OutputError` where there is no output, `UserError` where DuckDB is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            import duckdb
        except ImportError as error:
            raise UserError(INSTALL) from error
        self._errors = duckdb.Error
        self._db = duckdb.connect(":memory:")
        for setting in (
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            "TimeZone = 'UTC'",
            "preserve_insertion_order = false",
            f"allowed_directories = ['{str(folder.resolve() / 'data').replace(chr(39), chr(39) * 2)}']",
            "enable_external_access = false",  # these files, and nothing else
            "lock_configuration = true",
        ):
            self._db.execute(f"SET {setting}")
        self.types: dict[str, str] = {}
        self._parts: list[tuple[str, int, int]] | None = None
        self._found: tuple[str, Question] | None = None
        self.version = ""
        self.refresh()

    def close(self) -> None:
        self._db.close()

    def refresh(self) -> bool:
        """Takes in what was written since. Was there anything?"""
        paths = parts_so_far(self._folder.resolve())
        parts = []
        for path in paths:
            try:
                state = path.stat()
            except FileNotFoundError:
                continue  # renamed over just now
            parts.append((str(path), state.st_mtime_ns, state.st_size))
        if parts == self._parts:
            return False
        source = _read(name for name, _, _ in parts) if parts else _NOTHING
        try:
            self._db.execute(f"CREATE OR REPLACE VIEW part AS SELECT * FROM {source}")
            found = self._db.execute("DESCRIBE part").fetchall()
        except self._errors as error:
            reason = str(error).partition("\n")[0]  # the rest is the question
            doctor = f"`batchfox doctor {self._folder}` says what can be done"
            raise OutputError(f"{self._folder}: cannot be read as Parquet: {reason}; {doctor}") from error
        self.types = {row[0]: row[1] for row in found if row[0] not in _OWN_NAMES}
        self._parts, self._found = parts, None
        self.version = f"{len(parts)}-{max((mtime for _, mtime, _ in parts), default=0):x}"
        return True

    def total(self) -> int:
        return self._count("SELECT count(*) FROM part")

    def _count(self, sql: str, values: list[Any] | None = None) -> int:
        found = self._db.execute(sql, values or []).fetchone()
        return int(found[0]) if found else 0

    def answer(self, question: Question, marked: dict[str, list[str]]) -> Answer:
        """One page. `marked`: mark → ids. Raises `UserError`, `OutputError`."""
        try:
            return self._answer(question, marked)
        except self._errors as error:
            if self.refresh():  # a part was renamed over while it was read
                return self._answer(question, marked)
            raise OutputError(f"{self._folder}: {error}") from error

    def _answer(self, question: Question, marked: dict[str, list[str]]) -> Answer:
        demand_column(question.sort, self.types)
        table = self._find(question) if question.has_text else "part"
        chosen, values = _choice(question, marked)
        order = f"{quote(question.sort)} {'DESC' if question.is_descending else 'ASC'} NULLS LAST, row_index, row_id"
        limit = max(min(question.limit, MOST_ROWS), 1)
        # First which rows, by few columns; then those rows alone, whole.
        spots = self._db.execute(
            f"SELECT filename, file_row_number FROM {table} WHERE {chosen} ORDER BY {order} LIMIT ? OFFSET ?",
            [*values, limit, max(question.offset, 0)],
        ).fetchall()
        names = [*_BASE, *([question.sort] if question.sort not in _BASE else [])]
        return Answer(
            total=self._count(f"SELECT count(*) FROM {table} WHERE {chosen}", values),
            rows=self._rows(spots, names),
            facets=self._facets(table, question, marked),
            version=self.version,
        )

    def _rows(self, spots: list[tuple[str, int]], names: list[str]) -> list[dict[str, Any]]:
        if not spots:
            return []
        columns = [f"left({as_text(name, self.types[name])}, {SHOWN}) AS {quote(name)}" for name in names]
        columns += [f'left({quote("text")}, {SHOWN}) AS "text"', f"left(error_message, {SHOWN}) AS error_message"]
        columns += [f"{quote('row_index')} AS _index", f"{quote('row_id')} AS _id", "filename", "file_row_number"]
        files = sorted({name for name, _ in spots})
        numbers = sorted({number for _, number in spots})
        found = self._db.execute(
            f"SELECT {', '.join(columns)} FROM {_read(files)} WHERE file_row_number IN ({', '.join(map(str, numbers))})"
        )
        heads = [head[0] for head in found.description]
        rows = {(row[-2], row[-1]): dict(zip(heads[:-2], row[:-2], strict=True)) for row in found.fetchall()}
        return [rows[spot] for spot in spots if spot in rows]

    def _find(self, question: Question) -> str:
        """The rows that a search and filters find, as a table; the last one is kept."""
        key = msgspec.structs.replace(
            question, status=None, code=None, mark=None, is_descending=False, offset=0, limit=0
        )
        if self._found != (self.version, key):
            self._found = None
            condition, values = text_condition(question, self.types)
            names = dict.fromkeys(["row_index", "row_id", "status", "error_code", question.sort])
            columns = ", ".join([*map(quote, names), *_OWN_NAMES])
            sql = f"CREATE OR REPLACE TEMP TABLE found AS SELECT {columns} FROM part WHERE {condition}"
            self._db.execute(sql, values)
            self._found = (self.version, key)
        return "found"

    def _facets(self, table: str, question: Question, marked: dict[str, list[str]]) -> dict[str, list[tuple[str, int]]]:
        found = {}
        for name, column, without in (("status", "status", {"status": None}), ("code", "error_code", {"code": None})):
            chosen, values = _choice(msgspec.structs.replace(question, **without), marked)
            sql = (
                f"SELECT {column}, count(*) FROM {table} WHERE {chosen} AND {column} IS NOT NULL GROUP BY 1 "
                "ORDER BY 2 DESC, 1 LIMIT 30"
            )
            found[name] = [(str(value), int(rows)) for value, rows in self._db.execute(sql, values).fetchall()]
        return found

    def spot(self, row_index: int, row_id: str) -> Spot | None:
        """Where this row is just now."""
        self.refresh()
        sql = "SELECT filename, file_row_number FROM part WHERE row_index = ? AND row_id = ? LIMIT 1"
        found = self._db.execute(sql, [row_index, row_id]).fetchone()
        return None if found is None else Spot(Path(found[0]), found[1])

    def finished(self, rows: list[tuple[int, str]]) -> dict[tuple[int, str], int | None]:
        """When those of these rows (row_index, row_id) that are there ended, in microseconds since 1970 UTC."""
        self.refresh()
        sql = "SELECT row_index, row_id, epoch_us(finished_at) FROM part WHERE list_contains(?::BIGINT[], row_index)"
        found = self._db.execute(sql, [[index for index, _ in rows]]).fetchall()
        wanted = set(rows)
        return {(index, row_id): moment for index, row_id, moment in found if (index, row_id) in wanted}


def _read(names: Iterable[str]) -> str:
    """These parts as a table in SQL, each row with its place."""
    listed = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    return f"read_parquet([{listed}], filename = true, file_row_number = true)"


def _choice(question: Question, marked: dict[str, list[str]]) -> tuple[str, list[Any]]:
    """What the facets and the marks choose."""
    parts, values = ["TRUE"], list[Any]()
    for column, value in (("status", question.status), ("error_code", question.code)):
        if value is not None:
            parts.append(f"{column} = ?")
            values.append(value)
    if question.mark is not None:
        is_none = question.mark == "none"
        ids = [row_id for ids in marked.values() for row_id in ids] if is_none else marked.get(question.mark, [])
        parts.append(f"{'NOT ' if is_none else ''}list_contains(?::VARCHAR[], row_id)")
        values.append(ids)
    return " AND ".join(parts), values
