"""The API that a job drives: the one it names, or the embedded one for as long as it is needed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from batchfox.core.job import Job
from batchfox.core.nearest import nearest
from batchfox.core.sections import SIMULATOR
from batchfox.errors import JobError, OutputError


def _say(message: str, settings: type[msgspec.Struct]) -> str:
    """msgspec's words for a setting that does not exist, with those that do."""
    unknown = re.match(r"Object contains unknown field `(.*)`", message)
    if unknown is None:
        return message
    names = [field.name for field in msgspec.structs.fields(settings)]
    return f"unknown setting {unknown[1]}{nearest(unknown[1], names)}; there are {', '.join(names)}"


@contextlib.contextmanager
def api_of(job: Job, *, state: Path | None) -> Iterator[str]:
    """Its address. The embedded API keeps its tasks in `state`. Raises `JobError` for settings it does not take,
    `OutputError` for a state that is none."""
    if job.api.base_url != SIMULATOR:
        yield job.api.base_url
        return
    from batchfox.simulator import Settings, SettingsError, SimulatorThread, StateError

    try:
        settings = msgspec.convert(job.api.simulate, Settings)
    except (msgspec.ValidationError, SettingsError) as error:
        raise JobError(f"api.simulate: {_say(str(error), Settings)}") from error
    with contextlib.ExitStack() as stack:
        try:
            simulator = stack.enter_context(SimulatorThread(settings, state=state))
        except StateError as error:
            raise OutputError(f"{error}; move it out of the way: the embedded API then begins without tasks") from error
        yield simulator.url
