"""The job: what a job file says, as frozen records, or refused with the key's path and what was expected.

Its tables are in `sections.py`, what may stand in them in `job_checks.py`. Reading the file is `jobfile.py`'s work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from batchfox.core.job_checks import (
    check_api,
    check_guard,
    check_limits,
    check_media,
    check_paths,
    check_poll,
    check_retry,
    check_told,
)
from batchfox.core.job_tables import refuse_unknown, refuse_unprintable, sections_of
from batchfox.core.job_words import say, show_value
from batchfox.core.notice import without_secret
from batchfox.core.quantity import Duration, Size
from batchfox.core.sections import (
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
    Rules,
    Schedule,
    Section,
)
from batchfox.errors import JobError


class Job(Section, frozen=True, kw_only=True):
    """What to run. Build one with `Job.from_dict`, or from a file with `batchfox.load_job`."""

    input: Input
    output: Output
    request: dict[str, Any] = msgspec.field(default_factory=dict)
    api: Api = Api()
    limits: Limits = Limits()
    retry: Retry = Retry()
    poll: Poll = Poll()
    media: Media = Media()
    schedule: Schedule = Schedule()
    notify: Notify = Notify()
    hooks: Hooks = Hooks()
    guard: Guard = Guard()
    rules: Rules = Rules()
    name: str = "job"

    def __post_init__(self) -> None:
        """A job made by hand holds records; who has dicts is told what makes a job of them."""
        for field in msgspec.structs.fields(Job):
            value = getattr(self, field.name)
            if isinstance(field.type, type) and issubclass(field.type, Section) and not isinstance(value, field.type):
                raise JobError(
                    f"{field.name}: expected a record ({field.type.__name__}), got {show_value(value)}; "
                    "Job.from_dict makes a job of plain dicts"
                )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Job:
        """A job from the TOML's tables. Raises `JobError` naming the key's path, what was found, what is allowed."""
        if not isinstance(data, dict):
            raise JobError(f"expected a dict of tables, got {type(data).__name__}; load_job reads a job file")
        refuse_unprintable(data)
        refuse_unknown(data, cls, "")
        try:
            job = msgspec.convert(data, cls, dec_hook=_decode)
        except msgspec.ValidationError as error:
            raise JobError(say(str(error), cls)) from error
        check_paths(job.input, job.output, job.media, job.name)
        check_limits(job.limits)
        check_retry(job.retry)
        check_media(job.media)
        check_poll(job.poll)
        check_told(job.schedule, job.notify, job.hooks)
        check_guard(job.guard)
        check_api(job.api)
        return job

    def to_dict(self) -> dict[str, Any]:
        """The tables again, defaults filled in, keys without a value left out. There is no secret in a job."""
        data = msgspec.to_builtins(self, enc_hook=_encode)
        notify = data["notify"]  # its addresses are often keys themselves
        notify["urls"] = [without_secret(url) for url in notify["urls"]]
        notify["webhook"] = None if notify["webhook"] is None else without_secret(notify["webhook"])
        return {name: _without_none(value) for name, value in data.items()}


def job_keys(struct: type[msgspec.Struct] = Job, path: str = "") -> Iterator[str]:
    """Every key that a job file may set, as `--set` spells it."""
    for name, section in sections_of(struct).items():
        if section is None:
            yield f"{path}{name}"
        else:
            yield from job_keys(section, f"{path}{name}.")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Duration:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError(f'expected seconds or a duration such as "90s", got {show_value(value)}')
        return Duration(value)
    if wanted is Size:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError(f'expected bytes or a size such as "256MB", got {show_value(value)}')
        return Size(value)
    raise NotImplementedError(wanted)


def _encode(value: Any) -> Any:
    return int(value) if isinstance(value, Size) else float(value)
