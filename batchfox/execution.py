"""Composition: open, recover, run, close. (Named so that `from batchfox import run` can mean the function.)"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from batchfox import history
from batchfox.checkpoint import Checkpoint
from batchfox.core.breaker import Breaker
from batchfox.core.budget import Budget
from batchfox.core.carry import Carry
from batchfox.core.change import refused_changes
from batchfox.core.dispatch import Fleet
from batchfox.core.gate import Doubts, Gate
from batchfox.core.job import SIMULATOR, Job
from batchfox.core.lifecycle import Policy
from batchfox.core.outcome import COLUMNS, EXTRA
from batchfox.core.pace import Pace
from batchfox.core.prepare import Preparer
from batchfox.core.prices import Price, read_prices
from batchfox.core.render import MissingVariables, Renderer
from batchfox.core.row import Row
from batchfox.core.rulebook import RuleBook
from batchfox.core.settle import Orders
from batchfox.core.timing import Timing
from batchfox.core.watch import Watch
from batchfox.core.wire import PRICES_PATH
from batchfox.errors import BatchfoxError, JobError, UserError
from batchfox.filing import Filing
from batchfox.jobfile import find_key, job_toml, load_job
from batchfox.log import Log
from batchfox.monitor import Display, Monitor, Silence, View
from batchfox.output import Output, dated_folders, hold, is_dated, move_aside, resolve_path
from batchfox.summary import Summary

if TYPE_CHECKING:
    from batchfox.api import Api
    from batchfox.pool import Pool
    from batchfox.source import Source

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
REASONS = {
    "key": "the API refused the key: check the key, then run the same command again",
    "gateway": "the gateway in front of the API refused this client (1010): check api.base_url and the network",
    "balance": "the balance is spent: top it up, then run the same command again",
    "credits": "the credit limit is reached: raise limits.credits, then run the same command again",
    "time": "the time limit is reached: run the same command again to go on",
    "machine": "this machine failed",
}


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
    with contextlib.suppress(ImportError):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(arun(job, display=display, **options))
    return asyncio.run(arun(job, display=display, **options))


async def arun(job: Job | str | Path, *, display: Display | None = None, **options: Any) -> Summary:
    """`run` for a program that has an event loop already."""
    known = job if isinstance(job, Job) else load_job(job)
    return await Execution(known, Options(**options), display or Silence()).run()


def output_root(job: Job, unix_s: float) -> Path:
    """Where this job's output is now: an unfinished run's own folder first, else where its path leads today."""
    today = history.run_date_of(job, unix_s)
    if is_dated(job.output.path):
        for folder in reversed(dated_folders(job)):
            path = Output(folder, job.output.checkpoint).checkpoint_path
            if path.exists():
                with contextlib.closing(Checkpoint(path, read_only=True)) as checkpoint:
                    if history.unfinished_run(checkpoint) is not None:
                        return folder
    return Path(resolve_path(job.output.path, run_date=today, job_name=job.name))


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
        from batchfox.retry import check_statuses

        check_statuses(self._options.retry)
        if self._job.media.mode == "upload":
            raise JobError('media.mode: "upload" is not built yet; use "auto" or "inline"')
        renderer = Renderer(self._job.request, fields=self._job.input.fields)
        book = RuleBook.build(self._job.rules)
        key = find_key(self._job)
        with contextlib.ExitStack() as stack:
            root = output_root(self._job, self._clock.unix())
            self._source = self._open_source()
            output = self._open_output(stack, root)
            self._folders = output.folders
            log = Log(
                self._folders.log,
                key=key,
                level=self._options.log_level,
                form=self._options.log_format,
                quiet=self._options.quiet,
            )
            stack.callback(log.close)
            self._log = log
            self._checkpoint = stack.enter_context(contextlib.closing(Checkpoint(output.checkpoint_path)))
            self._fix_job(root)
            self._run_record = history.begin_run(self._checkpoint, self._job, self._clock.unix())
            self._threads = {
                name: stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix=name))
                for name in ("record", "read", "file", "media")
            }
            self._stack, self._path = stack, output.checkpoint_path
            log.info("run_begun", run=self._run_record.run_id, resumes=self._run_record.is_resume)
            base_url = self._start_simulator(stack)
            try:
                return await self._run_with(base_url, key, renderer, book)
            finally:
                self._display.close()

    # Opening.

    def _open_source(self) -> Source:
        from batchfox.survey import open_with_ids

        source = open_with_ids(self._job, with_digest=True)
        self._has_ids = source.id_column is not None
        return source

    def _open_output(self, stack: contextlib.ExitStack, root: Path) -> Output:
        """Holds the output; with `--fresh` the old one is moved aside first."""
        checkpoint = self._job.output.checkpoint
        output = stack.enter_context(hold(root, checkpoint=checkpoint))
        if self._options.fresh and output.is_begun:
            with contextlib.closing(Checkpoint(output.checkpoint_path)) as old:
                rows = old.query("SELECT run_id FROM run ORDER BY started_at DESC LIMIT 1")
                run_id = rows[0][0] if rows else "unknown"
            if checkpoint is not None:
                output.checkpoint_path.rename(f"{checkpoint}.old-{run_id}")
            move_aside(root, run_id)
            output = stack.enter_context(hold(root, checkpoint=checkpoint))
        return output

    def _fix_job(self, root: Path) -> None:
        """Compares the job with the one this output was begun with; puts it on record."""
        checkpoint = self._checkpoint
        old = checkpoint.get("job")
        id_column = self._source.id_column or ""
        if old is not None:
            was = checkpoint.get("id_column")
            if was != id_column:
                raise JobError(
                    f'{root}: the column that names a row was "{was}", is now "{id_column}" ("": none), so known rows '
                    "would not be recognised; put it back, choose another [output] path, or start anew with --fresh"
                )
            is_unfinished = history.unfinished_run(checkpoint) is not None
            changes = refused_changes(
                msgspec.json.decode(old), self._job.to_dict(), is_unfinished=is_unfinished, has_ids=self._has_ids
            )
            if changes:
                raise JobError(
                    f"{root}: the job changed since this output was begun: {'; '.join(map(str, changes))}. Rows that "
                    "are answered already would not match the others: put it back, choose another [output] path, or "
                    "start anew with --fresh"
                )
        checkpoint.put(job=msgspec.json.encode(self._job.to_dict()), id_column=id_column)
        temporary = self._folders.tmp / "job.toml"
        temporary.write_text(job_toml(self._job), encoding="utf-8")
        temporary.replace(self._folders.job)

    def _start_simulator(self, stack: contextlib.ExitStack) -> str:
        if self._job.api.base_url != SIMULATOR:
            return self._job.api.base_url
        from batchfox.simulator import Settings, SettingsError, SimulatorThread

        try:
            settings = msgspec.convert(self._job.api.simulate, Settings)
        except (msgspec.ValidationError, SettingsError) as error:
            raise JobError(f"api.simulate: {error}") from error
        simulator = stack.enter_context(SimulatorThread(settings, state=self._folders.own / "simulator.db"))
        return str(simulator.url)

    def _reader(self) -> Checkpoint:
        return self._stack.enter_context(contextlib.closing(Checkpoint(self._path, read_only=True)))

    # Running.

    async def _run_with(self, base_url: str, key: str, renderer: Renderer, book: RuleBook) -> Summary:
        from batchfox.api import Api

        limits = self._job.limits
        connections = max(limits.in_flight if self._job.request.get("sync") else min(limits.in_flight, 256), 16) + 100
        sync_s = float(self._job.poll.task_timeout)
        async with Api(base_url, key, connections=connections, sync_s=sync_s) as api:
            prices = await self._prices(api)
            fleet = self._make_fleet()
            monitor = Monitor(self._log, self._display)
            filing = self._make_filing()
            filing.recover()
            marked = self._mark_retries()
            pool = self._make_pool(fleet, api, filing, monitor, book)
            self._adopt(fleet, pool)
            preparer = Preparer(self._make_carry(), renderer, book, prices)
            feed = self._make_feed(pool, fleet, preparer, renderer)
            monitor.view = lambda: self._view(pool, fleet)
            with self._signals(pool):
                try:
                    await pool.run(feed)
                except* BatchfoxError as group:
                    raise _first(group) from group
            await pool.file_rest()
            if not any(self._folders.data.iterdir()):
                filing.file_empty()
            return self._close(pool, fleet, feed, monitor, marked)

    async def _prices(self, api: Api) -> dict[str, Price]:
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

    def _make_fleet(self) -> Fleet:
        job, run = self._job, self._run_record
        orders = Orders(
            policy=Policy(
                attempts=job.retry.attempts,
                failed=job.retry.failed,
                in_doubt=job.retry.in_doubt,
                patience_s=float(job.retry.patience),
            ),
            in_flight=job.limits.in_flight,
            run_id=run.run_id,
            run_date=run.run_date,
        )
        draw = random.random
        timing = Timing(job.poll.first_s, draw)
        if (learned := self._checkpoint.get("latencies")) is not None:
            timing.restore(learned)
        before = run.before
        budget = Budget(
            job.limits.credits, spent=before.get("credits_spent", 0.0), standing=before.get("credits_standing", 0.0)
        )
        in_doubt_limit = None if job.retry.in_doubt_limit == "auto" else job.retry.in_doubt_limit
        gate = Gate(
            pace=Pace(job.limits.requests_per_minute),
            breaker=Breaker(),
            budget=budget,
            doubts=Doubts(in_doubt_limit, resubmitted=before.get("in_doubt_resubmitted", 0)),
        )
        fleet = Fleet(orders, gate=gate, watch=Watch(timing, float(job.poll.task_timeout), draw), draw=draw)
        fleet.submits_before = before.get("submits", 0)
        return fleet

    def _make_filing(self) -> Filing:
        checkpoint = self._stack.enter_context(contextlib.closing(Checkpoint(self._path)))

        def known_types() -> Any:
            types = self._source.types
            if types is None:
                return None
            names = Carry(self._job.input.keep, _own_columns(), names=self._names()).select(dict.fromkeys(types))
            return {name: types[column] for column, name in zip(types, names, strict=False)}

        return Filing(
            checkpoint,
            self._folders,
            has_ids=self._has_ids,
            known_types=known_types,
            note=lambda event, values: self._log.info(event, **values),
        )

    def _names(self) -> dict[str, str]:
        return {}

    def _make_carry(self) -> Carry:
        return Carry(self._job.input.keep, _own_columns())

    def _mark_retries(self) -> int:
        from batchfox.retry import mark

        if not self._options.retry:
            return 0
        return mark(self._checkpoint, self._folders.data, self._options.retry, has_ids=self._has_ids)

    def _make_pool(self, fleet: Fleet, api: Api, filing: Filing, monitor: Monitor, book: RuleBook) -> Pool:
        from batchfox.bodies import Bodies
        from batchfox.ledger import Ledger, Unfiled
        from batchfox.media import MediaDoor
        from batchfox.pool import Limits, Pool
        from batchfox.recorder import Recorder

        job, thread, clock = self._job, self._threads["file"], self._clock
        rows_per_part = job.output.rows_per_part

        class InThread:
            async def file(self) -> list[bytes]:
                return await asyncio.get_running_loop().run_in_executor(thread, filing.file, rows_per_part)

        recorder = Recorder(self._checkpoint, self._threads["record"])
        ledger = Ledger(
            recorder,
            fleet.orders,
            unfiled=Unfiled(self._checkpoint.unfiled(), rows_per_part, clock.now()),
            first_slot=self._checkpoint.last_slot() + 1,
            unix=clock.unix,
            now=clock.now,
            settled=monitor.settled,
        )
        pool = Pool(
            fleet=fleet,
            sender=api,
            builder=Bodies(MediaDoor(job.media), book, self._threads["media"]),
            recorder=recorder,
            ledger=ledger,
            filer=InThread(),
            observer=monitor,
            clock=clock,
            limits=Limits(
                time_s=None if job.limits.time is None else float(job.limits.time),
                polls_per_minute=job.limits.polls_per_minute,
            ),
        )
        recorder.stamp = pool.stamp
        return pool

    def _adopt(self, fleet: Fleet, pool: Pool) -> None:
        """Rows that an earlier execution left: tasks to watch on, submits in doubt, rows to try again."""
        for life, old_part in self._checkpoint.unfinished():
            pool.adopt(life, old_part)

    def _make_feed(self, pool: Pool, fleet: Fleet, preparer: Preparer, renderer: Renderer) -> Any:
        from batchfox.feed import Feed

        missing = MissingVariables(renderer)

        def inspect(rows: Sequence[Row]) -> bool:
            for row in rows:
                missing.see(row)
            if rows and not missing.is_settled:
                return True
            if (verdict := missing.verdict()) is not None:
                raise JobError(verdict)
            return False

        return Feed(
            self._source,
            fleet=fleet,
            preparer=preparer,
            taker=pool,
            ledger=pool.ledger,
            checkpoint=self._reader(),
            thread=self._threads["read"],
            has_ids=self._has_ids,
            limit=self._options.limit,
            inspect=inspect,
            now=self._clock.now,
        )

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

    def _view(self, pool: Pool, fleet: Fleet) -> View:
        now = self._clock.now()
        return View(
            title=self._job.name,
            figures=pool.progress(),
            total_rows=self._options.limit or self._source.total_rows(),
            input_share=self._source.progress(),
            limit_per_minute=self._job.limits.requests_per_minute,
            in_flight_limit=self._job.limits.in_flight,
            credits_limit=self._job.limits.credits,
            is_cooling_for_s=max(fleet.gate.pace.resumes_at - now, 0.0),
            is_breaker_open=fleet.gate.breaker.is_open,
        )

    # Closing.

    def _close(self, pool: Pool, fleet: Fleet, feed: Any, monitor: Monitor, marked: int) -> Summary:
        progress, fed, unix_s = pool.progress(), feed.fed, self._clock.unix()
        by_status = self._checkpoint.counts()
        is_finished = fleet.stopped is None
        settled = dict(pool.ledger.tally.by_status)
        is_short = any(number for status, number in settled.items() if status != "completed") or fed.ended_before
        exit_status = 3 if is_short else 0
        reason = None
        if fleet.stopped is not None:
            exit_status = 128 + (self._signal or signal.SIGINT) if fleet.stopped == "signal" else 4
            reason = REASONS.get(fleet.stopped, "stopped by a signal: run the same command again to go on")
            if fleet.stop_error is not None and fleet.stop_error.message:
                reason = f"{reason} (the API said: {fleet.stop_error.message})"
        gone = int(self._checkpoint.query("SELECT count(*) FROM retry")[0][0]) if is_finished and marked else 0
        self._checkpoint.put(latencies=fleet.watch.timing.export())
        history.end_run(
            self._checkpoint,
            self._run_record,
            unix_s=unix_s,
            exit_status=exit_status,
            is_finished=is_finished,
            progress=progress,
        )
        self._log.info("run_ended", run=self._run_record.run_id, exit_status=exit_status, **settled)
        return Summary(
            run_id=self._run_record.run_id,
            run_date=self._run_record.run_date,
            output=str(self._folders.root),
            exit_status=exit_status,
            reason=reason,
            by_status=by_status,
            settled=settled,
            completed_before=fed.completed_before,
            duplicates=fed.duplicates,
            left_in_flight=fleet.in_flight,
            submits=progress["submits"],
            polls=progress["polls"],
            throttles=progress["throttles"],
            maybe_billed_twice=pool.ledger.tally.twice,
            in_doubt_held=fleet.gate.doubts.held,
            prompt_tokens=pool.ledger.tally.prompt_tokens,
            completion_tokens=pool.ledger.tally.completion_tokens,
            credits_spent=fleet.gate.budget.spent,
            credits_in_doubt=fleet.gate.budget.standing,
            elapsed_s=progress["elapsed_s"],
            causes=monitor.causes.top(),
            retry_gone=gone,
        )


def _own_columns() -> set[str]:
    return {*COLUMNS, EXTRA}


def _first(group: BaseExceptionGroup[BatchfoxError]) -> BatchfoxError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, BatchfoxError)
    return found
