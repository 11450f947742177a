"""Composition: open, recover, run, close. (Named so that `from batchfox import run` can mean the function.)"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from batchfox import history
from batchfox.api import Api
from batchfox.assembly import Workshop, make_feed, make_filing, make_fleet, make_pool, own_columns
from batchfox.core.carry import Carry
from batchfox.core.dispatch import Fleet
from batchfox.core.job import SIMULATOR, Job
from batchfox.core.prepare import Preparer
from batchfox.core.prices import Price, read_prices
from batchfox.core.render import Renderer
from batchfox.core.rulebook import RuleBook
from batchfox.core.wire import PRICES_PATH
from batchfox.errors import BatchfoxError, JobError, UserError
from batchfox.feed import Feed
from batchfox.jobfile import find_key, load_job
from batchfox.log import Log
from batchfox.media import check_mode
from batchfox.monitor import Display, Monitor, Silence, View
from batchfox.opening import fix_job, open_output, output_root
from batchfox.pool import Pool
from batchfox.retry import check_statuses, mark
from batchfox.source import open_with_ids
from batchfox.summary import Summary

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
REASONS = {
    "key": "the API refused the key: check the key, then run the same command again",
    "gateway": "the gateway in front of the API refused this client (1010): check api.base_url and the network",
    "balance": "the balance is spent: top it up, then run the same command again",
    "credits": "the credit limit is reached: raise limits.credits, then run the same command again",
    "time": "the time limit is reached: run the same command again to go on",
    "signal": "stopped by a signal: run the same command again to go on",
}
# Connections beside those of submits, for polls and free questions.
MORE_CONNECTIONS = 100
MOST_SUBMIT_CONNECTIONS = 256


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How this execution differs from the job: see `batchfox run --help`."""

    limit: int | None = None
    retry: tuple[str, ...] = ()
    fresh: bool = False
    log_level: str | None = None
    log_format: str = "console"
    quiet: bool = False


class SystemClock:
    """The machine's clocks: one that never goes back for intervals, the wall's for the record."""

    def now(self) -> float:
        return time.monotonic()

    def unix(self) -> float:
        return time.time()


def run(job: Job | str | Path, *, display: Display | None = None, **options: Any) -> Summary:
    """Runs a job to its end, or resumes it, and returns what it did. Takes `Options` as keywords.

    Raises a `BatchfoxError` whose `exit_status` is the contract's where the run could not start or the machine
    failed; everything recorded until then stays.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.run(arun(job, display=display, **options))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(arun(job, display=display, **options))


async def arun(job: Job | str | Path, *, display: Display | None = None, **options: Any) -> Summary:
    """`run` for a program that has an event loop already."""
    known = job if isinstance(job, Job) else load_job(job)
    return await Execution(known, Options(**options), display or Silence()).run()


class Execution:
    """One execution of a job, from the open folder to the summary."""

    def __init__(self, job: Job, options: Options, display: Display) -> None:
        self._job = job
        self._options = options
        self._display = display
        self._clock = SystemClock()
        self._signal: int | None = None

    async def run(self) -> Summary:
        """Opens, recovers, runs, closes. Raises `BatchfoxError`."""
        job, options = self._job, self._options
        check_statuses(options.retry)
        check_mode(job.media)
        renderer = Renderer(job.request, fields=job.input.fields)
        book = RuleBook.build(job.rules)
        with contextlib.ExitStack() as stack:
            stack.callback(self._display.close)
            self._source = open_with_ids(job, with_digest=True)
            key = find_key(job)
            output = open_output(stack, job, output_root(job, self._clock.unix()), fresh=options.fresh)
            self._folders = output.folders
            self._log = Log(
                self._folders.log, key=key, level=options.log_level, form=options.log_format, quiet=options.quiet
            )
            stack.callback(self._log.close)
            self._shop = Workshop(stack, output.checkpoint_path)
            fix_job(self._shop.checkpoint, self._folders, job, self._source.id_column)
            self._filing = make_filing(job, self._shop, self._folders, self._source, self._log)
            self._filing.recover()
            self._run = history.begin_run(self._shop.checkpoint, job, self._clock.unix())
            self._log.info("run_begun", run=self._run.run_id, resumes=self._run.is_resume)
            base_url = self._start_simulator(stack)
            return await self._run_with(base_url, key, renderer, book)

    def _start_simulator(self, stack: contextlib.ExitStack) -> str:
        """The API's address; the embedded one is started, and keeps its tasks in the output folder."""
        if self._job.api.base_url != SIMULATOR:
            return self._job.api.base_url
        from batchfox.simulator import Settings, SettingsError, SimulatorThread

        try:
            settings = msgspec.convert(self._job.api.simulate, Settings)
        except (msgspec.ValidationError, SettingsError) as error:
            raise JobError(f"api.simulate: {error}") from error
        simulator = stack.enter_context(SimulatorThread(settings, state=self._folders.own / "simulator.db"))
        return str(simulator.url)

    async def _run_with(self, base_url: str, key: str, renderer: Renderer, book: RuleBook) -> Summary:
        job, shop = self._job, self._shop
        is_sync = bool(job.request.get("sync"))
        submits = job.limits.in_flight if is_sync else min(job.limits.in_flight, MOST_SUBMIT_CONNECTIONS)
        sync_s = float(job.poll.task_timeout)
        async with Api(base_url, key, connections=submits + MORE_CONNECTIONS, sync_s=sync_s) as api:
            prices = await self._prices(api)
            fleet = make_fleet(job, self._run, shop.checkpoint.get("latencies"))
            monitor = Monitor(self._log, self._display)
            marked = self._mark_retries()
            pool = make_pool(job, shop, fleet, api, self._filing, monitor, book, self._clock, self._run.before)
            for life, old_part in shop.checkpoint.unfinished():
                pool.adopt(life, old_part)
            preparer = Preparer(Carry(job.input.keep, own_columns()), renderer, book, prices)
            limit = self._options.limit
            feed = make_feed(shop, self._source, pool, preparer, renderer, limit=limit)
            monitor.view = lambda: self._view(pool)
            with self._signals(pool), _settled_heap():
                try:
                    await pool.run(feed)
                except* BatchfoxError as group:
                    raise _first(group) from group
            await pool.file_rest()
            self._filing.file_empty()
            summary = self._close(pool, fleet, feed, monitor, marked)
            if pool.error is not None:
                raise pool.error
            return summary

    async def _prices(self, api: Api) -> dict[str, Price]:
        """The price list, where a credit limit needs estimates. Raises `UserError` where they cannot be made."""
        if self._job.limits.credits is None:
            return {}
        prices = read_prices(await api.fetch(PRICES_PATH))
        if not prices:
            raise UserError(
                "limits.credits is set, but the API gives no price list, so no estimate can be made before the first "
                "reservation is seen; take limits.credits out, or try again later"
            )
        model = self._job.request.get("model")
        if isinstance(model, str) and "{" not in model and model not in prices:
            raise UserError(
                f'limits.credits is set, but the price list does not name "{model}", so its cost cannot be estimated; '
                "take limits.credits out, or use a listed model"
            )
        return prices

    def _mark_retries(self) -> int:
        if not self._options.retry:
            return 0
        has_ids = self._source.id_column is not None
        return mark(self._shop.checkpoint, self._folders.data, self._options.retry, has_ids=has_ids)

    @contextlib.contextmanager
    def _signals(self, pool: Pool) -> Iterator[None]:
        """The first SIGINT, SIGTERM or SIGHUP stops gently, the second at once."""
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            self._signal = self._signal or number
            self._log.info("stop_requested", signal=signal.Signals(number).name)
            pool.request_stop()

        handled = []
        for number in SIGNALS:
            with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: the caller has the signals
                loop.add_signal_handler(number, stop, number)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _view(self, pool: Pool) -> View:
        gate, limits = pool.fleet.gate, self._job.limits
        return View(
            title=self._job.name,
            figures=pool.progress(),
            total_rows=self._options.limit or self._source.total_rows(),
            input_share=self._source.progress(),
            limit_per_minute=limits.requests_per_minute,
            in_flight_limit=limits.in_flight,
            credits_limit=limits.credits,
            is_cooling_for_s=max(gate.pace.resumes_at - self._clock.now(), 0.0),
            is_breaker_open=gate.breaker.is_open,
        )

    def _close(self, pool: Pool, fleet: Fleet, feed: Feed, monitor: Monitor, marked: int) -> Summary:
        """Puts the end on record, and says what was done."""
        checkpoint, progress, fed = self._shop.checkpoint, pool.progress(), feed.fed
        exit_status, reason = self._verdict(fleet, pool, feed)
        is_finished = fleet.stopped is None
        gone = checkpoint.query("SELECT count(*) FROM retry")[0][0] if is_finished and marked else 0
        if is_finished:
            with checkpoint.transaction() as db:
                db.execute("DELETE FROM retry")
        checkpoint.put(latencies=fleet.watch.timing.export())
        history.end_run(
            checkpoint,
            self._run,
            unix_s=self._clock.unix(),
            exit_status=exit_status,
            is_finished=is_finished,
            progress=progress,
        )
        tally, by_status = pool.ledger.tally, checkpoint.counts()
        self._log.info("run_ended", run=self._run.run_id, exit_status=exit_status, **tally.by_status)
        return Summary(
            run_id=self._run.run_id,
            run_date=self._run.run_date,
            output=str(self._folders.root),
            exit_status=exit_status,
            reason=reason,
            by_status=by_status,
            settled=dict(tally.by_status),
            completed_before=max(by_status.get("completed", 0) - tally.by_status["completed"], 0),
            duplicates=fed.duplicates,
            left_in_flight=fleet.in_flight,
            submits=progress["submits"],
            polls=progress["polls"],
            throttles=progress["throttles"],
            maybe_billed_twice=tally.twice,
            in_doubt_held=fleet.gate.doubts.held,
            prompt_tokens=tally.prompt_tokens,
            completion_tokens=tally.completion_tokens,
            credits_spent=fleet.gate.budget.spent,
            credits_in_doubt=fleet.gate.budget.standing,
            elapsed_s=progress["elapsed_s"],
            causes=monitor.causes.top(),
            retry_gone=gone,
        )

    def _verdict(self, fleet: Fleet, pool: Pool, feed: Feed) -> tuple[int, str | None]:
        """The contract's exit status, and why the run stopped early."""
        if fleet.stopped is None:
            settled = pool.ledger.tally.by_status
            is_short = settled.total() > settled["completed"] or feed.fed.ended_before > 0
            return (3 if is_short else 0), None
        if pool.error is not None:
            return pool.error.exit_status, str(pool.error)
        status = 128 + (self._signal or signal.SIGINT) if fleet.stopped == "signal" else 4
        reason = REASONS.get(fleet.stopped, f"stopped: {fleet.stopped}")
        if fleet.stop_error is not None and fleet.stop_error.message:
            reason = f"{reason} (the API said: {fleet.stop_error.message})"
        return status, reason


@contextlib.contextmanager
def _settled_heap() -> Iterator[None]:
    """What is loaded by now stays: the collector need not look at it again and again while rows pass through. Rows hold
    no circles, so they need no collector to go."""
    import pyarrow  # noqa: F401 - loaded now, so that it is part of what stays

    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _first(group: BaseExceptionGroup[BatchfoxError]) -> BatchfoxError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, BatchfoxError)
    return found
