"""A job file that is read again when it changes, while the scheduler runs."""

from __future__ import annotations

from pathlib import Path

from batchfox.errors import BatchfoxError
from batchfox.jobfile import load_job
from batchfox.schedule.planned import Planned, plan

# What tells one state of a file from another; None where there is no file.
_Looks = tuple[int, int, int] | None


class JobFile:
    """`planned`: the job as the file last said it, where that could be understood."""

    def __init__(self, planned: Planned) -> None:
        self.planned = planned
        self._read = self._seen = _looks(planned.place)

    def again(self, *, at_once: bool) -> Planned | BatchfoxError | None:
        """The job, where its file has changed since it was read; or what is wrong with it, told once for each change:
        `planned` stays as it is then. None where nothing has changed.

        A file is read once two looks have found it alike, since it may be in the middle of being written; `at_once`
        for who cannot wait.
        """
        looks = _looks(self.planned.place)
        is_settled, self._seen = looks == self._seen, looks
        if looks == self._read or not (at_once or is_settled):
            return None
        self._read = looks
        try:
            self.planned = plan(self.planned.path, load_job(self.planned.path))
        except BatchfoxError as error:
            return error
        return self.planned


def _looks(place: Path) -> _Looks:
    try:
        found = place.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
