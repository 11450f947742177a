"""Job files: read from disk, overridden from the command line, written back with the defaults filled in."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from batchfox.core.job import SIMULATOR, Job
from batchfox.errors import JobError, UserError


def load_job(
    path: str | Path | None, *, sets: Sequence[str] = (), tables: Mapping[str, Mapping[str, Any]] | None = None
) -> Job:
    """The job in a TOML file, with `sets` ("section.key=value") and `tables` on top; from those alone without a path.

    Raises `JobError`: what is wrong, at which key or line, and what was expected.
    """
    data = _read(Path(path)) if path is not None else {}
    for section, values in (tables or {}).items():
        data.setdefault(section, {}).update(values)
    for text in sets:
        _set(data, text)
    if path is not None:
        data.setdefault("name", Path(path).stem)
    try:
        return Job.from_dict(data)
    except JobError as error:
        raise JobError(f"{path}: {error}" if path is not None else str(error)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        near = _jobs_near(path)
        hint = f"; there {'is' if len(near) == 1 else 'are'} {', '.join(near)}" if near else ""
        raise JobError(f"{path}: no such job file{hint}") from error
    except IsADirectoryError as error:
        raise JobError(f"{path}: a folder; a job is a TOML file") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: not UTF-8 text; a job is a TOML file") from error
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"{path}: no valid TOML: {error}") from error


def _jobs_near(path: Path, most: int = 5) -> list[str]:
    """The job files beside this path and in `jobs/` there, those with the likest names first."""
    folders = [path.parent, path.parent / "jobs"]
    found = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.toml"))[:100]]
    likeness = {file: SequenceMatcher(None, file.stem, path.stem).ratio() for file in found if _is_job(file)}
    return [str(file) for file in sorted(likeness, key=lambda file: -likeness[file])[:most]]


def _is_job(path: Path) -> bool:
    """Other TOML files (pyproject.toml) are no jobs."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return "input" in data and "output" in data


def _set(data: dict[str, Any], text: str) -> None:
    """Applies one `--set SECTION.KEY=VALUE`; the value is TOML, else text."""
    name, separator, value = text.partition("=")
    steps = [step.strip() for step in name.strip().split(".")]
    if not separator or not all(steps):
        raise JobError(f"--set {text}: expected SECTION.KEY=VALUE, as in --set limits.in_flight=50")
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    table = data
    for step in steps[:-1]:
        table = table.setdefault(step, {})
        if not isinstance(table, dict):
            raise JobError(f"--set {text}: {step} is no table")
    table[steps[-1]] = parsed


def job_toml(job: Job) -> str:
    """The job as TOML, defaults filled in. It holds no secret: the key is not part of a job."""
    import tomli_w

    return tomli_w.dumps(job.to_dict())


def find_key(job: Job) -> str:
    """The API key, from the environment or a `.env` file at or above the working directory.

    Raises `UserError` that says where to put it. The simulator takes any key.
    """
    if job.api.base_url == SIMULATOR:
        return "sk-simulator"
    return find_key_named(job.api.key_env)


def find_key_named(name: str) -> str:
    """The key under this name. Raises `UserError`."""
    from dotenv import dotenv_values, find_dotenv

    key = os.environ.get(name) or dotenv_values(find_dotenv(usecwd=True)).get(name) or ""
    key = key.strip()
    if not key:
        raise UserError(
            f"no API key: set the environment variable {name}, or put the line {name}=sk-... into a file named .env "
            '(api.key_env names the variable; base_url = "simulator" needs no key)'
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"the API key in {name} has characters that no key has (spaces, line breaks, non-ASCII)")
    return key
