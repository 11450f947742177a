"""What only the log tells of a run's hours: throttles, and outages of the API."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from batchfox.report.timeline import Timeline

MOST_OUTAGES = 50
_NAMES = (b'"throttled"', b'"outage_begun"', b'"outage_ended"')


class Outage(msgspec.Struct):
    """`lasted_s` None: the log does not tell its end."""

    since: str
    what: str
    message: str
    lasted_s: float | None = None


def read_log(folder: Path, timeline: Timeline) -> list[Outage]:
    """The outages (the first ones); throttles are added to the timeline. Lines that are none are passed over."""
    outages: list[Outage] = []
    try:
        with (folder / "_batchfox" / "log.jsonl").open("rb") as log:
            for line in log:
                if any(name in line for name in _NAMES):
                    try:
                        event = msgspec.json.decode(line)
                        _take(event, timeline, outages)
                    except (msgspec.DecodeError, ValueError, TypeError, AttributeError, KeyError):
                        continue
    except OSError:
        pass
    return outages


def _take(event: dict[str, Any], timeline: Timeline, outages: list[Outage]) -> None:
    match event.get("event"):
        case "throttled":
            moment = datetime.fromisoformat(event["timestamp"])
            timeline.at(int(moment.timestamp())).throttles += int(event["times"])
        case "outage_begun" if len(outages) < MOST_OUTAGES:
            outages.append(Outage(str(event["since"]), str(event["what"]), str(event.get("message") or "")))
        case "outage_ended" if outages and outages[-1].lasted_s is None:
            outages[-1].lasted_s = float(event["lasted_s"])
