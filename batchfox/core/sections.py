"""The tables of a job file: names, defaults, meaning. Source: contract.md, "The job file"."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchfox.core.fit import AudioFit, Fit, ImageFit, VideoFit
from batchfox.core.quantity import Duration, Size
from batchfox.core.shape import Kind

SIMULATOR = "simulator"


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table."""


class Input(Section, frozen=True, kw_only=True):
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


class Api(Section, frozen=True, kw_only=True):
    """Which API, and the name of the environment variable that holds the key."""

    base_url: str = "https://api.foxapi.cc"
    key_env: str = "FOXAPI_API_KEY"
    simulate: dict[str, Any] = msgspec.field(default_factory=dict)


class Limits(Section, frozen=True, kw_only=True):
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


class Retry(Section, frozen=True, kw_only=True):
    """What is paid for again. `attempts`: billed submits a row may cost, at most."""

    attempts: int = 4
    failed: Literal["never", "transient", "always"] = "transient"
    in_doubt: Literal["resubmit", "hold"] = "resubmit"
    in_doubt_limit: int | Literal["auto"] = "auto"
    patience: Duration = Duration("1h")


class Poll(Section, frozen=True, kw_only=True):
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


class Media(Section, frozen=True, kw_only=True):
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


class Output(Section, frozen=True, kw_only=True):
    """Where the output goes. `checkpoint`: a local path for the SQLite file when `path` is on a network drive."""

    path: str
    rows_per_part: int = 10_000
    checkpoint: str | None = None


class Schedule(Section, frozen=True, kw_only=True):
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


class Notify(Section, frozen=True, kw_only=True):
    """Who is told when a run ends badly. `urls`: Apprise's; `webhook`: gets JSON; each may be "$NAME", which stands in
    the environment. `success`: also when it ends well. `spend`: also as soon as it has cost more credits than this."""

    urls: list[str] = msgspec.field(default_factory=list)
    webhook: str | None = None
    success: bool = False
    spend: float | None = None

    @property
    def targets(self) -> list[str]:
        return [*self.urls, *([] if self.webhook is None else [self.webhook])]


class Hooks(Section, frozen=True, kw_only=True):
    """`after`: commands that are run when a run has ended, with its summary as JSON on their standard input."""

    after: list[str] = msgspec.field(default_factory=list)


class Guard(Section, frozen=True, kw_only=True):
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


class ModelRule(Section, frozen=True, kw_only=True):
    """A model the user adds, or one whose rules the user knows better. `match` is a name, or a prefix with `*`."""

    match: str
    media: list[Literal["image", "video", "audio", "file"]] = msgspec.field(default_factory=list)
    most_images: int | None = None
    most_videos: int | None = None
    requires_max_tokens: bool = False
    least_max_tokens: int | None = None
    youtube: bool = False
    thinks: bool = False


class Rules(Section, frozen=True, kw_only=True):
    """The user's say in the rules: names of rules to switch off (`batchfox validate` prints them), models to add."""

    off: list[str] = msgspec.field(default_factory=list)
    models: list[ModelRule] = msgspec.field(default_factory=list)
