"""Faults of the machine: each with a real process, socket, SQLite file and Parquet file.

None loses a row, and what is paid for again is said beforehand.

A full disk is in test_full_disk.py, a power cut in test_power_cut.py, kills in test_boundaries.py and test_kill.py.
"""

from __future__ import annotations

import contextlib
import os
import pty
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aftermath import check_output, digest_of_row
from click.testing import CliRunner
from conftest import (
    GUARD_S,
    KEY,
    MODEL,
    Simulate,
    Starter,
    as_anybody,
    by_id,
    environment,
    eventually,
    log_events,
    parts_of,
    put_forward,
    rows_of,
    rows_with_ids,
    write_rows,
)

from batchfox.checkpoint import VERSION, Checkpoint
from batchfox.cli import cli
from batchfox.core.row import key_of_id
from batchfox.doctor import repair
from batchfox.reserve import RESERVE_BYTES
from batchfox.simulator import SimulatorThread
from batchfox.status import look

ROWS = rows_with_ids(300)
MIDWAY = 190
BATCHFOX = ("-m", "batchfox")


def command_of(folder: Path, url: str, *more: str, has_ids: bool = True) -> list[str | Path]:
    """`run` over all rows, in parts of 40."""
    source = folder / "in.jsonl"
    if not source.exists():
        write_rows(source, ROWS if has_ids else [{"prompt": row["prompt"]} for row in ROWS])
    ids = ["--id", "id"] if has_ids else []
    command: list[str | Path] = ["run", "--input", source, *ids, "--output", folder / "out", "--model", MODEL]
    settings = ("limits.requests_per_minute=60000", "output.rows_per_part=40", "limits.in_flight=60", *more)
    return [*command, "--base-url", url, *(word for setting in settings for word in ("--set", setting))]


def check_end(folder: Path, *, has_ids: bool = True) -> None:
    """Every row once, with the answer to its own request."""
    check_output(ROWS, folder / "out", has_ids=has_ids)


def posts(simulator: SimulatorThread) -> Counter[str]:
    """How often each row's request made a task."""
    return Counter(entry["digest"] for entry in simulator.book()["entries"])


def check_posts(simulator: SimulatorThread, *, again: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Each row was paid for once; `again`: those that may have been paid for twice, by id."""
    found = posts(simulator)
    for row in ROWS:
        assert found[digest_of_row(row)] <= (2 if row["id"] in again else 1), f"{row['id']} was paid for again"


def refused(start: Starter, simulator: SimulatorThread, command: list[str | Path], about: str) -> str:
    """The run does not start: exit 2, one line, nothing sent."""
    before = simulator.book()["totals"]["submits_received"]
    child = start(*command, "--quiet")
    assert child.wait() == 2, child.err
    assert child.err.count("\n") == 1, child.err
    assert about in child.err
    assert simulator.book()["totals"]["submits_received"] == before
    return child.err


def doctor(folder: Path, *options: str) -> tuple[int, str]:
    """`batchfox doctor` in this process, which is many times quicker: its exit status and what it printed."""
    done = CliRunner().invoke(cli, ["doctor", str(folder), *options], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.return_value, done.output


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


# An output that cannot be written.


@pytest.mark.parametrize("locked", ["out", "out/_batchfox", "out/data", "out/_batchfox/tmp"])
def test_an_output_without_permission_is_refused_and_goes_on_once_it_is_mended(
    tmp_path: Path, start: Starter, simulate: Simulate, locked: str
) -> None:
    simulator = simulate()
    command = command_of(tmp_path, simulator.url)
    assert start(*command, "--limit", "50").wait() == 0
    sent = simulator.book()["totals"]["submits_received"]
    folders = [path for path in (tmp_path / locked, *(tmp_path / locked).rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o500)
    child = subprocess.run(
        as_anybody(*BATCHFOX, *command, "--quiet"), capture_output=True, text=True, env=environment(), check=False
    )
    assert child.returncode == 2, child.stderr
    assert "must be writable" in child.stderr or "not writable" in child.stderr
    assert child.stderr.count("\n") == 1
    assert simulator.book()["totals"]["submits_received"] == sent
    doctor = subprocess.run(
        as_anybody(*BATCHFOX, "doctor", tmp_path / "out"),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert (doctor.returncode, "cannot be written" in doctor.stdout) == (3, True), doctor.stdout + doctor.stderr
    for folder in folders:
        folder.chmod(0o700)
    assert start(*command).wait() == 0
    check_end(tmp_path)
    check_posts(simulator)


@pytest.mark.system
def test_an_output_on_a_read_only_disk_is_refused_and_can_be_looked_at(
    tmp_path: Path, start: Starter, simulate: Simulate
) -> None:
    simulator = simulate()
    disk = tmp_path / "disk"
    disk.mkdir()
    write_rows(tmp_path / "in.jsonl", ROWS)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        command = [disk / "out" if word == tmp_path / "out" else word for word in command_of(tmp_path, simulator.url)]
        assert start(*command).wait() == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert "writable" in refused(start, simulator, command, str(disk / "out"))
        status = start("status", disk / "out")
        assert (status.wait(), "300" in status.out) == (0, True), status.err
        export = start("export", disk / "out", tmp_path / "all.csv")
        assert export.wait() == 0, export.err
        doctor = start("doctor", disk / "out")
        assert (doctor.wait(), doctor.out.count("cannot be written")) == (3, 4), doctor.out + doctor.err
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# A checkpoint that is newer, lost or damaged.


def test_a_checkpoint_of_a_newer_version_is_refused_by_all_and_touched_by_none(
    tmp_path: Path, start: Starter, simulate: Simulate
) -> None:
    simulator = simulate()
    command = command_of(tmp_path, simulator.url)
    assert start(*command, "--limit", "50").wait() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "out" / "_batchfox" / "checkpoint.db")) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = files_below(tmp_path / "out")
    refused(start, simulator, command, "upgrade batchfox")
    for options in ((), ("--repair",)):
        doctor = start("doctor", tmp_path / "out", *options)
        assert doctor.wait() == 3, doctor.err
        assert "upgrade batchfox" in doctor.out
    assert (
        files_below(tmp_path / "out").items()
        >= {path: content for path, content in before.items() if "checkpoint" in path.name and content}.items()
    )


def fold(path: Path) -> None:
    """Brings the write-ahead log into the file itself."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def lose(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def empty_it(path: Path) -> None:
    path.write_bytes(b"")


def empty_all(path: Path) -> None:
    lose(path)
    path.touch()


def lose_head(path: Path) -> None:
    fold(path)
    with path.open("r+b") as file:
        file.write(os.urandom(4096))


def cut_in_half(path: Path) -> None:
    fold(path)
    os.truncate(path, path.stat().st_size // 2 + 1234)


def scribble(path: Path) -> None:
    """Random bytes over some pages in the middle."""
    fold(path)
    draw = random.Random(7)
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in draw.sample(range(2, size // 4096), 4):
            file.seek(page * 4096)
            file.write(draw.randbytes(4096))


def fill_with_text(path: Path) -> None:
    lose(path)
    path.write_text("this was a checkpoint\n" * 1000)


# What happens to the checkpoint → is all that it knew to be had again?
DAMAGES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "gone": (lose, False),
    "emptied, its log is there": (empty_it, True),
    "emptied, and its log is gone": (empty_all, False),
    "its first page is random": (lose_head, True),
    "cut in half": (cut_in_half, False),
    "random bytes in the middle": (scribble, False),
    "somebody's text": (fill_with_text, False),
}


def killed_midway(folder: Path, start: Starter, simulator: SimulatorThread, *, has_ids: bool = True) -> None:
    """A run killed with parts on disk, tasks in flight, and outcomes that no part holds."""
    # What the API takes before the kill is bounded: however late that comes, it comes midway.
    simulator.control(rpm=1, rate_limit="bucket", burst=MIDWAY)
    child = start(*command_of(folder, simulator.url, has_ids=has_ids))
    eventually(lambda: len(parts_of(folder / "out")) >= 3 or child.is_over(), "three parts")
    child.kill()
    simulator.control(rpm=None)
    assert 3 <= len(parts_of(folder / "out")) <= MIDWAY // 40


@pytest.mark.parametrize("has_ids", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_lost_or_damaged_checkpoint_is_made_anew_and_the_run_goes_on(
    tmp_path: Path, start: Starter, simulate: Simulate, damage: str, has_ids: bool
) -> None:
    simulator = simulate(latency="constant:0.2")
    killed_midway(tmp_path, start, simulator, has_ids=has_ids)
    out, path = tmp_path / "out", tmp_path / "out" / "_batchfox" / "checkpoint.db"
    known = look(out)
    harm, is_all_saved = DAMAGES[damage]
    harm(path)
    done = {row["row_index"] for part in parts_of(out) for row in pq.read_table(part).to_pylist()}
    parts_before = {part.name: part.read_bytes() for part in parts_of(out)}
    command = command_of(tmp_path, simulator.url, has_ids=has_ids)
    assert "doctor" in refused(start, simulator, command, "--repair")

    status, told = doctor(out)
    assert status == 3, told
    damaged = path.read_bytes() if path.exists() else None
    status, said = doctor(out, "--repair")
    assert status == 0, said
    assert f"recovered: {len(done)} rows in {len(parts_before)} parts are done" in said
    assert ("not recovered" in said) != is_all_saved, said
    assert {part.name: part.read_bytes() for part in parts_of(out)} == parts_before
    if damaged is not None:
        (kept,) = (
            file for file in path.parent.glob("checkpoint.db.damaged-*") if not file.name.endswith(("-wal", "-shm"))
        )
        assert kept.read_bytes() == damaged
    if is_all_saved:
        again = look(out)
        for name in ("run_id", "in_flight", "in_doubt_now", "waiting", "by_status", "figures"):
            assert getattr(again, name) == getattr(known, name), name

    resumed = start(*command)
    assert resumed.wait() == 0, resumed.err
    check_end(tmp_path, has_ids=has_ids)
    found = posts(simulator)
    for number, row in enumerate(ROWS):
        assert found[digest_of_row(row)] <= 1 + (number not in done), f"row {number} was paid for again"
    if is_all_saved:
        assert found.total() <= len(ROWS) + known.in_doubt_now
    assert doctor(out)[0] == 0


def test_a_checkpoint_that_is_gone_before_there_was_a_part_is_noticed_too(
    tmp_path: Path, start: Starter, simulate: Simulate
) -> None:
    simulator = simulate(latency="constant:600")
    command = command_of(tmp_path, simulator.url)
    child = start(*command)
    eventually(lambda: simulator.book()["totals"]["submits_accepted"] >= 20 or child.is_over(), "tasks")
    child.kill()
    lose(tmp_path / "out" / "_batchfox" / "checkpoint.db")
    assert "--repair" in refused(start, simulator, command, "would be paid for again")
    told = doctor(tmp_path / "out")[1]
    assert "makes an empty one" in told
    assert "anew from the parts" not in told
    status, said = doctor(tmp_path / "out", "--repair")
    assert (status, "not recovered" in said) == (0, True), said
    simulator.control(latency="constant:0.02")
    assert start(*command).wait() == 0
    check_end(tmp_path)


def test_a_write_ahead_log_that_is_gone_is_noticed_where_parts_tell_of_it(
    tmp_path: Path, start: Starter, simulate: Simulate
) -> None:
    simulator = simulate()
    killed_midway(tmp_path, start, simulator)
    out, path = tmp_path / "out", tmp_path / "out" / "_batchfox" / "checkpoint.db"
    done = {row["row_index"] for part in parts_of(out) for row in pq.read_table(part).to_pylist()}
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    command = command_of(tmp_path, simulator.url)
    refused(start, simulator, command, "--repair")
    status, said = doctor(out, "--repair")
    assert status == 0, said
    assert f"recovered: {len(done)} rows" in said
    assert start(*command).wait() == 0
    check_end(tmp_path)
    found = posts(simulator)
    assert all(found[digest_of_row(ROWS[number])] == 1 for number in done)


def test_a_repair_that_is_killed_leaves_the_old_state_or_the_new_one(
    tmp_path: Path, start: Starter, simulate: Simulate
) -> None:
    simulator = simulate(latency="constant:0.2")
    killed_midway(tmp_path, start, simulator)
    lose_head(tmp_path / "out" / "_batchfox" / "checkpoint.db")
    shutil.copytree(tmp_path / "out", tmp_path / "kept")
    sent = simulator.book()["totals"]["submits_received"]
    seen = set()
    for nth in range(1, 7):
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "kept", tmp_path / "out")
        code = KILLED_AT_A_RENAME.replace("NTH", str(nth))
        child = subprocess.run(
            [sys.executable, "-c", code, "doctor", str(tmp_path / "out"), "--repair"],
            capture_output=True,
            env=environment(),
            check=False,
        )
        seen.add(child.returncode)
        status, said = doctor(tmp_path / "out", "--repair")
        assert status == 0, said
        assert look(tmp_path / "out").in_flight == look_at_kept(tmp_path), f"killed at rename {nth}"
    assert seen == {-signal.SIGKILL, 0}, "every rename was tried"
    assert simulator.book()["totals"]["submits_received"] == sent
    assert start(*command_of(tmp_path, simulator.url)).wait() == 0
    check_end(tmp_path)


KILLED_AT_A_RENAME = """
import os, signal, sys
from batchfox import durable, swap
left = [NTH]
rename = durable.rename
def killed(old, new):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(old, new)
swap.rename = killed
from batchfox.cli import main
main(sys.argv[1:])
"""


def look_at_kept(tmp_path: Path) -> int:
    """Tasks in flight, as an undisturbed repair of the same damage finds them."""
    if not (tmp_path / "reference").exists():
        shutil.copytree(tmp_path / "kept", tmp_path / "reference")
        command = [sys.executable, *BATCHFOX, "doctor", str(tmp_path / "reference"), "--repair"]
        subprocess.run(command, check=True, capture_output=True)
    return look(tmp_path / "reference").in_flight


def test_whatever_is_written_over_a_checkpoint_is_repaired_to_one_that_a_run_can_open(
    tmp_path: Path, start: Starter, simulate: Simulate
) -> None:
    """Random bytes, copies of other pages, cuts, in the file and its log: no error, no row twice, no part forgotten."""
    killed_midway(tmp_path, start, simulate(latency="constant:0.2"))
    (tmp_path / "out" / "_batchfox" / "checkpoint.db-reserve").unlink()
    for seed in range(25):
        shutil.copytree(tmp_path / "out", folder := tmp_path / f"out-{seed}")
        path, draw = folder / "_batchfox" / "checkpoint.db", random.Random(seed)
        if seed % 3:
            fold(path)
        for file in (path, path.with_name("checkpoint.db-wal")):
            if file.exists():
                file.write_bytes(scribbled(file.read_bytes(), draw))
        _, remarks = repair(folder)
        assert not [remark for remark in remarks if remark.is_problem], seed
        with contextlib.closing(Checkpoint(path)) as checkpoint:
            keys = [life.key for life, _ in checkpoint.unfinished()] + list(checkpoint.unfiled())
            assert len(set(keys)) == len(keys), seed
            known = {key for (key,) in checkpoint.query("SELECT key FROM finished")} | checkpoint.unfiled().keys()
        assert known >= {key_of_id(row["row_id"]) for row in rows_of(folder)}, seed


def scribbled(content: bytes, draw: random.Random) -> bytes:
    harmed = bytearray(content)
    for _ in range(draw.choice([1, 3, 10, 60])):
        size = draw.choice([1, 16, 200, 4096])
        if len(harmed) > size:
            at, source = draw.randrange(len(harmed) - size), draw.randrange(len(harmed) - size)
            harmed[at : at + size] = draw.randbytes(size) if draw.random() < 0.7 else harmed[source : source + size]
    return bytes(harmed[: draw.randrange(len(harmed) + 1)] if draw.random() < 0.2 else harmed)


# Parts.


@pytest.mark.parametrize("has_ids", [True, False])
@pytest.mark.parametrize("fault", ["deleted", "cut short", "a flipped byte", "replaced by an older copy"])
def test_a_part_that_is_gone_or_unreadable_has_its_rows_sent_again_and_no_other(
    tmp_path: Path, start: Starter, simulate: Simulate, fault: str, has_ids: bool
) -> None:
    simulator = simulate()
    command = command_of(tmp_path, simulator.url, has_ids=has_ids)
    assert start(*command, "--limit", "200").wait() == 0
    out = tmp_path / "out"
    part = parts_of(out)[1]
    content = part.read_bytes()
    lost = {row["row_index"] for row in pq.read_table(part).to_pylist()}
    table = pq.read_table(part)
    match fault:
        case "deleted":
            part.unlink()
        case "cut short":
            part.write_bytes(content[: len(content) // 2])
        case "a flipped byte":
            part.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
        case _:
            pq.write_table(table.slice(10), part)
            lost = {row["row_index"] for row in table.slice(0, 10).to_pylist()}
    others = {path.name: path.read_bytes() for path in parts_of(out) if path != part}
    if fault == "deleted":
        assert "put it back, or `batchfox doctor" in refused(start, simulator, command, part.name)
    status, told = doctor(out)
    assert (status, part.name in told) == (3, True), told
    status, said = doctor(out, "--repair")
    assert status == 0, said
    if fault in ("cut short", "a flipped byte"):
        assert (out / "_batchfox" / "damaged" / part.name).read_bytes() != content
    if fault != "replaced by an older copy":
        assert f"{part.name}: the {len(lost)} rows in it will be sent, and paid for, again" in said
    assert start(*command).wait() == 0
    check_end(tmp_path, has_ids=has_ids)
    assert {name: (out / "data" / name).read_bytes() for name in others} == others
    found = posts(simulator)
    for number, row in enumerate(ROWS):
        assert found[digest_of_row(row)] == 1 + (number in lost)
    assert f"{len(lost)} rows of those sent again will say so (maybe_billed_twice)" in said
    flagged = {row["row_index"]: row["submits"] for row in rows_of(out) if row["maybe_billed_twice"]}
    assert flagged == dict.fromkeys(lost, 2), "what was paid for twice says so"
    assert doctor(out)[0] == 0


# The lock: two runs of one output are in test_resume.py, a dead one's lock in test_output.py.


def test_the_doctor_leaves_a_live_run_alone(tmp_path: Path, start: Starter, simulate: Simulate) -> None:
    simulator = simulate(latency="constant:600")
    run = start(*command_of(tmp_path, simulator.url))
    eventually(lambda: simulator.book()["totals"]["submits_received"] or run.is_over(), "a submit")
    for options in ((), ("--repair",)):
        doctor = start("doctor", tmp_path / "out", *options)
        assert doctor.wait() == 5, doctor.out
        assert "live run" in doctor.err
    run.send(signal.SIGTERM)
    assert run.wait() == 143
    assert start("doctor", tmp_path / "out").wait() == 0


# Clock, event loop, file descriptors: a run whose process is disturbed by this code.

MAIN = "\nfrom batchfox.cli import main\nmain(sys.argv[1:])\n"
CLOCK_SET_BACK = """
import sys, time
real, begun = time.time, time.monotonic()
time.time = lambda: real() - (3600 if time.monotonic() - begun > WHEN else 0)
"""
LOOP_BLOCKED = """
import sys, time
from batchfox import ledger
record, times = ledger.Ledger.record, [0]
def block(self, life):
    times[0] += 1
    if times[0] in (50, 150):
        time.sleep(3)
    record(self, life)
ledger.Ledger.record = block
"""
DESCRIPTORS_GONE = """
import os, resource, sys, threading, time
def hoard():
    while not os.path.exists(PLACE):
        time.sleep(0.01)
    for _ in range(5):
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        time.sleep(0.5)
        for handle in taken:
            os.close(handle)
        time.sleep(0.3)
threading.Thread(target=hoard, daemon=True).start()
resource.setrlimit(resource.RLIMIT_NOFILE, (MOST, MOST))
"""


def disturbed(code: str, command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code + MAIN, *(str(word) for word in command)]
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=GUARD_S,
        check=False,
    )


@pytest.mark.parametrize("when_s", [0.0, 1.5])
def test_a_clock_that_is_set_back_an_hour_costs_nothing(
    tmp_path: Path, start: Starter, simulate: Simulate, when_s: float
) -> None:
    """At the beginning of the resume of a killed run, or in the middle of it."""
    simulator = simulate(latency="constant:0.3", rpm=6000, retry_after="date", burst=20)
    command = command_of(tmp_path, simulator.url, "limits.in_flight=20")
    child = start(*command)
    path = tmp_path / "out" / "_batchfox" / "checkpoint.db"
    eventually(lambda: path.exists() and look(tmp_path / "out").by_status, "an outcome")
    child.kill()
    run_id, in_doubt = look(tmp_path / "out").run_id, look(tmp_path / "out").in_doubt_now
    began = time.monotonic()
    ended = disturbed(CLOCK_SET_BACK.replace("WHEN", str(when_s)), command)
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - began < 1_800, "nobody waits for the clock to catch up"
    check_end(tmp_path)
    assert posts(simulator).total() <= len(ROWS) + in_doubt
    after = look(tmp_path / "out")
    assert (after.run_id, after.is_finished) == (run_id, True), "the run that was unfinished is the one resumed"
    assert all(row["latency_s"] >= 0 for row in by_id(tmp_path / "out").values())


def test_an_event_loop_that_is_blocked_for_seconds_loses_nothing(tmp_path: Path, simulate: Simulate) -> None:
    simulator = simulate(latency="constant:0.3")
    ended = disturbed(LOOP_BLOCKED, command_of(tmp_path, simulator.url))
    assert ended.returncode == 0, ended.stderr
    check_end(tmp_path)
    check_posts(simulator)


def test_a_limit_on_the_size_of_files_is_told_and_the_run_goes_on_without_it(
    tmp_path: Path, simulate: Simulate, start: Starter
) -> None:
    """At the start, and in the middle, where the checkpoint cannot grow any more."""
    simulator = simulate(latency="constant:0.1")
    rows = [row | {"note": os.urandom(15_000).hex()} for row in ROWS]
    write_rows(tmp_path / "in.jsonl", rows)
    command = command_of(tmp_path, simulator.url, "output.rows_per_part=100000")
    place, doubted = tmp_path / "out" / "_batchfox" / "checkpoint.db", Counter[bytes]()
    for most in (10 << 10, RESERVE_BYTES, RESERVE_BYTES + (1 << 16)):
        code = f"import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))\n"
        ended = disturbed(code, command)
        assert ended.returncode == 4, ended.stderr
        assert "Traceback" not in ended.stderr
        errors = [line for line in ended.stderr.splitlines() if line.startswith("batchfox: ")]
        assert len(errors) == 1, ended.stderr
        assert errors[0].endswith("raise the limit on the size of a file (ulimit -f), then run the same command again")
        submits = simulator.book()["totals"]["submits_accepted"]
        assert (submits > 0) == (most > 10 << 10)
        if place.exists():
            with contextlib.closing(Checkpoint(place, read_only=True)) as checkpoint:
                doubted.update(key for (key,) in checkpoint.query("SELECT key FROM row WHERE state = 1"))
    child = start(*command)
    assert child.wait() == 0, child.err
    found, made = by_id(tmp_path / "out"), posts(simulator)
    assert {row["status"] for row in found.values()} == {"completed"}
    for row in rows:
        times, out, lost = made.pop(digest_of_row(row)), found[row["id"]], doubted[key_of_id(row["id"])]
        assert 1 <= times <= out["submits"] == 1 + lost, f"{row['id']}: {times} tasks, in doubt {lost} times, {out}"
        assert out["maybe_billed_twice"] == (lost > 0)
    assert not made, "tasks that no row asked for"


@pytest.mark.parametrize("limit", [64, 160])
def test_file_descriptors_that_run_out_lose_nothing(
    tmp_path: Path, start: Starter, simulate: Simulate, limit: int
) -> None:
    """They are all gone for half a second, five times."""
    simulator = simulate(latency="constant:0.5")
    command = command_of(tmp_path, simulator.url, "limits.requests_per_minute=6000")
    place = tmp_path / "out" / "_batchfox" / "checkpoint.db"
    ended = disturbed(DESCRIPTORS_GONE.replace("MOST", str(limit)).replace("PLACE", repr(str(place))), command)
    assert ended.returncode in (0, 4), ended.stderr
    assert "Traceback" not in ended.stderr
    if ended.returncode == 4:
        assert "open" in ended.stderr
        doubtful = look(tmp_path / "out").in_doubt_now
        assert start(*command).wait() == 0
    else:
        doubtful = 0
    check_end(tmp_path)
    assert posts(simulator).total() <= len(ROWS) + doubtful


# The name of the API's host.


RESOLVED = """
import sys
from aiohttp.resolver import ThreadedResolver
ask = ThreadedResolver.resolve
async def resolve(self, host, *more, **options):
    return await ask(self, "127.0.0.1" if host == "api.batchfox.invalid" else host, *more, **options)
ThreadedResolver.resolve = resolve
"""


def test_a_name_that_does_not_resolve_costs_nothing_and_the_run_goes_on_with_another_network(
    tmp_path: Path, start: Starter, simulate: Simulate
) -> None:
    simulator = simulate()
    command = command_of(tmp_path, simulator.url.replace("127.0.0.1", "api.batchfox.invalid"), "limits.time=3")
    child = start(*command)
    assert child.wait() == 4, child.err
    assert "the API takes no submits" in child.err + child.out
    assert "api.batchfox.invalid" in child.err + child.out
    status = look(tmp_path / "out")
    assert (status.by_status, status.in_doubt_now, status.figures["submits"]) == ({}, 0, 0)
    assert "outage_begun" in log_events(tmp_path / "out")
    command[command.index("limits.time=3")] = "limits.time=3600"
    ended = disturbed(RESOLVED, command)
    assert ended.returncode == 0, ended.stderr
    check_end(tmp_path)
    check_posts(simulator)


# The terminal.


@contextlib.contextmanager
def on_a_terminal(command: list[str | Path]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command as the leader of a session on a terminal of its own; its other end is the caller's."""
    ours, theirs = pty.openpty()
    login = "import fcntl, os, sys, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\nos.execv(sys.argv[1], sys.argv[1:])"
    words = [sys.executable, "-c", login, sys.executable, *BATCHFOX, *(str(word) for word in command)]
    child = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment(TERM="xterm")
    )
    os.close(theirs)
    try:
        yield child, ours
    finally:
        child.kill()
        child.wait()


def drain(ours: int) -> None:
    """Takes what there is to read, so that nobody waits for a reader."""
    with contextlib.suppress(BlockingIOError):
        while os.read(ours, 65_536):
            pass


def test_a_terminal_that_is_closed_ends_the_run_and_loses_nothing(
    tmp_path: Path, start: Starter, simulate: Simulate
) -> None:
    simulator = simulate(latency="constant:600")
    command = command_of(tmp_path, simulator.url)
    with on_a_terminal(command) as (child, ours):
        os.set_blocking(ours, False)

        def is_under_way() -> bool:
            drain(ours)
            return bool(simulator.book()["totals"]["submits_received"] >= 60)

        eventually(is_under_way, "some submits")
        os.close(ours)  # the kernel sends SIGHUP, and refuses what is written from now on
        assert child.wait(GUARD_S) == 129
    status = look(tmp_path / "out")
    assert (status.exit_status, status.in_doubt_now) == (129, 0)
    simulator.control(latency="constant:0.02")
    put_forward(simulator, 600)
    assert start(*command).wait() == 0
    check_end(tmp_path)
    check_posts(simulator)


@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
def test_streams_that_nobody_reads_any_more_do_not_stop_a_run_that_ignores_the_hangup(
    tmp_path: Path, simulate: Simulate, stream: str
) -> None:
    """As under nohup, or a supervisor that died: writing fails, and the rows go on."""
    simulator = simulate()
    reader, writer = os.pipe()
    os.close(reader)
    with (tmp_path / "rest").open("wb") as rest:
        child = subprocess.Popen(
            [sys.executable, *BATCHFOX, *(str(word) for word in command_of(tmp_path, simulator.url))],
            stdin=subprocess.DEVNULL,
            stdout=writer if stream in ("stdout", "both") else rest,
            stderr=writer if stream in ("stderr", "both") else rest,
            env=environment(),
        )
    os.close(writer)
    assert child.wait(GUARD_S) == 0
    check_end(tmp_path)
    check_posts(simulator)
    assert KEY.encode() not in (tmp_path / "rest").read_bytes()
