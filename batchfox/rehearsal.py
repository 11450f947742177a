"""The API that a job drives: the one it names, or the embedded one for as long as it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from batchfox.core.job import SIMULATOR, Job
from batchfox.errors import JobError


@contextlib.contextmanager
def api_of(job: Job, *, state: Path | None) -> Iterator[str]:
    """Its address. The embedded API keeps its tasks in `state`. Raises `JobError` for settings it does not take."""
    if job.api.base_url != SIMULATOR:
        yield job.api.base_url
        return
    from batchfox.simulator import Settings, SettingsError, SimulatorThread

    try:
        settings = msgspec.convert(job.api.simulate, Settings)
    except (msgspec.ValidationError, SettingsError) as error:
        raise JobError(f"api.simulate: {error}") from error
    with SimulatorThread(settings, state=state) as simulator:
        yield simulator.url
