"""The forms of a file: Parquet, JSON lines, CSV, CSV for Excel, the results file of an OpenAI batch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

# Form → how its file's name ends; "" for a folder. The first form of an ending is the one that the ending means.
FORMS = {
    "parquet": ".parquet",
    "jsonl": ".jsonl",
    "csv": ".csv",
    "excel": ".csv",
    "openai-batch": ".jsonl",
    "datasets": "",
}
BATCH_COLUMNS = (
    *("row_index", "row_id", "status", "task_id", "completion", "http_status"),
    *("error_code", "error_type", "error_message"),
)
# What a spreadsheet takes for a formula, also behind blanks and unseen letters, and the full-width forms of the signs.
# Source: OWASP, "CSV Injection".
_FORMULA = "\\A([\\s\\x00\\x{feff}\\x{200b}-\\x{200f}\\x{a0}]*[=+\\-@＝＋－＠]|[\\t\\r\\n])"
_BOM = "\ufeff".encode()  # without it Excel takes UTF-8 for the machine's old code page

_Write = Callable[[pa.Table], None]


@contextlib.contextmanager
def open_writer(path: Path, form: str, schema: pa.Schema) -> Iterator[_Write]:
    """Takes tables of this schema, and closes the file behind the last."""
    if form == "parquet":
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            yield lambda table: writer.write_table(table.cast(schema))
    elif form in ("csv", "excel"):
        with _csv_writer(path, schema, for_excel=form == "excel") as write:
            yield write
    else:
        write_table = _write_lines if form == "jsonl" else _write_batch
        with path.open("wb") as file:
            yield lambda table: write_table(file, table)


@contextlib.contextmanager
def _csv_writer(path: Path, schema: pa.Schema, *, for_excel: bool) -> Iterator[_Write]:
    names = [_disarm(pa.array([name]))[0].as_py() if for_excel else name for name in schema.names]
    flat = pa.schema([pa.field(name, pa.string()) for name in names])
    with path.open("wb") as file:
        if for_excel:
            file.write(_BOM)
        with pa.csv.CSVWriter(file, flat) as writer:
            yield lambda table: writer.write_table(_flatten(table, flat, for_excel=for_excel))


def _flatten(table: pa.Table, flat: pa.Schema, *, for_excel: bool) -> pa.Table:
    """Every value as text: lists and objects as JSON, times in ISO form."""
    arrays = []
    for column in table.columns:
        kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            values = [None if value is None else _to_json(value).decode() for value in column.to_pylist()]
            arrays.append(pa.array(values, pa.string()))
            continue
        text = column.cast(pa.string())
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        arrays.append(_disarm(text) if for_excel and not is_number else text)
    return pa.Table.from_arrays(arrays, schema=flat)


def _disarm(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Text that a spreadsheet would take for a formula, behind an apostrophe: then it shows it as it is."""
    return pc.replace_substring_regex(text, pattern=_FORMULA, replacement="'\\1", max_replacements=1)


def _write_lines(file: IO[bytes], table: pa.Table) -> None:
    """One JSON object a row; `completion` as the object it is."""
    for batch in table.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            if row.get("completion") is not None:
                row["completion"] = _as_object(row["completion"])
            file.write(_to_json(row) + b"\n")


def _write_batch(file: IO[bytes], table: pa.Table) -> None:
    """One line a row, as an OpenAI batch has them in its files of results and of errors."""
    for batch in table.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            file.write(_to_json(_batch_line(row)) + b"\n")


def _batch_line(row: dict[str, Any]) -> dict[str, Any]:
    """What the API refused has its reply and no `error`; what got no reply has an `error` and no reply."""
    line = {"id": f"batch_req_{row['row_index']}", "custom_id": row["row_id"], "response": None, "error": None}
    if row["status"] == "completed" and row["completion"] is not None:
        line["response"] = _response(row, 200, _as_object(row["completion"]))
        return line
    code, message = row["error_code"] or row["error_type"] or row["status"], row["error_message"] or ""
    if row["status"] == "failed" and (row["http_status"] or 0) >= 400:
        error = {"message": message, "type": row["error_type"], "param": None, "code": code}
        line["response"] = _response(row, row["http_status"], {"error": error})
    else:
        line["error"] = {"code": code, "message": message}
    return line


def _response(row: dict[str, Any], status: int, body: Any) -> dict[str, Any]:
    return {"status_code": status, "request_id": row["task_id"] or "", "body": body}


def _as_object(text: str) -> Any:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return msgspec.Raw(text.encode())


def _to_json(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=str)
