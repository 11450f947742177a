"""What `[input] path` names: the files with the rows, in order.

A folder or pattern never leads into an output (a folder that holds `_batchfox/`), or a second run would read the
results of the first. Naming an output's `data/` outright is allowed: one job's results may be another's input.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from batchfox.core.nearest import nearest
from batchfox.errors import InputError
from batchfox.media_rows import is_media

STDIN = "-"
GONE = "the working directory is gone (relative paths start there): cd to one that exists"
OWN_FOLDER = "_batchfox"
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".ndjson.zst": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
}
_MAGIC = re.compile(r"[*?\[]")


def kind_of(path: str) -> str | None:
    """ "jsonl", "parquet" or "csv" by the name's ending, "media" for a folder of those; None for any other."""
    if path.endswith("/"):
        return "media"
    name = Path(path).name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


def say_no_output(folder: Path, missing: Path) -> str:
    """What to tell who named a folder that holds no output: what it lacks, and the output that was perhaps meant."""
    if folder.is_file():
        return f"{folder}: no output of batchfox but a file; name the folder that the job's [output] path names"
    try:
        beside = [str(near) for near in folder.parent.iterdir() if near != folder and (near / OWN_FOLDER).is_dir()]
    except OSError:
        beside = []
    near = (
        nearest(str(folder), beside) or "; name the folder that the job's [output] path names: the first run makes it"
    )
    return f"{folder}: no output of batchfox (there is no folder {missing}){near}"


def list_files(paths: Sequence[str]) -> list[str]:
    """The files of these paths (files, globs, folders, "-"), each once.

    Raises `InputError` that says which path is wrong, and what there is instead.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(GONE) from error
    return list(dict.fromkeys(itertools.chain.from_iterable(_expand_safely(path) for path in paths)))


def refuse_own_output(files: Iterable[str], outputs: Iterable[Path]) -> None:
    """Raises `InputError` where a file was named outright that one of these outputs, the job's own, has written."""
    written = {os.path.realpath(root / name) for root in outputs for name in ("data", OWN_FOLDER)}
    for file in files:
        if file == STDIN:
            continue
        real = Path(file).resolve()
        if own := next((str(parent) for parent in real.parents if str(parent) in written), None):
            raise InputError(f"{file}: lies in this job's own output ({own}); choose another [input] or [output] path")


def _expand_safely(path: str) -> list[str]:
    """A name that the system does not take, and a folder that it does not show, are told as the input's fault."""
    try:
        return _expand(path)
    except OSError as error:
        raise InputError(f"{error.filename or path}: {error.strerror or error}") from error


def _expand(path: str) -> list[str]:
    if path == STDIN:
        return [path]
    place = Path(path)
    if place.is_dir():
        return _walk(path)
    if place.exists():
        if kind_of(path) is None:
            raise InputError(f"{path}: unknown type of file; supported are {', '.join(SUFFIXES)}")
        if not place.is_file():
            raise InputError(
                f"{path}: no regular file, and the input is read more than once; "
                f"JSONL from a pipe is taken on standard input: --input - < {path}"
            )
        return [path]
    base = _fixed_part(path)
    found = sorted(
        file
        for file in glob.glob(path, recursive=True)  # noqa: PTH207
        if kind_of(file) and Path(file).is_file() and not _is_in_output(Path(file), base)
    )
    if not found:
        raise InputError(f"{path}: {_say_missing(path, place)}")
    return found


def _walk(path: str) -> list[str]:
    """Every input file below a folder, outputs and hidden ones (`.x`, `_x`) aside; where there is none, but images,
    videos or audio, the folder itself, with a "/" at its end."""
    if (Path(path) / OWN_FOLDER).is_dir():
        raise InputError(f"{path}: an output of batchfox; to read its results, name {Path(path) / 'data'}")
    found: list[str] = []
    outputs = 0
    has_media = False
    for folder, below, names in os.walk(path):
        if OWN_FOLDER in below:
            outputs += 1
            below.clear()
            continue
        below[:] = [name for name in below if not _is_hidden(name)]
        shown = [name for name in names if not _is_hidden(name)]
        found += (str(Path(folder) / name) for name in shown if kind_of(name))
        has_media = has_media or any(map(is_media, shown))
    found = sorted(file for file in found if Path(file).is_file())
    if not found and has_media:
        return [f"{path.rstrip('/')}/"]
    if not found:
        skipped = f" (outputs of batchfox in it are passed over: {outputs})" if outputs else ""
        raise InputError(
            f"{path}: a folder without input files{skipped}; supported are {', '.join(SUFFIXES)}, or "
            "a folder of images, videos or audio"
        )
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _fixed_part(pattern: str) -> Path:
    """The folder that a pattern starts from: all steps before the first with a wildcard."""
    steps = itertools.takewhile(lambda step: not _MAGIC.search(step), Path(pattern).parts)
    return Path(*steps)


def _is_in_output(file: Path, base: Path) -> bool:
    """Does a pattern's wildcard lead into an output? `base`: where it starts from."""
    return any((folder / OWN_FOLDER).is_dir() for folder in _between(file, base))


def _between(file: Path, base: Path) -> Iterator[Path]:
    """The folders from a file up to the base, both ends included."""
    for folder in file.parents:
        yield folder
        if folder == base:
            return


def _say_missing(path: str, place: Path) -> str:
    if _MAGIC.search(path):
        return f"no input file matches this pattern; supported are {', '.join(SUFFIXES)}"
    near = [str(file) for file in place.parent.iterdir()] if place.parent.is_dir() else []
    return f"no such file or folder{nearest(path, near)} (relative paths start at the working directory)"
