"""The results as one file, or one folder for `datasets`, in input order and in bounded memory."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchfox.arrow_types import without_views
from batchfox.core.nearest import nearest
from batchfox.core.outcome import STATUSES
from batchfox.durable import rename, whole_or_not
from batchfox.errors import OutputError, UserError
from batchfox.export.dataset import is_dataset, write_dataset
from batchfox.export.forms import BATCH_COLUMNS, FORMS, open_writer
from batchfox.export.ordering import in_order as in_order
from batchfox.part_names import part_paths as part_paths
from batchfox.parts import say_unreadable
from batchfox.paths import OWN_FOLDER


def export(
    folder: Path, target: Path, *, form: str | None = None, columns: Sequence[str] = (), statuses: Sequence[str] = ()
) -> int:
    """Writes `target`, whole or not at all, over what is there. Returns its rows.

    `form`: one of `FORMS`; None: by the suffix of `target`. `columns` and `statuses` choose; empty means all. Raises
    `UserError` or `OutputError`.
    """
    form = form_of(target, form)
    for status in statuses:
        if status not in STATUSES:
            raise UserError(f"--status {status}: no such status{nearest(status, STATUSES)}")
    if columns and form == "openai-batch":
        raise UserError("--columns: the form openai-batch has its own; choose rows with --status")
    paths = part_paths(folder)
    refuse_target(target)
    schema = _schema_of(paths, BATCH_COLUMNS if form == "openai-batch" else columns)
    tables = in_order(paths, schema.names, statuses)
    if form == "datasets":
        return _write_folder(target, schema, tables)
    with whole_or_not(target) as temporary:
        return _write_file(temporary, form, schema, tables)


def _write_folder(target: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Whole or not at all, as a file."""
    temporary = target.with_name(f".{target.name}.part")
    try:
        _remove(temporary)
        rows = write_dataset(temporary, schema, tables)
        _replace_dataset(temporary, target)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror or error}; nothing was written") from error
    finally:
        with contextlib.suppress(OSError):
            _remove(temporary)
    return rows


def form_of(target: Path, form: str | None) -> str:
    """The form that `target` is written in. Raises `UserError` where its name and the form asked for disagree."""
    suffix = target.suffix.lower()
    if form is None:
        found = next((name for name, ending in FORMS.items() if ending and ending == suffix), None)
        if found is None:
            raise UserError(
                f'{target}: unknown format "{suffix}"; there are {", ".join(sorted({*FORMS.values()} - {""}))}, and '
                "--format datasets for a folder"
            )
        return found
    if form not in FORMS:
        raise UserError(f"--format {form}: no such format{nearest(form, FORMS)}; there are {', '.join(FORMS)}")
    if FORMS[form] and suffix != FORMS[form]:
        raise UserError(f"{target}: --format {form} writes a file that ends in {FORMS[form]}")
    if not FORMS[form] and suffix and suffix in FORMS.values():
        raise UserError(f"{target}: --format {form} writes a folder; give it a name without {suffix}")
    return form


def names_in(words: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names that stand in an option's values, parted by commas; a name that itself holds a comma is known whole."""
    whole = set(known)
    return [name for word in words for name in ([word] if word in whole else word.split(","))]


def columns_of(folder: Path) -> list[str]:
    """The columns of an output. Raises `OutputError`."""
    return list(_schema_of(part_paths(folder), ()).names)


def refuse_target(target: Path) -> None:
    """Raises `UserError` for a file among the parts or the records of an output: it would be in the way of the next
    run."""
    place = target.absolute().parent.resolve() / target.name
    for near in (place, *place.parents):
        if near.name in ("data", OWN_FOLDER) and (near.parent / OWN_FOLDER).is_dir():
            raise UserError(f"{target}: lies in an output ({near}), where nothing but its own files may be")


def _schema_of(paths: list[Path], columns: Sequence[str]) -> pa.Schema:
    try:
        schema = without_views(pq.read_schema(paths[-1]).empty_table()).schema
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise OutputError(f"{paths[-1]}: {say_unreadable(error, paths[-1])}") from error
    for name in columns:
        if name not in schema.names:
            raise UserError(
                f"--columns {name}: no such column{nearest(name, schema.names)}; there are {', '.join(schema.names)}"
            )
    chosen = dict.fromkeys(columns)
    return pa.schema([schema.field(name) for name in chosen]) if chosen else schema.remove_metadata()


def _write_file(path: Path, form: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    rows = 0
    with open_writer(path, form, schema) as write:
        for table in tables:
            write(table)
            rows += table.num_rows
            del table
            pa.default_memory_pool().release_unused()
    return rows


def _replace_dataset(temporary: Path, target: Path) -> None:
    """Puts a folder in its place; an older one that was exported before goes. Any other is left alone."""
    if not target.exists():
        rename(temporary, target)
        return
    if not is_dataset(target):
        raise UserError(f"{target}: is no folder that was exported before; give another name, or remove it yourself")
    aside = target.with_name(f".{target.name}.old")
    _remove(aside)
    rename(target, aside)
    rename(temporary, target)
    _remove(aside)


def _remove(path: Path) -> None:
    """Whatever has this name is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


__all__ = ["FORMS", "columns_of", "export", "form_of", "in_order", "names_in", "part_paths", "refuse_target"]
