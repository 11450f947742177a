"""`run` and `arun`: a job from Python. (Named so that `from batchfox import run` can mean the function.)"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Unpack

import msgspec

from batchfox.core.job import Job
from batchfox.errors import JobError, UserError, machine_error, path_error
from batchfox.execution import Execution
from batchfox.jobfile import load_job
from batchfox.monitor import Display, Silence
from batchfox.options import Options, OptionValues
from batchfox.summary import Summary
from batchfox.telling import After


def run(
    job: Job | str | Path,
    options: Options | None = None,
    *,
    display: Display | None = None,
    only: frozenset[bytes] | None = None,
    **changes: Unpack[OptionValues],
) -> Summary:
    """Runs a job (or the job file at this path) to its end, or resumes it, and returns what it did.

    `options`, or its fields as keywords: `run(job, limit=10, retry="failed")`. `only`: keys of rows; of those that are
    not done it takes these alone, and the next run goes on with the others (`batchfox run --pilot`). Raises a
    `BatchfoxError` whose `exit_status` is the contract's where the run could not start or the machine failed;
    everything recorded until then stays. Where an event loop is running already (a notebook, an async function), use
    `await arun(...)`.
    """
    if _is_loop_running():
        raise UserError(
            "run() cannot be used where an event loop is running already, as in a notebook or an async function: use "
            "`await arun(...)` there, which takes the same arguments"
        )
    try:
        import uvloop
    except ImportError:
        return asyncio.run(arun(job, options, display=display, only=only, **changes))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(arun(job, options, display=display, only=only, **changes))


async def arun(
    job: Job | str | Path,
    options: Options | None = None,
    *,
    display: Display | None = None,
    only: frozenset[bytes] | None = None,
    **changes: Unpack[OptionValues],
) -> Summary:
    """`run` for a program that has an event loop already."""
    chosen = msgspec.structs.replace(options or Options(), **changes)
    if isinstance(job, (str, os.PathLike)):
        job = load_job(job)
    elif not isinstance(job, Job):
        raise JobError(
            f"expected a Job or the path of a job file, got a {type(job).__name__}; Job.from_dict takes a dict"
        )
    after = After(job)
    try:
        summary = await _execute(Execution(job, chosen, display or Silence(), after, only=only))
    except Exception as error:
        await after.failed(error)
        raise
    if only is None:  # a pilot is no end
        await after.ended(summary)
    return summary


async def _execute(execution: Execution) -> Summary:
    """One execution; what the machine refused is told in our words."""
    try:
        return await execution.run()
    except (OSError, ExceptionGroup) as error:
        if isinstance(error, OSError) and (mistake := path_error(error)) is not None:
            raise mistake from error
        if (trouble := machine_error(error)) is None:
            raise
        raise trouble from error


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
