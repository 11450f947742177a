"""Where a row's CPU goes inside batchfox, in microseconds: a table of the steps, each without the steps inside it.

A child runs a job with the steps' functions wrapped by a clock of their thread's CPU time. The clock's own price is
measured first and taken off. What is left of the loop's thread is HTTP (aiohttp, uvloop, sockets) and the loop's own
turning (tasks, futures, wake-ups); `bare.py` over the same server says how much of that any aiohttp client pays. Start
and end of the process are not counted. A table to choose work by, not a goal: it passes no judgement.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import inspect
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import work

# Step -> the functions that do it, as module:name or module:class.name.
STEPS: dict[str, tuple[str, ...]] = {
    "read: lines, JSON, digest": ("source:Source.skimmed",),
    "read: rows known already?": ("feed:Feed._read",),
    "feed": ("feed:Feed._decide",),
    "prepare": ("core.prepare:Preparer.prepare",),
    "prepare: carry": ("core.carry:Carry.select",),
    "prepare: render": ("core.render:Renderer.render",),
    "prepare: rules": ("core.prepare:rewrite", "core.prepare:check"),
    "prepare: hash": ("core.prepare:hash_and_size",),
    "body: media, JSON, size": ("bodies:Bodies.build",),
    "limiter": ("limiter:Limiter.ready_in_s", "limiter:Limiter.take"),
    "fleet: choose": ("core.dispatch:Fleet.submits", "core.dispatch:Fleet.polls", "core.dispatch:Fleet.sent"),
    "fleet: receive": ("core.dispatch:Fleet.receive",),
    "wire: replies to events": ("core.wire:read_submit", "core.wire:read_poll"),
    "ledger": ("ledger:Ledger.record", "ledger:Ledger.record_outcome"),
    "show": ("monitor:Monitor.show",),
    "checkpoint: commit": ("checkpoint:Checkpoint.commit",),
    "part: assign, read, mark": ("filing:Filing.file", "filing:Filing.write_ahead"),
    "part: to Arrow": ("parts:build",),
    "part: write Parquet": ("parts:PartFile.add", "parts:PartFile.close"),
}
OTHER_THREADS = ("read", "checkpoint", "part")
GARBAGE = "garbage collection"
LOOP_REST = "HTTP and the loop itself"
THREADS_REST = "threads: hand-over, the rest"


class Clock:
    """CPU time by step, each without the steps that it calls. A step's time is that of the thread it runs in."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        # What a wrapped call costs, within its own figure and outside of it (there its caller pays).
        self.within_s = self.outside_s = 0.0
        self._local = threading.local()

    def clear(self) -> None:
        """Forgets what was counted so far."""
        self.spent.clear()
        self.calls.clear()

    def _begin(self) -> tuple[list[float], float]:
        inside: list[float] | None = getattr(self._local, "inside", None)
        if inside is None:
            inside = self._local.inside = []
        inside.append(0.0)
        return inside, time.thread_time()

    def _end(self, step: str, inside: list[float], began: float) -> None:
        spent = time.thread_time() - began
        self.spent[step] += spent - inside.pop()
        self.calls[step] += 1
        if inside:
            inside[-1] += spent + self.outside_s

    def wrap(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its CPU time counted. A coroutine function counts only what it does without waiting."""
        if inspect.iscoroutinefunction(function):
            return self._wrap_coroutine(step, function)
        if inspect.isgeneratorfunction(function):
            return self._wrap_generator(step, function)

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            inside, began = self._begin()
            try:
                return function(*arguments, **named)
            finally:
                self._end(step, inside, began)

        return timed

    def _wrap_coroutine(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        class Timed:
            def __init__(self, coroutine: Any) -> None:
                self._coroutine = coroutine

            def __await__(inner) -> Any:  # noqa: N805
                while True:
                    inside, began = self._begin()
                    try:
                        waited_for = inner._coroutine.send(None)
                    except StopIteration as end:
                        return end.value
                    finally:
                        self._end(step, inside, began)
                    yield waited_for

        return functools.wraps(function)(lambda *arguments, **named: Timed(function(*arguments, **named)))

    def _wrap_generator(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            values = function(*arguments, **named)
            following = self.wrap(step, lambda: next(values, self))
            while (value := following()) is not self:
                yield value

        return timed

    def see_garbage(self, phase: str, _: dict[str, int]) -> None:
        """For `gc.callbacks`: a collection is a step too, within whichever step it falls."""
        if phase == "start":
            self._local.collecting = self._begin()
        else:
            self._end(GARBAGE, *self._local.collecting)

    def calibrate(self) -> None:
        """Measures the clock's own price; from then on it is known."""
        times = 50_000
        timed = self.wrap("nothing", lambda: None)
        began = time.thread_time()
        for _ in range(times):
            timed()
        whole_s = (time.thread_time() - began) / times
        self.within_s = self.spent["nothing"] / times
        self.outside_s = whole_s - self.within_s


def _patch(clock: Clock, step: str, place: str) -> None:
    module, _, path = place.partition(":")
    holder: Any = importlib.import_module(f"batchfox.{module}")
    *classes, name = path.split(".")
    for part in classes:
        holder = getattr(holder, part)
    setattr(holder, name, clock.wrap(step, getattr(holder, name)))


def _run_child(job: str, rows: int) -> None:
    """Runs the job in this process with the steps wrapped, and prints the table."""
    from batchfox import pool
    from batchfox.running import run

    clock = Clock()
    clock.calibrate()
    for step, places in STEPS.items():
        for place in places:
            _patch(clock, step, place)
    gc.callbacks.append(clock.see_garbage)

    measured: dict[str, float] = {}
    run_pool, file_rest = pool.Pool.run, pool.Pool.file_rest

    async def timed_run(self: pool.Pool, feed: Any, late: Any) -> None:
        clock.clear()
        measured["loop"], measured["all"] = -time.thread_time(), -time.process_time()
        await run_pool(self, feed, late)

    async def timed_rest(self: pool.Pool) -> None:
        await file_rest(self)
        measured["loop"] += time.thread_time()
        measured["all"] += time.process_time()

    setattr(pool.Pool, "run", timed_run)  # noqa: B010
    setattr(pool.Pool, "file_rest", timed_rest)  # noqa: B010
    run(job)
    _print_table(clock, measured, rows)


def _print_table(clock: Clock, measured: dict[str, float], rows: int) -> None:
    steps = [*STEPS, GARBAGE]
    if missed := [step for step in STEPS if not clock.calls[step]]:
        raise SystemExit(f"never called, so the table would be wrong: {', '.join(missed)}")
    calls = {step: clock.calls[step] for step in steps}
    spent = {step: clock.spent[step] - calls[step] * clock.within_s for step in steps}
    threads = {step for step in steps if step.split(":")[0] in OTHER_THREADS}
    in_loop = sum(clock.spent[step] + calls[step] * clock.outside_s for step in steps if step not in threads)
    in_threads = sum(clock.spent[step] + calls[step] * clock.outside_s for step in threads)
    table = [(step, "thread" if step in threads else "loop", spent[step]) for step in steps]
    table.append((LOOP_REST, "loop", measured["loop"] - in_loop))
    table.append((THREADS_REST, "thread", measured["all"] - measured["loop"] - in_threads))
    for step, where, seconds in table:
        times = f"{calls[step] / rows:7.3f} calls a row" if step in calls else ""
        print(f"{step:<28} {where:<7} {seconds / rows * 1e6:7.1f} µs a row   {times}".rstrip())
    total = sum(seconds for _, _, seconds in table)
    price = sum(calls.values()) * (clock.within_s + clock.outside_s)
    print(f"{'in all':<36} {total / rows * 1e6:7.1f} µs a row   (clocks taken off: {price / rows * 1e6:.1f} µs)")


def main() -> None:
    parser = argparse.ArgumentParser(description="Where a row's CPU goes inside batchfox, µs a row.")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--no-ids", action="store_true", help="rows named by position instead of by an id")
    parser.add_argument("--child", metavar="JOB", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _run_child(arguments.child, arguments.rows)
        return
    print(children.describe_machine(), flush=True)
    mine, its = children.two_cores() or (None, None)
    with children.serve(core=its) as served, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work.write_rows(folder / "rows.jsonl", arguments.rows)
        job = folder / "job.toml"
        work.write_job(
            job,
            rows=folder / "rows.jsonl",
            output=folder / "out",
            base_url=served.base_url,
            has_ids=not arguments.no_ids,
        )
        loop = [str(children.HERE / "bare.py"), served.base_url, "--rows"]
        start = children.run([*loop, "1"], core=mine)
        bare = children.run([*loop, str(arguments.rows)], core=mine)
        used = children.run([__file__, "--child", str(job), "--rows", str(arguments.rows)], core=mine)
    print(used.output, end="")
    print(f"the bare loop, for comparison: {(bare.cpu_s - start.cpu_s) / arguments.rows * 1e6:.1f} µs a row")


if __name__ == "__main__":
    main()
