"""Job files: read from disk, overridden from the command line, written back with the defaults filled in."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from batchfox.core.job import Job
from batchfox.core.secret import NO_SECRET, Secret
from batchfox.core.sections import SIMULATOR
from batchfox.errors import JobError, UserError
from batchfox.paths import GONE
from batchfox.words import shorten


def load_job(
    path: str | Path | None, *, sets: Sequence[str] = (), tables: Mapping[str, Mapping[str, Any]] | None = None
) -> Job:
    """The job in a TOML file, with `sets` ("section.key=value") and `tables` on top; from those alone without a path.

    Raises `JobError`: what is wrong, at which key or line, and what was expected.
    """
    data = _read(Path(path)) if path is not None else {}
    for section, values in (tables or {}).items():
        if isinstance(table := data.setdefault(section, {}), dict):  # what is no table, `from_dict` refuses
            table.update(values)
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
        text = path.read_text(encoding="utf-8-sig")
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
    except ValueError as error:  # a name with a NUL in it
        raise JobError(f"{str(path)!r}: {error}") from error
    try:
        return _parse(text)
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"{path}: no valid TOML: {error}") from error
    except _TooMuchError as error:
        raise JobError(f"{path}: {error}") from error


class _TooMuchError(ValueError):
    """TOML that no job needs, and that the parser cannot hold."""


def _parse(text: str) -> dict[str, Any]:
    """The tables. Raises `TOMLDecodeError`, `_TooMuchError`."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise _TooMuchError("lists or tables are nested too deep") from error
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # Python reads no integer of more digits than this
        raise _TooMuchError("a number has too many digits; an integer has 64 bits at most") from error


def _jobs_near(path: Path, most: int = 5) -> list[str]:
    """The job files beside this path and in `jobs/` there, those with the likest names first."""
    folders = [path.parent, path.parent / "jobs"]
    found = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.toml"))[:100]]
    likeness = {file: SequenceMatcher(None, file.stem, path.stem).ratio() for file in found if is_job(file)}
    return [str(file) for file in sorted(likeness, key=lambda file: -likeness[file])[:most]]


def is_job(path: Path) -> bool:
    """Is this TOML file a job? Others (pyproject.toml) are none."""
    try:
        data = _parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return "input" in data and "output" in data


def _set(data: dict[str, Any], text: str) -> None:
    """Applies one `--set SECTION.KEY=VALUE`; the value is TOML, else text."""
    name, separator, value = text.partition("=")
    steps = [step.strip() for step in name.strip().split(".")]
    said = f"--set {shorten(text)}"
    if not separator or not all(steps):
        raise JobError(f"{said}: expected SECTION.KEY=VALUE, as in --set limits.in_flight=50")
    table = data
    for step in steps[:-1]:
        table = _table(table, step, said)
    table[steps[-1]] = _value(value, said)


def read_set(text: str) -> tuple[str, Any]:
    """`SECTION.KEY=VALUE` as its key and its value, which is TOML, else text. Raises `JobError`."""
    name, separator, value = text.partition("=")
    said = shorten(text)
    if not separator or not name.strip():
        raise JobError(f"{said}: expected SECTION.KEY=VALUE, as in limits.in_flight=50")
    return name.strip(), _value(value, said)


def _value(text: str, said: str) -> Any:
    """What stands after the `=` of a `--set`, which `said` shows."""
    try:
        parsed = _parse(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except _TooMuchError as error:
        raise JobError(f"{said}: {error}; a text that looks like it goes into quotes") from error
    value = parsed.pop("value")
    if parsed:
        raise JobError(
            f"{said}: further lines of TOML follow the value ({', '.join(map(shorten, parsed))}): one key each, "
            "--set A=1 --set B=2; a text of several lines goes into quotes"
        )
    return value


def _table(data: dict[str, Any], name: str, said: str) -> dict[str, Any]:
    """The table of this name in a table, made where it is missing. Raises `JobError` where it is something else."""
    table = data.setdefault(name, {})
    if not isinstance(table, dict):
        raise JobError(f"{said}: {name} is no table")
    return table


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


def secret_of(job: Job) -> Secret:
    """The key as what is to be hidden; none where there is none, or where it cannot be had."""
    try:
        return Secret(find_key(job))
    except UserError:
        return NO_SECRET


def refuse_key_in_job(job: Job, secret: Secret) -> None:
    """Raises `JobError` where `[request]`, `[hooks]` or `[notify]` holds the key: the job is kept beside the output,
    and every row would send it, or others would be told."""
    if job.api.base_url == SIMULATOR:
        return
    kept = {f"request.{name}": value for name, value in job.request.items()}
    kept |= {"hooks.after": job.hooks.after, "notify.urls": job.notify.urls, "notify.webhook": job.notify.webhook}
    for name, value in kept.items():
        if secret.hide_in(value) != value:
            raise JobError(
                f"{name}: holds the API key itself: take it out; the key comes from the environment variable "
                f"{job.api.key_env} or a .env file, and belongs into no job"
            )


def find_key_named(name: str) -> str:
    """The key under this name. Raises `UserError`."""
    key = value_named(name)
    key = key.strip()
    if not key:
        raise UserError(
            f"no API key: set the environment variable {name}, or put the line {name}=sk-... into a file named .env "
            '(api.key_env names the variable; base_url = "simulator" needs no key)'
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"the API key in {name} has characters that no key has (spaces, line breaks, non-ASCII)")
    return key


def value_named(name: str) -> str:
    """What the environment, or else a `.env` file, holds under this name; "" where neither does. Raises `UserError`."""
    return os.environ.get(name) or _key_in_file(name)


def _key_in_file(name: str) -> str:
    """The key under this name in the nearest `.env` file; "" where there is none. Raises `UserError`."""
    from dotenv import dotenv_values, find_dotenv

    try:
        path = find_dotenv(usecwd=True)
    except FileNotFoundError as error:
        raise UserError(f"no API key: {name} is not set, and {GONE}") from error
    try:
        return dotenv_values(path, encoding="utf-8-sig").get(name) or ""
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 text, so the key cannot be read: save the file as UTF-8, not as UTF-16 (which "
            f"Windows calls Unicode), or set the environment variable {name}"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; mend that, or set the environment variable {name}") from error
