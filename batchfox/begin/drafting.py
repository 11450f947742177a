"""`begin`: data → a job file that runs. The guess is `core/guess.py`'s; here it meets the disk."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from batchfox.begin.sampling import Sample, take_sample, weigh
from batchfox.core.draft import draft
from batchfox.core.glance import Column
from batchfox.core.guess import Guess, guess
from batchfox.core.job import Job
from batchfox.core.secret import Secret
from batchfox.errors import JobError, UserError
from batchfox.jobfile import load_job, secret_of
from batchfox.words import count

CHECKED_ROWS = 100
CHECKED_BYTES = 32 << 20
# Of so many rows local media are read, too: they may be large.
READ_ROWS = 3


class Drafted(msgspec.Struct, kw_only=True):
    """What `begin` saw and wrote. `checked`: rows that were tried with the job, `refused` of them with the first
    reason, which a run would end as invalid. `secret`: the key, should the data hold it."""

    path: str
    job_path: Path
    sample: Sample
    guess: Guess
    columns: list[Column]
    declared: dict[str, str]
    notes: list[str]
    secret: Secret
    checked: int = 0
    refused: int = 0
    reason: str = ""


def begin(path: str, job_path: Path | None, *, command: str, is_forced: bool) -> Drafted:
    """Looks at the input, writes the job file, tries the first rows with it.

    Raises `UserError` where the job file exists (`is_forced` aside), `InputError` for the input.
    """
    secret = secret_of(Job.from_dict({"input": {"path": path}, "output": {"path": "out"}}))
    job_path = job_path or Path(f"{_name(path)}.toml")
    _refuse_place(path, job_path, is_forced=is_forced)
    sample = take_sample(path)
    found = guess(sample.glance, is_whole=sample.is_whole)
    columns = sample.glance.columns()
    root, missing = _find_root(found.paths, path, sample.files)
    notes = list(found.notes)
    if missing:
        notes.append(f"local media such as {missing} are not found: set [media] root to the folder they lie in")
    text = draft(
        found,
        command=command,
        path=path,
        job_path=str(job_path),
        output=_free(f"out/{_name(path)}"),
        columns=[column.name for column in columns],
        id_note=_say_unique(sample),
        root=root,
    )
    _write(job_path, secret.hide(text), is_forced=is_forced)
    drafted = Drafted(
        path=path,
        job_path=job_path,
        sample=sample,
        guess=found,
        columns=columns,
        declared=_declared(sample),
        notes=notes,
        secret=secret,
    )
    _try(drafted)
    return drafted


def _say_unique(sample: Sample) -> str:
    if sample.is_whole:
        return "unique in all rows"
    return f"unique in the {count(sample.glance.rows, 'row')} looked at; `validate` looks at all"


def _name(path: str) -> str:
    """A name for the job: the input's, without its endings."""
    name = re.sub(r"[*?\[\]{}]+", "", Path(path.rstrip("/")).name or Path.cwd().name)
    stem = re.sub(r"(?i)(\.(jsonl|ndjson|parquet|csv|gz|zst))+$", "", name).strip(". ")
    stem = re.sub(r"[^\w.-]+", "_", stem).strip("_-")
    return stem or "job"


def _free(folder: str) -> str:
    """A new job gets an output of its own."""
    numbered = (f"{folder}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([folder], numbered) if not Path(name).exists())


def _refuse_place(path: str, job_path: Path, *, is_forced: bool) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path!r}: a job file is UTF-8 text, and this name is not: rename it") from error
    if job_path.is_dir():
        raise UserError(f"{job_path}: a folder; --output names the job file to write")
    if job_path.suffix.lower() != ".toml":
        raise UserError(f"{job_path}: a job file ends in .toml")
    if job_path.exists() and not is_forced:
        raise UserError(f"{job_path}: exists already; --force replaces it, --output JOB.toml names another")
    if not job_path.parent.is_dir():
        raise UserError(f"{job_path}: there is no folder {job_path.parent}")


def _write(path: Path, text: str, *, is_forced: bool) -> None:
    """The file appears whole or not at all, and takes nobody's place unless forced. Raises `UserError`."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        if is_forced:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # unlike a rename, it fails where somebody was quicker
    except FileExistsError as error:
        raise UserError(f"{path}: exists already; --force replaces it") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; nothing was written") from error
    finally:
        temporary.unlink(missing_ok=True)


# -- local media ------------------------------------------------------------------------------------------------------


def _find_root(paths: list[str], given: str, files: list[str]) -> tuple[str | None, str]:
    """The folder that local media lie below, None where there are none; and one that is not found there, or ""."""
    plain = [unquote(urlsplit(path).path) if path.lower().startswith("file:") else path for path in paths]
    if not plain:
        return None, ""
    absolute = [path for path in plain if Path(path).is_absolute()]
    if len(absolute) == len(plain):
        root = os.path.commonpath([str(Path(path).parent) for path in plain])
        return root, next((path for path in plain if not Path(path).is_file()), "")
    folder = Path(files[0]) if Path(given).is_dir() else Path(files[0]).parent
    candidates = list(dict.fromkeys((".", given if Path(given).is_dir() else ".", str(folder), str(folder.parent))))
    missing = {root: [path for path in plain if not (Path(root) / path).is_file()] for root in candidates}
    best = min(candidates, key=lambda root: len(missing[root]))
    return best, missing[best][0] if missing[best] else ""


# -- what the draft is worth ------------------------------------------------------------------------------------------


def _declared(sample: Sample) -> dict[str, str]:
    """The types that Parquet declares, by the names that people know."""
    if not sample.files[0].lower().endswith(".parquet"):
        return {}
    from batchfox.source import open_source

    types = open_source(sample.files[:1], id_column=None, with_digest=False).types or {}
    return {name: str(kind).partition("[")[0].partition("(")[0].partition("<")[0] for name, kind in types.items()}


def _try(drafted: Drafted) -> None:
    """The first rows with the job as it stands there, as `validate` would look at them."""
    from batchfox.core.lifecycle import Life
    from batchfox.core.prepare import Invalid
    from batchfox.survey.surveyor import Surveyor

    left = CHECKED_BYTES
    try:
        surveyor = Surveyor(load_job(drafted.job_path))
        for batch in surveyor.batches():
            for row in batch[: CHECKED_ROWS - drafted.checked]:
                drafted.checked += 1
                left -= weigh(row)
                prepared = surveyor.prepare(row, with_files=drafted.checked <= READ_ROWS)
                if isinstance(prepared, Life):
                    continue
                drafted.refused += 1
                said = (prepared.error.message or "") if isinstance(prepared, Invalid) else prepared[0].message
                drafted.reason = drafted.reason or said
            if drafted.checked >= CHECKED_ROWS or left < 0:
                return
    except JobError as error:
        drafted.notes.append(f"the job does not run as it is: {error}")
