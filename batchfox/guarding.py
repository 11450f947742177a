"""What `[guard]` measures a run by: the figures of the last runs, and where they say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batchfox.core.drift import Sums, bounds_of, unmeasured
from batchfox.core.job import Job
from batchfox.log import Log
from batchfox.output import is_dated
from batchfox.runs import figures_before

NOT_YET = "a factor to the last runs of this output, which say nothing of it: it holds from the next run on"
NEVER = "a factor to the last runs of this output, of which a folder for each date has none: it holds for no run"


def past_figures(job: Job, root: Path, log: Log) -> Sums:
    """What answers looked like in the last runs. That limits of the job have no measure there goes to the log."""
    past = figures_before(root, job.guard.runs, job.guard.since)
    for key, note in unmeasured_limits(job, past):
        log.info("guard_unmeasured", key=key, note=note)
    return past


def unmeasured_limits(job: Job, past: Sums) -> Iterator[tuple[str, str]]:
    """Keys of `[guard]` that bind nothing by these figures, and why."""
    note = NEVER if is_dated(job.output.path) else NOT_YET
    for name in unmeasured(bounds_of(job.guard), past):
        yield f"guard.{name}", note
