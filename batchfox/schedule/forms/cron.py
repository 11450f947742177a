"""Lines for a user's crontab."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from batchfox.errors import JobError
from batchfox.schedule.forms.site import Form, Site, crontabs, five_fields, key_name, name_of, run_words, zone_name

if TYPE_CHECKING:
    from batchfox.schedule.planned import Planned


def forms(planned: Planned, site: Site) -> list[Form]:
    """Raises `JobError` where cron cannot hold the command."""
    key, schedule = key_name(planned), planned.job.schedule
    words = run_words(planned, site)
    if "\n" in site.folder or any("\n" in word for word in words):
        raise JobError(f"{planned.path!r}: cron takes no line break in a path")
    found = crontabs(planned)
    # As the job says it, where the window takes nothing away: cron itself makes a difference between * and 0-59.
    is_whole = found == [planned.nights.crontab]
    times = [schedule.cron or ""] if is_whole else [_said(planned, five_fields(one)) for one in found]
    command = f"cd {shlex.quote(site.folder)} && {shlex.join(words)}".replace("%", r"\%")
    lines = [f"# batchfox: {' '.join(planned.job.name.split())}. Put it into a crontab: crontab -e"]
    if key is not None:
        lines.append(f"# The key: the line {key}=sk-... in the file .env of that folder.")
    if planned.nights.catch_up:
        lines.append(
            "# cron makes up for no night that it missed (schedule.catch_up): systemd and batchfox schedule do."
        )
    if schedule.timezone is not None:
        lines.append(
            "# Debian's cron goes by the machine's time zone, whatever CRON_TZ says: the two must be the same there."
        )
        lines.append(f"CRON_TZ={zone_name(planned)}")
    lines += [f"{when} {command}" for when in times]
    return [Form(f"{name_of(planned)}.crontab", "\n".join(lines) + "\n")]


def _said(planned: Planned, fields: str | None) -> str:
    if fields is None:
        raise JobError(
            f'{planned.path}: schedule.cron = "{planned.job.schedule.cron}" with this window has days of the month and '
            "of the week that must both match, which cannot be written for cron; systemd can: --print systemd"
        )
    return fields
