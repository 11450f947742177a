"""What the doctor says of a set-up and of outputs, and what it leaves alone. Its repairs under faults are in
tests/crash/test_machine.py."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import (
    GUARD_S,
    KEY,
    MODEL,
    Simulate,
    Starter,
    by_id,
    environment,
    eventually,
    http_reply,
    job_of,
    parts_of,
    raw_server,
    rows_with_ids,
    saying,
    tables_of,
    write_rows,
)

from batchfox import run
from batchfox.core.job import Job
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import Outcome
from batchfox.core.row import key_of_id, key_of_position
from batchfox.doctor import examine_output, examine_setup, repair
from batchfox.doctor.remark import Remark
from batchfox.doctor.salvage import is_understood
from batchfox.errors import OutputError
from batchfox.group import Group, encode
from batchfox.status import look


def problems(remarks: list[Remark]) -> list[str]:
    return [f"{Path(remark.where).name}: {remark.what}" for remark in remarks if remark.is_problem]


@pytest.fixture
def job(tmp_path: Path, simulate: Simulate) -> Job:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(120))
    return job_of(source, tmp_path / "out", simulate().url, rows_per_part=40)


@pytest.fixture
def out(tmp_path: Path, job: Job) -> Path:
    """A finished output of 120 rows in 3 parts."""
    assert run(job).exit_status == 0
    return tmp_path / "out"


def test_a_set_up_without_a_key_is_a_problem_and_the_key_is_never_shown(start: Starter, tmp_path: Path) -> None:
    with_key = start("doctor", "--offline")
    assert with_key.wait() == 0, with_key.out
    assert "this set-up: nothing wrong" in with_key.out
    for name in ("Python 3.", "SQLite 3.", "uvloop", "pyarrow", "FOXAPI_API_KEY"):
        assert name in with_key.out
    without = start("doctor", "--offline", env=environment(FOXAPI_API_KEY=""))
    assert without.wait() == 3
    assert "set the environment variable FOXAPI_API_KEY" in without.out
    (tmp_path / ".env").write_text(f"FOXAPI_API_KEY={KEY}\n")
    in_a_file = start("doctor", "--offline", env=environment(FOXAPI_API_KEY=""))
    assert in_a_file.wait() == 0
    assert KEY not in with_key.out + with_key.err + in_a_file.out + in_a_file.err


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is waited for, however slow this machine is."""
    for limit in ("reaching.STEP_S", "account.ANSWER_S", "account._BALANCE_S"):
        monkeypatch.setattr(f"batchfox.doctor.{limit}", GUARD_S)


def test_the_api_is_asked_whether_it_takes_the_key_and_what_is_left(
    patient: None, simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By free requests alone, of the job's API."""
    good, poor = simulate(balance=100.0), simulate(balance=0.0)
    strict = simulate(keys=("sk-another",))

    def ask(url: str) -> tuple[list[str], str]:
        remarks = examine_setup(job_of(Path("-"), tmp_path / "new" / "out", url))
        return problems(remarks), "\n".join(remark.what for remark in remarks)

    found, said = ask(good.url)
    assert not found
    for words in (
        "lets it use 12 models",
        "the balance is 100.00: 0 of 100.00",
        "clock agrees",
        "GB are free",
        "extras:",
    ):
        assert words in said
    assert good.book()["totals"]["submits_received"] == 0
    assert ask(poor.url)[0] == [": the balance is gone: 0 of 0 is spent"]
    found, said = ask(strict.url)
    assert len(found) == 1
    assert "refuses the key in FOXAPI_API_KEY" in found[0]
    assert KEY not in said
    monkeypatch.delenv("FOXAPI_API_KEY")
    found, said = ask(good.url)
    assert len(found) == 1, "without a key there is still a clock, and a way there"
    assert "clock agrees" in said
    assert ask("simulator")[0] == [], "which needs no key"


def test_a_way_that_leads_nowhere_and_a_clock_that_is_off(
    patient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)
    reaching, account = "batchfox.doctor.reaching.STEP_S", "batchfox.doctor.account.ANSWER_S"

    async def ask(url: str) -> list[str]:
        job = job_of(Path("-"), tmp_path / "out", url)
        return problems(await asyncio.to_thread(examine_setup, job))

    async def hang(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.drain()

    async def ask_them() -> None:
        late = http_reply(b'{"data":[]}', "200 OK", "Date: Sat, 01 Jan 2000 00:00:00 GMT")
        async with raw_server(saying(late)) as server:
            (found,) = await ask(server.url)
            assert re.fullmatch(r": this machine's clock is [\d,]+ s ahead of the API's", found)
        async with raw_server(saying(http_reply(b"oops", "500 Internal Server Error"))) as server:
            (found,) = await ask(server.url)
            assert found == f"{Path(server.url).name}: gives no list of models now (HTTP 500: oops)"
        async with raw_server(hang, is_tls=True) as server:
            assert "the certificate is not trusted" in (await ask(server.url))[0]
        assert "Connection refused" in (await ask(server.url))[0]
        monkeypatch.setattr(account, 0.2)
        async with raw_server(hang) as server:
            assert "no answer came (within 0.2 s)" in (await ask(server.url))[0]
            monkeypatch.setattr(reaching, 0.2)
            assert "no TLS" in (await ask(server.url.replace("http:", "https:")))[0]
        assert 'the name "nowhere.invalid" is not found' in (await ask("https://nowhere.invalid"))[0]

    asyncio.run(ask_them())
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: time.sleep(3600))
    began = time.monotonic()
    assert "no answer within 0.2 s" in asyncio.run(ask("https://nowhere.invalid"))[0]
    assert time.monotonic() - began < 30, "a resolver that hangs holds nobody up"


def test_a_repair_needs_a_folder_and_a_folder_must_be_an_output(start: Starter, tmp_path: Path) -> None:
    child = start("doctor", "--repair")
    assert (child.wait(), "doctor DIR --repair" in child.err) == (2, True)
    child = start("doctor", tmp_path, "--offline")
    assert (child.wait(), "leave out --offline" in child.err) == (2, True)
    (tmp_path / "job.toml").write_text('[input]\npath = "-"\n[output]\npath = "out"\n')
    child = start("doctor", "job.toml", "--base-url", "simulator")
    assert (child.wait(), child.out.startswith("job.toml: nothing wrong\n")) == (0, True), child.err
    for options in ((), ("--repair",)):
        child = start("doctor", tmp_path, *options)
        assert (child.wait(), "no output of batchfox" in child.err) == (2, True)
    assert not (tmp_path / "data").exists(), "nothing was made"


def test_a_healthy_output_stays_as_it_is(out: Path) -> None:
    before = {path: path.read_bytes() for path in (*parts_of(out), out / "_batchfox" / "job.toml")}
    assert examine_output(out) == []
    assert repair(out) == ([], [])
    assert {path: path.read_bytes() for path in before} == before
    assert not list((out / "_batchfox").glob("*damaged*"))


def test_an_output_without_rows_is_healthy_and_so_it_stays_without_its_checkpoint(
    tmp_path: Path, simulate: Simulate
) -> None:
    job = job_of(write_rows(tmp_path / "in.jsonl", []), tmp_path / "out", simulate().url)
    assert run(job).exit_status == 0
    assert examine_output(tmp_path / "out") == []
    for path in (tmp_path / "out" / "_batchfox").glob("checkpoint.db*"):
        path.unlink()
    assert repair(tmp_path / "out")[1] == []
    write_rows(tmp_path / "in.jsonl", rows_with_ids(5))
    assert run(job).exit_status == 0
    assert len(by_id(tmp_path / "out")) == 5


def test_files_that_are_no_parts_are_named_and_never_touched(out: Path, job: Job) -> None:
    (out / "data" / "notes.txt").write_text("mine")
    pq.write_table(pa.table({"a": [1]}), out / "data" / "part-00007.parquet")
    found = problems(examine_output(out))
    assert found == [
        "notes.txt: does not belong here: its name is not that of a part",
        "part-00007.parquet: does not belong here: its columns are not those of this output",
    ]
    done, remarks = repair(out)
    assert (done, problems(remarks)) == ([], found)
    assert (out / "data" / "notes.txt").read_text() == "mine"
    with pytest.raises(
        OutputError, match=r"notes\.txt: does not belong here: its name is not that of a part \(and 1 more\)"
    ):
        run(job)


def test_a_finished_output_whose_checkpoint_was_lost_is_not_called_unfinished(out: Path) -> None:
    for path in (out / "_batchfox").glob("checkpoint.db*"):
        path.unlink()
    _, remarks = repair(out)
    assert "is not known to have finished" in " / ".join(remark.what for remark in remarks)
    assert "did not finish" not in " / ".join(remark.what for remark in remarks)


def test_a_copy_of_a_part_is_found_by_its_rows_and_nothing_is_repaired_while_it_is_there(out: Path) -> None:
    shutil.copy(out / "data" / "part-00001.parquet", out / "data" / "part-00009.parquet")
    parts_of(out)[0].unlink()
    before = look(out)
    found = problems(examine_output(out))
    assert any("40 rows stand there more than once" in what and "part-00009.parquet" in what for what in found)
    assert repair(out)[0] == []
    assert look(out) == before
    (out / "data" / "part-00009.parquet").unlink()
    done, remarks = repair(out)
    assert any("the 40 rows in it will be sent, and paid for, again" in line for line in done)
    assert problems(remarks) == []


@pytest.mark.parametrize(("column", "value"), [("status", "done"), ("row_id", None), ("finished_at", None)])
def test_a_part_with_a_row_that_nothing_here_writes_is_named(out: Path, job: Job, column: str, value: Any) -> None:
    part = parts_of(out)[1]
    table = pq.read_table(part)
    values = table[column].to_pylist()
    values[7] = value
    at = table.column_names.index(column)
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type)), part)
    found, *_ = problems(examine_output(out))
    assert found.startswith("part-00001.parquet: cannot be read (")
    assert "one of its rows 0 to 39 is none that batchfox writes: " in found
    assert problems(repair(out)[1]) == []
    assert (out / "_batchfox" / "damaged" / "part-00001.parquet").exists()
    assert run(job).here.submits == 40


def test_a_part_without_a_record_is_taken_up_again(out: Path, job: Job) -> None:
    with contextlib.closing(sqlite3.connect(out / "_batchfox" / "checkpoint.db")) as db:
        db.execute("DELETE FROM part WHERE number = 1")
        db.commit()
    assert any("no record names this part of 40 rows" in what for what in problems(examine_output(out)))
    with pytest.raises(OutputError, match="takes it up again"):
        run(job)
    done, remarks = repair(out)
    assert problems(remarks) == []
    assert any("not recovered: rows that were in flight" in line for line in done), "an older one does not know them"
    assert run(job).here.submits == 0
    assert len(by_id(out)) == 120


@pytest.mark.parametrize(
    "flipped",
    [
        {"request_hash": "0g" * 16},
        {"run_date": "2026-13-01"},
        {"finished_at": 1e300},
        {"finished_at": float("nan")},
        {"submitted_at": -1e12},
        {"polls": 1 << 31},
        {"http_status": 99_999},
        {"row_index": 5},
    ],
)
def test_a_record_that_no_part_takes_is_not_saved(flipped: dict[str, Any]) -> None:
    """A flipped bit that SQLite does not see: each run ended with a traceback, after a repair too."""
    good = Outcome(row_index=4, row_id="4", status="completed", finished_at=1.0, run_id="r", run_date="2026-01-01")

    def saved(outcome: Outcome) -> bool:
        return is_understood((1, key_of_position(4), 3, None, encode({"n": 1}), encode(outcome), None, None))

    assert saved(msgspec.structs.replace(good, request_hash="ab" * 16, submitted_at=0.5, polls=3, http_status=200))
    assert not saved(msgspec.structs.replace(good, **flipped))


@pytest.mark.parametrize("damage", ["UPDATE assigned SET part = 9 WHERE slot < 3", "DROP TABLE assigned"])
def test_rows_that_belong_to_a_part_that_is_not_to_be_are_written_all_the_same(
    out: Path, job: Job, tmp_path: Path, damage: str
) -> None:
    """They were recorded as completed, and in no part for ever."""
    write_rows(tmp_path / "in.jsonl", rows_with_ids(130))
    group = Group()
    for slot, index in enumerate(range(120, 130), 1):
        name = f"r{index}"
        life = Life(key=key_of_id(name), index=index, id=name, kept={}, slot=slot)
        ended = Outcome(
            row_index=index, row_id=name, status="completed", finished_at=1.0, run_id="r", run_date="2026-01-01"
        )
        group.add_row(life, encode({"id": name}), None, ended)
    with contextlib.closing(sqlite3.connect(out / "_batchfox" / "checkpoint.db")) as db:
        group.write(db)
        db.execute("INSERT INTO part VALUES (3, 0, 10, '{}')")
        db.execute("INSERT INTO assigned SELECT slot, 3 FROM row")
        db.commit()
        assert problems(examine_output(out)) == []
        db.execute(damage)
        db.commit()
    assert len(problems(examine_output(out))) == 1
    assert problems(repair(out)[1]) == []
    assert run(job).here.submits == 0
    assert len(by_id(out)) == 130


def test_a_row_that_is_not_settled_is_repaired_as_one_of_no_part(out: Path, job: Job, tmp_path: Path) -> None:
    """Where the first page is lost, the table of what is assigned may be taken from pages that are another's."""
    write_rows(tmp_path / "in.jsonl", rows_with_ids(121))
    life, group = Life(key=key_of_id("r120"), index=120, id="r120", kept={}, slot=1), Group()
    group.add_row(life, encode({"id": "r120"}), None)
    with contextlib.closing(sqlite3.connect(out / "_batchfox" / "checkpoint.db")) as db:
        group.write(db)
        db.execute("INSERT INTO assigned VALUES (1, 7)")
        db.execute("DELETE FROM part WHERE number = 1")
        db.commit()
    assert problems(repair(out)[1]) == []
    assert run(job).exit_status == 0
    assert len(by_id(out)) == 121


def test_what_is_done_must_be_what_the_parts_hold_row_by_row(out: Path, job: Job) -> None:
    """A flipped bit in the checkpoint that SQLite does not see would have a row sent again."""
    with contextlib.closing(sqlite3.connect(out / "_batchfox" / "checkpoint.db")) as db:
        db.execute("UPDATE finished SET key = randomblob(16) WHERE row_index IN (3, 77)")
        db.execute("DELETE FROM finished WHERE row_index = 5")
        db.commit()
    assert any("5 entries of what is done differ" in what for what in problems(examine_output(out)))
    assert problems(repair(out)[1]) == []
    assert run(job).here.submits == 0


def test_a_schema_that_lost_a_column_is_damage_and_can_be_repaired(out: Path, job: Job) -> None:
    """One byte, the end of a comment's line, and the next line belongs to the comment."""
    path = out / "_batchfox" / "checkpoint.db"
    content = path.read_bytes()
    assert content.count(b"once settled\n") == 1
    path.write_bytes(content.replace(b"once settled\n", b"once settled "))
    assert any("no such column" in what for what in problems(examine_output(out)))
    assert problems(repair(out)[1]) == []
    assert run(job).here.submits == 0


def test_a_crash_is_no_problem_and_what_it_left_is_a_note(
    tmp_path: Path, start: Starter, simulate: Simulate, job: Job
) -> None:
    simulator = simulate(latency="constant:600")
    command = ["run", "--input", str(tmp_path / "in.jsonl"), "--id", "id", "--output", str(tmp_path / "late")]
    child = start(*command, "--model", MODEL, "--base-url", simulator.url)
    eventually(lambda: simulator.book()["totals"]["submits_received"] == 120 or child.is_over(), "all submits")
    child.kill()
    (tmp_path / "late" / "_batchfox" / "tmp" / "part-00000.parquet").write_bytes(b"half")
    remarks = examine_output(tmp_path / "late")
    assert problems(remarks) == []
    notes = " / ".join(remark.what for remark in remarks)
    assert "did not finish; " in notes
    assert "in flight, to be asked about" in notes
    assert "1 file that a crash left (part-00000.parquet)" in notes


def test_retries_and_batch_lines_survive_a_lost_checkpoint(tmp_path: Path, simulate: Simulate) -> None:
    """Lines in the OpenAI batch form have an id that no job names."""
    said = [{"role": "user", "content": "q"}]
    bodies = [{"model": "gone" if n % 10 == 3 else MODEL, "messages": said, "max_tokens": n + 1} for n in range(30)]
    rows = [
        {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n, body in enumerate(bodies)
    ]
    source = write_rows(tmp_path / "in.jsonl", rows)
    simulator = simulate()
    tables = tables_of(source, tmp_path / "out", simulator.url, rows_per_part=10, input={"id": None})
    tables["request"] = {}
    job = Job.from_dict(tables)
    assert run(job).by_status == {"completed": 27, "failed": 3}
    simulator.control(models=("gone",))
    for path in (tmp_path / "out" / "_batchfox").glob("checkpoint.db*"):
        path.unlink()
    assert problems(repair(tmp_path / "out")[1]) == []
    summary = run(job, retry="failed")
    assert (summary.exit_status, summary.settled) == (0, {"completed": 3})
    assert by_id(tmp_path / "out").keys() == {f"c{n}" for n in range(30)}
    assert examine_output(tmp_path / "out") == []


def test_a_credit_limit_goes_on_counting_what_the_parts_tell_of(tmp_path: Path, simulate: Simulate) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(40))
    job = job_of(source, tmp_path / "out", simulate().url, rows_per_part=10, limits={"credits": 1000})
    spent = run(job).whole_run.credits_spent
    for path in (tmp_path / "out" / "_batchfox").glob("checkpoint.db*"):
        path.unlink()
    done, _ = repair(tmp_path / "out")
    assert any("limits.credits counts without it" in line for line in done)
    again = run(job)
    assert again.is_resume
    assert again.whole_run.credits_spent == pytest.approx(spent)


def test_without_any_word_of_the_id_column_nothing_is_guessed(out: Path) -> None:
    (out / "_batchfox" / "job.toml").write_text("not a job")
    assert problems(examine_output(out)) == ["job.toml: cannot be read"]
    for path in (out / "_batchfox").glob("checkpoint.db*"):
        path.unlink()
    done, remarks = repair(out)
    assert done == []
    assert any("put a job file there" in what for what in problems(remarks))
    assert not (out / "_batchfox" / "checkpoint.db").exists()


def test_a_damaged_or_lost_checkpoint_can_be_left_behind_with_fresh(out: Path, job: Job) -> None:
    path = out / "_batchfox" / "checkpoint.db"
    path.write_bytes(b"garbage " * 1000)
    assert run(job, fresh=True).exit_status == 0
    assert (out.parent / "out.old-unknown" / "_batchfox" / "checkpoint.db").read_bytes() == b"garbage " * 1000
    for path in (out / "_batchfox").glob("checkpoint.db*"):
        path.unlink()
    assert run(job, fresh=True).exit_status == 0
    assert len(list((out.parent / "out.old-unknown-2" / "data").iterdir())) == 3
    assert examine_output(out) == []


def test_a_checkpoint_that_lies_elsewhere_is_found_and_made_anew_there(tmp_path: Path, simulate: Simulate) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(30))
    elsewhere = tmp_path / "local" / "c.db"
    elsewhere.parent.mkdir()
    out = tmp_path / "out"
    tables = tables_of(source, out, simulate().url, rows_per_part=10)
    tables["output"]["checkpoint"] = str(elsewhere)
    job = Job.from_dict(tables)
    assert run(job).exit_status == 0
    assert examine_output(out) == []
    elsewhere.write_bytes(b"x" * 5000)
    assert problems(examine_output(out)) == ["c.db: file is not a database"]
    assert problems(repair(out)[1]) == []
    assert not (out / "_batchfox" / "checkpoint.db").exists()
    assert run(job).here.submits == 0
