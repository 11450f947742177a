"""Output folders: made, locked, moved aside, and the folders of strangers left alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import GUARD_S, as_anybody, job_of

from batchfox import output
from batchfox.errors import JobError, OutputBusyError, OutputError
from batchfox.opening import output_root
from batchfox.output import Output, dated_folders, hold, is_dated, move_aside, resolve_path
from batchfox.status import is_held

HOLD = """
import sys
from pathlib import Path
from batchfox.output import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_held_folder_has_its_rooms_and_says_who_holds_it(tmp_path: Path) -> None:
    with hold(tmp_path / "a" / "out") as held:
        assert held.folders.data.is_dir()
        assert held.folders.tmp.is_dir()
        assert held.folders.superseded.is_dir()
        assert not held.is_begun
        assert (held.folders.own / "lock").read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE((held.folders.own / "lock").stat().st_mode) == 0o600
        assert is_held(tmp_path / "a" / "out")
    assert not is_held(tmp_path / "a" / "out")


def test_a_second_run_is_turned_away_until_the_first_ends_however_it_ends(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "out"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(OutputBusyError, match=f"process {child.pid}") as caught, hold(tmp_path / "out"):
        pass
    assert caught.value.exit_status == 5
    child.kill()
    child.communicate(timeout=GUARD_S)
    assert (tmp_path / "out" / "_batchfox" / "lock").exists(), "the file of the dead process is still there"
    with hold(tmp_path / "out"):
        pass


def test_a_lock_file_alone_never_blocks(tmp_path: Path) -> None:
    (tmp_path / "out" / "_batchfox").mkdir(parents=True)
    (tmp_path / "out" / "_batchfox" / "lock").write_text("1\n")
    with hold(tmp_path / "out"):
        assert (tmp_path / "out" / "_batchfox" / "lock").read_text() == f"{os.getpid()}\n"


def test_a_folder_with_somebodys_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(OutputError, match="not an output of batchfox"), hold(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_a_file_in_the_way_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="a file is in the way"), hold(tmp_path / place):
        pass


def test_a_folder_without_write_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    command = as_anybody("-c", HOLD, tmp_path / "out")
    child = subprocess.run(command, input=b"", capture_output=True, timeout=GUARD_S, check=False)
    assert b"OutputError" in child.stderr
    assert b"not writable; choose another" in child.stderr
    assert not (tmp_path / "out").exists()


def test_a_network_file_system_needs_its_checkpoint_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_file_system", lambda _: "nfs4")
    with pytest.raises(OutputError, match=r"nfs4.*\[output\] checkpoint"), hold(tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()
    with hold(tmp_path / "out", checkpoint=str(tmp_path / "c.db")) as held:
        assert held.checkpoint_path == tmp_path / "c.db"


def test_an_old_output_is_moved_aside_under_a_name_of_its_own(tmp_path: Path) -> None:
    for expected in ("out.old-r1", "out.old-r1-2", "out.old-r1-3"):
        (tmp_path / "out").mkdir()
        assert move_aside(tmp_path / "out", "r1") == tmp_path / expected
        assert not (tmp_path / "out").exists()


def test_placeholders_of_a_path_are_filled_in_and_others_refused() -> None:
    assert resolve_path("out/{{ job }}/{{run_date}}", run_date="2026-01-02", job_name="j") == "out/j/2026-01-02"
    assert is_dated("out/{{ run_date }}")
    assert not is_dated("out/{{ job }}")
    with pytest.raises(JobError, match=r"unknown placeholder \{\{ today \}\}"):
        resolve_path("out/{{ today }}", run_date="", job_name="")


@pytest.mark.parametrize("name", ["plain", "with [brackets] and *", "ünïcode"])
def test_dated_folders_of_earlier_runs_are_found_oldest_first(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    for day in ("2026-01-03", "2026-01-01", "notes", "2026-01-01.old-r"):
        (root / day).mkdir(parents=True)
    (root / "2026-01-02").write_text("no folder")
    job = job_of(tmp_path / "in.jsonl", root / "{{ run_date }}", "http://x")
    assert dated_folders(job) == [root / "2026-01-01", root / "2026-01-03"]


def test_a_dated_path_leads_to_todays_folder_when_nothing_is_unfinished(tmp_path: Path) -> None:
    job = job_of(tmp_path / "in.jsonl", tmp_path / "{{ run_date }}", "http://x", schedule={"timezone": "UTC"})
    assert output_root(job, 86_400.0 * 365) == tmp_path / "1971-01-01"


def test_the_checkpoint_lies_in_the_output_unless_the_job_says_where(tmp_path: Path) -> None:
    assert Output(tmp_path, None).checkpoint_path == tmp_path / "_batchfox" / "checkpoint.db"
    assert Output(tmp_path, "/var/c.db").checkpoint_path == Path("/var/c.db")
