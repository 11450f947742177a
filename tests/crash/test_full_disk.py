"""A disk that gets full: one clear line, what is on the wire still on record, and the run goes on when there is room.

Needs a small file system of its own, so these are tests of the system.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MODEL, Child, Remote, Starter, by_id, eventually, rows_with_ids, write_rows

from batchfox.reserve import RESERVE_BYTES

pytestmark = pytest.mark.system

ROWS = 300
WIDE = 60_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the output and little more."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={16 * RESERVE_BYTES}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Takes all room but `leave` bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 18))
        except OSError:
            pass
    if leave:
        with filler.open("rb+") as file:
            file.truncate(filler.stat().st_size - leave)
    return filler


def command_of(tmp_path: Path, disk: Path, url: str, *settings: str) -> list[str | Path]:
    rows = [row | {"note": os.urandom(WIDE // 2).hex()} for row in rows_with_ids(ROWS)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    command: list[str | Path] = ["run", "--input", source, "--id", "id", "--output", disk / "out", "--model", MODEL]
    command += ["--base-url", url, "--set", "limits.requests_per_minute=60000"]
    for setting in settings:
        command += ["--set", setting]
    return command


def check_clear_end(child: Child, about: str) -> None:
    assert child.wait() == 4, child.err
    assert about in child.err
    errors = [line for line in child.err.splitlines() if line.startswith("batchfox: ")]
    assert len(errors) == 1, child.err
    assert "make room, then run the same command again" in errors[0]
    assert "Traceback" not in child.err


@pytest.mark.parametrize("what", ["recording", "a part", "the log"])
def test_a_full_disk_ends_the_run_and_nothing_on_the_wire_is_forgotten(
    tmp_path: Path, small_disk: Path, start: Starter, remote: Callable[..., Remote], what: str
) -> None:
    simulator = remote("--latency", "constant:0.3")
    elsewhere = f"output.checkpoint='{tmp_path / 'checkpoint.db'}'"
    settings = {
        "recording": ["output.rows_per_part=100000"],
        "a part": ["output.rows_per_part=20", elsewhere],
        "the log": ["output.rows_per_part=100000", elsewhere],
    }[what]
    command = command_of(tmp_path, small_disk, simulator.url, *settings, "limits.in_flight=40")
    if what == "the log":
        command += ["--log-level", "debug"]
    child = start(*command)
    eventually(lambda: simulator.totals()["submits_received"] >= 60 or child.is_over(), "some submits")
    filler = fill(small_disk)
    check_clear_end(child, {"recording": "checkpoint.db: ", "a part": "part-0", "the log": "the log cannot"}[what])
    sent = simulator.totals()["submits_received"]
    filler.unlink()
    again = start(*command)
    assert again.wait() == 0, again.err
    assert len(by_id(small_disk / "out")) == ROWS
    assert sent < ROWS
    assert simulator.totals()["submits_received"] == ROWS, "every task that was paid for was picked up"
    assert not (small_disk / "out" / "_batchfox" / "checkpoint.db-reserve").exists()


def test_a_run_does_not_begin_on_a_full_disk(
    tmp_path: Path, small_disk: Path, start: Starter, remote: Callable[..., Remote]
) -> None:
    simulator = remote("--latency", "constant:0.3")
    command = command_of(tmp_path, small_disk, simulator.url)
    filler = fill(small_disk, leave=1 << 20)
    child = start(*command)
    check_clear_end(child, "no room")
    assert simulator.totals()["submits_received"] == 0
    filler.unlink()
    assert start(*command).wait() == 0
