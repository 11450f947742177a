"""How long a job's recordings and videos play: what they cost depends on it. Looked at in a process of its own."""

from __future__ import annotations

import tempfile
import threading
from typing import IO, Any

import msgspec

from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import show
from batchfox.core.sections import Media
from batchfox.core.shape import Medium
from batchfox.fit.orders import Order, RefusedError
from batchfox.fit.workers import Workers, missing_package
from batchfox.media import MediaDoor, state_of

LIMIT_S = 20.0
_COPY_BYTES = 1 << 20
MOST_KNOWN = 100_000


class Played(msgspec.Struct, kw_only=True):
    """Of one kind: how many media, each use counted; the seconds of those that tell; the longest, and which it is."""

    media: int = 0
    untold: int = 0
    seconds: float = 0.0
    longest_s: float = 0.0
    longest: str = ""

    def add(self, seconds: float | None, shown: str, uses: int) -> None:
        self.media += uses
        if seconds is None:
            self.untold += uses
            return
        self.seconds += seconds * uses
        if seconds > self.longest_s:
            self.longest_s, self.longest = seconds, shown


class Durations:
    """`problem`: why no duration is told, where that is so."""

    def __init__(self, media: Media) -> None:
        self._door = MediaDoor(media)
        self._workers = Workers(LIMIT_S)
        self._turn = threading.Lock()  # one process is enough
        self._known: dict[str, float | None] = {}
        missing = missing_package("audio")
        self.problem = f"{missing} is not installed: pip install 'batchfox[media]'" if missing else None
        self.played: dict[str, Played] = {}

    def close(self) -> None:
        """Ends the processes."""
        self._workers.close()

    def note(self, medium: Medium) -> None:
        """A medium that is here, once for each use."""
        if medium.kind not in ("audio", "video"):
            return
        key = medium.value if isinstance(medium.value, str) and len(medium.value) < 1000 else None
        if key is None or key not in self._known:
            seconds = self._of_local(medium)
            if key is not None and len(self._known) < MOST_KNOWN:
                self._known[key] = seconds
        else:
            seconds = self._known[key]
        self.add(medium.kind, seconds, show(medium.value))

    def of_head(self, kind: str, head: bytes, size: int | None) -> float | None:
        """Seconds of a medium somewhere else, of which the beginning is here, and how large it is. For a thread."""
        if kind not in ("audio", "video") or size is None or self.problem is not None:
            return None
        with tempfile.TemporaryFile() as file:
            file.write(head)
            # As long as it is there: who tells by the size must not take the beginning for all of it.
            file.truncate(max(size, len(head)))
            return self._ask(file)

    def add(self, kind: str, seconds: float | None, shown: str, uses: int = 1) -> None:
        """One that was looked at, or could not be."""
        if kind in ("audio", "video"):
            self.played.setdefault(kind, Played()).add(seconds, shown, uses)

    def _of_local(self, medium: Medium) -> float | None:
        if self.problem is not None:
            return None
        request: dict[str, Any] = (
            {"audio_url": medium.value} if medium.kind == "audio" else {"video_urls": [medium.value]}
        )
        found = self._door.look(request)
        if not isinstance(found, list):
            return None  # it was found before, and is gone
        try:
            with self._door.open(found[0]) as opened:
                return self._of_open(opened)
        except ClosedDoorError:
            return None

    def _of_open(self, opened: IO[bytes]) -> float | None:
        if state_of(opened) is not None:
            return self._ask(opened)
        with tempfile.TemporaryFile() as file:
            while block := opened.read(_COPY_BYTES):
                file.write(block)
            return self._ask(file)

    def _ask(self, file: IO[bytes]) -> float | None:
        if file.writable():
            file.flush()
        try:
            with self._turn:
                return self._workers.ask(Order(), file.fileno()).seconds
        except RefusedError:
            return None
