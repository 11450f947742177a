"""A power cut at many instants: what was not synced is gone, in any mixture, and every promise still holds.

A run is recorded once, by a shim that writes down every change and every sync; `power.py` builds from that what the
disk holds after a cut at any operation. Hundreds of these states are looked at, and some are resumed.
"""

from __future__ import annotations

import filecmp
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import GUARD_S, KEY, by_id, environment, rows_with_ids
from power import SECTOR, Disk, Kind, Luck, Op, build_shim, read_journal, shim_environment
from power_scene import Known, Recording, Scene, scratch

pytestmark = pytest.mark.system

SYNC_CUTS = 120
RANDOM_CUTS = 40
RESUMES = 10
ROWS = 150
# Long enough that SQLite's log is copied back and begun anew in the middle of a run.
FILL = " and so on" * 500

# Code for the child: a batchfox, or a machine, that does not keep to the rules.
SYNCS_NO_FILE = """
import os, stat
real = os.fsync
os.fsync = lambda handle: real(handle) if stat.S_ISDIR(os.fstat(handle).st_mode) else None
"""
SYNCS_NO_FOLDER = """
import os, stat
real = os.fsync
os.fsync = lambda handle: None if stat.S_ISDIR(os.fstat(handle).st_mode) else real(handle)
"""
SYNCS_NO_COMMIT = """
import sqlite3
class Careless(sqlite3.Connection):
    def execute(self, sql, *values):
        return super().execute(sql.replace("synchronous = FULL", "synchronous = {level}"), *values)
real = sqlite3.connect
sqlite3.connect = lambda *values, **named: real(*values, factory=Careless, **named)
"""
POSTS_AT_ONCE = """
from batchfox.recorder import Recorder
assert callable(Recorder.durable)
async def durable(self): self.touch()
Recorder.durable = durable
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)


@pytest.fixture
def room() -> Iterator[Path]:
    """Where the states after cuts are built."""
    with tempfile.TemporaryDirectory(dir=scratch(), prefix="batchfox-power-") as folder:
        yield Path(folder)


def filled_rows(number: int) -> list[dict[str, str]]:
    return [row | {"prompt": row["prompt"] + FILL} for row in rows_with_ids(number)]


def make_folders(output: Path) -> None:
    """The output's folders, as if they had been made and synced long ago: see what is in them, not whether they are."""
    for name in ("data", "_batchfox/tmp", "_batchfox/superseded"):
        (output / name).mkdir(parents=True)


def choose(ops: list[Op], draw: random.Random) -> list[int]:
    """Operations to cut before: the syncs, those that follow one, and any."""
    edges = sorted({edge for number, op in enumerate(ops) if op.is_sync for edge in (number, number + 1)})
    chosen = {*draw.sample(edges, min(SYNC_CUTS, len(edges))), *draw.sample(range(len(ops)), RANDOM_CUTS), len(ops)}
    return sorted(chosen)


def cut_everywhere(
    scene: Scene, recording: Recording, room: Path, seed: int, *, resumes: int = RESUMES, retry: str | None = None
) -> int:
    """Checks what many cuts leave, and resumes after some. Returns how often was paid twice in all."""
    draw = random.Random(seed)
    chosen = choose(recording.ops, draw)
    resumed = draw.sample(chosen, resumes)
    paid_twice = 0
    for number, at, acknowledged in scene.instants(recording):
        if number not in chosen:
            continue
        looked_at, to_resume = room / "looked-at", room / "to-resume"
        recording.disk.cut(looked_at, Luck(f"{seed} {number}"))
        if number in resumed:
            shutil.copytree(looked_at, to_resume)
        try:
            known = scene.check_cut(looked_at, at, recording, acknowledged)
            if number in resumed:
                paid_twice += scene.resume(to_resume, at, known, retry=retry)
        except Exception as error:
            error.add_note(f"cut before operation {number} of {len(recording.ops)}, seed {seed}")
            raise
        shutil.rmtree(looked_at)
        shutil.rmtree(to_resume, ignore_errors=True)
    return paid_twice


def copies_log_back(ops: list[Op]) -> int:
    """How often SQLite's log was copied into the checkpoint, and begun anew, before the last time."""
    syncs = [number for number, op in enumerate(ops) if op.is_sync and op.path.endswith("checkpoint.db")]
    named = {op.inode for op in ops if op.is_sync and op.path.endswith("-wal")}
    return sum(any(op.kind is Kind.WRITE and op.inode in named for op in ops[number:]) for number in syncs[1:])


# Whole runs.


@pytest.mark.parametrize("has_ids", [True, False])
def test_a_run_cut_off_anywhere_is_resumed_and_every_promise_holds(
    shim: Path, tmp_path: Path, room: Path, has_ids: bool
) -> None:
    rows = filled_rows(ROWS)
    if not has_ids:
        rows = [{"prompt": row["prompt"]} for row in rows]
    scene = Scene(tmp_path, shim, rows, faults={"slow_answer": 0.3}, slow_s=0.05)
    make_folders(scene.output)
    recording = scene.record()
    assert copies_log_back(recording.ops) > 0
    paid_twice = cut_everywhere(scene, recording, room, seed=1)
    assert paid_twice > 0, "no cut found a POST on the wire: the test shows nothing"


def test_a_retry_cut_off_anywhere_replaces_every_row_once_and_keeps_the_old_outcomes(
    shim: Path, tmp_path: Path, room: Path
) -> None:
    scene = Scene(tmp_path, shim, filled_rows(ROWS), faults={"refuse_options": 0.5})
    first = scene.run()
    assert first.returncode == 3, first.stderr
    scene.failed = {name for name, row in by_id(scene.output).items() if row["status"] == "failed"}
    assert len(scene.failed) > ROWS / 4
    scene.change_api(faults={})
    recording = scene.record("--retry", "failed")
    assert any("replaced-by" in op.to for op in recording.ops if op.kind is Kind.RENAME)
    cut_everywhere(scene, recording, room, seed=2, retry="failed")


@pytest.mark.parametrize("killed", ["20 .db-wal", "2 .parquet", "2 /data"])
def test_a_run_killed_then_resumed_then_cut_off_anywhere_keeps_every_promise(
    shim: Path, tmp_path: Path, room: Path, killed: str
) -> None:
    scene = Scene(tmp_path, shim, rows_with_ids(60), faults={"slow_answer": 0.3}, slow_s=0.05)
    make_folders(scene.output)
    recording = scene.record(killed=killed)
    cut_everywhere(scene, recording, room, seed=4, resumes=3)


def test_a_first_run_in_a_new_folder_is_there_after_a_cut(shim: Path, tmp_path: Path, room: Path) -> None:
    scene = Scene(tmp_path, shim, rows_with_ids(60), output="jobs/out")
    recording = scene.record()
    cut_everywhere(scene, recording, room, seed=5, resumes=3)


def test_an_output_begun_anew_is_there_after_a_cut(shim: Path, tmp_path: Path, room: Path) -> None:
    scene = Scene(tmp_path, shim, rows_with_ids(60))
    assert scene.run().returncode == 0
    scene.change_api(seed=1)
    recording = scene.record("--fresh")
    assert any(op.path == "out" and op.to.startswith("out.old-") for op in recording.ops)
    begun = min(at for at, _ in recording.sent)
    for number, at, _ in scene.instants(recording):
        if at <= begun or not recording.ops[min(number, len(recording.ops) - 1)].is_sync:
            continue
        left = recording.disk.cut(room / f"cut-{number}", Luck(f"6 {number}"))
        assert [path.name for path in left.glob("out.old-*")], f"operation {number}: the old output was not moved aside"
        scene.check_cut(left, at, recording, Known())
        shutil.rmtree(left)


def test_the_job_on_record_is_whole_after_a_cut(shim: Path, tmp_path: Path, room: Path) -> None:
    scene = Scene(tmp_path, shim, rows_with_ids(60))
    make_folders(scene.output)
    recording = scene.record()
    for number, at, _ in scene.instants(recording):
        if at > recording.sent[0][0]:
            break
        left = recording.disk.cut(room / f"cut-{number}", Luck(f"7 {number}"))
        job = left / "out" / "_batchfox" / "job.toml"
        if job.exists():
            assert tomllib.loads(job.read_text())["request"], f"operation {number}: an empty job"
        shutil.rmtree(left)


# These tests have teeth.


@pytest.mark.parametrize(
    ("careless", "broken"),
    [
        (SYNCS_NO_COMMIT.format(level="OFF"), "POSTed before their intent was on disk"),
        (SYNCS_NO_COMMIT.format(level="NORMAL"), "POSTed before their intent was on disk"),
        (POSTS_AT_ONCE, "POSTed before their intent was on disk"),
        (SYNCS_NO_FILE, "is not whole"),
        (SYNCS_NO_FOLDER, "a filed part is gone"),
    ],
    ids=["no sync", "no sync of commits", "POST before the commit", "no sync of parts", "no sync of folders"],
)
def test_a_careless_run_is_caught(shim: Path, tmp_path: Path, room: Path, careless: str, broken: str) -> None:
    scene = Scene(tmp_path, shim, rows_with_ids(60))
    make_folders(scene.output)
    recording = scene.record(before=careless)
    with pytest.raises(AssertionError, match=broken):
        cut_everywhere(scene, recording, room, seed=3, resumes=0)


# The shim and the replay.


def run_on_disk(shim: Path, folder: Path, code: str) -> tuple[Disk, list[Op], subprocess.CompletedProcess[str]]:
    """Python in the folder that stands for a disk."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    before, journal = Disk(disk), folder / "journal"
    env = environment(**shim_environment(shim, disk, journal))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=disk, env=env, capture_output=True, text=True, timeout=GUARD_S, check=False)
    return before, read_journal(journal), done


def replay(disk: Disk, ops: list[Op]) -> Disk:
    for op in ops:
        disk.do(op)
    return disk


def check_same(real: Path, replayed: Path) -> None:
    names = {path.relative_to(real) for path in real.rglob("*")}
    assert names == {path.relative_to(replayed) for path in replayed.rglob("*")}
    files = [str(name) for name in names if (real / name).is_file()]
    assert filecmp.cmpfiles(real, replayed, files, shallow=False)[0] == files


def test_the_journal_of_a_run_misses_nothing(shim: Path, tmp_path: Path) -> None:
    scene = Scene(tmp_path, shim, rows_with_ids(60), output="jobs/out")
    recording = scene.record()
    disk = replay(recording.disk, recording.ops)
    check_same(scene.disk, disk.cut(tmp_path / "replayed", Luck(0, kept=1.0, named=1.0)))


def test_the_journal_has_every_kind_of_change(shim: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "old").write_bytes(b"before")
    code = """
import os
os.makedirs("a/b"); os.mkdir("gone"); os.rmdir("gone")
with open("a/text", "w") as file: file.write("one"); file.flush(); file.seek(1); file.write("NE")
with open("a/text", "a") as file: file.write("two")
handle = os.open("a/b/bytes", os.O_CREAT | os.O_RDWR)
os.pwrite(handle, b"x" * 3000, 700); os.writev(handle, [b"12", b"345"]); os.ftruncate(handle, 2500)
os.posix_fallocate(handle, 0, 9000); os.fsync(handle); os.fdatasync(handle)
here = os.open("a", os.O_RDONLY); os.fsync(here)
os.rename("a/text", "a/renamed"); os.rename("a/renamed", "a/b/moved", src_dir_fd=None)
os.rename("moved", "../moved", src_dir_fd=os.open("a/b", os.O_RDONLY), dst_dir_fd=os.open("a/b", os.O_RDONLY))
os.link("a/moved", "linked"); os.unlink("a/moved"); os.rename("a/b", "c")
with open("new", "w") as file: file.write("replaces")
os.replace("new", "old")
with open("emptied", "w") as file: file.write("full")
with open("emptied", "w"): pass
os.open("a/b2", os.O_CREAT | os.O_WRONLY | os.O_EXCL)
"""
    disk, ops, done = run_on_disk(shim, tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert {op.kind for op in ops} == set(Kind)
    check_same(tmp_path / "disk", replay(disk, ops).cut(tmp_path / "replayed", Luck(0, kept=1.0, named=1.0)))


@pytest.mark.parametrize("syncs_file", [True, False])
@pytest.mark.parametrize("syncs_folder", [True, False])
def test_only_what_was_synced_is_sure_to_be_there(
    shim: Path, tmp_path: Path, syncs_file: bool, syncs_folder: bool
) -> None:
    code = 'import os\nhandle = os.open("new", os.O_CREAT | os.O_WRONLY)\nos.write(handle, b"x" * 2000)\n'
    code += "os.fsync(handle)\n" if syncs_file else ""
    code += 'os.fsync(os.open(".", os.O_RDONLY))\n' if syncs_folder else ""
    disk, ops, done = run_on_disk(shim, tmp_path, code)
    assert done.returncode == 0, done.stderr
    left = replay(disk, ops).cut(tmp_path / "left", Luck(0, kept=0.0, named=0.0)) / "new"
    assert left.exists() == syncs_folder
    if syncs_folder:
        assert left.read_bytes() == (b"x" * 2000 if syncs_file else b"")


def test_a_change_that_is_not_written_down_ends_the_process(shim: Path, tmp_path: Path) -> None:
    code = """
import mmap, os
handle = os.open("mapped", os.O_CREAT | os.O_RDWR)
os.ftruncate(handle, 4096)
mmap.mmap(handle, 4096)[0] = 1
"""
    _, _, done = run_on_disk(shim, tmp_path, code)
    assert done.returncode == -signal.SIGABRT
    assert "a shared mapping for writing" in done.stderr


def test_a_write_that_was_not_synced_is_there_in_any_mixture_of_sectors(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "file").write_bytes(b"a" * 4 * SECTOR)
    disk = Disk(tmp_path / "disk")
    inode = (tmp_path / "disk" / "file").stat().st_ino
    disk.do(Op(Kind.WRITE, 0.0, 0.0, inode, SECTOR // 2, "", "", b"b" * 2 * SECTOR))
    found = {
        (disk.cut(tmp_path / f"cut-{seed}", Luck(seed, kept=0.3, named=0.0)) / "file").read_bytes()
        for seed in range(200)
    }
    half = SECTOR // 2
    wanted = {
        b"a" * half + one * half + two * SECTOR + three * half + b"a" * (SECTOR + half)
        for one in (b"a", b"b")
        for two in (b"a", b"b")
        for three in (b"a", b"b")
    }
    assert found == wanted
