"""The durable memory: what is committed is there after reopening, whole, and what is damaged is told."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from conftest import GUARD_S

from batchfox.checkpoint import VERSION, Again, Checkpoint
from batchfox.core.event import Answer, ApiError
from batchfox.core.lifecycle import Life, State
from batchfox.core.outcome import STATUSES, Outcome
from batchfox.core.row import key_of_id, key_of_position
from batchfox.errors import DamagedError, MachineError, OutputError
from batchfox.finished import Done
from batchfox.group import Group, decode_outcome, encode


def life(number: int, **values: object) -> Life:
    made = Life(key=key_of_id(f"r{number}"), index=number, id=f"r{number}", kept={"n": number}, slot=number + 1)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def outcome(number: int, status: str = "completed") -> Outcome:
    return Outcome(
        row_index=number,
        row_id=f"r{number}",
        status=status,  # type: ignore[arg-type]
        answer=Answer(completion='{"x":1}', text="é\ufffd", credits=0.5) if status == "completed" else None,
        error=None if status == "completed" else ApiError(code="c", message="m"),
        finished_at=1.5,
        run_id="r",
        run_date="2026-01-01",
    )


def committed(path: Path, group: Group) -> Checkpoint:
    """Commits and opens anew."""
    checkpoint = Checkpoint(path)
    checkpoint.commit(group)
    checkpoint.close()
    return Checkpoint(path)


def test_a_new_checkpoint_is_without_world_access_and_syncs_in_full(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        checkpoint = Checkpoint(tmp_path / "c.db")
        checkpoint.commit(Group())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.db").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "c.db-wal").stat().st_mode) == 0o600
    assert checkpoint.query("PRAGMA journal_mode") == [("wal",)]
    assert checkpoint.query("PRAGMA synchronous") == [(2,)]
    checkpoint.close()


def test_a_row_on_its_way_is_there_again_with_all_that_a_later_run_needs(tmp_path: Path) -> None:
    sending = life(1, state=State.SENDING, submits=2, attempts=1, unresolved=1, submitted_at=3.5, estimate=0.25)
    running = life(2, state=State.RUNNING, task_id="task-1", reserved=0.5, maybe_billed_twice=True, media=["url"])
    running.request_hash, running.model, running.group, running.polls = "ab", "m", "m|text", 7
    waiting = life(3, state=State.WAITING, kept={"text": "é", "deep": [{"a": None}]})
    group = Group()
    for made, old_part in ((sending, None), (running, 4), (waiting, None)):
        group.add_row(made, encode(made.kept), old_part)
    checkpoint = committed(tmp_path / "c.db", group)
    found = list(checkpoint.unfinished())
    assert [(known.state, old_part) for known, old_part in found] == [
        (State.SENDING, None),
        (State.RUNNING, 4),
        (State.WAITING, None),
    ]
    for (known, _), made in zip(found, (sending, running, waiting), strict=True):
        for name in ("key", "slot", "index", "id", "kept", "submits", "attempts", "unresolved", "maybe_billed_twice"):
            assert getattr(known, name) == getattr(made, name)
        for name in ("task_id", "submitted_at", "reserved", "estimate", "media", "request_hash", "model", "polls"):
            assert getattr(known, name) == getattr(made, name)
        assert known.request is None, "the input shows it again"
    assert checkpoint.last_slot() == 4
    checkpoint.close()


def test_what_a_stream_told_is_there_again_and_records_of_older_versions_are_read(tmp_path: Path) -> None:
    told = life(1, state=State.RUNNING, task_id="task-1", reasoning="é", is_told=True)
    streaming = life(2, state=State.RUNNING, task_id="task-2", reasoning="")
    group = Group()
    for made in (told, streaming):
        group.add_row(made, encode(made.kept), None)
    checkpoint = committed(tmp_path / "c.db", group)
    assert [(known.reasoning, known.is_told) for known, _ in checkpoint.unfinished()] == [("é", True), ("", False)]
    for slot, record in checkpoint.query("SELECT slot, record FROM row"):
        older = msgspec.msgpack.encode(msgspec.msgpack.decode(record)[:-3])
        with checkpoint.transaction() as db:
            db.execute("UPDATE row SET record = ? WHERE slot = ?", (older, slot))
    assert [(known.reasoning, known.is_told) for known, _ in checkpoint.unfinished()] == [(None, False)] * 2
    checkpoint.close()


def test_an_outcome_takes_the_rows_place_and_waits_to_be_filed(tmp_path: Path) -> None:
    group = Group()
    for number in range(3):
        made = life(number, state=State.SENDING)
        group.add_row(made, encode(made.kept), None)
    checkpoint = committed(tmp_path / "c.db", group)
    group = Group()
    group.add_outcome(1, outcome(0))
    group.add_outcome(2, outcome(1, "failed"))
    made = life(9)
    group.add_row(made, encode(made.kept), 5, outcome(9, "invalid"))
    checkpoint.commit(group)
    assert [known.id for known, _ in checkpoint.unfinished()] == ["r2"]
    assert checkpoint.unfiled() == {
        key_of_id("r0"): Done(status="completed", row_index=0),
        key_of_id("r1"): Done(status="failed", row_index=1),
        key_of_id("r9"): Done(status="invalid", row_index=9),
    }
    (payload,) = checkpoint.query("SELECT outcome FROM row WHERE slot = 1")[0]
    assert decode_outcome(payload) == outcome(0)
    checkpoint.close()


def test_every_status_and_record_survives_the_journey(tmp_path: Path) -> None:
    group = Group()
    for number, status in enumerate(STATUSES):
        made = life(number)
        group.add_row(made, encode(made.kept), None, outcome(number, status))
    checkpoint = committed(tmp_path / "c.db", group)
    assert [done.status for done in checkpoint.unfiled().values()] == list(STATUSES)
    checkpoint.close()


def test_a_group_is_whole_or_not_at_all(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.db")
    group = Group()
    for number in (0, 1, 1):  # the same slot twice: the last insert fails
        made = life(number)
        group.add_row(made, encode(made.kept), None)
    group.blocks[0] = (3, b"d")
    with pytest.raises(OutputError):
        checkpoint.commit(group)
    assert checkpoint.query("SELECT count(*) FROM row") == [(0,)]
    assert checkpoint.block_digests() == {}
    good = Group()
    good.blocks[0] = (3, b"d")
    checkpoint.commit(good)
    assert checkpoint.block_digests() == {0: (3, b"d")}
    checkpoint.close()


def test_a_transaction_that_is_left_by_an_error_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.db")

    def begin_and_fail() -> None:
        with checkpoint.transaction() as db:
            db.execute("INSERT INTO meta VALUES ('a', 1)")
            raise KeyError

    with pytest.raises(KeyError):
        begin_and_fail()
    assert checkpoint.get("a") is None
    checkpoint.put(a=b"\0\1", b="text")
    assert (checkpoint.get("a"), checkpoint.get("b")) == (b"\0\1", "text")
    checkpoint.close()


def test_a_reader_sees_what_is_committed_and_cannot_write(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.db")
    reader = Checkpoint(tmp_path / "c.db", read_only=True)
    with checkpoint.transaction() as db:
        db.execute("INSERT INTO meta VALUES ('a', 1)")
        assert reader.get("a") is None
    assert reader.get("a") == 1
    with pytest.raises(OutputError, match="readonly"):
        reader.put(a=2)
    reader.close()
    checkpoint.close()


def test_finished_ids_and_positions_are_found_among_many(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.db")
    with checkpoint.transaction() as db:
        rows = [(key_of_id(f"r{n}"), n % len(STATUSES), n, None) for n in range(2_000)]
        db.executemany("INSERT INTO finished VALUES (?, ?, ?, ?)", rows)
    keys = [key_of_id(f"r{n}") for n in range(1_500, 2_500)]
    found = checkpoint.finished.ids(keys)
    assert found == {
        key_of_id(f"r{n}"): Done(status=STATUSES[n % len(STATUSES)], row_index=n) for n in range(1_500, 2_000)
    }
    assert checkpoint.finished.positions([0, 19_999]) == {}
    checkpoint.close()


def test_rows_marked_for_retry_are_found_with_what_was_paid(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.db")
    with checkpoint.transaction() as db:
        db.execute("INSERT INTO retry VALUES (?, 3, 2, 1, 1)", (key_of_position(5),))
    assert checkpoint.retries([key_of_position(n) for n in range(1_200)]) == {
        key_of_position(5): Again(part=3, submits=2, unresolved=1, maybe_billed_twice=True)
    }
    checkpoint.close()


def test_counts_add_up_the_filed_parts_only(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.db")
    with checkpoint.transaction() as db:
        for number, is_filed in ((0, 1), (1, 1), (2, 0)):
            counts = msgspec.json.encode({"completed": 10, "failed": number}).decode()
            db.execute("INSERT INTO part VALUES (?, ?, 10, ?)", (number, is_filed, counts))
    assert checkpoint.counts() == {"completed": 20, "failed": 1}
    checkpoint.close()


def test_rows_that_an_older_version_assigned_to_a_part_still_are(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    Checkpoint(path).close()
    db = sqlite3.connect(path)
    for slot, part in ((1, 4), (2, None), (3, 4)):
        db.execute("INSERT INTO row (slot, key, state, kept, part) VALUES (?, ?, 3, x'80', ?)", (slot, bytes(16), part))
    db.commit()
    db.executescript("DROP TABLE assigned; PRAGMA user_version = 2;")
    db.close()
    for read_only in (True, False, False):
        checkpoint = Checkpoint(path, read_only=read_only)
        assert checkpoint.query("SELECT slot, part FROM assigned ORDER BY slot") == [(1, 4), (3, 4)]
        checkpoint.close()


def test_a_checkpoint_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    Checkpoint(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(OutputError, match=f"version {VERSION + 1}, this one knows {VERSION}"):
            Checkpoint(path, read_only=read_only)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database " * 500, b"SQLite format 3\0" + b"\xff" * 5_000, b"x" * 4_096])
def test_a_file_that_is_no_checkpoint_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(OutputError) as caught:
            Checkpoint(path, read_only=read_only).query("SELECT * FROM run")
        assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_file_whose_creation_was_cut_reads_as_empty_and_is_then_created(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.touch(0o600)
    reader = Checkpoint(path, read_only=True)
    assert reader.query("SELECT * FROM run") == []
    assert (reader.counts(), reader.unfiled()) == ({}, {})
    reader.close()
    assert path.read_bytes() == b""
    writer = Checkpoint(path)
    writer.put(a=1)
    writer.close()


def test_a_damaged_page_is_told_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    checkpoint = Checkpoint(path)
    with checkpoint.transaction() as db:
        db.executemany("INSERT INTO finished VALUES (?, 0, 0, NULL)", [(key_of_id(str(n)),) for n in range(5_000)])
    checkpoint.close()
    content = bytearray(path.read_bytes())
    content[8_192:-4_096] = b"\xaa" * (len(content) - 12_288)
    path.write_bytes(content)
    damaged = Checkpoint(path)
    with pytest.raises(OutputError, match="damaged"):
        damaged.query("SELECT count(*), sum(length(key)), sum(row_index) FROM finished")
    damaged.close()


def test_a_full_disk_is_the_machines_fault(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.db")
    checkpoint.query("PRAGMA max_page_count = 1")
    group = Group()
    made = life(0, kept={"text": "x" * 100_000})
    group.add_row(made, encode(made.kept), None)
    with pytest.raises(MachineError, match="make room"):
        checkpoint.commit(group)
    checkpoint.close()


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        Checkpoint(tmp_path / "gone" / "c.db", read_only=True)


def test_an_empty_file_beside_a_write_ahead_log_is_damage_and_the_log_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    checkpoint = Checkpoint(path)
    checkpoint.put(a=1)
    log = path.with_name("c.db-wal").read_bytes()
    checkpoint.close()
    path.write_bytes(b"")
    path.with_name("c.db-wal").write_bytes(log)
    for read_only in (False, True):
        with pytest.raises(DamagedError, match="write-ahead log"):
            Checkpoint(path, read_only=read_only)
    assert path.with_name("c.db-wal").read_bytes() == log


def test_a_record_that_cannot_be_understood_is_damage(tmp_path: Path) -> None:
    group = Group()
    for number, state in ((0, State.SENDING), (1, State.RUNNING)):
        made = life(number, state=state)
        group.add_row(made, encode(made.kept), None)
    made = life(2)
    group.add_row(made, encode(made.kept), None, outcome(2))
    checkpoint = committed(tmp_path / "c.db", group)
    checkpoint.refuse_damage()
    with checkpoint.transaction() as db:
        db.execute("UPDATE row SET record = x'ffff00', outcome = x'ffff00'")
    with pytest.raises(DamagedError, match="doctor"):
        list(checkpoint.unfinished())
    with pytest.raises(DamagedError, match="doctor"):
        checkpoint.unfiled()
    with checkpoint.transaction() as db:
        db.execute("DROP TABLE row")
    with pytest.raises(DamagedError, match="no such table"):
        checkpoint.unfiled()
    checkpoint.close()


def test_a_file_whose_creation_left_a_journal_reads_as_empty_and_is_then_created(tmp_path: Path) -> None:
    """SQLite's first write to a new file has a rollback journal, which a reader cannot roll back."""
    path, journal = tmp_path / "c.db", tmp_path / "c.db-journal"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = PERSIST")
    db.execute("CREATE TABLE half (x)")
    db.execute("PRAGMA cache_size = 2")
    db.execute("BEGIN")
    db.executemany("INSERT INTO half VALUES (?)", [("x" * 4_000,) for _ in range(50)])
    hot = {file: file.read_bytes() for file in (path, journal)}
    db.execute("ROLLBACK")
    db.close()
    for file, content in hot.items():
        file.write_bytes(content)
    reader = Checkpoint(path, read_only=True)
    assert (reader.is_blank, reader.query("SELECT * FROM run")) == (True, [])
    reader.close()
    assert journal.read_bytes() == hot[journal]
    Checkpoint(path).close()


WITHOUT_DESCRIPTORS = """
import os, resource, sys
from pathlib import Path
from batchfox.checkpoint import Checkpoint
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
try:
    while True:
        os.dup(0)
except OSError:
    pass
Checkpoint(Path(sys.argv[1]))
"""


def test_a_checkpoint_that_cannot_be_opened_for_want_of_descriptors_is_the_machines_fault(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.db"
    Checkpoint(path).close()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS, path], capture_output=True, text=True, timeout=GUARD_S, check=False
    )
    assert "MachineError" in done.stderr
    assert "ulimit -n" in done.stderr


def test_many_keys_are_in_place_only_if_each_completed_where_it_stands(tmp_path: Path) -> None:
    keys = [key_of_id(str(number)) for number in range(300)]
    with contextlib.closing(Checkpoint(tmp_path / "c.db")) as checkpoint:
        with checkpoint.transaction() as db:
            rows = [(key, 0, 1000 + place, None) for place, key in enumerate(keys)]
            db.executemany("INSERT INTO finished VALUES (?, ?, ?, ?)", rows)
        assert checkpoint.finished.are_completed_in_place(keys, 1000)
        assert checkpoint.finished.are_completed_in_place(keys[7:], 1007)
        assert not checkpoint.finished.are_completed_in_place(keys, 1001)
        assert not checkpoint.finished.are_completed_in_place([*keys[:200], *keys[201:], keys[200]], 1000)
        assert not checkpoint.finished.are_completed_in_place([*keys[:-1], keys[0]], 1000)
        assert not checkpoint.finished.are_completed_in_place([*keys, key_of_id("new")], 1000)
        with checkpoint.transaction() as db:
            db.execute("UPDATE finished SET status = 1 WHERE key = ?", (keys[250],))
        assert not checkpoint.finished.are_completed_in_place(keys, 1000)


# A group that is begun in one place and synced in another.


def test_a_group_that_was_begun_is_there_once_it_is_committed(tmp_path: Path) -> None:
    with contextlib.closing(Checkpoint(tmp_path / "c.db")) as checkpoint:
        group = Group()
        group.add_row(life(1), encode({}), None)
        with contextlib.closing(Checkpoint(tmp_path / "c.db")) as other:
            assert checkpoint.begin(group)
            assert other.last_slot() == 0
            checkpoint.commit(group, has_begun=True)
            assert other.last_slot() == 2


def test_nothing_is_begun_that_would_keep_the_loop_waiting(tmp_path: Path) -> None:
    with contextlib.closing(Checkpoint(tmp_path / "c.db")) as checkpoint:
        large, small = Group(), Group()
        large.add_row(life(1), encode({"text": "x" * 1_000_000}), None)
        small.add_row(life(2), encode({}), None)
        assert not checkpoint.begin(large)
        checkpoint.commit(large)
        began_s = time.monotonic()
        with contextlib.closing(Checkpoint(tmp_path / "c.db")) as other, other.transaction():
            assert not checkpoint.begin(small)
        assert time.monotonic() - began_s < 5.0, "another connection's transaction is not waited for"
        checkpoint.commit(small)
        assert checkpoint.last_slot() == 3


def test_a_commit_of_a_begun_group_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.closing(Checkpoint(tmp_path / "c.db")) as checkpoint:
        group = Group()
        group.add_row(life(1), encode({}), None)
        assert checkpoint.begin(group)
        checkpoint._db.execute("ROLLBACK")
        with pytest.raises(MachineError):
            checkpoint.commit(group, has_begun=True)
        assert checkpoint.last_slot() == 0
        checkpoint.commit(group)
        assert checkpoint.last_slot() == 2
