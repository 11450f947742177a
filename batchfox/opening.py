"""Opening an output for a job: which folder, held by whom, begun with which job, which run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from batchfox import history
from batchfox.checkpoint import Checkpoint
from batchfox.core.change import Change, changes_of_meaning, refused_changes
from batchfox.core.job import Job
from batchfox.durable import rename, write_text
from batchfox.errors import JobError, OutputError
from batchfox.jobfile import job_toml
from batchfox.output import Output, dated_folders, hold, is_dated, move_aside, resolve_path
from batchfox.sqlite_border import repair_words
from batchfox.stale import ASKED
from batchfox.words import count

if TYPE_CHECKING:
    from batchfox.folders import Folders


def output_root(job: Job, unix_s: float) -> Path:
    """Where this job's output is now: an unfinished run's own folder first, else where its path leads today."""
    today = history.run_date_of(job, unix_s)
    if is_dated(job.output.path):
        for folder in reversed(dated_folders(job)):
            path = Output(folder, job.output.checkpoint).checkpoint_path
            if path.exists():
                with contextlib.closing(Checkpoint(path, read_only=True)) as checkpoint:
                    if history.unfinished_run(checkpoint) is not None:
                        return folder
    return Path(resolve_path(job.output.path, run_date=today, job_name=job.name))


def open_output(stack: contextlib.ExitStack, job: Job, root: Path, *, fresh: bool) -> Output:
    """Holds the output until the stack closes; with `fresh` the old one is moved aside first.

    Raises `OutputError` where what it did cannot be known.
    """
    if fresh:
        root = root.resolve()  # what is moved is the folder itself: not a link to it, and not by the name "."
    elsewhere = job.output.checkpoint
    output = stack.enter_context(hold(root, checkpoint=elsewhere))
    if not fresh:
        refuse_lost(output)
        return output
    if not output.is_begun and not _parts_of(output):
        return output
    run_id = _last_run_id(output.checkpoint_path)
    move_aside(root, run_id)
    if elsewhere is not None:
        for suffix in ("-wal", "-shm", ""):
            if (old := Path(elsewhere + suffix)).exists():
                rename(old, Path(f"{elsewhere}.old-{run_id}{suffix}"))
    return stack.enter_context(hold(root, checkpoint=elsewhere))


def _last_run_id(path: Path) -> str:
    """For the name of what is moved aside; "unknown" where the checkpoint does not tell."""
    if not path.exists():
        return "unknown"
    try:
        with contextlib.closing(Checkpoint(path)) as old:
            rows = old.query("SELECT run_id FROM run ORDER BY rowid DESC LIMIT 1")
    except OutputError:
        return "unknown"
    return str(rows[0][0]) if rows else "unknown"


def refuse_lost(output: Output) -> None:
    """Raises `OutputError` where the checkpoint is damaged, or gone although a run was begun: another would pay for
    its rows again."""
    path = output.checkpoint_path
    found = "is missing"
    if output.is_begun:
        with contextlib.closing(Checkpoint(path, read_only=True)) as checkpoint:
            checkpoint.refuse_damage()
            if not checkpoint.is_blank:
                return
        found = "is empty"
    written = _parts_of(output)
    if output.folders.job.exists() and not written:
        raise OutputError(
            f"{path}: the checkpoint {found}, and a run was begun here: the tasks that only it knew would be paid for "
            f"again; nothing was changed: put it back, or {repair_words(path)} makes an empty one, or use --fresh"
        )
    if written:
        raise OutputError(
            f"{path}: the checkpoint {found}, and {output.folders.data} holds {count(written, 'part')}; nothing was "
            f"changed: put it back, or {repair_words(path)} makes it anew from the parts, or --fresh starts anew"
        )


def _parts_of(output: Output) -> int:
    """How many parts there are, on record or not."""
    data = output.folders.data
    return sum(1 for _ in data.glob("part-*.parquet")) if data.is_dir() else 0


def fix_job(
    checkpoint: Checkpoint, folders: Folders, job: Job, id_column: str | None, *, stale_order: str | None = None
) -> list[Change]:
    """Puts the job on record, unless `refuse_change` raises. Returns the changes that hold for new rows only.

    `stale_order`: with the job goes the order to ask the rows anew whose request changed: all (""), or those that this
    condition fits.
    """
    refuse_change(checkpoint, folders.root, job, id_column, asks_stale=stale_order is not None)
    old = checkpoint.get("job") if _has_rows(checkpoint) else None
    order = {} if stale_order is None else {ASKED: stale_order}
    checkpoint.put(job=msgspec.json.encode(job.to_dict()), id_column=id_column or "", **order)
    write_text(job_toml(job), folders.tmp / "job.toml", folders.job)
    return [] if old is None else changes_of_meaning(msgspec.json.decode(old), job.to_dict())


def refuse_change(
    checkpoint: Checkpoint, root: Path, job: Job, id_column: str | None, *, asks_stale: bool = False
) -> None:
    """Compares the job with the one this output was begun with. `asks_stale`: rows whose request changed are to be
    asked anew.

    Raises `JobError` with both values where rows that are answered would not match those to come.
    """
    old = checkpoint.get("job")
    if old is None or not _has_rows(checkpoint):
        return
    was, column = checkpoint.get("id_column"), id_column or ""
    if was != column:
        raise JobError(
            f'{root}: the column that names a row was "{was}", is now "{column}" ("": none), so known rows would not '
            "be recognised; put it back, choose another [output] path, or start anew with --fresh"
        )
    run = history.unfinished_run(checkpoint)
    is_unfinished = run is not None and not run.is_limited  # a trial of a few rows does not tie the job down
    has_ids = id_column is not None
    before = msgspec.json.decode(old)
    changes = refused_changes(
        before, job.to_dict(), is_unfinished=is_unfinished, has_ids=has_ids, asks_stale=asks_stale
    )
    if changes:
        anew = has_ids and not asks_stale and all(change.is_in_request for change in changes)
        stale = ", have the answered rows asked anew with --retry stale" if anew else ""
        raise JobError(
            f"{root}: the job changed since this output was begun: {'; '.join(map(str, changes))}. Rows that are "
            f"answered already would not match the others: put it back, choose another [output] path{stale}, or start "
            "anew with --fresh"
        )


def _has_rows(checkpoint: Checkpoint) -> bool:
    """Is there a row that was sent or settled? An output without any can still be begun with another job."""
    sql = "SELECT EXISTS (SELECT 1 FROM row) OR EXISTS (SELECT 1 FROM part WHERE rows > 0)"
    return bool(checkpoint.query(sql)[0][0])
