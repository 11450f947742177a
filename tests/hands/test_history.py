"""Runs and their resumes, as the checkpoint remembers them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import job_of

from batchfox.checkpoint import Checkpoint
from batchfox.core.job import Job
from batchfox.errors import DamagedError, JobError
from batchfox.history import begin_run, end_run, run_date_of, tokens_of_last_minute, unfinished_run

NOON_S = 1_767_268_800.0  # 2026-01-01 12:00 UTC


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    made = Checkpoint(tmp_path / "c.db")
    yield made
    made.close()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(tmp_path / "in", tmp_path / "out", "http://x", schedule={"timezone": "UTC"})


def test_the_first_run_is_new_and_is_on_record_at_once(checkpoint: Checkpoint, job: Job) -> None:
    assert unfinished_run(checkpoint) is None
    run = begin_run(checkpoint, job, NOON_S)
    assert re.fullmatch(r"20260101-120000-[0-9a-f]{4}", run.run_id)
    assert (run.run_date, run.is_resume, run.before) == ("2026-01-01", False, {})
    found = unfinished_run(checkpoint)
    assert found is not None
    assert (found.run_id, found.is_resume) == (run.run_id, True)


@pytest.mark.parametrize("died", [True, False])
def test_an_unfinished_run_is_taken_up_with_its_date_and_figures(checkpoint: Checkpoint, job: Job, died: bool) -> None:
    first = begin_run(checkpoint, job, NOON_S)
    if not died:
        progress = {"submits": 7}
        end_run(checkpoint, first, unix_s=NOON_S + 5, exit_status=4, is_finished=False, progress=progress)
    again = begin_run(checkpoint, job, NOON_S + 86_400)
    assert (again.run_id, again.run_date, again.started_at) == (first.run_id, "2026-01-01", NOON_S)
    assert again.is_resume
    assert again.before == ({} if died else {"submits": 7})
    assert checkpoint.query("SELECT ended_at, exit_status FROM run") == [(None, None)]


@pytest.mark.parametrize(("exit_status", "is_limited"), [(0, True), (3, True), (4, False), (130, False), (2, False)])
def test_only_a_run_that_came_to_its_end_unfinished_ended_at_its_limit(
    checkpoint: Checkpoint, job: Job, exit_status: int, is_limited: bool
) -> None:
    run = begin_run(checkpoint, job, NOON_S)
    end_run(checkpoint, run, unix_s=NOON_S, exit_status=exit_status, is_finished=False, progress={})
    again = begin_run(checkpoint, job, NOON_S)
    assert (again.run_id, again.is_limited) == (run.run_id, is_limited)
    found = unfinished_run(checkpoint)
    assert found is not None
    assert not found.is_limited, "what goes on now may be cut anywhere"


def test_after_a_finished_run_a_new_one_begins_from_nothing(checkpoint: Checkpoint, job: Job) -> None:
    first = begin_run(checkpoint, job, NOON_S)
    end_run(checkpoint, first, unix_s=NOON_S, exit_status=3, is_finished=True, progress={"submits": 7})
    second = begin_run(checkpoint, job, NOON_S + 86_400)
    assert second.run_id != first.run_id
    assert (second.run_date, second.is_resume, second.before) == ("2026-01-02", False, {})


def test_a_clock_that_is_set_back_does_not_hide_the_run_that_is_unfinished(checkpoint: Checkpoint, job: Job) -> None:
    first = begin_run(checkpoint, job, NOON_S)
    end_run(checkpoint, first, unix_s=NOON_S + 5, exit_status=0, is_finished=True, progress={"submits": 7})
    second = begin_run(checkpoint, job, NOON_S - 3_600)
    again = begin_run(checkpoint, job, NOON_S - 3_500)
    assert (again.run_id, again.is_resume) == (second.run_id, True)


def test_the_runs_day_is_that_of_the_jobs_time_zone(tmp_path: Path) -> None:
    def day(zone: str | None, unix_s: float) -> str:
        return run_date_of(job_of(tmp_path / "in", tmp_path / "out", "http://x", schedule={"timezone": zone}), unix_s)

    assert day("Pacific/Kiritimati", NOON_S) == "2026-01-02"
    assert day("Pacific/Honolulu", NOON_S - 7_200) == "2026-01-01"
    assert day("Pacific/Honolulu", NOON_S - 3 * 3_600) == "2025-12-31"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", day(None, NOON_S))
    for zone in ("Mars/Olympus", "../../etc/passwd", ""):
        with pytest.raises(JobError, match=r"schedule\.timezone"):
            day(zone, NOON_S)


def test_runs_of_the_same_second_have_ids_of_their_own(tmp_path: Path, job: Job) -> None:
    ids = set()
    for number in range(20):
        checkpoint = Checkpoint(tmp_path / f"{number}.db")
        ids.add(begin_run(checkpoint, job, NOON_S).run_id)
        checkpoint.close()
    assert len(ids) > 15


@pytest.mark.parametrize("progress", [b'{"a": 1', b"\xff\xfe", b"[1]"])
def test_figures_that_cannot_be_understood_are_damage_that_names_the_repair(
    checkpoint: Checkpoint, job: Job, progress: bytes
) -> None:
    begin_run(checkpoint, job, NOON_S)
    with checkpoint.transaction() as db:
        db.execute("UPDATE run SET progress = ?", (progress,))
    with pytest.raises(DamagedError, match=r"figures of a run cannot be understood.*--repair"):
        unfinished_run(checkpoint)
    with pytest.raises(DamagedError, match=r"figures of a run cannot be understood.*--repair"):
        tokens_of_last_minute(checkpoint, NOON_S)
