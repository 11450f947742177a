"""`[input] dedupe`: rows with the same request are sent once, and each gets the answer."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Simulate, by_id, job_of, parts_of, superseded_rows, write_rows

from batchfox import run, twins
from batchfox.audit import audit_output
from batchfox.core.job import Job
from batchfox.marks import Marked, Marks
from batchfox.show import describe
from batchfox.simulator import SimulatorThread, answer
from batchfox.survey.forecast import ask_prices
from batchfox.survey.surveyor import Surveyor

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64


def asked(count: int, *, first: int = 0, kinds: int = 7) -> list[dict[str, Any]]:
    return [{"id": f"r{n}", "prompt": f"question {n % kinds}", "n": n} for n in range(first, first + count)]


def submits(simulator: SimulatorThread) -> int:
    found: int = simulator.book()["totals"]["submits_accepted"]
    return found


@pytest.fixture(autouse=True)
def _few_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows wait for another, and few answers are kept: the checkpoint and the parts are asked."""
    monkeypatch.setattr(twins, "MOST_WAITING", 5)
    monkeypatch.setattr(twins, "MOST_KEPT_BYTES", 2_000)


def test_rows_with_one_request_are_sent_once_now_and_in_later_runs(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", [*asked(60), {"id": "r3", "prompt": "question 3", "n": 3}])

    def job(**tables: Any) -> Job:
        tables.setdefault("input", {"dedupe": True})
        return job_of(source, tmp_path / "out", simulator.url, rows_per_part=20, **tables)

    first = run(job())
    assert (first.exit_status, first.by_status, first.deduped) == (0, {"completed": 60}, 53)
    assert submits(simulator) == 7
    assert first.whole_run.submits == 7
    assert first.saved_credits > first.whole_run.credits_spent > 0
    assert "53 rows; " in describe(first, ["batchfox", "run"])
    spent = simulator.book()["totals"]["credits_charged"]
    assert first.whole_run.credits_spent == pytest.approx(spent)

    write_rows(source, asked(90))
    second = run(job())
    assert (second.exit_status, second.settled, second.deduped) == (0, {"completed": 30}, 30)
    assert submits(simulator) == 7
    found = by_id(tmp_path / "out")
    for n in range(90):
        row = found[f"r{n}"]
        text = answer({"model": row["model"], "prompt": f"question {n % 7}"})["choices"][0]["message"]["content"]
        assert (row["text"], row["n"], row["row_index"], row["prompt"]) == (text, n, n, f"question {n % 7}")
    assert Counter(row["submits"] for row in found.values()) == {1: 7, 0: 83}
    assert sum(row["credits"] for row in found.values()) == pytest.approx(spent)
    assert len({row["task_id"] for row in found.values()} - {None}) == 7
    assert audit_output(tmp_path / "out").problems == []

    rows = asked(90)
    sent = next(name for name, row in found.items() if row["submits"])
    kind = found[sent]["prompt"]
    rows[int(sent[1:])]["prompt"] = "edited"
    write_rows(source, rows)
    assert run(job(), retry="stale").settled == {"completed": 1}
    assert [row["row_id"] for row in superseded_rows(tmp_path / "out")] == [sent]
    write_rows(
        source, [*rows, {"id": "late", "prompt": kind, "n": 0}, {"id": "edited too", "prompt": "edited", "n": 1}]
    )
    third = run(job())
    assert (third.settled, third.deduped) == ({"completed": 2}, 1), "the answer to the first is in no part any more"
    assert submits(simulator) == 9
    text = answer({"model": found[sent]["model"], "prompt": kind})["choices"][0]["message"]["content"]
    assert by_id(tmp_path / "out")["late"]["text"] == text
    write_rows(source, [*rows, {"id": "alone", "prompt": kind, "n": 0}])
    for dedupe, same in ((True, 1), (False, 0)):
        told = Surveyor(job(input={"dedupe": dedupe})).survey(tmp_path / "out")
        assert (told.valid, told.same_request, told.requests) == (1, same, 1 - same)
    assert run(job(input={"dedupe": False})).deduped == 0
    assert submits(simulator) == 10


@pytest.mark.parametrize("id_column", ["id", None])
def test_what_the_row_that_was_sent_did_not_get_the_others_do_not_get_either(
    simulate: Simulate, tmp_path: Path, id_column: str | None
) -> None:
    simulator = simulate(faults={"task_rejected": 1.0})
    source = write_rows(tmp_path / "in.jsonl", asked(12, kinds=2))
    job = job_of(source, tmp_path / "out", simulator.url, input={"dedupe": True, "id": id_column})
    told = Surveyor(job).survey(tmp_path / "out", ask_prices(job))
    assert (told.valid, told.same_request, told.requests, told.by_shape) == (12, 10, 2, {"text": 2})
    first = run(job)
    assert (first.exit_status, first.by_status) == (3, {"failed": 12})
    assert submits(simulator) < 12
    assert all(row["error_code"] for row in by_id(tmp_path / "out").values())
    before = submits(simulator)
    simulator.control(faults={})
    again = run(job, retry="failed")
    assert (again.exit_status, again.by_status) == (0, {"completed": 12})
    assert submits(simulator) == before + 2
    assert audit_output(tmp_path / "out").problems == []


def test_local_media_count_by_their_bytes_and_an_interrupted_run_pays_no_answer_twice(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate()
    media = tmp_path / "media"
    media.mkdir()
    for name in ("a", "b", "c"):
        (media / f"{name}.png").write_bytes(PNG + (b"other" if name == "c" else b""))
    rows = [{"id": f"{name}{n}", "prompt": "what?", "image_urls": [f"{name}.png"]} for n in range(4) for name in "abc"]
    source = write_rows(tmp_path / "in.jsonl", rows)
    tables = {"input": {"dedupe": True}, "media": {"root": str(media)}, "limits": {"in_flight": 1}}
    job = job_of(source, tmp_path / "out", simulator.url, **tables)  # type: ignore[arg-type]
    assert run(job, limit=5).settled == {"completed": 5}
    shutil.copy(media / "c.png", media / "a.png")
    done = submits(simulator)
    last = run(job)
    assert last.by_status == {"completed": 12}
    assert (done, submits(simulator)) == (2, 2)
    assert len(parts_of(tmp_path / "out")) == 2
    found = by_id(tmp_path / "out")
    assert found["a0"]["text"] == found["b0"]["text"] == found["b3"]["text"]
    assert found["a3"]["text"] == found["c0"]["text"], "a.png shows something else by now"


def test_an_answer_that_was_marked_for_retry_is_nobodys_any_more(simulate: Simulate, tmp_path: Path) -> None:
    """The one that was sent, and one that got its answer: each is asked anew, both together once."""
    simulator = simulate()
    rows = [{"id": f"r{n}", "prompt": "the same"} for n in range(6)]
    job = job_of(
        write_rows(tmp_path / "in.jsonl", rows),
        tmp_path / "out",
        simulator.url,
        input={"dedupe": True},
        rows_per_part=3,
    )
    run(job)
    (sent,) = [row["row_index"] for row in by_id(tmp_path / "out").values() if row["submits"]]
    copied = next(n for n in range(6) if n != sent)
    paid = 1
    for marked in ([sent], [copied], [sent, copied]):
        before = by_id(tmp_path / "out")
        Marks(tmp_path / "out").put([Marked(n, f"r{n}") for n in marked], "retry")
        again = run(job, retry="marked")
        paid += 1
        assert (again.exit_status, submits(simulator)) == (0, paid), marked
        now = by_id(tmp_path / "out")
        newer = {name for name in now if now[name]["finished_at"] != before[name]["finished_at"]}
        assert newer == {f"r{n}" for n in marked}
    assert audit_output(tmp_path / "out").problems == []
