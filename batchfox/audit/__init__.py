"""`batchfox verify`: recounts input, checkpoint and Parquet, and says what does not agree.

It goes by what it reads itself: the input's rows and the requests made of them anew, every part to its end, the
checkpoint's keys; figures that a run kept are used for nothing but telling whether it came to its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from batchfox.audit.asked import Asked, is_readable_again, make_preparer, open_input, read_input
from batchfox.audit.costs import add_costs, write_costs
from batchfox.audit.files import check_files
from batchfox.audit.finding import MOST_EXAMPLES, Audit, Finding
from batchfox.audit.recorded import STATES, Recorded, copy
from batchfox.audit.report import remarks_on
from batchfox.audit.rolls import Rolls
from batchfox.audit.rows import RowChecks
from batchfox.audit.written import Tell, Written
from batchfox.checkpoint import Checkpoint
from batchfox.core.change import changes_of_meaning
from batchfox.core.job import Job
from batchfox.core.prepare import Preparer
from batchfox.doctor.salvage import sure_types
from batchfox.errors import InputError, JobError, OutputBusyError, OutputError
from batchfox.folders import Folders
from batchfox.jobfile import load_job, secret_of
from batchfox.source import Source
from batchfox.sqlite_border import damaged
from batchfox.status import checkpoint_path, is_held
from batchfox.words import count, shorten

__all__ = ["Choice", "audit_output"]

# So often the parts may be other ones by the time the checkpoint is copied, as while a retry takes rows out of them.
MOST_TRIES = 5
_UNDERWAY = "SELECT state, count(*) FROM underway GROUP BY state ORDER BY state"
WITHOUT = "--no-input compares the parts with the checkpoint alone"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What to look at. `inputs`: where the input is now, empty for the job's own paths. `has_input`: read it at all.
    `is_rendered`: make its requests again. `costs`: the CSV file that gets what each row cost."""

    inputs: Sequence[str] = ()
    has_input: bool = True
    is_rendered: bool = True
    costs: Path | None = None


def audit_output(root: Path, choice: Choice | None = None, tell: Tell | None = None) -> Audit:
    """Recounts an output, whether its run is over, died or goes on; nothing is written to it.

    Raises `OutputError`, `JobError` or `InputError` where one of the three cannot be read at all, `OutputBusyError`
    where a run changes the parts faster than they can be read.
    """
    with contextlib.ExitStack() as stack:
        auditor = _Auditor(stack, root, choice or Choice(), tell or (lambda what, rows: None))
        return auditor.audit()


class _Auditor:
    """One audit."""

    def __init__(self, stack: contextlib.ExitStack, root: Path, choice: Choice, tell: Tell) -> None:
        self._folders = Folders(root=root)
        self._choice = choice
        self._tell = tell
        path = checkpoint_path(root)
        if not self._folders.data.is_dir():
            raise OutputError(f"{self._folders.data}: is gone; put it back (a run would make an empty one)")
        self._is_running = is_held(root)
        self._checkpoint = stack.enter_context(contextlib.closing(Checkpoint(path, read_only=True)))
        self._checkpoint.refuse_damage()
        self._rolls = stack.enter_context(contextlib.closing(Rolls()))

    def audit(self) -> Audit:
        """Reads all three, then compares them."""
        id_column = self._checkpoint.get("id_column")
        if id_column is None:
            raise OutputError(f"{self._folders.root}: no run has begun here yet: there is nothing to verify")
        job, remarks = self._read_job()
        source = self._open_input(job, id_column or None)
        preparer = self._make_preparer(job) if source is not None and self._choice.is_rendered else None
        written = Written(self._rolls, self._folders, has_ids=bool(id_column), types=self._types(), tell=self._tell)
        recorded = self._read_parts(written)
        asked = None
        if source is not None:
            asked = read_input(source, preparer, self._rolls, recorded, self._tell)
        self._tell("comparing rows", written.rows)
        self._rolls.sort()
        checks = RowChecks(
            self._rolls,
            recorded,
            asked,
            root=str(self._folders.root),
            is_running=self._is_running,
            is_rendered=preparer is not None,
        )
        found = [*check_files(self._folders, written, recorded), *checks.all(written), *remarks]
        return self._sum_up(written, recorded, asked, found)

    # Reading.

    def _types(self) -> dict[str, Any] | None:
        encoded = self._checkpoint.get("types")
        types = None if encoded is None else sure_types(encoded)
        if encoded is not None and types is None:
            raise damaged(self._checkpoint.path, "the types of the columns cannot be understood")
        return types

    def _read_job(self) -> tuple[Job, list[Finding]]:
        """The job that the output keeps, and what is odd about it. Raises `JobError` where there is none."""
        path = self._folders.job
        known: Job | None = None
        with contextlib.suppress(JobError, msgspec.MsgspecError, TypeError):  # job.toml has the same
            known = Job.from_dict(msgspec.json.decode(self._checkpoint.get("job")))
        try:
            job = load_job(path)
        except JobError as error:
            if known is None:
                raise
            what = f"the job cannot be read ({error}); the checkpoint's copy was taken"
            then = "the next run writes it anew"
            return known, [Finding(kind="job_unreadable", number=1, what=what, where=str(path), next=then)]
        changes = [] if known is None else changes_of_meaning(known.to_dict(), job.to_dict())
        if not changes:
            return job, []
        finding = Finding(
            kind="job_altered",
            number=len(changes),
            what=f"{count(len(changes), 'key')} of this job not as on record; requests were made as it says",
            examples=[shorten(str(change)) for change in changes[:MOST_EXAMPLES]],
            where=str(path),
            next="put it back as it was; the next run writes it anew",
        )
        return job, [finding]

    def _open_input(self, job: Job, id_column: str | None) -> Source | None:
        """The input; None where it is not to be read, or cannot be read twice. Raises `InputError`."""
        paths = list(self._choice.inputs) or job.input.paths
        if not self._choice.has_input or (not self._choice.inputs and not is_readable_again(paths)):
            return None
        try:
            return open_input(paths, id_column, secret_of(job))
        except InputError as error:
            raise InputError(f"{error}; --input PATH says where the input is now, and {WITHOUT}") from error

    def _make_preparer(self, job: Job) -> Preparer:
        try:
            return make_preparer(job)
        except JobError as error:
            raise JobError(f"{self._folders.job}: {error}; --no-hash verifies without making requests") from error

    def _read_parts(self, written: Written) -> Recorded:
        """The parts, and the checkpoint as it was while they were what was read."""
        for _ in range(MOST_TRIES):
            written.read()
            recorded = copy(self._checkpoint, self._rolls)
            if all(written.is_as_read(number) for number in recorded.filed):
                written.read_replaced()
                return recorded
        raise OutputBusyError(
            f"{self._folders.root}: a run changes the parts faster than they can be read: try again, or once it is over"
        )

    # Telling.

    def _sum_up(self, written: Written, recorded: Recorded, asked: Asked | None, found: list[Finding]) -> Audit:
        audit = Audit(
            output=str(self._folders.root),
            run_id=recorded.run_id,
            is_running=self._is_running,
            is_finished=recorded.is_finished,
            output_rows=written.rows,
            parts=len(written.parts),
            unfinished={STATES[state]: rows for state, rows in self._rolls.query(_UNDERWAY)},
            findings=found,
        )
        if asked is not None:
            audit.input_rows = asked.rows
            audit.duplicates = self._rolls.count("SELECT coalesce(sum(times - 1), 0) FROM asked")
        add_costs(audit, self._rolls)
        audit.findings += remarks_on(audit, recorded.marked)
        if self._choice.costs is not None:
            write_costs(self._rolls, self._choice.costs)
        return audit
