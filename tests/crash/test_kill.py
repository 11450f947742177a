"""SIGKILL at many instants: the run is resumed each time, and the simulator's book proves what was paid."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aftermath import Kill, check_at_rest, check_bill, check_output, digest_of_row, keys_of, look_after_kill
from conftest import MODEL, Child, Remote, Starter, by_id, eventually, rows_with_ids, superseded_rows, write_rows

ROWS = 2_400
IN_FLIGHT = 200
MOST_KILLS = 24
STEP = 50  # submits between two kills, at least: a run must not be over before it was killed often enough


class Killer:
    """Starts runs of one job and kills them when a condition holds."""

    def __init__(self, start: Starter, command: list[str | Path], folder: Path, code: str = "") -> None:
        self._start = start
        self._code = code
        self._command = command
        self._folder = folder
        self.kills: list[Kill] = []

    def kill_when(self, condition: Callable[[Child], Any], what: str) -> bool:
        """True where the run was killed; False where it ended before the condition held."""
        child = self._start(*self._command, code=self._code)
        eventually(lambda: condition(child) or child.is_over(), what)
        if child.is_over():
            assert child.wait() == 0, child.err
            return False
        child.kill()
        self.kills.append(look_after_kill(self._folder))
        return True

    def finish(self) -> Child:
        child = self._start(*self._command)
        assert child.wait() == 0, child.err
        return child


def holds_lock(folder: Path) -> Callable[[Child], bool]:
    """The run has opened its output: it recovers, or is about to."""
    lock = folder / "_batchfox" / "lock"

    def look(child: Child) -> bool:
        return lock.exists() and lock.read_text().strip() == str(child.pid)

    return look


def names_in(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()


def has_more_than(folder: Path, number: int) -> Callable[[Child], bool]:
    """More than so many files have come into a folder since this was asked."""
    before = names_in(folder)
    return lambda _: len(names_in(folder) - before) > number


def test_a_run_killed_at_more_than_20_instants_loses_nothing_and_pays_only_for_what_was_on_the_wire(
    start: Starter, remote: Callable[..., Remote], tmp_path: Path
) -> None:
    # A third of the answers come 50 ms late, so that every kill finds POSTs on the wire.
    simulator = remote("--latency", "constant:0.05", "--fault", "slow_answer=0.3", "--slow", "0.05")
    rows = rows_with_ids(ROWS)
    folder = tmp_path / "out"
    command: list[str | Path] = ["run", "--input", write_rows(tmp_path / "in.jsonl", rows), "--output", folder]
    command += ["--id", "id", "--model", MODEL, "--base-url", simulator.url, "--quiet"]
    for setting in (
        "limits.requests_per_minute=12000",  # a killer that is late by seconds finds a run that still goes on
        f"limits.in_flight={IN_FLIGHT}",
        "output.rows_per_part=200",
        "retry.in_doubt_limit=100000",
        "retry.attempts=100",
    ):
        command += ["--set", setting]
    killer = Killer(start, command, folder)
    data, tmp = folder / "data", folder / "_batchfox" / "tmp"

    def has_submitted(number: int) -> Callable[[Child], bool]:
        return lambda _: simulator.totals()["submits_accepted"] >= number

    def writes_a_part(_: Child) -> bool:
        return any(name.startswith("part-") for name in names_in(tmp))

    assert killer.kill_when(holds_lock(folder), "a run that opens its output")
    for number in itertools.count():
        already = simulator.totals()["submits_accepted"]
        if len(killer.kills) > MOST_KILLS or not killer.kill_when(has_submitted(already + STEP), "more submits"):
            break
        if number % 6 == 1:
            killer.kill_when(holds_lock(folder), "a resume that recovers")
        if number % 6 == 3:
            killer.kill_when(writes_a_part, "a part being written")
        if number % 6 == 5:
            killer.kill_when(has_more_than(data, 0), "a part in place")
    assert len(killer.kills) >= 20
    killer.finish()
    check_at_rest(folder)
    found = check_output(rows, folder, has_ids=True)
    paid_twice = check_bill(
        zip(keys_of(rows, has_ids=True), rows, found, strict=True), simulator.entries(), killer.kills
    )
    assert paid_twice <= len(killer.kills) * IN_FLIGHT
    assert paid_twice > 0, "no kill found a POST on the wire: the test shows nothing"


# A swap is over in milliseconds: a killer on a busy machine would come after the last of them.
SLOW_SWAPS = """
import time
from batchfox import parts
put = parts.put_in_place
def put_slowly(temporary, final):
    time.sleep(0.5)
    put(temporary, final)
parts.put_in_place = put_slowly
"""


def test_a_retry_killed_during_its_swaps_replaces_every_row_once_and_keeps_the_old_outcomes(
    start: Starter, remote: Callable[..., Remote], tmp_path: Path
) -> None:
    simulator = remote("--latency", "constant:0.02", "--fault", "refuse_options=0.5")
    rows = rows_with_ids(400)
    folder = tmp_path / "out"
    command: list[str | Path] = ["run", "--input", write_rows(tmp_path / "in.jsonl", rows), "--output", folder]
    command += ["--id", "id", "--model", MODEL, "--base-url", simulator.url, "--quiet"]
    command += ["--set", "limits.requests_per_minute=60000", "--set", "output.rows_per_part=50"]
    command += ["--set", "retry.in_doubt_limit=100000", "--set", "retry.attempts=100"]
    first = start(*command)
    assert first.wait() == 3, first.err
    failed = {name for name, row in by_id(folder).items() if row["status"] == "failed"}
    assert 100 < len(failed) < 300
    simulator.control(faults={})
    killer = Killer(start, [*command, "--retry", "failed"], folder, SLOW_SWAPS)
    superseded, tmp = folder / "_batchfox" / "superseded", folder / "_batchfox" / "tmp"

    def writes_what_it_replaces(_: Child) -> bool:
        return any("replaced-by" in name for name in names_in(tmp))

    kills = 0
    for number in range(8):
        has_begun_a_swap = has_more_than(superseded, number % 3)
        if not killer.kill_when(has_begun_a_swap if number % 2 else writes_what_it_replaces, "a swap"):
            break
        kills += 1
    assert kills >= 2
    killer.finish()
    check_at_rest(folder)
    found = check_output(rows, folder, has_ids=True)
    old = superseded_rows(folder)
    assert sorted(row["row_id"] for row in old) == sorted(failed)
    assert {row["status"] for row in old} == {"failed"}
    billed = Counter(entry["digest"] for entry in simulator.entries())
    for row, out in zip(rows, found, strict=True):
        assert billed[digest_of_row(row)] <= out["submits"]
        assert out["maybe_billed_twice"] == (out["submits"] > 1)
