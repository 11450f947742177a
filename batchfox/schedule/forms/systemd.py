"""A systemd service and its timer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchfox.core.crontab import Crontab
from batchfox.schedule.forms.site import Form, Site, crontabs, key_name, name_of, ranges, run_words, zone_name

if TYPE_CHECKING:
    from batchfox.schedule.planned import Planned

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def forms(planned: Planned, site: Site) -> list[Form]:
    """Both units, to go into ~/.config/systemd/user or /etc/systemd/system."""
    name = name_of(planned)
    times = dict.fromkeys(when for crontab in crontabs(planned) for when in on_calendar(crontab, zone_name(planned)))
    return [
        Form(f"{name}.service", _service(planned, site)),
        Form(f"{name}.timer", _timer(planned, list(times))),
    ]


def on_calendar(crontab: Crontab, zone: str) -> list[str]:
    """systemd's calendar expressions for it: two where a day may match either the month's or the week's."""
    clock = f"{_numbers(crontab.hours, 0, 23)}:{_numbers(crontab.minutes, 0, 59)}:00 {zone}"
    months, days = _numbers(crontab.months, 1, 12), _numbers(crontab.days, 1, 31)
    week = "" if len(crontab.weekdays) == 7 else ",".join(_DAYS[day] for day in crontab.weekdays) + " "
    if crontab.needs_both:
        return [f"{week}*-{months}-{days} {clock}"]
    return [f"*-{months}-{days} {clock}", f"{week}*-{months}-* {clock}"]


def _numbers(values: tuple[int, ...], low: int, high: int) -> str:
    return ranges(values, low, high, dash="..")


def _service(planned: Planned, site: Site) -> str:
    key = key_name(planned)
    lines = [
        "[Unit]",
        f"Description=batchfox: {_literal(planned.job.name)}",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        f"WorkingDirectory={_literal(site.folder)}",
        f"ExecStart={' '.join(map(_word, run_words(planned, site)))}",
    ]
    if key is not None:
        lines += [
            f"# The key: the line {key}=sk-... in the file .env of the working directory, or in a file of your own:",
            "# EnvironmentFile=/etc/batchfox.env",
        ]
    lines.append("# A stop lets what is on the wire come in.")
    lines.append("TimeoutStopSec=60")
    if planned.nights.window is not None:
        lines += ["# Exit 4 is the end of the window, among others: the next night goes on.", "SuccessExitStatus=4"]
    return "\n".join(lines) + "\n"


def _timer(planned: Planned, times: list[str]) -> str:
    lines = [
        "[Unit]",
        f"Description=batchfox: {_literal(planned.job.name)}, at its times",
        "",
        "[Timer]",
        *(f"OnCalendar={when}" for when in times),
        "AccuracySec=1s",
        f"Persistent={'true' if planned.nights.catch_up else 'false'}",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines) + "\n"


def _literal(text: str) -> str:
    """Text in which systemd finds nothing to fill in, on one line."""
    return " ".join(text.split()).replace("%", "%%") if "\n" in text else text.replace("%", "%%")


def _word(text: str) -> str:
    """One word of a command line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("$", "$$").replace("%", "%%")
    return f'"{escaped}"' if not text or set(text) & set(" \t\n\"';\\") else escaped
