"""What is remembered of scheduled runs, a small file for each job in the user's state folder.

The run itself writes it (`batchfox run --scheduled`), so that it holds whoever started it: this scheduler, systemd,
cron. By it a missed night is known, and `batchfox schedule --list` tells how the last one ended.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import msgspec

from batchfox.durable import make_folder, write_text
from batchfox.errors import UserError
from batchfox.states import state_folder

# With these a run was cut off, or never got the output: the night was not had.
CUT_OFF = frozenset({5, 129, 130, 143})


class Night(msgspec.Struct, frozen=True, kw_only=True):
    """The last scheduled run of a job; times in unix seconds. `ended_at` None: it runs, or was killed. `is_passed`: it
    never began, as its window was over before its turn came (at `began_at`)."""

    job: str
    scheduled: float
    began_at: float
    ended_at: float | None = None
    exit_status: int | None = None
    is_passed: bool = False

    @property
    def was_had(self) -> bool:
        return self.exit_status is not None and self.exit_status >= 0 and self.exit_status not in CUT_OFF

    @property
    def scheduled_at(self) -> datetime:
        return datetime.fromtimestamp(self.scheduled, UTC)


class Memory:
    """The file of one job. `place`: the job file's path in full."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        name = blake2b(self._place.encode(errors="surrogateescape"), digest_size=12).hexdigest()
        self.path = state_folder() / "schedule" / f"{name}.json"

    def last(self) -> Night | None:
        """The last scheduled run; None where none ever was. Raises `UserError` for a file that is none of ours."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Night)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, OSError) as error:
            raise UserError(
                f"{self.path}: cannot be read ({error}); remove it, and what it remembers of {self._place} is forgotten"
            ) from error

    def begin(self, scheduled: datetime, now: float) -> None:
        self._write(Night(job=self._place, scheduled=scheduled.timestamp(), began_at=now))

    def end(self, scheduled: datetime, now: float, exit_status: int) -> None:
        """How the run of this time ended; what another has begun meanwhile stays."""
        last = self.last()
        if last is not None and last.scheduled == scheduled.timestamp():
            self._write(msgspec.structs.replace(last, ended_at=now, exit_status=exit_status))

    def pass_over(self, scheduled: datetime, now: float) -> None:
        """The run of this time could not begin before its window was over. Where it began after all, that stays."""
        last = self.last()
        if last is None or last.scheduled < scheduled.timestamp():
            self._write(Night(job=self._place, scheduled=scheduled.timestamp(), began_at=now, is_passed=True))

    def had(self) -> datetime | None:
        """The latest time whose run needs not be made up for; None where no run ever was."""
        last = self.last()
        if last is None:
            return None
        return last.scheduled_at if last.was_had else datetime.fromtimestamp(last.scheduled - 1, UTC)

    def _write(self, night: Night) -> None:
        make_folder(self.path.parent)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        write_text(msgspec.json.encode(night).decode(), temporary, self.path)
