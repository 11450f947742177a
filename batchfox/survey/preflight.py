"""`validate --media`: every remote medium looked at without paying, each distinct one once, gently for each host."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from batchfox.bodies import is_remote
from batchfox.closed_door import ClosedDoorError
from batchfox.core.addresses import Allowed
from batchfox.core.complaint import show
from batchfox.core.fallback import to_fetch
from batchfox.core.job import Job
from batchfox.core.pixels import MOST_PIXELS, pixels_of
from batchfox.core.presigned import expires_at
from batchfox.core.row import Row
from batchfox.core.shape import Kind, media_of
from batchfox.fetching import Fetcher, Probe
from batchfox.media_type import tell, type_of
from batchfox.roots import MOST_FILE_BYTES
from batchfox.survey.durations import Durations, Played
from batchfox.survey.findings import MOST_PLACES, Finding
from batchfox.words import duration

MOST_AT_ONCE = 16
MOST_A_HOST = 2
_GAP_S = 0.05
_TABLE = """
CREATE TABLE medium (
    url TEXT, kind TEXT, uses INTEGER, first_use INTEGER, last_use INTEGER, place TEXT, PRIMARY KEY (url, kind)
)
"""


class Preflight(msgspec.Struct, kw_only=True):
    """What was found. `media`: all that requests name; `remote`: distinct ones by URL, of which `repeated` are used
    more than once; `reachable`: those that are there, with `bytes` in all as far as their servers tell. `plays`: how
    long recordings and videos play, by kind; `plays_unknown`: why none of that is told."""

    media: int = 0
    remote: int = 0
    repeated: int = 0
    reachable: int = 0
    bytes: int = 0
    plays: dict[str, Played] = msgspec.field(default_factory=dict)
    plays_unknown: str | None = None
    problems: list[Finding] = msgspec.field(default_factory=list)


class Media:
    """The distinct remote media of a job's requests, on disk: memory does not grow with them; and how long those play
    that are here. A context manager."""

    def __init__(self, job: Job) -> None:
        self.durations = Durations(job.media)
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(_TABLE)
        self._db.execute("BEGIN")
        self.requests = 0
        self.media = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self.durations.close()

    def note(self, row: Row, request: dict[str, Any]) -> None:
        """The media of the next request that is to be sent."""
        media = media_of(request)
        self.media += len(media)
        for medium in media:
            if not is_remote([medium]):
                self.durations.note(medium)
        for medium in to_fetch(request):
            self._db.execute(
                "INSERT INTO medium VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET uses = uses + 1, last_use = ?",
                (medium.value, medium.kind, self.requests, self.requests, row.place, self.requests),
            )
        self.requests += 1

    def each(self) -> Iterator[tuple[str, Kind, int, int, str]]:
        """URL, kind, uses, the last request that uses it, where the first is."""
        yield from self._db.execute("SELECT url, kind, uses, last_use, place FROM medium ORDER BY first_use")

    def look(self, job: Job) -> Preflight:
        """Looks at each. Nothing is sent to the API."""
        return asyncio.run(_Look(self, job).run())


class _Look:
    def __init__(self, media: Media, job: Job) -> None:
        self._media = media
        self._job = job
        self._hosts: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MOST_A_HOST))
        self._found = Preflight(media=media.media)
        self._problems: dict[str, Finding] = {}
        self._now = time.time()

    async def run(self) -> Preflight:
        under_way: set[asyncio.Task[None]] = set()
        async with Fetcher(Allowed(self._job.media.allow_private), most_at_once=MOST_AT_ONCE) as fetcher:
            for url, kind, uses, last_use, place in self._media.each():
                self._found.remote += 1
                self._found.repeated += uses > 1
                under_way.add(asyncio.create_task(self._look_at(fetcher, url, kind, uses, last_use, place)))
                if len(under_way) >= MOST_AT_ONCE:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
            await asyncio.gather(*under_way)
        durations = self._media.durations
        self._found.plays = durations.played
        self._found.plays_unknown = durations.problem if durations.played else None
        self._found.problems = sorted(self._problems.values(), key=lambda problem: -problem.rows)
        return self._found

    async def _look_at(self, fetcher: Fetcher, url: str, kind: Kind, uses: int, last_use: int, place: str) -> None:
        with contextlib.suppress(ValueError):
            async with self._hosts[urlsplit(url).netloc]:
                try:
                    probe = await fetcher.probe(url)
                except ClosedDoorError as refusal:
                    self._note("media_unreachable", refusal.found, uses, place)
                    return
                await asyncio.sleep(_GAP_S)
        self._found.reachable += 1
        self._found.bytes += probe.size or 0
        durations = self._media.durations
        seconds = await asyncio.to_thread(durations.of_head, kind, probe.head, probe.size)
        durations.add(kind, seconds, show(url), uses)
        self._judge(probe, url, kind, uses, last_use, place)

    def _judge(self, probe: Probe, url: str, kind: Kind, uses: int, last_use: int, place: str) -> None:
        if type_of(probe.head, urlsplit(url).path, kind) is None:
            what = next(iter(tell(probe.head)), "nothing known")
            self._note("media_type", f"{show(url)}: its bytes say {what}, not {kind}", uses, place)
        width, height = pixels_of(probe.head) or (0, 0)
        if kind == "image" and width * height > MOST_PIXELS:
            self._note("media_pixels", f"{show(url)}: {width:,} x {height:,} pixels", uses, place)
        if probe.size is not None and probe.size > MOST_FILE_BYTES:
            self._note("media_size", f"{show(url)}: {probe.size / 1e6:,.1f} MB, more than 100 MB", uses, place)
        ends_at, pace = expires_at(url), self._job.limits.requests_per_minute
        turn_s = last_use / pace * 60.0 if pace else 0.0
        if ends_at is not None and ends_at < self._now + turn_s:
            left = f"{max(ends_at - self._now, 0.0) / 60:,.0f} min, the turn of its last row in {turn_s / 60:,.0f} min"
            self._note("media_expires", f"{show(url)}: the link ends in {left}", uses, place)

    def _note(self, rule: str, example: str, rows: int, place: str) -> None:
        problem = self._problems.setdefault(rule, Finding(rule=rule, severity="media", example=example))
        problem.rows += rows
        if len(problem.places) < MOST_PLACES:
            problem.places.append(place)


def describe_media(found: Preflight, *, rows: int) -> Iterator[str]:
    """The preflight in plain lines: what would fail, by reason, with where each first is. `rows`: still to be sent."""
    if not found.media:
        yield f"media: none to look at: no row {'that is to be sent has any' if rows else 'is to be sent'}"
        return
    yield (
        f"media: {found.media:,}; remote ones: {found.remote:,} distinct, {found.repeated:,} used more than once, "
        f"{found.reachable:,} reachable, {found.bytes / 1e6:,.1f} MB"
    )
    if found.plays_unknown is not None:
        yield f"how long media play is not told: {found.plays_unknown}"
    else:
        for kind, played in sorted(found.plays.items()):
            untold = f"; {played.untold:,} do not tell" if played.untold else ""
            longest = f", the longest {duration(played.longest_s)} ({played.longest})" if played.longest_s else ""
            yield f"{kind}: {played.media:,} play {duration(played.seconds)} in all{longest}{untold}"
    for problem in found.problems:
        places = ", ".join(problem.places) + (", ..." if problem.rows > len(problem.places) else "")
        yield f"{problem.rule}: used {problem.rows:,} times ({places})"
        yield f"    {problem.example}"
