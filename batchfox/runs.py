"""`_batchfox/runs.jsonl`: one line for each time that a job was run, its resumes too, in the order of their ends.

The checkpoint knows of the last execution what a line says, and whether there is one shows in the file itself. So
whoever comes next, the same process at its end or a later one after a kill, writes the line that is missing.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Literal

import msgspec

from batchfox.checkpoint import Checkpoint
from batchfox.core.drift import Sums, pool
from batchfox.durable import sync_folder

# In `meta`: the execution that began last.
LAST = "execution"
# So much of the file's end holds the line of the last execution.
_TAIL_BYTES = 256 << 10


class Ran(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One execution. Times are unix seconds, figures are its own, not those of the run it resumed.

    `how`: it ended; it died (`ended_at` is then its last sign of life, and there is no `exit_status`); it is running.
    `rows`: settled, `by_status` how. `completed_before`: rows of the input that were completed already. `submits`:
    POSTs that were or may have been billed. `reason`: why it stopped early, `stopped` the
    same in a word. `figures`: of its answers, which those of later runs are held against.
    """

    run_id: str
    run_date: str
    begun_at: float
    ended_at: float
    how: Literal["ended", "died", "running"]
    exit_status: int | None = None
    is_resume: bool = False
    is_finished: bool = False
    is_limited: bool = False
    rows: int = 0
    by_status: dict[str, int] = {}
    completed_before: int = 0
    submits: int = 0
    polls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    credits: float = 0.0
    duration_s: float = 0.0
    reason: str | None = None
    stopped: str | None = None
    figures: Sums | None = None

    @property
    def not_completed(self) -> int:
        return self.rows - self.by_status.get("completed", 0)


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    begun_at: float
    is_resume: bool


_decode = msgspec.json.Decoder(Ran).decode


def note_begin(db: sqlite3.Connection, run_id: str, unix_s: float, *, is_resume: bool) -> None:
    """An execution begins: on record with the transaction that this is part of."""
    begun = _Begun(run_id=run_id, begun_at=unix_s, is_resume=is_resume)
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (LAST, msgspec.json.encode(begun)))


def list_last(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the line of the last execution, which has ended or died, where it is missing. Raises `OSError`."""
    ran = last_of(checkpoint, is_running=False)
    if ran is not None and not any(_is_same(ran, line) for line in _read(path, _TAIL_BYTES)):
        _append(path, msgspec.json.encode(ran))


def read_runs(folder: Path) -> list[Ran]:
    """Those of an output (its folder), the oldest first; without the one that is running, or that died last. A line
    that cannot be read is passed over."""
    return _read(folder / "_batchfox" / "runs.jsonl")


def figures_before(folder: Path, most: int, since: str | None) -> Sums:
    """Those of the last runs of an output that settled something, from a day on; without those that the guard
    stopped."""
    settled = (ran for ran in read_runs(folder) if ran.figures is not None and ran.stopped != "guard")
    found = [ran.figures for ran in settled if since is None or ran.run_date >= since]
    return pool(figures for figures in found[-most:] if figures is not None)


def all_runs(folder: Path, checkpoint: Checkpoint, *, is_running: bool) -> list[Ran]:
    """The same, with the last one whatever it is doing."""
    runs = read_runs(folder)
    last = last_of(checkpoint, is_running=is_running)
    return runs if last is None or any(_is_same(last, line) for line in runs) else [*runs, last]


def last_of(checkpoint: Checkpoint, *, is_running: bool) -> Ran | None:
    """The last execution, by what the checkpoint knows of it."""
    if (kept := checkpoint.get(LAST)) is None:
        return None
    begun = msgspec.json.decode(kept, type=_Begun)
    sql = "SELECT run_date, beat_at, ended_at, exit_status, is_finished, progress FROM run WHERE run_id = ?"
    if not (rows := checkpoint.query(sql, (begun.run_id,))):
        return None
    run_date, beat_at, ended_at, exit_status, is_finished, progress = rows[0]
    # Until its first beat the figures are those that the execution before it left.
    is_told = progress is not None and (beat_at != begun.begun_at or ended_at is not None)
    figures: dict[str, Any] = checkpoint.figures(progress) if is_told else {}
    return Ran(
        run_id=begun.run_id,
        run_date=run_date,
        begun_at=begun.begun_at,
        ended_at=beat_at if ended_at is None else ended_at,
        how="ended" if ended_at is not None else "running" if is_running else "died",
        exit_status=exit_status,
        is_resume=begun.is_resume,
        is_finished=bool(is_finished),
        **_figures_of(figures),
    )


def _figures_of(figures: dict[str, Any]) -> dict[str, Any]:
    here, fed = figures.get("here", {}), figures.get("fed", {})
    by_status = figures.get("by_status", {})
    return {
        "is_limited": fed.get("is_limited", False),
        "rows": sum(by_status.values()),
        "by_status": by_status,
        "completed_before": fed.get("completed_before", 0),
        "submits": here.get("submits", 0),
        "polls": here.get("polls", 0),
        "prompt_tokens": here.get("prompt_tokens", 0),
        "completion_tokens": here.get("completion_tokens", 0),
        "credits": here.get("credits_spent", 0.0),
        "duration_s": here.get("elapsed_s", 0.0),
        "reason": figures.get("reason"),
        "stopped": figures.get("stopped"),
        "figures": msgspec.convert(figures["drift"], Sums) if figures.get("drift") else None,
    }


def _is_same(one: Ran, other: Ran) -> bool:
    return (one.run_id, one.begun_at) == (other.run_id, other.begun_at)


def _read(path: Path, most_bytes: int | None = None) -> list[Ran]:
    try:
        with path.open("rb") as file:
            if most_bytes is not None:
                file.seek(max(os.fstat(file.fileno()).st_size - most_bytes, 0))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(_decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # cut by a full disk or a kill, or the middle of a line
    return found


def _append(path: Path, line: bytes) -> None:
    is_new = not path.exists()
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)
