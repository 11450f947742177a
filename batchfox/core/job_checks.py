"""What may stand in a job's tables; `JobError` names the key's path, what was found and what is allowed."""

from __future__ import annotations

import re
from ipaddress import ip_network
from urllib.parse import urlsplit

from batchfox.core.complaint import mask
from batchfox.core.fit import mistakes
from batchfox.core.job_words import demand
from batchfox.core.nearest import nearest
from batchfox.core.nights import complaint_of
from batchfox.core.notice import complaint_of_hooks, complaint_of_notify
from batchfox.core.sections import (
    SIMULATOR,
    Api,
    Guard,
    Hooks,
    Input,
    Limits,
    Media,
    Notify,
    Output,
    Poll,
    Retry,
    Schedule,
)
from batchfox.errors import JobError

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def check_paths(read: Input, output: Output, media: Media, name: str) -> None:
    """Input, output, and where media lie."""
    for where, path in (
        *(("input.path", path) for path in read.paths),
        ("output.path", output.path),
        ("output.checkpoint", output.checkpoint or ""),
        *(("media.root", root) for root in media.roots),
        ("name", name),  # it may stand in the output's path
    ):
        demand("\0" not in path, where, path, "text without a NUL")
    demand(all(read.paths) and bool(read.paths), "input.path", read.path, "at least one path")
    demand(bool(output.path.strip()), "output.path", output.path, "a folder's path")
    demand(1 <= output.rows_per_part <= 1_000_000, "output.rows_per_part", output.rows_per_part, "1 to 1,000,000")


def check_limits(limits: Limits) -> None:
    """What a run may use."""
    demand(limits.in_flight >= 1, "limits.in_flight", limits.in_flight, "1 or more")
    demand(limits.bytes_in_flight >= 1, "limits.bytes_in_flight", int(limits.bytes_in_flight), "1 or more")
    for name in (
        "requests_per_minute",
        "tokens_per_minute",
        "polls_per_minute",
        "credits",
        "credits_per_day",
        "time",
        "straggle",
    ):
        value = getattr(limits, name)
        demand(value is None or 0 < value < float("inf"), f"limits.{name}", value, "more than 0")


def check_retry(retry: Retry) -> None:
    """What is paid for again."""
    demand(1 <= retry.attempts <= 100, "retry.attempts", retry.attempts, "1 to 100")
    most = retry.in_doubt_limit
    demand(most == "auto" or most >= 0, "retry.in_doubt_limit", most, '0 or more, or "auto"')
    _demand_an_end("retry.patience", retry.patience)


def check_media(media: Media) -> None:
    """How media travel."""
    demand(all(media.roots) and bool(media.roots), "media.root", media.root, "at least one folder or prefix")
    for network in media.allow_private:
        demand(_is_network(network), "media.allow_private", network, 'networks such as "10.1.0.0/16"')
    demand(media.inline_below >= 0, "media.inline_below", int(media.inline_below), "0 or more")
    demand(60 <= media.upload_life < float("inf"), "media.upload_life", float(media.upload_life), "a minute or more")
    demand(media.fit_cache >= 0, "media.fit_cache", int(media.fit_cache), "0 or more")
    for where, found, wanted in mistakes(media.image, media.video, media.audio):
        demand(holds=False, where=where, found=found, wanted=wanted)
    _demand_an_end("media.fit_time", media.fit_time)


def check_poll(poll: Poll) -> None:
    """When tasks are asked about."""
    _demand_an_end("poll.task_timeout", poll.task_timeout)
    _demand_an_end("poll.stream_idle", poll.stream_idle)
    demand(_is_delay(poll), "poll.first", poll.first, 'seconds, a duration such as "5s", or "auto"')
    demand(0.01 <= poll.eagerness <= 100, "poll.eagerness", poll.eagerness, "0.01 to 100")


def _demand_an_end(where: str, seconds: float) -> None:
    """An endless patience or time-out would break the promise that a run always ends."""
    demand(0 < seconds < float("inf"), where, float(seconds), "more than 0, and an end")


def check_told(schedule: Schedule, notify: Notify, hooks: Hooks) -> None:
    """When it runs, and who is told."""
    for complaint in (complaint_of(schedule), complaint_of_notify(notify), complaint_of_hooks(hooks)):
        if complaint is not None:
            raise JobError(complaint)


def check_guard(guard: Guard) -> None:
    """What answers may look like."""
    demand(guard.after >= 10, "guard.after", guard.after, "10 or more")
    demand(1 <= guard.runs <= 365, "guard.runs", guard.runs, "1 to 365")
    demand(guard.since is None or bool(_DAY.fullmatch(guard.since)), "guard.since", guard.since, 'a day: "2026-01-31"')
    for name in ("refused", "empty"):
        value = getattr(guard, name)
        demand(value is None or 0 <= value < 1, f"guard.{name}", value, "a share of rows, such as 0.05")
    for name in ("length", "tokens", "credits", "latency"):
        value = getattr(guard, name)
        demand(value is None or 1 < value < float("inf"), f"guard.{name}", value, "a factor above 1, such as 1.5")


def check_api(api: Api) -> None:
    """Which API."""
    base = api.base_url
    wanted = f'an http(s) URL, or "simulator"{nearest(base, [SIMULATOR])}'
    demand(base == SIMULATOR or _is_base_url(base), "api.base_url", mask(base), wanted)
    demand("@" not in base, "api.base_url", mask(base), "no user name or password: the key is all the API takes")
    is_alone = base == SIMULATOR or not api.simulate
    demand(is_alone, "api.simulate", api.simulate, 'nothing unless base_url = "simulator"')


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _is_base_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        is_http = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        return is_http and not url.query and not url.fragment and not any(map(str.isspace, text))
    except ValueError:  # a port that is none, brackets that do not close
        return False


def _is_delay(poll: Poll) -> bool:
    try:
        return poll.first_s is None or 0 <= poll.first_s < float("inf")
    except ValueError:
        return False
