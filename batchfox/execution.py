"""One execution of a job, composed: open, recover, run, close."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from batchfox import history, metrics, runs
from batchfox.api import Api
from batchfox.assembly import Workshop, carry_of, make_feed, make_filing, make_fleet, make_pool, make_twins
from batchfox.checkpoint import Checkpoint
from batchfox.closing import Ending, running_summary, said_of, summarize
from batchfox.control import serving
from batchfox.core.addresses import Allowed
from batchfox.core.budget import Budget
from batchfox.core.first_look import FirstLook, refuse_constants
from batchfox.core.job import Job
from batchfox.core.outcome import STALE
from batchfox.core.prepare import Preparer
from batchfox.core.prices import Price, read_prices, refuse_unpriced
from batchfox.core.render import Renderer
from batchfox.core.rulebook import RuleBook
from batchfox.core.sections import SIMULATOR
from batchfox.core.wire import PRICES_PATH
from batchfox.descriptors import room_for_connections
from batchfox.errors import ApiGoneError, BatchfoxError, MachineError, UserError
from batchfox.feed import Feed
from batchfox.fetching import Fetcher
from batchfox.fit.workers import demand_packages
from batchfox.guarding import past_figures
from batchfox.heap import quiet_heap, settle_heap
from batchfox.jobfile import find_key, refuse_key_in_job, secret_of
from batchfox.key_ledger import KeyLedger, account_of
from batchfox.late import LateRows, file_late
from batchfox.log import Log
from batchfox.marking import mark_rows
from batchfox.media import MediaDoor
from batchfox.monitor import Display, Monitor
from batchfox.nightly_retry import mark_again
from batchfox.opening import fix_job, open_output, output_root
from batchfox.options import Options
from batchfox.pool import Pool
from batchfox.purse import DayPurse, held_purse
from batchfox.rehearsal import api_of
from batchfox.retry import check_statuses
from batchfox.reviving import Reviver
from batchfox.schedule.planned import ends_at, zone_of
from batchfox.signals import stopping_by_signals
from batchfox.source import open_with_ids
from batchfox.stale import refuse_stale
from batchfox.steering import Steering
from batchfox.summary import Summary
from batchfox.telling import After
from batchfox.viewing import Viewer

# Connections beside those of submits, for polls and free questions.
MORE_CONNECTIONS = 100
MOST_SUBMIT_CONNECTIONS = 256
KEEP = "rows that are answered keep their answers; --retry stale asks those anew whose request changed, --fresh all"
ANEW = "answered rows whose request changed are asked anew"


class SystemClock:
    """The machine's clocks: one that never goes back for intervals, the wall's for the record."""

    def now(self) -> float:
        return time.monotonic()

    def unix(self) -> float:
        return time.time()


class Execution:
    """One execution of a job, from the open folder to the summary."""

    def __init__(
        self, job: Job, options: Options, display: Display, after: After, *, only: frozenset[bytes] | None = None
    ) -> None:
        self._job = job
        self._after = after
        self._only = only
        self._options = options
        self._display = display
        self._clock = SystemClock()
        self._signal: int | None = None
        # The day of the run is that of this moment, and nothing is submitted after that one (unix).
        scheduled = options.scheduled
        self._begins = self._clock.unix() if scheduled is None else scheduled.timestamp()
        self._began_at = self._clock.unix()
        self._until = (
            None if scheduled is None else ends_at(job, scheduled, datetime.fromtimestamp(self._began_at, UTC))
        )

    async def run(self) -> Summary:
        """Opens, recovers, runs, closes. Raises `BatchfoxError`."""
        job, options = self._job, self._options
        check_statuses(options.statuses)
        where = options.narrowed()
        asks_stale = STALE in options.statuses
        renderer = Renderer(job.request, fields=job.input.fields)
        book = RuleBook.build(job.rules)
        refuse_constants(renderer, book)
        with contextlib.ExitStack() as stack:
            stack.callback(self._display.close)
            secret = secret_of(job)
            self._source = open_with_ids(job, with_digest=True, secret=secret)
            self._has_ids = self._source.id_column is not None
            key = find_key(job)
            refuse_key_in_job(job, secret)
            demand_packages(job.media)
            MediaDoor(job.media)  # roots that cannot be read are refused before anything is begun
            port = options.metrics_port
            self._metrics = None if port is None else stack.enter_context(metrics.listening(port))
            if asks_stale:
                refuse_stale(job.input.paths, self._source.id_column)
            output = open_output(stack, job, output_root(job, self._begins), fresh=options.fresh)
            self._folders = output.folders
            self._log = Log(
                self._folders.log, key=key, level=options.log_level, form=options.log_format, quiet=options.quiet
            )
            stack.callback(self._log.close)
            self._shop = Workshop(stack, output.checkpoint_path, self._folders.own)
            if where is not None:
                where.fit_output(self._shop.checkpoint.get("types"))
            order = (options.where or "") if asks_stale else None
            changes = fix_job(self._shop.checkpoint, self._folders, job, self._source.id_column, stale_order=order)
            for change in changes:
                note = ANEW if asks_stale and change.is_in_request else KEEP
                self._log.warning("job_changed", key=change.key, was=change.was, now=change.now, note=note)
            self._stack, self._key_ledger = stack, self._join(stack, key)
            self._filing = make_filing(job, self._shop, self._folders, self._source, self._log)
            stack.callback(self._filing.close)
            self._filing.recover()
            file_late(self._shop.checkpoint, self._filing, job.output.rows_per_part)
            base_url = stack.enter_context(api_of(job, state=self._folders.own / "simulator.db"))
            return await self._run_with(base_url, key, renderer, book)

    async def _run_with(self, base_url: str, key: str, renderer: Renderer, book: RuleBook) -> Summary:
        job, shop = self._job, self._shop
        is_sync = bool(job.request.get("sync"))
        # limits.in_flight may be raised while the run goes on: connections are opened only as they are needed.
        submits = max(job.limits.in_flight, MOST_SUBMIT_CONNECTIONS) if is_sync else MOST_SUBMIT_CONNECTIONS
        connections = submits + MORE_CONNECTIONS
        async with (
            Api(
                base_url,
                key,
                connections=connections,
                sync_s=float(job.poll.task_timeout),
                # A row's own column may ask for a stream: the job alone does not tell.
                streams=room_for_connections(job.limits.in_flight, beside=connections),
                stream_idle_s=float(job.poll.stream_idle),
            ) as api,
            Fetcher(Allowed(job.media.allow_private)) as fetcher,
        ):
            prices = await self._prices(api)
            before_s, tokens = history.tokens_of_last_minute(shop.checkpoint, self._clock.unix())
            self._list_run()  # one that died
            self._run = history.begin_run(shop.checkpoint, job, self._clock.unix(), day_of=self._begins)
            self._log.info("run_begun", run=self._run.run_id, resumes=self._run.is_resume)
            fleet = make_fleet(
                job,
                self._run,
                shop.checkpoint.get("latencies"),
                tokens_before=(tokens, self._clock.now() - before_s),
            )
            purse = self._open_purse(fleet.gate.budget)
            monitor = Monitor(self._log, self._display)
            self._mark_again()
            stale = await mark_rows(
                job, self._options, shop, self._source, self._filing, self._folders.data, renderer, book, self._log
            )
            pool = make_pool(
                job,
                shop,
                fleet,
                api,
                fetcher,
                self._filing,
                monitor,
                book,
                self._clock,
                self._run.before,
                self._source.secret,
                until=self._until,
                past=past_figures(job, self._folders.root, self._log),
                key_ledger=self._key_ledger,
                account=account_of(self._folders.root),
                purse=purse,
            )
            if pool.token_share is not None:
                self._stack.callback(pool.token_share.leave)
            for life, old_part in shop.checkpoint.unfinished():
                pool.adopt(life, old_part)
            preparer = Preparer(
                carry_of(job, self._source),
                renderer,
                book,
                prices,
                monitor.warned,
                self._source.secret,
                counts_tokens=job.limits.tokens_per_minute is not None,
            )
            limit = self._options.limit
            look = FirstLook(renderer, job.input, id_column=self._source.id_column, off=book.off)
            twins = make_twins(job, shop, pool, self._folders, self._clock)
            only = self._only
            feed = make_feed(shop, self._source, pool, preparer, look, self._log, limit=limit, only=only, twins=twins)
            most = limit if only is None else len(only)
            viewer = Viewer(job, self._source, pool, monitor.pulse, limit=most, now=self._clock.now)
            viewer.count_rows(shop.thread("count"))
            monitor.view = viewer.view
            steering = self._steering(pool, feed, preparer)
            viewer.limits = lambda: steering.limits
            late = LateRows(shop.connect, shop.thread("late"), self._folders.data, has_ids=self._has_ids)
            self._after.is_spend_told = pool.is_spend_told
            pool.each_beat.append(lambda: self._see_spend(pool))
            pool.warm_up = settle_heap
            if fleet.lives:
                settle_heap()
            with stopping_by_signals(lambda number: self._stop(pool, number)), quiet_heap():
                async with (
                    serving(self._folders.own, steering.carry_out, self._warn_unsteered),
                    self._measured(viewer),
                ):
                    try:
                        await pool.run(feed, late)
                    except* BatchfoxError as group:
                        raise _first(group) from group
            if not isinstance(pool.error, MachineError):
                await pool.file_rest()
                self._filing.file_empty()
            try:
                summary = self._close(pool, feed, monitor, outdated=stale.outdated)
            except MachineError as error:
                raise pool.error or error from error
            if pool.error is not None:
                raise pool.error
            return summary

    def _join(self, stack: contextlib.ExitStack, key: str) -> KeyLedger | None:
        """The ledger of the key, held until the stack closes; None for the embedded simulator, which nobody shares, and
        where there is no state folder: with a day's limit, which it alone can hold, that is raised."""
        job = self._job
        address, has_day = job.api.base_url, job.limits.credits_per_day is not None
        if address == SIMULATOR:  # each output has one of its own
            if not has_day:
                return None
            address = f"{SIMULATOR}:{self._folders.root.resolve()}"
        try:
            ledger = KeyLedger(key, address, job.limits.requests_per_minute)
        except UserError as error:
            if has_day:
                raise
            self._log.warning(
                "key_not_shared", error=str(error), note="other runs of this key are not known to this one"
            )
            return None
        stack.callback(ledger.leave)
        return ledger

    def _mark_again(self) -> None:
        """A scheduled run that is no resume gives rows of earlier nights fresh attempts, where the job says so."""
        schedule, options = self._job.schedule, self._options
        if options.scheduled is None or not schedule.retry or options.statuses or self._run.is_resume:
            return
        rows = mark_again(
            self._shop.checkpoint, self._folders.data, schedule.retry, schedule.retry_nights, has_ids=self._has_ids
        )
        self._log.info("rows_marked_again", rows=rows)

    def _open_purse(self, budget: Budget) -> DayPurse | None:
        """The day's money of the key, from which the budget draws until the stack closes."""
        job, run = self._job, self._run
        limit = job.limits.credits_per_day
        name = f"{self._folders.root.resolve()}|{run.run_id}"
        if self._key_ledger is None:
            return None
        purse = held_purse(self._key_ledger, limit, budget, run=name, zone=zone_of(job), unix=self._clock.unix)
        return self._stack.enter_context(purse)

    async def _prices(self, api: Api) -> dict[str, Price]:
        """The price list, where a credit limit needs estimates. Raises `UserError` where they cannot be made, and
        `ApiGoneError` where nobody can be asked."""
        limits = self._job.limits
        if limits.credits is None and limits.credits_per_day is None:
            return {}
        try:
            prices = read_prices(await api.fetch(PRICES_PATH))
        except ApiGoneError as error:
            raise ApiGoneError(
                f"a limit of credits needs the API's price list, which cannot be had now ({error}): nothing was sent; "
                "run the same command again later"
            ) from error
        refuse_unpriced(self._job, prices)
        return prices

    def _steering(self, pool: Pool, feed: Feed, preparer: Preparer) -> Steering:
        shop, source = self._shop, self._source
        reviver = Reviver(
            self._job,
            pool=pool,
            feed=feed,
            preparer=preparer,
            connect=lambda: Checkpoint(shop.checkpoint.path),
            thread=shop.thread("seek"),
            data=self._folders.data,
            secret=source.secret,
            id_column=source.id_column,
            began_at=self._began_at,
        )
        note = lambda event, values: self._log.info(event, run=self._run.run_id, **values)  # noqa: E731
        share = None if self._key_ledger is None else self._key_ledger.limit
        return Steering(self._job, pool=pool, reviver=reviver, clock=self._clock, note=note, share=share)

    @contextlib.asynccontextmanager
    async def _measured(self, viewer: Viewer) -> AsyncIterator[None]:
        """Metrics are served while the block runs, where they are asked for."""
        if self._metrics is None:
            yield
            return
        async with metrics.serving(self._metrics, viewer.metrics) as url:
            self._log.info("metrics_served", url=url)
            yield

    def _warn_unsteered(self, why: str) -> None:
        self._log.warning("control_unavailable", error=why, note="the run goes on; batchfox ctl cannot reach it")

    def _see_spend(self, pool: Pool) -> None:
        """Has the run passed `notify.spend`? That is told at once."""
        after, spent = self._after, pool.fleet.gate.budget.spent
        running = lambda: running_summary(self._run, str(self._folders.root), pool.progress())  # noqa: E731
        if after.see_spend(spent, running):
            self._log.warning("spend_passed", run=self._run.run_id, credits_spent=spent, limit=self._job.notify.spend)
        pool.is_spend_told = after.is_spend_told

    def _list_run(self) -> None:
        """Adds the last execution to the list of runs, where it is not on it. A list that cannot be written holds no
        run up: the next one makes up for it."""
        try:
            runs.list_last(self._shop.checkpoint, self._folders.runs)
        except OSError as error:
            self._log.warning("runs_not_listed", path=str(self._folders.runs), error=str(error))

    def _stop(self, pool: Pool, number: int) -> None:
        """The first signal stops gently, the second at once."""
        self._signal = self._signal or number
        self._log.info("stop_requested", signal=signal.Signals(number).name)
        pool.request_stop()

    def _close(self, pool: Pool, feed: Feed, monitor: Monitor, *, outdated: int) -> Summary:
        """Puts the end on record, and says what was done."""
        monitor.show()  # an outage may have ended since the last time
        checkpoint, run = self._shop.checkpoint, self._run
        pool.is_spend_told = self._after.closes()
        ending = Ending(
            pool=pool, fed=feed.fed, progress=pool.progress(), signal=self._signal, unix_s=self._clock.unix()
        )
        if (unlearned := pool.looks.unlearned).rows:
            said = said_of(unlearned.last)
            self._log.warning(
                "late_tasks_unheard", rows=unlearned.rows, not_paid_anew=unlearned.not_paid, error_message=said
            )
        marked = int(checkpoint.query("SELECT count(*) FROM retry WHERE part >= 0")[0][0])
        if ending.is_finished:  # what is still marked is in the input no more
            with checkpoint.transaction() as db:
                db.execute("DELETE FROM retry WHERE part >= 0")
        checkpoint.put(latencies=pool.fleet.watch.timing.export())
        history.end_run(
            checkpoint,
            run,
            unix_s=ending.unix_s,
            exit_status=ending.exit_status,
            is_finished=ending.is_finished,
            progress=ending.progress | {"reason": ending.reason},
        )
        self._list_run()
        checkpoint.give_back_room()
        self._log.info("run_ended", run=run.run_id, **ending.told())
        return summarize(
            ending,
            run,
            str(self._folders.root),
            checkpoint.counts(),
            causes=monitor.causes,
            retry_gone=marked if ending.is_finished else 0,
            retry_left=0 if ending.is_finished else marked,
            outdated=outdated,
        )


def _first(group: BaseExceptionGroup[BatchfoxError]) -> BatchfoxError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, BatchfoxError)
    return found
