"""Runs of one key in processes of their own: the lowest limit holds for all, the dead hold nothing, and nobody is told
the key."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import KEY, Child, Remote, Starter, by_id, environment, eventually, rows_with_ids, write_rows

from batchfox.errors import UserError
from batchfox.key_ledger import KeyLedger
from batchfox.sharing import Share

LIMIT = 1_200
ROWS = 50


def test_the_lowest_limit_of_the_runs_of_a_key_holds_for_all_of_them(
    remote: Callable[..., Remote], start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    simulator = remote("--latency", "constant:0.02")

    def begin(name: str, rows: int, *sets: str) -> Child:
        source = write_rows(tmp_path / f"{name}.jsonl", rows_with_ids(rows))
        command: list[str | Path] = [
            "run",
            "--input",
            source,
            "--id",
            "id",
            "--output",
            tmp_path / name,
            "--base-url",
            simulator.url,
        ]
        return start(*command, "--model", "gpt-5.5", *sets, env=environment(XDG_STATE_HOME=str(state)))

    def ledger(per_minute: float | None) -> KeyLedger:
        return KeyLedger(KEY, simulator.url, per_minute)

    killed = begin("killed", 3_000)
    eventually(lambda: simulator.totals()["submits_received"] > 0, "a run by itself")
    with contextlib.closing(Closing(ledger(LIMIT))) as low:
        # The run that has no limit is bound by now or in a second, and dead in an instant.
        eventually(lambda: low.ledger.lease(1, time.monotonic()).submits == 1, "a turn")
        killed.kill()
        before = simulator.totals()["submits_received"]
        children = [begin("free", ROWS), begin("fast", ROWS, "--set", "limits.requests_per_minute=60000")]
        for child in children:
            assert child.wait() == 0, child.err
        times = sorted(row["submitted_at"] for name in ("free", "fast") for row in by_id(tmp_path / name).values())
        assert simulator.totals()["submits_received"] - before == len(times) == 2 * ROWS
        # Both by themselves would be done in a second.
        assert (times[-1] - times[0]).total_seconds() > (2 * ROWS - LIMIT / 60) * 60 / LIMIT
        assert low.ledger.lease(1, time.monotonic()).submits in (0, 1)  # alone, but not for a minute yet
    # Who is alone when the others have long been gone goes by its own limiter.
    with contextlib.closing(Closing(ledger(6_000))) as alone:
        assert alone.ledger.lease(1, time.monotonic() + 120.0).submits is None
    files = [path for path in state.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".db", ".db-wal", ".db-shm"}, files  # no lock is left
    assert not any(KEY.encode() in path.read_bytes() or KEY in path.name for path in files)
    (path,) = state.rglob("*.db")
    path.write_text("no database")
    with pytest.raises(UserError, match="remove it while none runs"):
        ledger(1)


class Closing:
    def __init__(self, ledger: KeyLedger) -> None:
        self.ledger = ledger

    def close(self) -> None:
        self.ledger.leave()


async def test_a_run_knows_when_others_have_what_its_keys_rate_lets_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    ledger = KeyLedger(KEY, "http://api", 60)
    with contextlib.closing(Closing(ledger)), concurrent.futures.ThreadPoolExecutor(1) as thread:
        clock = SimpleNamespace(now=time.monotonic)
        share = Share(ledger, thread, clock=clock)
        assert (await share.ready_in_s(), share.is_short) == (0.0, False), "it is alone"
        with contextlib.closing(Closing(KeyLedger(KEY, "http://api", 6_000))):
            share = Share(ledger, thread, clock=clock)
            assert await share.ready_in_s() > 0.0
            assert share.is_short
        share = Share(ledger, thread, clock=clock)
        assert await share.ready_in_s() > 0.0
        assert not share.is_short, "of a run that has ended what it sent counts on, but it has no part"
