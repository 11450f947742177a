"""The day's money of a key: never passed by all its runs together, whoever dies, resumes, or works over midnight."""

from __future__ import annotations

import os
import random
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from conftest import KEY, Simulate, job_of, rows_with_ids, write_rows

from batchfox import run
from batchfox.core.budget import Budget
from batchfox.errors import UserError
from batchfox.key_ledger import KeyLedger
from batchfox.purse import DayPurse

LIMIT = 100.0
URL = "http://127.0.0.1:9"


class Clock:
    def __init__(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).timestamp()

    def unix(self) -> float:
        return self.now


class Worker:
    """One run: reserves 6 credits a row, is charged 1 to 6 of them, and leaves some in doubt."""

    def __init__(self, name: str, clock: Clock, *, gone: float = 0.0) -> None:
        self.name, self.clock = name, clock
        self.ledger = KeyLedger(KEY, URL, None)
        self.budget = Budget(None, spent=gone)
        zone = ZoneInfo("Europe/Berlin")
        self.purse = DayPurse(self.ledger, LIMIT, run=name, gone=gone, zone=zone, unix=clock.unix)
        self.budget.purse = self.purse

    def submit(self) -> bool:
        if not self.budget.may_spend(6.0):
            return False
        self.budget.reserve(6.0)
        return True

    def end_one(self, draws: random.Random) -> None:
        if draws.random() < 0.1:
            self.budget.let_stand(6.0)
        else:
            self.budget.charge("m", 6.0, draws.uniform(1.0, 6.0))

    def settle(self) -> None:
        self.purse.settle(self.gone, self.budget.reserved)

    @property
    def gone(self) -> float:
        return self.budget.spent + self.budget.standing

    def die(self) -> None:
        """As by `kill -9`: nothing is told any more, and the lock is let go of."""
        self.purse._db.close()
        self.ledger._db.close()
        os.close(self.ledger._lock)

    def end(self) -> None:
        self.purse.close(self.gone, self.budget.reserved)
        self.ledger.leave()


def test_what_was_held_for_a_row_that_ended_does_not_buy_the_next_one() -> None:
    clock = Clock("2026-11-21T12:00+01:00")
    worker = Worker("a", clock)
    while worker.submit():
        pass
    for _ in range(20):  # a refusal between a row's end and the next settling
        if worker.budget.reserved > 0.0:
            worker.budget.charge("m", 6.0, 6.0)
        clock.now += 2.0
        worker.submit()
        clock.now += 2.0
        worker.submit()
    assert worker.gone + worker.budget.reserved <= LIMIT
    worker.end()


def test_all_runs_of_a_key_together_keep_to_the_days_money() -> None:
    clock, draws = Clock("2026-11-21T12:00+01:00"), random.Random(5)
    workers = [Worker(name, clock) for name in ("a", "b", "c")]
    killed: Worker | None = None
    for step in range(400):
        clock.now += 0.5
        worker = draws.choice(workers)
        worker.submit()
        if worker.budget.reserved > 0 and draws.random() < 0.6:
            worker.end_one(draws)
        if step % 2:
            worker.settle()
        if step == 10:
            killed = workers.pop()
            killed.settle()
            assert all(killed.submit() for _ in range(4))
            for _ in range(2):
                killed.budget.charge("m", 6.0, 6.0)  # of which it told nobody
            killed.die()
        exposure = sum(one.gone + one.budget.reserved for one in [*workers, *([killed] if killed else [])])
        assert exposure <= LIMIT + 1e-6
    assert exposure > LIMIT - 12.0  # all but what one more request may cost, and what a dead run holds
    # A run that is taken up again counts once.
    assert killed is not None
    again = Worker("c", clock, gone=killed.gone)
    again.budget.reserve(killed.budget.reserved)
    for one in [*workers, again]:
        one.settle()
    assert exposure - 1e-6 <= again.purse.used() <= exposure + 3 * 2.0
    # What is released is there for the others.
    before = again.purse.used()
    again.budget.release(again.budget.reserved)
    again.settle()
    assert again.purse.used() <= before
    # At midnight there is new money; what is still on its way counts for the new day.
    held = sum(one.budget.reserved for one in workers)
    clock.now = datetime.fromisoformat("2026-11-22T00:00:01+01:00").timestamp()
    for one in [*workers, again]:
        one.settle()
    assert again.purse.used() == pytest.approx(held, abs=7.0)
    assert again.submit()
    for one in [*workers, again]:
        one.end()


def test_a_run_stops_when_the_days_money_is_gone_and_says_so(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    totals: list[float] = []
    for name in ("free", "one", "two"):
        source = write_rows(tmp_path / f"{name}.jsonl", rows_with_ids(30))
        limits = {"credits_per_day": totals[0] * 1.5 if totals else None}
        summary = run(job_of(source, tmp_path / name, simulator.url, limits=limits, schedule={"timezone": "UTC"}))
        totals.append(float(simulator.book()["totals"]["credits_charged"]))
        assert summary.exit_status == (0 if name == "free" else 4)
    assert summary.reason is not None
    assert "of limits.credits_per_day" in summary.reason
    assert totals[0] < totals[1] <= totals[2] <= totals[0] * 1.5 + 1e-9


def test_a_days_limit_is_never_a_number_without_a_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded simulator has money of its own for each output; without a state folder the limit is refused."""
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    job = job_of(
        source,
        tmp_path / "out",
        "simulator",
        limits={"credits_per_day": 0.0001},
        api={"simulate": {"latency": "constant:0.01"}},
    )
    assert run(job).exit_status == 4
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="what runs of one key share"):
        run(job)
