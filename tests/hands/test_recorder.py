"""Group commits, against a real checkpoint."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from batchfox.checkpoint import Checkpoint
from batchfox.core.lifecycle import Life, State
from batchfox.core.row import key_of_id
from batchfox.errors import MachineError
from batchfox.group import Group, encode
from batchfox.recorder import LATELY_S, LEAST_APART_S, Recorder
from batchfox.reserve import RESERVE_BYTES, Reserve


def life(number: int) -> Life:
    return Life(key=key_of_id(str(number)), index=number, id=str(number), kept={}, slot=number + 1)


@asynccontextmanager
async def recording(path: Path) -> AsyncIterator[tuple[Recorder, Checkpoint]]:
    checkpoint = Checkpoint(path)
    with ThreadPoolExecutor(1) as thread:
        recorder = Recorder(checkpoint, thread, Reserve(path.with_name("reserve")))
        loop = asyncio.create_task(recorder.run())
        yield recorder, checkpoint
        recorder.close()
        await loop
    checkpoint.close()


def slots_in(path: Path) -> list[int]:
    reader = Checkpoint(path, read_only=True)
    found = [slot for (slot,) in reader.query("SELECT slot FROM row ORDER BY slot")]
    reader.close()
    return found


async def test_what_was_added_is_on_disk_once_durable_returns(tmp_path: Path) -> None:
    async with recording(tmp_path / "c.db") as (recorder, _):
        for number in range(5):
            recorder.group.add_row(life(number), encode({}), None)
            await recorder.durable()
            assert slots_in(tmp_path / "c.db") == list(range(1, number + 2))


async def test_many_who_wait_share_a_few_commits(tmp_path: Path) -> None:
    async with recording(tmp_path / "c.db") as (recorder, _):

        async def record(number: int) -> None:
            recorder.group.add_row(life(number), encode({}), None)
            await recorder.durable()

        await asyncio.gather(*(record(number) for number in range(500)))
        assert len(slots_in(tmp_path / "c.db")) == 500
        assert recorder.commits <= 5


async def test_what_is_added_during_a_commit_goes_into_the_next_one(tmp_path: Path) -> None:
    async with recording(tmp_path / "c.db") as (recorder, _):
        recorder.group.add_row(life(0), encode({}), None)
        first = asyncio.ensure_future(recorder.durable())
        group = recorder.group
        while recorder.group is group:
            await asyncio.sleep(0)
        recorder.group.add_row(life(1), encode({}), None)
        await first
        await recorder.durable()
        assert slots_in(tmp_path / "c.db") == [1, 2]
        assert recorder.commits == 2


async def test_closing_records_what_is_left(tmp_path: Path) -> None:
    async with recording(tmp_path / "c.db") as (recorder, _):
        recorder.group.add_row(life(0), encode({}), None)
        recorder.touch()
    assert slots_in(tmp_path / "c.db") == [1]


async def test_progress_goes_with_every_group(tmp_path: Path) -> None:
    async with recording(tmp_path / "c.db") as (recorder, checkpoint):
        with checkpoint.transaction() as db:
            db.execute("INSERT INTO run (run_id, run_date, started_at, beat_at) VALUES ('r', '2026-01-01', 1, 1)")
        recorder.stamp = lambda: (5.0, b"{}", "r")
        recorder.group.add_row(life(0), encode({}), None)
        await recorder.durable()
        assert checkpoint.query("SELECT beat_at, progress FROM run") == [(5.0, b"{}")]


def fill_up(recorder: Recorder, first: int = 0) -> None:
    for number in range(first, first + 200):
        row = life(number)
        row.state = State.SENDING
        row.kept = {"text": "x" * 1000}
        recorder.group.add_row(row, encode(row.kept), None)


async def test_a_commit_that_fails_fails_all_who_wait_and_ends_the_loop(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.db")
    checkpoint.query("PRAGMA max_page_count = 1")
    with ThreadPoolExecutor(1) as thread:
        recorder = Recorder(checkpoint, thread, Reserve(tmp_path / "reserve"))
        loop = asyncio.create_task(recorder.run())
        fill_up(recorder)
        waiters = [asyncio.ensure_future(recorder.durable()) for _ in range(3)]
        for waiter in waiters:
            with pytest.raises(MachineError, match="full"):
                await waiter
        with pytest.raises(MachineError, match="full"):
            await loop
    assert checkpoint.query("SELECT count(*) FROM row") == [(0,)]
    checkpoint.close()


async def test_a_full_disk_costs_the_reserve_and_no_record(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.db")
    checkpoint.query("PRAGMA max_page_count = 1")
    reserve = Reserve(tmp_path / "reserve")
    reserve.fill()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    told: list[MachineError] = []

    def make_room(error: MachineError) -> None:
        assert not (tmp_path / "reserve").exists()
        told.append(error)
        checkpoint.query("PRAGMA max_page_count = 100000")

    with ThreadPoolExecutor(1) as thread:
        recorder = Recorder(checkpoint, thread, reserve)
        recorder.failed = make_room
        loop = asyncio.create_task(recorder.run())
        fill_up(recorder)
        await recorder.durable()
        assert len(told) == 1
        assert checkpoint.query("SELECT count(*) FROM row") == [(200,)]
        checkpoint.query("PRAGMA max_page_count = 1")
        fill_up(recorder, 200)
        with pytest.raises(MachineError):  # there is nothing left to give up
            await recorder.durable()
        with pytest.raises(MachineError):
            await loop
    checkpoint.close()


@pytest.mark.parametrize("is_busy", [True, False])
async def test_commits_of_a_busy_process_begin_so_far_apart_that_rows_share_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    monkeypatch.setattr(time, "process_time", time.monotonic if is_busy else lambda: 1.0)
    async with recording(tmp_path / "c.db") as (recorder, _):
        loop = asyncio.get_running_loop()
        began: list[float] = []
        commit = recorder._commit

        async def noting(group: Group) -> None:
            began.append(loop.time())
            await commit(group)

        recorder._commit = noting  # type: ignore[method-assign]
        known_at = loop.time() + 8 * LATELY_S
        for number in itertools.count():
            recorder.group.add_row(life(number), encode({}), None)
            await recorder.durable()
            if loop.time() > known_at + 0.5:
                break
        judged = [at for at in began if at > known_at]
        assert len(judged) > 8
        nearest_s = min(later - at for at, later in pairwise(judged))
        assert (nearest_s >= LEAST_APART_S * 0.95) == is_busy
