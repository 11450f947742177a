"""The job file: parsed into frozen records, or refused with the key's path and what was expected.

Source of names, defaults and meaning: contract.md, "The job file". Reading the file itself is `jobfile.py`'s work.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from ipaddress import ip_network
from types import UnionType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from batchfox.core.complaint import mask
from batchfox.core.fit import AudioFit, Fit, ImageFit, VideoFit, mistakes
from batchfox.core.nights import complaint_of
from batchfox.core.notice import complaint_of_hooks, complaint_of_notify, without_secret
from batchfox.core.shape import Kind
from batchfox.errors import JobError

SIMULATOR = "simulator"
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_DEPTH = 200
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_UNITS_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMG]?B)?", re.IGNORECASE)
_DURATION_ITEM = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


class Duration(float):
    """Seconds. Written as a number of seconds, or as text: "90s", "15m", "6h", "1h30m", "1d"."""

    def __new__(cls, value: float | str) -> Duration:
        if isinstance(value, str):
            text = value.replace(" ", "")
            if not _DURATION.fullmatch(text):
                raise ValueError(f'expected a duration such as "90s", "15m" or "6h", got "{value}"')
            value = sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_ITEM.findall(text))
        return super().__new__(cls, value)


class Size(int):
    """Bytes. Written as a number of bytes, or as text: "64MB", "1.5GB"."""

    def __new__(cls, value: float | str) -> Size:
        if isinstance(value, str):
            found = _SIZE.fullmatch(value.replace(" ", ""))
            if found is None:
                raise ValueError(f'expected bytes or a size such as "256MB" or "1GB", got "{value}"')
            value = float(found[1]) * _UNITS_BYTES[(found[2] or "").upper()]
        return super().__new__(cls, value)


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Input(_Section, frozen=True, kw_only=True):
    """Where the rows come from. `path`: a path, a list, a glob, a folder, or "-" for standard input. `dedupe`: rows
    with the same request are sent once."""

    path: str | list[str]
    id: str | None = None
    keep: list[str] = msgspec.field(default_factory=lambda: ["*"])
    dedupe: bool = False
    fields: list[str] | None = None

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else list(self.path)


class Api(_Section, frozen=True, kw_only=True):
    """Which API, and the name of the environment variable that holds the key."""

    base_url: str = "https://api.foxapi.cc"
    key_env: str = "FOXAPI_API_KEY"
    simulate: dict[str, Any] = msgspec.field(default_factory=dict)


class Limits(_Section, frozen=True, kw_only=True):
    """What a run may use. `requests_per_minute` None: the pace adapts. `tokens_per_minute`: by estimate, corrected
    by the usage that comes back. `time` in seconds. `straggle`: so long after the last submit the tasks that still run
    are given up. `bytes_in_flight`: of the requests of rows that are taken and not settled, and as many again of bodies
    on the wire."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    polls_per_minute: float | None = None
    in_flight: int = 200
    bytes_in_flight: Size = Size("256MB")
    credits: float | None = None
    credits_per_day: float | None = None
    time: Duration | None = None
    straggle: Duration | None = None


class Retry(_Section, frozen=True, kw_only=True):
    """What is paid for again. `attempts`: billed submits a row may cost, at most."""

    attempts: int = 4
    failed: Literal["never", "transient", "always"] = "transient"
    in_doubt: Literal["resubmit", "hold"] = "resubmit"
    in_doubt_limit: int | Literal["auto"] = "auto"
    patience: Duration = Duration("1h")


class Poll(_Section, frozen=True, kw_only=True):
    """When tasks are asked about. `first`: seconds, or "auto" (learned). `task_timeout`: of watching. `eagerness`: how
    much a second of delay weighs against a poll, 1 being a poll for 5 % of the median latency. `stream_idle`: a stream
    that is silent for so long is broken."""

    first: float | str = "auto"
    eagerness: float = 1.0
    task_timeout: Duration = Duration("1h")
    stream_idle: Duration = Duration("5m")

    @property
    def first_s(self) -> float | None:
        """Seconds to the first poll, or None for "auto". Raises ValueError for anything else."""
        return None if self.first == "auto" else Duration(self.first)


class Media(_Section, frozen=True, kw_only=True):
    """How media travel. `root`: local files must lie below one of these folders, objects below one of these prefixes.
    `inline_below`: in `auto`, larger local media are uploaded. `upload_life`: how long an upload can be fetched.
    `allow_private`: networks (CIDR) that media may be fetched from although they are not public.
    `image`, `video`, `audio`: what media that are here are made to fit, None: they are sent as they are. `fit_time`: of
    one medium. `fit_cache`: bytes of results that are kept."""

    mode: Literal["auto", "url", "inline", "upload"] = "auto"
    root: str | list[str] = "."
    inline_below: Size = Size("4MB")
    upload_life: Duration = Duration("24h")
    allow_private: list[str] = msgspec.field(default_factory=list)
    image: ImageFit | None = None
    video: VideoFit | None = None
    audio: AudioFit | None = None
    fit_time: Duration = Duration("10m")
    fit_cache: Size = Size("1GB")

    def fit_of(self, kind: Kind) -> Fit | None:
        """What a medium of this kind is made to fit."""
        return {"image": self.image, "video": self.video, "audio": self.audio}.get(kind)

    @property
    def fits(self) -> bool:
        """Is any medium to be made to fit?"""
        return self.image is not None or self.video is not None or self.audio is not None

    @property
    def roots(self) -> list[str]:
        return [self.root] if isinstance(self.root, str) else list(self.root)


class Output(_Section, frozen=True, kw_only=True):
    """Where the output goes. `checkpoint`: a local path for the SQLite file when `path` is on a network drive."""

    path: str
    rows_per_part: int = 10_000
    checkpoint: str | None = None


class Schedule(_Section, frozen=True, kw_only=True):
    """When the job runs by itself. `timezone` (IANA name; None: the machine's own) is that of `cron` and `window`, and
    fixes what day `run_date` is. `window`: nothing is submitted after its end. `catch_up`: a night that was missed is
    run as soon as may be. `jitter`: a run begins up to so much later. `retry`: rows that ended so get fresh attempts,
    on `retry_nights` nights at most."""

    cron: str | None = None
    timezone: str | None = None
    window: str | None = None
    catch_up: bool = False
    jitter: Duration = Duration(0)
    retry: list[Literal["failed", "timed_out", "in_doubt", "invalid"]] = msgspec.field(default_factory=list)
    retry_nights: int = 3


class Notify(_Section, frozen=True, kw_only=True):
    """Who is told when a run ends badly. `urls`: Apprise's; `webhook`: gets JSON; each may be "$NAME", which stands in
    the environment. `success`: also when it ends well. `spend`: also when it cost more credits than this."""

    urls: list[str] = msgspec.field(default_factory=list)
    webhook: str | None = None
    success: bool = False
    spend: float | None = None

    @property
    def targets(self) -> list[str]:
        return [*self.urls, *([] if self.webhook is None else [self.webhook])]


class Hooks(_Section, frozen=True, kw_only=True):
    """`after`: commands that are run when a run has ended, with its summary as JSON on their standard input."""

    after: list[str] = msgspec.field(default_factory=list)


class Guard(_Section, frozen=True, kw_only=True):
    """Stops a run whose answers are off. `after`: rows before it is looked at. `refused`, `empty`: shares of rows at
    most; the others factors to what was in the last `runs` runs (those from the day `since` on)."""

    after: int = 200
    runs: int = 7
    since: str | None = None
    refused: float | None = None
    empty: float | None = None
    length: float | None = None
    tokens: float | None = None
    credits: float | None = None
    latency: float | None = None


class ModelRule(_Section, frozen=True, kw_only=True):
    """A model the user adds, or one whose rules the user knows better. `match` is a name, or a prefix with `*`."""

    match: str
    media: list[Literal["image", "video", "audio", "file"]] = msgspec.field(default_factory=list)
    most_images: int | None = None
    most_videos: int | None = None
    requires_max_tokens: bool = False
    least_max_tokens: int | None = None
    youtube: bool = False
    thinks: bool = False


class Rules(_Section, frozen=True, kw_only=True):
    """The user's say in the rules: names of rules to switch off (`batchfox validate` prints them), models to add."""

    off: list[str] = msgspec.field(default_factory=list)
    models: list[ModelRule] = msgspec.field(default_factory=list)


class Job(_Section, frozen=True, kw_only=True):
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
            if isinstance(field.type, type) and issubclass(field.type, _Section) and not isinstance(value, field.type):
                raise JobError(
                    f"{field.name}: expected a record ({field.type.__name__}), got {_show(value)}; "
                    "Job.from_dict makes a job of plain dicts"
                )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Job:
        """A job from the TOML's tables. Raises `JobError` naming the key's path, what was found, what is allowed."""
        if not isinstance(data, dict):
            raise JobError(f"expected a dict of tables, got {type(data).__name__}; load_job reads a job file")
        _refuse_unprintable(data)
        _refuse_unknown(data, cls, "")
        try:
            job = msgspec.convert(data, cls, dec_hook=_decode)
        except msgspec.ValidationError as error:
            raise JobError(_say(str(error))) from error
        _check(job)
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
    for name, section in _sections(struct).items():
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
            raise ValueError(f'expected seconds or a duration such as "90s", got {_show(value)}')
        return Duration(value)
    if wanted is Size:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError(f'expected bytes or a size such as "256MB", got {_show(value)}')
        return Size(value)
    raise NotImplementedError(wanted)


def _encode(value: Any) -> Any:
    return int(value) if isinstance(value, Size) else float(value)


def _sections(struct: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct] | None]:
    found: dict[str, type[msgspec.Struct] | None] = {}
    for field in msgspec.structs.fields(struct):
        kinds = get_args(field.type) if isinstance(field.type, UnionType) else (field.type,)
        structs = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        found[field.name] = structs[0] if structs else None
    return found


def _refuse_unknown(data: dict[str, Any], struct: type[msgspec.Struct], path: str) -> None:
    sections = _sections(struct)
    for name, value in data.items():
        where = f"{path}{name}"
        if name not in sections:
            raise JobError(f"{where}: unknown key{nearest(name, sections)}; allowed here: {', '.join(sections)}")
        section = sections[name]
        if section is not None:
            if not isinstance(value, dict):
                raise JobError(f"{where}: expected a table [{where}], got {_show(value)}")
            _refuse_unknown(value, section, f"{where}.")


def _refuse_unprintable(data: dict[str, Any]) -> None:
    """Raises `JobError` for a name or a setting that no file and no log can hold, and for tables without a bottom.
    (Text in [request] is the rules' business.)"""
    left: list[tuple[str, int, Any]] = [("", 0, data)]
    while left:
        where, depth, value = left.pop()
        if depth > _MOST_DEPTH:
            raise JobError(f"{where[:40]}…: lists or tables are nested too deep; at most {_MOST_DEPTH} levels")
        if isinstance(value, dict):
            for name, inner in value.items():
                _demand(_is_unicode(str(name)), where or "the job", name, "names in Unicode (UTF-8)")
                left.append((f"{where}.{name}" if where else str(name), depth + 1, inner))
        elif isinstance(value, list):
            left += ((where, depth + 1, inner) for inner in value)
        elif isinstance(value, str) and not where.startswith("request."):
            _demand(_is_unicode(value), where, value, "text in Unicode (UTF-8)")


def _is_unicode(text: str) -> bool:
    """Bytes that are no UTF-8 come from the command line as halves of surrogate pairs."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def nearest(name: str, known: Any) -> str:
    """A suggestion to append to an error: ` (did you mean "x"?)`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _show(value: Any) -> str:
    return {bool: "a boolean", dict: "a table", list: "a list"}.get(type(value), repr(value))


def _say(message: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.limits.in_flight`" in the words of the job file."""
    text, _, place = message.partition(" - at `$.")
    if missing := re.match(r"Object missing required field `(\w+)`", text):
        prefix = place.rstrip("`")
        where = f"{prefix}.{missing[1]}" if prefix else missing[1]
        return f"{where}: missing; a job needs it"
    place = place.rstrip("`")
    if wrong := re.match(r"Invalid enum value (.*)", text):
        return f"{place}: expected {_words(place)}, got {wrong[1]}"
    text = text.replace("`", "").replace("Expected", "expected")
    return f"{place or 'the job file'}: {text}"


def _words(place: str) -> str:
    """What the key at `place` takes, where that is a choice of words (or a number)."""
    kinds: list[Any] = [Job]
    for name in re.sub(r"\[.*?\]", "", place).split("."):
        structs = [kind for kind in _unfold(kinds) if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        kinds = [field.type for struct in structs for field in msgspec.structs.fields(struct) if field.name == name]
    found = list(_unfold(kinds))
    words = [f'"{word}"' for word in found if isinstance(word, str)]
    return " or ".join([*words, *("a whole number" for kind in found if kind is int)])


def _unfold(kinds: Any) -> Iterator[Any]:
    """The types, their arguments, and the arguments of those."""
    for kind in kinds:
        yield kind
        yield from _unfold(get_args(kind))


def _check(job: Job) -> None:
    """Impossible values, each with its path."""
    limits, retry, poll, output = job.limits, job.retry, job.poll, job.output
    for where, path in (
        *(("input.path", path) for path in job.input.paths),
        ("output.path", output.path),
        ("output.checkpoint", output.checkpoint or ""),
        *(("media.root", root) for root in job.media.roots),
        ("name", job.name),  # it may stand in the output's path
    ):
        _demand("\0" not in path, where, path, "text without a NUL")
    _demand(all(job.input.paths) and bool(job.input.paths), "input.path", job.input.path, "at least one path")
    _demand(bool(job.output.path.strip()), "output.path", job.output.path, "a folder's path")
    _demand(limits.in_flight >= 1, "limits.in_flight", limits.in_flight, "1 or more")
    _demand(limits.bytes_in_flight >= 1, "limits.bytes_in_flight", int(limits.bytes_in_flight), "1 or more")
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
        _demand(value is None or 0 < value < float("inf"), f"limits.{name}", value, "more than 0")
    _demand(1 <= retry.attempts <= 100, "retry.attempts", retry.attempts, "1 to 100")
    _demand(
        retry.in_doubt_limit == "auto" or retry.in_doubt_limit >= 0,
        "retry.in_doubt_limit",
        retry.in_doubt_limit,
        '0 or more, or "auto"',
    )
    media = job.media
    _demand(all(media.roots) and bool(media.roots), "media.root", media.root, "at least one folder or prefix")
    for network in media.allow_private:
        _demand(_is_network(network), "media.allow_private", network, 'networks such as "10.1.0.0/16"')
    _demand(media.inline_below >= 0, "media.inline_below", int(media.inline_below), "0 or more")
    _demand(60 <= media.upload_life < float("inf"), "media.upload_life", float(media.upload_life), "a minute or more")
    _demand(media.fit_cache >= 0, "media.fit_cache", int(media.fit_cache), "0 or more")
    for where, found, wanted in mistakes(media.image, media.video, media.audio):
        _demand(holds=False, where=where, found=found, wanted=wanted)
    # An endless patience or time-out would break the promise that a run always ends.
    for where, seconds in (
        ("retry.patience", retry.patience),
        ("poll.task_timeout", poll.task_timeout),
        ("poll.stream_idle", poll.stream_idle),
        ("media.fit_time", media.fit_time),
    ):
        _demand(0 < seconds < float("inf"), where, float(seconds), "more than 0, and an end")
    _demand(_is_delay(poll), "poll.first", poll.first, 'seconds, a duration such as "5s", or "auto"')
    _demand(
        1 <= job.output.rows_per_part <= 1_000_000, "output.rows_per_part", job.output.rows_per_part, "1 to 1,000,000"
    )
    _demand(0.01 <= poll.eagerness <= 100, "poll.eagerness", poll.eagerness, "0.01 to 100")
    for complaint in (complaint_of(job.schedule), complaint_of_notify(job.notify), complaint_of_hooks(job.hooks)):
        if complaint is not None:
            raise JobError(complaint)
    _check_guard(job.guard)
    base = job.api.base_url
    wanted = f'an http(s) URL, or "simulator"{nearest(base, [SIMULATOR])}'
    _demand(base == SIMULATOR or _is_base_url(base), "api.base_url", mask(base), wanted)
    _demand("@" not in base, "api.base_url", mask(base), "no user name or password: the key is all the API takes")
    _demand(
        job.api.base_url == SIMULATOR or not job.api.simulate,
        "api.simulate",
        job.api.simulate,
        'nothing unless base_url = "simulator"',
    )


def _check_guard(guard: Guard) -> None:
    _demand(guard.after >= 10, "guard.after", guard.after, "10 or more")
    _demand(1 <= guard.runs <= 365, "guard.runs", guard.runs, "1 to 365")
    _demand(guard.since is None or bool(_DAY.fullmatch(guard.since)), "guard.since", guard.since, 'a day: "2026-01-31"')
    for name in ("refused", "empty"):
        value = getattr(guard, name)
        _demand(value is None or 0 <= value < 1, f"guard.{name}", value, "a share of rows, such as 0.05")
    for name in ("length", "tokens", "credits", "latency"):
        value = getattr(guard, name)
        _demand(value is None or 1 < value < float("inf"), f"guard.{name}", value, "a factor above 1, such as 1.5")


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


def _demand(holds: bool, where: str, found: Any, wanted: str) -> None:
    if not holds:
        raise JobError(f"{where}: expected {wanted}, got {_show(found)}")
