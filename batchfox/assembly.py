"""Puts a run together: the pure core and the hands it needs, as the job says. Nothing here runs."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batchfox.bodies import Bodies
from batchfox.checkpoint import Checkpoint
from batchfox.core.breaker import Breaker
from batchfox.core.budget import Budget
from batchfox.core.carry import Carry
from batchfox.core.dispatch import Fleet
from batchfox.core.drift import DriftWatch, Sums, bounds_of
from batchfox.core.first_look import FirstLook
from batchfox.core.gate import Doubts, Gate
from batchfox.core.job import Job
from batchfox.core.lifecycle import Policy
from batchfox.core.outcome import COLUMNS, EXTRA
from batchfox.core.paces import Paces
from batchfox.core.prepare import Preparer
from batchfox.core.row import Row
from batchfox.core.rulebook import RuleBook
from batchfox.core.secret import Secret
from batchfox.core.sections import Media
from batchfox.core.settle import Orders
from batchfox.core.timing import Timing
from batchfox.core.tokens import Tokens
from batchfox.core.watch import Watch
from batchfox.crew import Clock
from batchfox.errors import JobError
from batchfox.feed import Feed
from batchfox.fetching import Fetcher
from batchfox.filing import Filing
from batchfox.fit.cache import Cache
from batchfox.fit.fitter import Fitter
from batchfox.fit.workers import Workers, number_of_workers
from batchfox.folders import Folders
from batchfox.ledger import Ledger, Unfiled
from batchfox.loading import Loader
from batchfox.media import MediaDoor
from batchfox.monitor import Monitor
from batchfox.pool import Limits, Pool, Sender
from batchfox.recorder import Recorder
from batchfox.reserve import Reserve
from batchfox.sharing import Share
from batchfox.token_share import TokenShare
from batchfox.twins import Twins
from batchfox.upload_table import UploadTable
from batchfox.uploads import Uploader, Uploads

if TYPE_CHECKING:
    from batchfox.history import Run
    from batchfox.key_ledger import KeyLedger
    from batchfox.log import Log
    from batchfox.purse import DayPurse
    from batchfox.source import Source


class RemoteApi(Sender, Uploader, Protocol):
    """The API, as far as a run needs it."""


def own_columns() -> set[str]:
    """Names that the output itself uses."""
    return {*COLUMNS, EXTRA}


class Workshop:
    """The threads and connections of one execution; all end with the stack."""

    def __init__(self, stack: contextlib.ExitStack, path: Path, folder: Path) -> None:
        """`path`: the checkpoint's; `folder`: the output's own."""
        self._stack = stack
        self._folder = folder
        self._path = path
        self.reserve = Reserve(path.with_name(f"{path.name}-reserve"))
        stack.callback(self.reserve.release)
        self.reserve.fill()
        self.checkpoint = self.connect()

    def thread(self, name: str, number: int = 1) -> ThreadPoolExecutor:
        """A thread of its own, or several."""
        return self._stack.enter_context(ThreadPoolExecutor(number, thread_name_prefix=name))

    def fitter(self, media: Media, door: MediaDoor) -> Fitter | None:
        """What makes media fit, where the job wants that; its processes end with the execution."""
        if not media.fits:
            return None
        threads = self.thread("fit", number_of_workers() + 1)
        workers = self._stack.enter_context(contextlib.closing(Workers(float(media.fit_time))))
        return Fitter(media, door, Cache(self._folder / "fitted", media.fit_cache), workers, threads)

    def connect(self, *, read_only: bool = False) -> Checkpoint:
        """A connection of its own to the checkpoint."""
        return self._stack.enter_context(contextlib.closing(Checkpoint(self._path, read_only=read_only)))


def make_fleet(job: Job, run: Run, learned: bytes | None, *, tokens_before: tuple[float, float] = (0.0, 0.0)) -> Fleet:
    """The fleet as the job orders it, with what earlier runs learned and spent; `tokens_before`: as of `Tokens`."""
    policy = Policy(
        attempts=job.retry.attempts,
        failed=job.retry.failed,
        in_doubt=job.retry.in_doubt,
        patience_s=float(job.retry.patience),
        falls_back=job.media.mode != "url",
    )
    limits = job.limits
    orders = Orders(
        policy=policy,
        in_flight=limits.in_flight,
        bytes_in_flight=limits.bytes_in_flight,
        run_id=run.run_id,
        run_date=run.run_date,
    )
    draw = random.random
    timing = Timing(job.poll.first_s, draw, job.poll.eagerness)
    if learned is not None:
        timing.restore(learned)
    before = run.before
    budget = Budget(
        job.limits.credits, spent=before.get("credits_spent", 0.0), standing=before.get("credits_standing", 0.0)
    )
    limit = None if job.retry.in_doubt_limit == "auto" else job.retry.in_doubt_limit
    gate = Gate(
        pace=Paces(job.limits.requests_per_minute),
        tokens=Tokens(job.limits.tokens_per_minute, before=tokens_before),
        breaker=Breaker(),
        budget=budget,
        doubts=Doubts(limit, resubmitted=before.get("in_doubt_resubmitted", 0)),
    )
    fleet = Fleet(orders, gate=gate, watch=Watch(timing, float(job.poll.task_timeout), draw), draw=draw)
    fleet.submits_before = before.get("submits", 0)
    return fleet


def carry_of(job: Job, source: Source) -> Carry:
    """Which of the input's columns travel."""
    return Carry(job.input.keep, own_columns(), binary=source.binary_columns, hide=source.secret.hide)


def make_filing(job: Job, shop: Workshop, folders: Folders, source: Source, log: Log) -> Filing:
    """The writer of parts, with a connection of its own."""

    def known_types() -> Any:
        return None if source.types is None else carry_of(job, source).types(source.types)

    return Filing(
        shop.connect(),
        folders,
        has_ids=source.id_column is not None,
        known_types=known_types,
        note=lambda event, values: log.info(event, **values),
        warn=lambda event, values: log.warning(event, **values),
    )


def make_pool(
    job: Job,
    shop: Workshop,
    fleet: Fleet,
    sender: RemoteApi,
    fetcher: Fetcher,
    filing: Filing,
    monitor: Monitor,
    book: RuleBook,
    clock: Clock,
    before: dict[str, Any],
    secret: Secret,
    until: float | None = None,
    past: Sums | None = None,
    key_ledger: KeyLedger | None = None,
    account: str = "",
    purse: DayPurse | None = None,
) -> Pool:
    """The loops and what they work with. `before`: the run's figures as its earlier executions left them. `secret`:
    what no record may hold. `until`: when nothing more may be submitted (unix). `past`: what answers looked like
    in the last runs. `key_ledger`: what the runs of its key share, `account`: the output's name there; `purse`: their
    money of the day."""
    thread, sharing = shop.thread("file"), shop.thread("share")
    rows_per_part = job.output.rows_per_part

    class InThread:
        async def file(self) -> list[bytes]:
            return await asyncio.get_running_loop().run_in_executor(thread, filing.file, rows_per_part)

        async def write_ahead(self, slots: list[int]) -> None:
            await asyncio.get_running_loop().run_in_executor(thread, filing.write_ahead, slots, rows_per_part)

    recorder = Recorder(shop.checkpoint, shop.thread("record"), shop.reserve)
    ledger = Ledger(
        recorder,
        fleet.orders,
        unfiled=Unfiled(shop.checkpoint.unfiled(), rows_per_part, clock.now()),
        first_slot=shop.checkpoint.last_slot() + 1,
        unix=clock.unix,
        now=clock.now,
        settled=monitor.settled,
        secret=secret,
    )
    pool = Pool(
        fleet=fleet,
        sender=sender,
        builder=make_bodies(job, shop, sender, fetcher, book, clock),
        recorder=recorder,
        ledger=ledger,
        filer=InThread(),
        observer=monitor,
        clock=clock,
        limits=Limits(
            time_s=None if job.limits.time is None else float(job.limits.time),
            until=until,
            polls_per_minute=job.limits.polls_per_minute,
            straggle_s=None if job.limits.straggle is None else float(job.limits.straggle),
        ),
        before=before,
        drift=make_drift_watch(job, past or Sums()),
        share=Share(key_ledger, sharing, clock=clock),
    )
    if key_ledger is not None and fleet.gate.tokens.per_minute is not None:
        pool.token_share = TokenShare(key_ledger, sharing, fleet.gate.tokens, account=account, now=clock.now)
        pool.token_share.failed, pool.token_share.changed = pool.stop_for_machine, pool.look_again
        pool.each_beat.append(pool.token_share.look)
    recorder.stamp = pool.stamp
    if purse is not None:
        held, budget = purse, fleet.gate.budget
        held.failed = pool.stop_for_machine
        pool.each_beat.append(lambda: held.settle(budget.spent + budget.standing, budget.reserved))
    return pool


def make_drift_watch(job: Job, past: Sums) -> DriftWatch:
    """What `[guard]` allows."""
    return DriftWatch(bounds_of(job.guard), job.guard.after, past)


def make_bodies(job: Job, shop: Workshop, uploader: Uploader, fetcher: Fetcher, book: RuleBook, clock: Clock) -> Bodies:
    """What builds bodies: media read and looked up in a thread of their own."""
    door, thread = MediaDoor(job.media), shop.thread("media")
    uploads = Uploads(
        uploader, UploadTable(shop.connect), door, thread, life_s=float(job.media.upload_life), unix=clock.unix
    )
    return Bodies(Loader(door, job.media, book), uploads, fetcher, book, thread, shop.fitter(job.media, door))


def make_twins(job: Job, shop: Workshop, pool: Pool, folders: Folders, clock: Clock) -> Twins | None:
    """What has rows with the same request sent once, where the job asks for it."""
    if not job.input.dedupe:
        return None
    twins = Twins(
        shop.connect(),
        door=MediaDoor(job.media),
        data=folders.data,
        thread=shop.thread("twins"),
        orders=pool.fleet.orders,
        unix=clock.unix,
        most_unfiled=2 * job.output.rows_per_part,
    )
    pool.ledger.shared = twins.settled
    return twins


def make_feed(
    shop: Workshop,
    source: Source,
    pool: Pool,
    preparer: Preparer,
    look: FirstLook,
    log: Log,
    *,
    limit: int | None,
    only: frozenset[bytes] | None = None,
    twins: Twins | None = None,
) -> Feed:
    """The feed, which looks at the first rows before any is sent: what none of them can mend is the job's mistake."""

    def inspect(rows: Sequence[Row]) -> bool:
        for row in rows:
            look.see(row)
        if rows and not look.is_settled:
            return True
        if (verdict := look.verdict()) is not None:
            raise JobError(source.secret.hide(verdict))
        for event, values in look.warnings():
            log.warning(event, **values)
        return False

    return Feed(
        source,
        fleet=pool.fleet,
        preparer=preparer,
        taker=pool,
        ledger=pool.ledger,
        checkpoint=shop.connect(read_only=True),
        thread=shop.thread("read"),
        id_column=source.id_column,
        limit=limit,
        inspect=inspect,
        only=only,
        twins=twins,
    )
