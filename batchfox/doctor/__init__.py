"""`batchfox doctor`: what is wrong with this set-up or output, and its repair."""

from __future__ import annotations

from pathlib import Path

from batchfox.core.job import Job
from batchfox.doctor.account import ask_around
from batchfox.doctor.inspection import Inspector
from batchfox.doctor.remark import Remark
from batchfox.doctor.repair import repair
from batchfox.doctor.surroundings import look_around, look_at_key
from batchfox.errors import OutputBusyError, UserError
from batchfox.paths import GONE
from batchfox.status import is_held

__all__ = ["examine_output", "examine_setup", "repair"]


def examine_setup(job: Job, *, is_offline: bool = False) -> list[Remark]:
    """This machine, as a run of the job would find it, and, unless told otherwise, the API: by requests that cost
    nothing."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UserError(GONE) from error
    remarks = list(look_around(_folder_of(job)))
    return remarks + list(look_at_key(job) if is_offline else ask_around(job))


def _folder_of(job: Job) -> Path:
    """Where the output lies, or will: the nearest folder that is there."""
    folder = Path(job.output.path.partition("{{")[0]).absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def examine_output(root: Path) -> list[Remark]:
    """An output at rest. Raises `OutputError` where there is none, `OutputBusyError` where a run is at work in it."""
    inspector = Inspector(root)
    _refuse_held(root)
    remarks = list(inspector.look())
    _refuse_held(root)  # or what was found may be what a run was doing
    return remarks


def _refuse_held(root: Path) -> None:
    if is_held(root):
        raise OutputBusyError(
            f"{root}: a live run holds this output, and what it is doing is no fault: wait for it, or stop it; "
            f"`batchfox status {root}` shows what it does"
        )
