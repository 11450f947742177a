"""SIGKILL at every durability boundary, by name: the plain command finishes each time what the kill cut.

The simulator's book says what was paid, the child's trace which POSTs had left, the checkpoint what was known.
"""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aftermath import (
    Kill,
    check_at_rest,
    check_bill,
    check_output,
    check_parts,
    digest_of_row,
    keys_of,
    look_after_kill,
)
from boundaries import TABLE
from conftest import GUARD_S, KEY, MODEL, environment, parts_of, superseded_rows, write_rows

from batchfox.cli import main
from batchfox.core.row import Row
from batchfox.simulator import Settings, SimulatorThread
from batchfox.source import Source

ROWS = 9
ROWS_PER_PART = 3
_numbers = itertools.count()


class Forks:
    """`driver.py` as a process: runs commands one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._errors = (folder / "driver.err").open("wb")
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("driver.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(),
            text=True,
        )

    def run(self, arguments: list[str], boundary: str | None = None, nth: int = 1) -> tuple[int, str, list[Any]]:
        """Exit status (minus the signal), stderr, and the trace of a command, killed at a boundary if one is named."""
        out, err, trace = (self._folder / f"{next(_numbers)}.{kind}" for kind in ("out", "err", "trace"))
        order = {
            "arguments": arguments,
            "boundary": boundary,
            "nth": nth,
            "folder": str(self._folder),
            "out": str(out),
            "err": str(err),
            "trace": str(trace),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        pid = self._server.stdout.readline()
        assert pid, (self._folder / "driver.err").read_text()
        status = int(self._server.stdout.readline())
        facts = [json.loads(line) for line in trace.read_text().splitlines()] if trace.exists() else []
        return status, err.read_text(), facts

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(GUARD_S)
        self._errors.close()


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    found = Forks(tmp_path_factory.mktemp("forks"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorThread]:
    with SimulatorThread(Settings(latency="uniform:0.002,0.01")) as found:
        yield found


class Scene:
    """One output, its rows, the kills it went through and the money that was spent since it was set up."""

    def __init__(
        self,
        forks: Forks,
        simulator: SimulatorThread,
        folder: Path,
        rows: list[dict[str, Any]],
        *,
        has_ids: bool = True,
        in_flight: int = 4,
        rows_per_part: int = ROWS_PER_PART,
    ) -> None:
        self._forks = forks
        self._simulator = simulator
        self._before = len(simulator.book()["entries"])
        self.has_ids = has_ids
        self.rows = rows
        self.out = folder / "out"
        self.kills: list[Kill] = []
        self.wires: list[frozenset[bytes]] = []
        # Without ids nothing names a row but its position: the column goes by another name.
        lines = [{"id" if has_ids else "name": row["id"], "prompt": row["prompt"]} for row in rows]
        self._command = ["run", "--input", str(write_rows(folder / "in.jsonl", lines)), "--output", str(self.out)]
        self._command += ["--model", MODEL, "--base-url", simulator.url, "--quiet", *(["--id", "id"] * has_ids)]
        for setting in (
            "limits.requests_per_minute=60000",
            f"limits.in_flight={in_flight}",
            f"output.rows_per_part={rows_per_part}",
            # One row at a time: its task id is on disk long before it is asked about, however busy the machine is.
            f"poll.first={0.1 if in_flight == 1 else 0.005}",
            "retry.in_doubt_limit=1000",
        ):
            self._command += ["--set", setting]

    def kill(self, boundary: str, nth: int = 1, *options: str) -> None:
        """Runs until the boundary is reached for the nth time. It must be."""
        status, err, facts = self._forks.run([*self._command, *options], boundary, nth)
        seen = [fact["seen"] for fact in facts if "seen" in fact]
        assert not seen, f'"{boundary}" was reached {seen[0]} times, not {nth} (exit {status}): {err}'
        assert status == -signal.SIGKILL, err
        assert {"killed": boundary} in facts
        kill = look_after_kill(self.out)
        keys = {digest_of_row(row): key for row, key in zip(self.rows, self._keys(), strict=True)}
        left = {keys[fact["posted"]] for fact in facts if "posted" in fact}
        assert left <= kill.known, "a POST left before its intent was on disk"
        self.kills.append(kill)
        self.wires.append(kill.doubtful & left)
        check_parts(self.out)

    def finish_here(self) -> None:
        """The plain command, to its end, in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FOXAPI_API_KEY", KEY)
            with pytest.raises(SystemExit) as end:
                main(self._command)
        assert end.value.code == 0

    def finish(self, *options: str, status: int = 0) -> None:
        """The plain command, to its end."""
        found, err, _ = self._forks.run([*self._command, *options])
        assert found == status, err

    def check(self) -> int:
        """Everything that must hold at the end of a run in which every row was to be sent. Returns how many tasks were
        paid for twice."""
        found = check_output(self.rows, self.out, has_ids=self.has_ids)
        check_at_rest(self.out)
        return self.check_bill(found, self.spent(), range(len(self.rows)))

    def check_bill(self, found: list[dict[str, Any]], spent: list[dict[str, Any]], numbers: Iterable[int]) -> int:
        """What was spent, it was spent on the rows of these numbers, as it must be. Returns as `check` does."""
        keys = self._keys()
        chosen = [(keys[n], self.rows[n], found[n]) for n in numbers]
        return check_bill(chosen, spent, self.kills, wires=self.wires)

    def spent(self) -> list[dict[str, Any]]:
        """The book's entries since the scene was set up."""
        entries: list[dict[str, Any]] = self._simulator.book()["entries"]
        return entries[self._before :]

    def _keys(self) -> list[bytes]:
        return keys_of(self.rows, has_ids=self.has_ids)


def new_rows(batch: str = "") -> list[dict[str, Any]]:
    """Rows that nobody has asked about before."""
    batch = batch or str(next(_numbers))
    return [{"id": f"r{n}", "prompt": f"question {batch}-{n}"} for n in range(ROWS)]


Stage = Callable[..., Scene]


@pytest.fixture
def stage(forks: Forks, simulator: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Makes a scene with rows of its own."""
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)
    return lambda **options: Scene(forks, simulator, tmp_path, new_rows(), **options)


def test_every_boundary_names_something_that_exists() -> None:
    missing = []
    for name, boundary in TABLE.items():
        try:
            boundary.original()
        except (ImportError, AttributeError) as error:
            missing.append(f"{name}: {error}")
    assert not missing


def test_a_boundary_that_is_not_there_or_not_reached_is_no_success(stage: Stage) -> None:
    with pytest.raises(AssertionError, match="was reached 3 times, not 99"):
        stage().kill("before a part is renamed", 99)
    with pytest.raises(AssertionError, match="KeyError"):
        stage().kill("before a boundary that nobody knows")


# A run.

OPENING = (
    "before the output is opened",
    "after out/ is made",
    "after _batchfox/ is made",
    "after data/ is made",
    "after tmp/ is made",
    "after superseded/ is made",
    "before the lock is held",
    "after the lock is held",
    "before the checkpoint is opened",
    "while the checkpoint is an empty file",
    "while the checkpoint has no tables",
    "after the checkpoint is opened",
    "before the job is on record",
    "before job.toml is written",
    "after the job is on record",
    "before recovery",
    "after recovery",
    "before the run is begun",
    "after the run is begun",
)


@pytest.mark.parametrize("boundary", OPENING)
def test_killed_while_an_output_is_made(stage: Stage, boundary: str) -> None:
    scene = stage(has_ids=boundary.startswith("before"))
    scene.kill(boundary)
    assert not scene.spent()
    scene.finish()
    assert scene.check() == 0


ON_ITS_WAY = {
    "before an intent is recorded": 3,
    "after an intent is recorded": 2,
    "before a POST": 7,
    "after a POST": 6,
    "before a task id is recorded": 3,
    "after a task id is recorded": 2,
    "before a poll": 5,
    "after a poll": 5,
    "after the answer": 4,
    "before an outcome is recorded": 3,
    "after an outcome is recorded": 3,
    "before rows are assigned to a part": 2,
    "after rows are assigned to a part": 3,
    "before the types are fixed": 1,
    "after the types are fixed": 1,
    "while a part is written": 2,
    "before a part is renamed": 3,
    "before the folder is synced": 2,
    "after a part is renamed": 2,
    "before a part is filed": 3,
    "after a part is filed": 2,
    "before the rest is filed": 1,
    "after the rest is filed": 1,
    "before the run's end": 1,
    "after the run's end": 1,
}


@pytest.mark.parametrize("boundary", ON_ITS_WAY)
def test_killed_at_the_first_of_a_kind_with_one_row_in_flight(stage: Stage, boundary: str) -> None:
    scene = stage(in_flight=1)
    expected = TABLE[boundary].on_the_wire
    # Counted on: the task's id is on disk before it is asked about, however slow the disk.
    scene.kill(boundary, 1, *(["--set", "poll.first=1"] if expected is not None else []))
    if expected is not None:
        assert len(scene.wires[0]) == expected
    scene.finish()
    paid_twice = scene.check()
    if expected is not None:
        assert paid_twice == expected


@pytest.mark.parametrize(("boundary", "nth"), [(name, nth) for name, nth in ON_ITS_WAY.items() if nth > 1])
def test_killed_at_a_later_one_with_several_rows_in_flight_and_no_ids(stage: Stage, boundary: str, nth: int) -> None:
    scene = stage(has_ids=False)
    scene.kill(boundary, nth)
    scene.finish()
    scene.check()


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 7, 10, 14])
def test_killed_inside_a_transaction(stage: Stage, nth: int) -> None:
    scene = stage()
    scene.kill("inside a transaction", nth)
    scene.finish()
    scene.check()


# A resume.

ASSIGNED = ("after rows are assigned to a part", 1)
WRITTEN = ("before a part is renamed", 2)
IN_PLACE = ("before a part is filed", 2)
POSTED = ("after a POST", 4)
KNOWN = ("after a task id is recorded", 1)
RESUMES = (
    (ASSIGNED, "before the types are fixed"),
    (ASSIGNED, "after the types are fixed"),
    (WRITTEN, "before recovery"),
    (WRITTEN, "after rows are assigned to a part"),
    (WRITTEN, "while a part is written"),
    (WRITTEN, "before a part is renamed"),
    (WRITTEN, "after a part is renamed"),
    (WRITTEN, "before a part is filed"),
    (WRITTEN, "after a part is filed"),
    (WRITTEN, "after recovery"),
    (IN_PLACE, "before a part is filed"),
    (IN_PLACE, "after a part is filed"),
    (IN_PLACE, "before the run is begun"),
    (IN_PLACE, "after the run is begun"),
    (POSTED, "before a known row is taken up"),
    (POSTED, "after a known row is taken up"),
    (POSTED, "before an intent is recorded"),
    (POSTED, "after an intent is recorded"),
    (POSTED, "before a POST"),
    (POSTED, "after a POST"),
    (POSTED, "before a task id is recorded"),
    (POSTED, "after a task id is recorded"),
    (KNOWN, "before a poll"),
    (KNOWN, "after the answer"),
    (KNOWN, "before an outcome is recorded"),
    (KNOWN, "after an outcome is recorded"),
)


@pytest.mark.parametrize(("first", "second"), RESUMES)
def test_a_resume_is_killed_too(stage: Stage, first: tuple[str, int], second: str) -> None:
    scene = stage(has_ids=first != IN_PLACE)
    scene.kill(*first)
    scene.kill(second)
    scene.finish()
    scene.check()


# A retry.


class Before:
    """An output that others are copied from, and what was in it, in the order of the input."""

    def __init__(self, scene: Scene) -> None:
        self.folder = scene.out
        self.rows = scene.rows
        self.has_ids = scene.has_ids
        self.found = sorted(check_parts(scene.out), key=lambda out: int(out["row_index"]))


def half_failed(forks: Forks, simulator: SimulatorThread, folder: Path, batch: str, *, has_ids: bool) -> Before:
    """Of each part's rows some are completed and some failed, unbilled. One row in flight: the rows of a part, and
    those of the part that replaces some of them, are always the same."""
    scene = Scene(forks, simulator, folder, new_rows(batch), has_ids=has_ids, in_flight=1)
    simulator.control(faults={"refuse_options": 0.5})
    scene.finish(status=3)
    simulator.control(faults={})
    for path in parts_of(scene.out):
        assert set(pq.read_table(path)["status"].to_pylist()) == {"completed", "failed"}
    return Before(scene)


@pytest.fixture(scope="module")
def half_failed_by_id(forks: Forks, simulator: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Before:
    return half_failed(forks, simulator, tmp_path_factory.mktemp("ids"), "half13", has_ids=True)


@pytest.fixture(scope="module")
def half_failed_by_position(
    forks: Forks, simulator: SimulatorThread, tmp_path_factory: pytest.TempPathFactory
) -> Before:
    return half_failed(forks, simulator, tmp_path_factory.mktemp("positions"), "half14", has_ids=False)


RETRIES = (
    ("before rows are marked", 1),
    ("before a part's rows are marked", 2),
    ("after rows are marked", 1),
    ("after an intent is recorded", 1),
    ("before a POST", 1),
    ("after a POST", 1),
    ("after a task id is recorded", 1),
    ("before an outcome is recorded", 1),
    ("after an outcome is recorded", 1),
    ("after rows are written ahead", 1),
    ("after rows are written ahead", 2),
    ("after rows are assigned to a part", 1),
    ("before old outcomes are taken out", 1),
    ("before old outcomes are kept", 1),
    ("before old outcomes are kept", 2),
    ("after old outcomes are kept", 1),
    ("after old outcomes are kept", 2),
    ("before an old part is renamed over", 1),
    ("before an old part is renamed over", 2),
    ("before the folder is synced", 2),
    ("after an old part is renamed over", 1),
    ("after an old part is renamed over", 2),
    ("after old outcomes are taken out", 1),
    ("before a part is renamed", 1),
    ("after a part is renamed", 1),
    ("before a part is filed", 1),
    ("after a part is filed", 1),
    ("before the run's end", 1),
    ("after the run's end", 1),
)


def check_swaps(scene: Scene, before: Before) -> None:
    """Every failed row was replaced once, its old outcome kept; what was completed is as it was, and cost nothing."""
    found = check_output(scene.rows, scene.out, has_ids=scene.has_ids)
    check_at_rest(scene.out)
    failed = [number for number, old in enumerate(before.found) if old["status"] == "failed"]
    for number, (old, new) in enumerate(zip(before.found, found, strict=True)):
        assert number in failed or new == old
    kept = sorted(superseded_rows(scene.out), key=lambda row: int(row["row_index"]))
    assert kept == [before.found[number] for number in failed], "an old outcome is not kept, or twice"
    spent = scene.spent()
    assert {entry["digest"] for entry in spent} == {digest_of_row(scene.rows[number]) for number in failed}
    scene.check_bill(found, spent, failed)


Retry = Callable[[Before], Scene]


@pytest.fixture
def retry(forks: Forks, simulator: SimulatorThread, tmp_path: Path) -> Retry:
    """Makes a scene of a copy of a half failed output, to be retried."""

    def begin(before: Before) -> Scene:
        shutil.copytree(before.folder, tmp_path / "out")
        return Scene(forks, simulator, tmp_path, before.rows, has_ids=before.has_ids, in_flight=1)

    return begin


@pytest.mark.parametrize(("boundary", "nth"), RETRIES)
def test_a_retry_is_killed(retry: Retry, half_failed_by_id: Before, boundary: str, nth: int) -> None:
    scene = retry(half_failed_by_id)
    scene.kill(boundary, nth, "--retry", "failed")
    scene.finish("--retry", "failed")
    check_swaps(scene, half_failed_by_id)


SWAPS = (
    ("before old outcomes are kept", "before old outcomes are kept"),
    ("after old outcomes are kept", "after old outcomes are kept"),
    ("before an old part is renamed over", "before an old part is renamed over"),
    ("before an old part is renamed over", "after an old part is renamed over"),
    ("after an old part is renamed over", "before old outcomes are kept"),
    ("after an old part is renamed over", "after old outcomes are taken out"),
    ("after an old part is renamed over", "before a part is renamed"),
    ("after an old part is renamed over", "after a leftover is removed"),
    ("after a part is renamed", "before a part is filed"),
    ("after a part is renamed", "after a part is filed"),
)


@pytest.mark.parametrize(("first", "second"), SWAPS)
def test_the_recovery_of_a_swap_without_ids_is_killed_and_the_marks_hold_without_the_option(
    retry: Retry, half_failed_by_position: Before, first: str, second: str
) -> None:
    scene = retry(half_failed_by_position)
    scene.kill(first, 1, "--retry", "failed")
    scene.kill(second)
    scene.finish()
    check_swaps(scene, half_failed_by_position)


# A fresh start.


@pytest.fixture(scope="module")
def finished(forks: Forks, simulator: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Before:
    scene = Scene(forks, simulator, tmp_path_factory.mktemp("finished"), new_rows())
    scene.finish()
    return Before(scene)


FRESH = (
    ("before the old output is moved", 1, False),
    ("after the old output is moved", 1, True),
    ("after out/ is made", 1, True),
    ("after _batchfox/ is made", 1, True),
    ("after data/ is made", 1, True),
    ("after superseded/ is made", 1, True),
    ("before the lock is held", 2, True),
    ("after the lock is held", 2, True),
    ("while the checkpoint is an empty file", 2, True),
    ("before the job is on record", 1, True),
    ("before the run is begun", 1, True),
    ("after a POST", 2, True),
    ("after a part is renamed", 1, True),
)


@pytest.mark.parametrize(("boundary", "nth", "is_moved"), FRESH)
def test_a_fresh_start_is_killed(
    forks: Forks, simulator: SimulatorThread, finished: Before, tmp_path: Path, boundary: str, nth: int, is_moved: bool
) -> None:
    shutil.copytree(finished.folder, tmp_path / "out")
    scene = Scene(forks, simulator, tmp_path, finished.rows)
    scene.kill(boundary, nth, "--fresh")
    old = list(tmp_path.glob("out.old-*"))
    assert len(old) == is_moved
    scene.finish()
    kept = check_parts(old[0] if is_moved else scene.out)
    assert sorted(kept, key=lambda row: int(row["row_index"])) == finished.found
    if is_moved:
        scene.check()
    else:
        assert not scene.spent()


def test_rows_that_are_filed_while_their_block_is_still_compared_are_known(
    forks: Forks, simulator: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ids rows are held until their block is read to where it was known; meanwhile others are filed."""
    rows = [{"id": f"r{n}", "prompt": f"held {n}"} for n in range(700)]
    scene = Scene(forks, simulator, tmp_path, rows, has_ids=False, in_flight=400, rows_per_part=300)
    scene.kill("before rows are assigned to a part")
    read = Source.batches

    def read_slowly(source: Source) -> Iterator[list[Row]]:
        for batch in read(source):
            yield batch
            time.sleep(0.5)  # a slow disk, or large rows: in the reading thread

    monkeypatch.setattr(Source, "batches", read_slowly)
    scene.finish_here()
    scene.check()
