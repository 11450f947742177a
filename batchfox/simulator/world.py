"""What one simulator knows: settings, tasks, book, uploads. The endpoints read and change it only through here."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

from batchfox.simulator import tasks
from batchfox.simulator.answers import Brief, completion_tokens
from batchfox.simulator.arrivals import GONE, URL
from batchfox.simulator.book import Book
from batchfox.simulator.catalogue import Catalogue
from batchfox.simulator.draws import draw
from batchfox.simulator.faults import TABLE, Fault, Where
from batchfox.simulator.latency import parse_latency
from batchfox.simulator.rates import MINUTE_S, Bucket, Limiter, SlidingWindow, Unlimited, whole_seconds
from batchfox.simulator.refusal import RefusalError
from batchfox.simulator.settings import Settings, changed
from batchfox.simulator.shelf import Shelf, Upload
from batchfox.simulator.store import FLUSH_S, Former, Store
from batchfox.simulator.tasks import Fate, Task


class World:
    """The state behind all endpoints. `store` None: nothing outlives it. Lives in one event loop."""

    def __init__(self, settings: Settings, store: Store | None, folder: Path | None) -> None:
        former = Former() if store is None else store.former()
        self.settings = settings
        self.book = Book(former.counts, former.tasks)
        self.shelf = Shelf(folder, former.uploads)
        self.stopping = asyncio.Event()
        self.url = ""
        self._store = store
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = {task.id: task for task in former.tasks}
        self._numbers = dict(former.numbers)
        self._set_limits()
        self._set_chances()

    def now(self) -> float:
        """Unix seconds: of all clocks the one that a restart does not turn back."""
        return time.time()

    async def nap(self, seconds: float) -> bool:
        """Waits; False where the simulator stopped meanwhile."""
        if seconds <= 0:
            return not self.stopping.is_set()
        try:
            await asyncio.wait_for(self.stopping.wait(), None if seconds == float("inf") else seconds)
        except TimeoutError:
            return True
        return False

    def change(self, changes: Mapping[str, Any]) -> Settings:
        """Takes over other settings from now on. Raises SettingsError and changes nothing."""
        before, self.settings = self.settings, changed(self.settings, changes)
        limits = ("rpm", "rate_limit", "burst", "model_rpm", "poll_rpm")
        if any(getattr(before, name) != getattr(self.settings, name) for name in limits):
            self._set_limits()
        self._set_chances()
        return self.settings

    def _set_chances(self) -> None:
        settings = self.settings
        self.catalogue = Catalogue(settings.models)
        self._latency = parse_latency(settings.latency)
        self._rates: dict[Where, tuple[tuple[Fault, float], ...]] = {
            where: tuple(
                (fault, rate) for fault in TABLE if fault.where == where and (rate := settings.faults.get(fault.name))
            )
            for where in get_args(Where)
        }

    def _set_limits(self) -> None:
        now, settings = self.now(), self.settings
        newest = takewhile(lambda task: task.created > now - MINUTE_S, reversed(self._tasks.values()))
        earlier = sorted(task.created for task in newest)
        self._submits: Limiter
        if settings.rpm is None:
            self._submits = Unlimited()
        elif settings.rate_limit == "bucket":
            self._submits = Bucket(settings.rpm, settings.burst, now)
        else:
            self._submits = SlidingWindow(settings.rpm, earlier)
        self._by_model: dict[str, Limiter] = {model: SlidingWindow(rpm) for model, rpm in settings.model_rpm.items()}
        self._polls: Limiter = Unlimited() if settings.poll_rpm is None else SlidingWindow(settings.poll_rpm)

    def admit_submit(self, now: float) -> None:
        """Raises the 429 of a submit that comes too soon."""
        if wait_s := self._submits.take(now):
            raise self._too_many(wait_s, f"rpm {self.settings.rpm}")

    def admit_model(self, model: str, now: float) -> None:
        """Raises the 429 of a submit that comes too soon for its model."""
        limiter = self._by_model.get(model)
        if limiter is not None and (wait_s := limiter.take(now)):
            raise self._too_many(wait_s, f"rpm {self.settings.model_rpm[model]} of {model}")

    def admit_poll(self, now: float) -> None:
        """Raises the 429 of a poll that comes too soon."""
        if wait_s := self._polls.take(now):
            raise self._too_many(wait_s, f"poll rpm {self.settings.poll_rpm}")

    def _too_many(self, wait_s: float, limit: str) -> RefusalError:
        if self.settings.retry_after_s is not None:
            wait_s = self.settings.retry_after_s
        message = f"Rate limit reached ({limit}), please try again in {whole_seconds(wait_s)} s"
        headers = self.retry_after(wait_s)
        return RefusalError(429, "rate_limit_error", message, code="rate_limit_exceeded", headers=headers)

    def retry_after(self, wait_s: float) -> dict[str, str]:
        """The `Retry-After` header for a wait, in the form that the settings choose."""
        match self.settings.retry_after:
            case "seconds":
                return {"Retry-After": str(whole_seconds(wait_s))}
            case "date":
                # A date has whole seconds: one more, or the moment named would lie before the end of the wait.
                return {"Retry-After": formatdate(self.now() + whole_seconds(wait_s) + 1, usegmt=True)}
            case "none":
                return {}

    def strike(self, where: Where, *words: str | int) -> Fault | None:
        """The fault drawn for these words: the first of the table that hits."""
        for fault, rate in self._rates[where]:
            if draw(self.settings.seed, fault.name, *words) < rate:
                return fault
        return None

    def is_struck(self, name: str, *words: str | int) -> bool:
        """Whether the fault of that name is drawn for these words."""
        rate = self.settings.faults.get(name)
        return bool(rate) and draw(self.settings.seed, name, *words) < (rate or 0.0)

    def next_number(self, digest: str) -> int:
        """Counts one more submit of this digest that came as far as the faults."""
        number = self._numbers[digest] = self._numbers.get(digest, 0) + 1
        return number

    def note_refused(self, digest: str, number: int) -> None:
        """A fault refused that submit: its number is not given again, not even after a restart."""
        if self._store is not None:
            self._store.refused(digest, number)
            self._flush_soon()

    def fate_of(self, brief: Brief, number: int) -> Fate:
        """How the task of that submit is to end. A rejection is of the request: it recurs with every submit; so does an
        upload that is gone."""
        digest = brief.digest
        if GONE in brief.media:
            return "media_unfetched"
        if self.is_struck("task_rejected", digest):
            return "task_rejected"
        if URL in brief.media and self.is_struck("media_unfetched", digest, number):
            return "media_unfetched"
        for fate in _FATES:
            if self.is_struck(fate, digest, number):
                return fate
        return "completed"

    def reserve(self, brief: Brief, now: float) -> float:
        """The credits that a submit reserves; raises the 402 of one that the balance does not cover."""
        model = self.catalogue.find(brief.model)
        reserved = 0.0 if model is None else model.reservation(brief.prompt_tokens, brief.max_tokens)
        balance = self.settings.balance
        if balance is not None and self.book.spent(now) + reserved > balance + 1e-9:
            left = max(0.0, round(balance - self.book.spent(now), 6))
            message = f"Insufficient balance: {left} credits left, the request needs {reserved}"
            raise RefusalError(402, "insufficient_quota", message, code="insufficient_quota")
        return reserved

    def open_task(
        self, brief: Brief, number: int, reserved: float, fate: Fate, struck: Fault | None, *, has_stream: bool
    ) -> Task:
        """Makes the task and bills it. It is in the book, and in the state file, when this returns."""
        now, seed, words = self.now(), self.settings.seed, (brief.digest, number)
        latency_s = self._latency.seconds(draw(seed, "latency", *words), draw(seed, "hump", *words))
        model = self.catalogue.find(brief.model)
        is_charged = model is not None and fate not in ("task_failed", "task_rejected", "media_unfetched")
        salt = 0
        while (name := tasks.task_id(seed, brief, number, now, salt)) in self._tasks:
            salt += 1
        task = Task(
            seq=len(self._tasks),
            id=name,
            brief=brief,
            number=number,
            created=now,
            latency_s=latency_s * tasks.LATE_TIMES if fate == "late" else latency_s,
            fate=fate,
            struck=None if struck is None else struck.name,
            reserved=reserved,
            charge=model.credits(brief.prompt_tokens, completion_tokens(brief)) if model and is_charged else 0.0,
            has_stream=has_stream,
        )
        if self._store is not None:
            self._store.add_task(task)
            self._flush_soon()
        self._tasks[task.id] = task
        self.book.submit_billed(task)
        return task

    def find_task(self, name: str, now: float) -> Task:
        """The task of that id; raises the 404 of one that is unknown or gone."""
        task = self._tasks.get(name)
        if task is None or tasks.status_at(task, now) == "gone":
            raise RefusalError(404, "not_found", f"Task {name} not found", code="not_found")
        return task

    def touch(self, task: Task) -> None:
        """The task's counters changed."""
        if self._store is not None:
            self._store.touch(task)
            self._flush_soon()

    def kept_since(self) -> float:
        """Uploads from before this moment are gone, unix seconds."""
        life_s = self.settings.upload_life_s
        return float("-inf") if life_s is None else self.now() - life_s

    def find_upload(self, url: str) -> str | None:
        """The digest of the uploaded file at a URL of this server, "" where it is gone; None for any other URL. A
        server that is started again has another port."""
        parts = urlsplit(url)
        if parts.hostname != urlsplit(self.url).hostname or not parts.path.startswith("/files/"):
            return None
        file_id, _, filename = unquote(parts.path.removeprefix("/files/")).partition("/")
        upload = self.shelf.find(file_id, filename, self.kept_since())
        return "" if upload is None else upload.digest

    def add_upload(self, upload: Upload) -> None:
        """An upload was kept."""
        self.book.upload_taken()
        if self._store is not None:
            self._store.add_upload(upload)
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        # A full disk costs counters at worst: they wait for the next flush. Tasks are not written here.
        with suppress(sqlite3.Error):
            if self._store is not None:
                self._store.flush(self.book.counts())

    def close(self) -> None:
        """Writes what is left to write and closes the files."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        self.shelf.close()
        if self._store is not None:
            self._store.close()


_FATES: tuple[Fate, ...] = ("task_failed", "stuck", "expired", "late")
