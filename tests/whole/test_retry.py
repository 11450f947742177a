"""`--retry`: fresh attempts for finished rows; the new outcome replaces the old one, which is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import MODEL, Simulate, by_id, job_of, parts_of, rows_of, rows_with_ids, superseded_rows, write_rows

from batchfox import run
from batchfox.errors import UserError
from batchfox.options import Options
from batchfox.simulator import answer
from batchfox.survey.preview import preview

# The model stands in the rows, and they end in their order.
ONE_BY_ONE: dict[str, dict[str, Any]] = {"request": {"model": None}, "limits": {"in_flight": 1}}


def test_failed_rows_are_replaced_and_the_others_keep_their_parts(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows = [{"id": f"r{n}", "prompt": f"p{n}", "model": "gone" if n % 20 == 7 else MODEL} for n in range(60)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulator.url, rows_per_part=20, **ONE_BY_ONE)
    first = run(job)
    assert (first.exit_status, first.by_status) == (3, {"completed": 57, "failed": 3})
    assert first.next_step(["batchfox", "run", "job.toml"]) == "batchfox run job.toml --retry failed"
    simulator.control(models=("gone",))
    second = run(job, retry=("failed",))
    assert (second.exit_status, second.by_status, second.settled) == (0, {"completed": 60}, {"completed": 3})
    found = by_id(tmp_path / "out")
    for n, row in enumerate(rows):
        request = {"model": row["model"], "prompt": row["prompt"]}
        assert found[f"r{n}"]["text"] == answer(request)["choices"][0]["message"]["content"]
        assert found[f"r{n}"]["row_index"] == n
    assert sorted(row["row_id"] for row in superseded_rows(tmp_path / "out")) == ["r27", "r47", "r7"]
    assert simulator.book()["totals"]["submits_received"] == 63
    # Models take turns, so the three may stand in any of the first parts.
    *earlier, last = (len(pq.read_table(path)) for path in parts_of(tmp_path / "out"))
    assert (len(earlier), sum(earlier), last) == (3, 57, 3)
    assert run(job, retry=("failed",)).settled == {}
    assert simulator.book()["totals"]["submits_received"] == 63


def test_a_part_without_rows_to_retry_is_never_touched(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows = [{"id": f"r{n}", "prompt": "x", "model": "gone" if n == 15 else MODEL} for n in range(30)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulator.url, rows_per_part=10, **ONE_BY_ONE)
    run(job)
    before = {path.name: path.read_bytes() for path in parts_of(tmp_path / "out")}
    simulator.control(models=("gone",))
    assert run(job, retry=("failed",)).exit_status == 0
    after = {path.name: path.read_bytes() for path in parts_of(tmp_path / "out")}
    assert sorted(name for name in before if before[name] == after[name]) == [
        "part-00000.parquet",
        "part-00002.parquet",
    ]


def test_invalid_rows_are_sent_once_what_was_wrong_is_mended(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows: list[dict[str, Any]] = [{"id": "a", "prompt": "x", "image_urls": ["a.png"]}, {"id": "b", "prompt": "y"}]
    media = tmp_path / "media"
    media.mkdir()
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulator.url, media={"root": str(media)})
    assert run(job).by_status == {"completed": 1, "invalid": 1}
    assert "a.png" in by_id(tmp_path / "out")["a"]["error_message"]
    (media / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    assert run(job).exit_status == 3
    summary = run(job, retry=("invalid",))
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 2})
    found = by_id(tmp_path / "out")["a"]
    assert (found["submits"], found["maybe_billed_twice"], found["media"]) == (1, False, ["inline"])
    assert [row["status"] for row in superseded_rows(tmp_path / "out")] == ["invalid"]


def test_rows_held_in_doubt_are_sent_again_only_by_a_persons_order_and_are_flagged(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults={"lost": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    job = job_of(source, tmp_path / "out", simulator.url, retry={"in_doubt": "hold"})
    assert run(job).by_status == {"in_doubt": 5}
    for _ in range(2):
        assert run(job).exit_status == 3
    assert simulator.book()["totals"]["submits_received"] == 5
    assert {(row["submits"], row["maybe_billed_twice"]) for row in rows_of(tmp_path / "out")} == {(1, False)}
    simulator.control(faults={})
    assert run(job, retry=("in_doubt",)).by_status == {"completed": 5}
    assert {(row["submits"], row["maybe_billed_twice"]) for row in rows_of(tmp_path / "out")} == {(2, True)}
    assert simulator.book()["totals"]["submits_accepted"] == 10


def test_timed_out_rows_keep_their_task_id_and_a_retry_pays_anew(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"stuck": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(4))
    job = job_of(source, tmp_path / "out", simulator.url, poll={"task_timeout": "300ms"})
    assert run(job).by_status == {"timed_out": 4}
    old = by_id(tmp_path / "out")
    assert {row["task_id"] for row in old.values()} == {entry["task_id"] for entry in simulator.book()["entries"]}
    assert all(row["error_code"] == "task_timeout" for row in old.values())
    simulator.control(faults={})
    assert run(job, retry=("timed_out",)).by_status == {"completed": 4}
    for row in by_id(tmp_path / "out").values():
        assert (row["submits"], row["maybe_billed_twice"]) == (2, True)
        assert row["task_id"] != old[row["row_id"]]["task_id"]


def test_several_statuses_are_retried_at_once_and_the_rest_is_left_alone(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"stuck": 1.0})
    rows: list[dict[str, Any]] = [{"id": "slow", "prompt": "x"}, {"id": "wrong", "prompt": "x", "model": "gone"}]
    rows.append({"id": "invalid", "prompt": "x", "max_tokens": 0})
    source = write_rows(tmp_path / "in.jsonl", [{"model": MODEL} | row for row in rows])
    tables = {"request": {"model": None}, "poll": {"task_timeout": "300ms"}}
    job = job_of(source, tmp_path / "out", simulator.url, **tables)  # type: ignore[arg-type]
    assert run(job).by_status == {"failed": 1, "invalid": 1, "timed_out": 1}
    simulator.control(faults={}, models=("gone",))
    summary = run(job, retry=("failed", "timed_out"))
    assert (summary.by_status, summary.settled) == ({"completed": 2, "invalid": 1}, {"completed": 2})


def test_a_retried_row_that_fails_again_is_replaced_by_its_new_failure(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"task_rejected": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    job = job_of(source, tmp_path / "out", simulator.url)
    assert run(job).by_status == {"failed": 3}
    for times in (2, 3):
        summary = run(job, retry=("failed",))
        assert (summary.exit_status, summary.by_status) == (3, {"failed": 3})
        assert {row["submits"] for row in rows_of(tmp_path / "out")} == {times}
        assert {row["maybe_billed_twice"] for row in rows_of(tmp_path / "out")} == {False}
        assert len(superseded_rows(tmp_path / "out")) == 3 * (times - 1)


def test_rows_without_ids_are_retried_by_their_position(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows = [{"prompt": f"p{n}", "model": "gone" if n % 3 == 1 else MODEL} for n in range(60)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    tables = {"input": {"id": None}, "request": {"model": None}}
    job = job_of(source, tmp_path / "out", simulator.url, **tables)  # type: ignore[arg-type]
    assert run(job).by_status == {"completed": 40, "failed": 20}
    simulator.control(models=("gone",))
    summary = run(job, retry=("failed",))
    assert (summary.exit_status, summary.by_status) == (0, {"completed": 60})
    assert {name: row["prompt"] for name, row in by_id(tmp_path / "out").items()} == {
        str(n): f"p{n}" for n in range(60)
    }
    assert {int(row["row_id"]) % 3 for row in superseded_rows(tmp_path / "out")} == {1}


def test_a_retry_of_rows_without_an_id_finds_them_by_their_line(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "no id"}\n' + json.dumps({"id": "line:1", "prompt": "x"}) + "\n")
    job = job_of(source, tmp_path / "out", simulator.url)
    first = run(job)
    assert first.by_status == {"completed": 1, "invalid": 1}
    again = run(job, retry=("invalid",))
    assert (again.by_status, again.settled) == ({"completed": 1, "invalid": 1}, {"invalid": 1})


def test_a_row_that_left_the_input_keeps_its_old_outcome_when_its_status_is_retried(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults={"task_rejected": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    job = job_of(source, tmp_path / "out", simulator.url)
    run(job)
    write_rows(source, rows_with_ids(2))
    simulator.control(faults={})
    summary = run(job, retry=("failed",))
    assert (summary.by_status, summary.retry_gone) == ({"completed": 2, "failed": 1}, 1)
    write_rows(source, rows_with_ids(3))
    assert run(job).settled == {}, "the order to retry ended with its run"


def test_a_retry_that_was_stopped_goes_on_without_repeating_the_order(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"task_rejected": 1.0})
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(20))
    job = job_of(source, tmp_path / "out", simulator.url, limits={"in_flight": 1})
    run(job)
    simulator.control(faults={}, balance=0.05)
    stopped = run(job, retry=("failed",))
    assert stopped.exit_status == 4
    assert 0 < stopped.by_status["completed"] < 20
    simulator.control(balance=None)
    assert run(job).by_status == {"completed": 20}
    assert len(superseded_rows(tmp_path / "out")) == 20


@pytest.mark.parametrize("status", ["completed", "fialed", "all", ""])
def test_only_statuses_that_did_not_complete_can_be_retried(simulate: Simulate, tmp_path: Path, status: str) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(1))
    with pytest.raises(UserError, match="no such status"):
        run(job_of(source, tmp_path / "out", simulate().url), retry=(status,))
    assert not (tmp_path / "out").exists()


def test_rows_marked_for_retry_beyond_the_limit_stay_marked(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"task_rejected": 1.0})
    job = job_of(write_rows(tmp_path / "in.jsonl", rows_with_ids(20)), tmp_path / "out", simulator.url)
    assert run(job).by_status == {"failed": 20}
    simulator.control(faults={})
    first = run(job, retry="failed", limit=5)
    assert first.by_status == {"completed": 5, "failed": 15}
    assert (first.retry_left, first.retry_gone, first.is_limited) == (15, 0, True)
    assert first.next_step(["batchfox", "run", "job.toml", "--retry", "failed", "--limit", "5"]) == (
        "batchfox run job.toml --limit 5"
    )
    second = run(job, limit=5)
    assert (second.by_status, second.retry_left) == ({"completed": 10, "failed": 10}, 10)
    write_rows(tmp_path / "in.jsonl", rows_with_ids(10))
    left = run(job)  # the rows that failed have left the input: nothing can be done about them
    assert (left.by_status, left.exit_status, left.next_step(["batchfox", "run"])) == (
        {"completed": 10, "failed": 10},
        0,
        None,
    )
    write_rows(tmp_path / "in.jsonl", rows_with_ids(20))
    third = run(job, retry="failed")
    assert (third.by_status, third.retry_left, third.exit_status) == ({"completed": 20}, 0, 0)


def test_a_condition_narrows_what_is_retried(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    rows = [{"id": f"r{n}", "prompt": "x", "model": f"gone{n % 2}", "lot": n % 3} for n in range(12)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulator.url, rows_per_part=5, **ONE_BY_ONE)
    assert run(job).by_status == {"failed": 12}
    simulator.control(models=("gone0", "gone1"))
    for where, what in [("lots = 1", "lot"), ("lot = 'x'", "int64"), ("lot =", "at its end")]:
        with pytest.raises(UserError, match=what):
            run(job, retry="failed", where=where)
    with pytest.raises(UserError, match="narrows --retry"):
        run(job, where="lot = 1")
    log = tmp_path / "out" / "_batchfox" / "log.jsonl"
    assert run(job, retry="failed", where="lot = 7").settled == {}
    (line,) = [line for line in log.read_text().splitlines() if "where_fits_nothing" in line]
    assert json.loads(line)["where"] == "lot = 7"
    where = "model = 'gone1' and lot < 2 and error_code is not null"
    shown = [json.loads(text)["row_id"] for text in preview(job, Options(retry="failed", where=where))]
    assert shown == ["r1", "r3", "r7"]
    summary = run(job, retry="failed", where=where)
    assert summary.by_status == {"completed": 4, "failed": 8}
    done = {name for name, row in by_id(tmp_path / "out").items() if row["status"] == "completed"}
    assert done == {"r1", "r3", "r7", "r9"}
    said = summary.next_step(["batchfox", "run", "job.toml", "--retry=failed", "--where", "lot = 1"])
    assert said == "batchfox run job.toml --retry failed"
    for row in rows:
        row["prompt"] = "edited"
    write_rows(source, rows)
    assert run(job, retry="stale", where="lot = 1 and status = 'completed'").settled == {"completed": 2}
