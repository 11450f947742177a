"""What is wrong with an output: its checkpoint, its parts, and whether the two agree. Nothing is changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from batchfox import parts
from batchfox.checkpoint import Checkpoint
from batchfox.core.job import Job
from batchfox.doctor.agreement import compare, say_files
from batchfox.doctor.census import Census
from batchfox.doctor.rebuild import id_column_of
from batchfox.doctor.remark import Remark, note
from batchfox.doctor.salvage import ROW_COLUMNS, Remains, is_understood, sure_types
from batchfox.errors import DamagedError, JobError, OutputError
from batchfox.folders import Folders
from batchfox.history import unfinished_run
from batchfox.paths import say_no_output
from batchfox.reserve import RESERVE_BYTES
from batchfox.swap import rebuilt_path
from batchfox.words import count

MOST_NAMED = 5


def read_job(folders: Folders) -> Job | None:
    """The job that this output was begun with; None where `job.toml` is not there or cannot be read."""
    try:
        return Job.from_dict(tomllib.loads(folders.job.read_text(encoding="utf-8")))
    except (OSError, ValueError, JobError):
        return None


def find_checkpoint(folders: Folders, job: Job | None) -> Path:
    """Where the checkpoint is, or should be."""
    path = folders.own / "checkpoint.db"
    elsewhere = job.output.checkpoint if job is not None else None
    return path if path.exists() or elsewhere is None else Path(elsewhere)


class Inspector:
    """Looks at one output. Raises `OutputError` where the folder is none."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root=root)
        if not self.folders.own.is_dir():
            raise OutputError(say_no_output(root, self.folders.own))
        self.job = read_job(self.folders)
        self.path = find_checkpoint(self.folders, self.job)

    def look(self) -> Iterator[Remark]:
        """Everything there is to say."""
        yield from self._look_at_place()
        yield from self._look_at_job()
        if not self.folders.data.is_dir():
            yield Remark(what="is gone", where=str(self.folders.data), next="put it back; a run would make a new one")
            return
        with contextlib.ExitStack() as stack:
            checkpoint: Checkpoint | None = None
            try:
                checkpoint = stack.enter_context(self._open())
            except OutputError as error:
                yield self._say_unusable(error)
                if not isinstance(error, DamagedError):
                    return
            yield from self._look_at_parts(stack, checkpoint)
            if checkpoint is not None:
                yield from self._look_at_runs(checkpoint)

    # The place and the job.

    def _look_at_place(self) -> Iterator[Remark]:
        folders = self.folders
        for folder in (folders.data, folders.own, folders.tmp, folders.superseded):
            if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
                yield Remark(
                    what="cannot be written", where=str(folder), next="mend its permissions, or mount it for writing"
                )
        free = shutil.disk_usage(folders.own).free
        if free < 2 * RESERVE_BYTES:
            yield Remark(
                what=f"only {free >> 20} MB are free", where=str(folders.own), next="make room before the next run"
            )
        if rebuilt_path(self.path).exists():
            yield Remark(
                what="a repair was cut short: the new checkpoint is complete and not in its place yet",
                where=str(rebuilt_path(self.path)),
                next="the next run puts it there, and so does --repair",
                is_mendable=True,
            )
        leftovers = sorted(path.name for path in folders.tmp.iterdir()) if folders.tmp.is_dir() else []
        if leftovers:
            names = ", ".join(leftovers[:MOST_NAMED])
            yield note(
                f"{count(len(leftovers), 'file')} that a crash left ({names})",
                str(folders.tmp),
                "the next run clears them",
            )
        for path in sorted(folders.superseded.glob("*.parquet")):
            if parts.count_rows(path) is None:
                yield Remark(what="cannot be read; outcomes that a retry replaced were in it", where=str(path))

    def _look_at_job(self) -> Iterator[Remark]:
        if self.job is None:
            state = "cannot be read" if self.folders.job.exists() else "is missing"
            yield Remark(what=state, where=str(self.folders.job), next="the next run writes it anew")

    # The checkpoint.

    @contextlib.contextmanager
    def _open(self) -> Iterator[Checkpoint]:
        """The checkpoint, looked at whole. Raises `DamagedError` where something in it cannot be read."""
        if not self.path.exists():
            raise DamagedError("is missing")
        with contextlib.closing(Checkpoint(self.path, read_only=True)) as checkpoint:
            checkpoint.refuse_damage()
            checkpoint.counts()
            if checkpoint.get("types") is not None and sure_types(checkpoint.get("types")) is None:
                raise DamagedError("the types of the columns cannot be understood")
            for (progress,) in checkpoint.stream("SELECT progress FROM run"):
                checkpoint.figures(progress)
            for row in checkpoint.stream(f"SELECT slot, {ROW_COLUMNS} FROM row"):
                if not is_understood(row):
                    raise DamagedError(f"the record of row {row[0]} cannot be understood")
            open_parts = "SELECT number FROM part WHERE NOT is_filed"
            astray = checkpoint.query(f"SELECT count(*) FROM assigned WHERE part NOT IN ({open_parts})")[0][0]
            if astray:
                raise DamagedError(f"{count(astray, 'row')} belong to a part that no record says is to be written")
            yield checkpoint

    def _say_unusable(self, error: OutputError) -> Remark:
        what = str(error).removeprefix(f"{self.path}: ")
        if not isinstance(error, DamagedError):
            return Remark(what=what, where=str(self.path), is_in_the_way=True)
        return Remark(
            what=what.split("; the checkpoint is damaged")[0],
            where=str(self.path),
            next=self._say_remedy(),
            is_mendable=True,
        )

    def _say_remedy(self) -> str:
        what = "what can still be read of it"
        if any(self.folders.data.glob("part-*.parquet")):
            return f"--repair makes it anew from the parts and from {what}"
        if self.path.exists():
            return f"--repair makes it anew from {what}: there is no part; what was in flight else is paid for again"
        return "--repair makes an empty one, as there is no part: what was in flight is paid for again"

    def _look_at_parts(self, stack: contextlib.ExitStack, checkpoint: Checkpoint | None) -> Iterator[Remark]:
        try:
            if checkpoint is not None:
                id_column, types = checkpoint.get("id_column") or "", sure_types(checkpoint.get("types"))
            else:
                tmp = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchfox-doctor-")))
                with contextlib.closing(Remains(self.path, tmp)) as remains:
                    id_column, types = id_column_of(remains, self.job, self.folders.data), remains.types()
            census = stack.enter_context(
                contextlib.closing(Census(self.folders.data, has_ids=bool(id_column), types=types))
            )
        except OutputError as error:
            yield Remark(what=str(error), is_in_the_way=True)
            return
        yield from say_files(self.folders.data, census)
        if checkpoint is not None:
            yield from compare(self.folders.data, checkpoint, census, has_ids=bool(id_column))

    # What is going on.

    def _look_at_runs(self, checkpoint: Checkpoint) -> Iterator[Remark]:
        states = dict(checkpoint.query("SELECT state, count(*) FROM row GROUP BY state"))
        run = unfinished_run(checkpoint)
        if run is None and not states:
            return
        words = [
            f"{count(states[state], noun)} {what}"
            for state, noun, what in (
                (2, "task", "in flight, to be asked about"),
                (1, "submit", "in doubt"),
                (0, "row", "waiting for another attempt"),
                (3, "outcome", "recorded for the next part"),
            )
            if states.get(state)
        ]
        which = "something is left to do"
        if run is not None:
            unfinished = "did not finish" if states else "is not known to have finished"
            which = f"run {run.run_id} {'ended at --limit or --pilot' if run.is_limited else unfinished}"
        yield note("; ".join([which, *words]), str(self.folders.root), "the same command resumes it")
