"""When APScheduler starts a job: our own times. (Its cron counts Monday as 0, and fires twice in a repeated hour.)"""

from __future__ import annotations

from datetime import datetime

from apscheduler.triggers.base import BaseTrigger

from batchfox.core.nights import Nights
from batchfox.schedule.memory import Memory


class NightTrigger(BaseTrigger):  # type: ignore[misc]
    """The times of one job, after a night that was missed."""

    def __init__(self, nights: Nights, memory: Memory) -> None:
        self._nights = nights
        self._memory = memory

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """APScheduler's question; what it gets lies in the future, but for a night to catch up: that is now."""
        if previous_fire_time is not None:
            return self._nights.after(previous_fire_time)
        return self._nights.next_start(now, self._memory.had())
