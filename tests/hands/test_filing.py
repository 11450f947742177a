"""From recorded outcomes to parts, and the same again after a crash at each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import by_id, parts_of, rows_of, superseded_rows

from batchfox import open_part, parts
from batchfox.checkpoint import Checkpoint
from batchfox.core.event import Answer, ApiError
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import COLUMNS, Outcome, Status
from batchfox.core.prepare import UNREADABLE
from batchfox.core.row import key_of_id, key_of_line, key_of_position
from batchfox.errors import DiskFullError, OutputError
from batchfox.filing import Filing
from batchfox.folders import Folders
from batchfox.group import Group, encode


class Desk:
    """An output folder with its checkpoint, and outcomes on demand."""

    def __init__(self, root: Path, *, has_ids: bool = True, known: dict[str, pa.DataType] | None = None) -> None:
        self.folders = Folders(root=root)
        for folder in (self.folders.data, self.folders.tmp, self.folders.superseded):
            folder.mkdir(parents=True, exist_ok=True)
        self.has_ids = has_ids
        self.known = known
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.warnings: list[tuple[str, dict[str, Any]]] = []
        self.open()

    def open(self) -> None:
        """As a new process finds it."""
        self.checkpoint = Checkpoint(self.folders.own / "checkpoint.db")
        self.filing = Filing(
            self.checkpoint,
            self.folders,
            has_ids=self.has_ids,
            known_types=lambda: self.known,
            note=lambda event, values: self.notes.append((event, values)),
            warn=lambda event, values: self.warnings.append((event, values)),
        )

    def crash(self) -> None:
        """What this process knew is gone; what is on disk is not."""
        if (opened := self.filing._open) is not None:
            opened._file.give_up()
        self.checkpoint.close()
        self.open()

    def record(
        self,
        *indices: int,
        status: Status = "completed",
        kept: Callable[[int], dict[str, Any]] = lambda index: {"n": index},
        old_part: int | None = None,
        text: str = "first",
        code: str | None = None,
        row_id: str | None = None,
        key: bytes | None = None,
    ) -> None:
        group = Group()
        slot = self.checkpoint.last_slot()
        for index in indices:
            slot += 1
            name = row_id or (f"r{index}" if self.has_ids else str(index))
            row_key = key or (key_of_id(name) if self.has_ids else key_of_position(index))
            is_completed = status == "completed"
            outcome = Outcome(
                row_index=index,
                row_id=name,
                status=status,
                answer=Answer(completion="{}", text=f"{text} {index}") if is_completed else None,
                error=None if is_completed else ApiError(code=code, message=f"{text} {index}"),
                finished_at=1.0,
                run_id="r",
                run_date="2026-01-01",
                request_hash="ab" * 16,
            )
            life = Life(key=row_key, index=index, id=name, kept={}, slot=slot)
            group.add_row(life, encode(kept(index)), old_part, outcome)
        self.checkpoint.commit(group)

    def assign(self, number: int) -> None:
        """The first step of filing, and then the power is cut."""
        with self.checkpoint.transaction() as db:
            free = "SELECT slot, ? FROM row WHERE slot NOT IN (SELECT slot FROM assigned)"
            rows = db.execute(f"INSERT INTO assigned {free}", (number,)).rowcount
            db.execute("INSERT INTO part VALUES (?, 0, ?, '{}')", (number, rows))

    def cut(self, step: str) -> None:
        """Files a part as far as `step`, which does not happen: the process is gone."""

        class PowerCut(BaseException):
            pass

        def fail(*_: Any) -> None:
            raise PowerCut

        filing: Any = self.filing
        setattr(filing, step, fail)
        with pytest.raises(PowerCut):
            filing.file(100)
        self.crash()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "out")
    yield made
    made.checkpoint.close()


def test_outcomes_are_filed_oldest_first_in_parts_of_the_size_asked_for(desk: Desk) -> None:
    desk.record(*range(25))
    assert desk.filing.file(10) == [key_of_id(f"r{n}") for n in range(10)]
    assert len(desk.filing.file(10)) == 10
    assert len(desk.filing.file(10)) == 5
    assert desk.filing.file(10) == []
    assert [len(pq.read_table(path)) for path in parts_of(desk.folders.root)] == [10, 10, 5]
    assert [row["row_index"] for row in rows_of(desk.folders.root)] == list(range(25))
    assert desk.checkpoint.counts() == {"completed": 25}
    assert desk.checkpoint.query("SELECT count(*) FROM row") == [(0,)], "what is filed is state no more"
    assert len(desk.checkpoint.finished.ids([key_of_id(f"r{n}") for n in range(30)])) == 25
    assert list(desk.folders.tmp.iterdir()) == []


def test_a_part_is_built_of_tables_of_so_many_bytes_nested_columns_counted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a thousand long conversations would be in memory at once."""
    monkeypatch.setattr(open_part, "BYTES_PER_TABLE", 100_000)
    desk.record(*range(40), kept=lambda index: {"messages": [{"role": "user", "content": f"{index}" + "x" * 10_000}]})
    desk.filing.file(100)
    assert pq.read_metadata(parts_of(desk.folders.root)[0]).num_row_groups == 4


def test_the_schema_is_fixed_by_the_first_part_for_good(desk: Desk) -> None:
    desk.record(0, 1, kept=lambda n: {"n": n, "later": None, "tags": ["a"]})
    desk.filing.file(10)
    desk.crash()
    desk.record(2, kept=lambda n: {"n": "text", "later": "value", "new": 1})
    desk.filing.file(10)
    first, second = (pq.read_schema(path) for path in parts_of(desk.folders.root))
    assert first.equals(second)
    assert [field.name for field in first][len(COLUMNS) :] == ["n", "later", "tags", "input_extra"]
    assert (first.field("n").type, first.field("later").type, first.field("tags").type) == (
        pa.int64(),
        pa.string(),
        pa.string(),
    )
    row = by_id(desk.folders.root)["r2"]
    assert (row["n"], row["later"]) == (None, "value")
    assert [event for event, _ in desk.notes] == ["part_filed", "part_filed"]
    desk.record(3, kept=lambda n: {"n": "text again", "new": 2})
    desk.filing.file(10)
    assert desk.warnings == [
        ("column_misfit", {"column": "n", "first_part_has": "int64", "values_now_in": "input_extra"}),
        ("column_misfit", {"column": "new", "first_part_has": "no such column", "values_now_in": "input_extra"}),
    ], "one warning a column"


def test_types_that_the_input_declares_win_over_what_the_first_rows_hold(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "out", known={"n": pa.int32(), "when": pa.timestamp("ms")})
    desk.record(0, kept=lambda n: {"n": n, "when": None})
    desk.filing.file(10)
    schema = pq.read_schema(parts_of(tmp_path / "out")[0])
    assert (schema.field("n").type, schema.field("when").type) == (pa.int32(), pa.timestamp("ms"))
    desk.checkpoint.close()


def test_an_output_without_rows_has_one_empty_part_that_the_first_real_one_replaces(desk: Desk) -> None:
    desk.filing.file_empty()
    desk.filing.file_empty()
    (part,) = parts_of(desk.folders.root)
    assert pq.read_table(part).num_rows == 0
    desk.crash()
    assert desk.filing.recover() == []
    desk.record(0)
    desk.filing.file(10)
    assert [row["row_id"] for row in rows_of(desk.folders.root)] == ["r0"]
    desk.filing.file_empty()
    assert len(parts_of(desk.folders.root)) == 1


def test_positions_of_rows_without_ids_are_marked_with_how_they_ended(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "out", has_ids=False)
    desk.record(0, 5, 10_000 - 1, 10_000)
    desk.record(7, status="failed")
    desk.filing.file(100)
    found = desk.checkpoint.finished.positions([*range(10), 10_000 - 1, 10_000, 10**6])
    assert {index: done.status for index, done in found.items()} == {
        0: "completed",
        5: "completed",
        7: "failed",
        10_000 - 1: "completed",
        10_000: "completed",
    }
    desk.checkpoint.close()


# A crash at each step. Whatever it left, the next run ends with every row once.


def assert_all_is_well(desk: Desk, rows: int) -> None:
    desk.filing.recover()
    desk.filing.file(100)
    assert by_id(desk.folders.root).keys() == {f"r{n}" for n in range(rows)}
    assert desk.checkpoint.counts() == {"completed": rows}
    assert list(desk.folders.tmp.iterdir()) == []
    before = {path: path.read_bytes() for path in parts_of(desk.folders.root)}
    desk.crash()
    assert desk.filing.recover() == []
    assert {path: path.read_bytes() for path in parts_of(desk.folders.root)} == before


def test_assigned_and_no_file(desk: Desk) -> None:
    desk.record(0, 1, 2)
    desk.assign(0)
    desk.crash()
    desk.record(3)
    assert desk.filing.recover() == [key_of_id(f"r{n}") for n in range(3)]
    assert_all_is_well(desk, 4)


@pytest.mark.parametrize("size", [0, 3, 200, -1])
def test_assigned_and_a_file_cut_short_under_its_number(desk: Desk, size: int) -> None:
    desk.record(0, 1, 2)
    desk.filing.file(10)
    desk.record(3, 4)
    desk.assign(1)
    whole = (desk.folders.data / "part-00000.parquet").read_bytes()
    (desk.folders.data / "part-00001.parquet").write_bytes(whole[:size])
    desk.crash()
    assert_all_is_well(desk, 5)


def test_assigned_and_a_file_with_another_number_of_rows(desk: Desk) -> None:
    desk.record(0, 1, 2)
    desk.filing.file(10)
    desk.record(3, 4)
    desk.assign(1)
    (desk.folders.data / "part-00001.parquet").write_bytes((desk.folders.data / "part-00000.parquet").read_bytes())
    desk.crash()
    assert_all_is_well(desk, 5)


def test_written_but_not_renamed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.record(0, 1, 2)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts, "put_in_place", fail)
        with pytest.raises(KeyboardInterrupt):
            desk.filing.file(10)
    assert [path.name for path in desk.folders.tmp.iterdir()] == ["part-00000.parquet"]
    desk.crash()
    assert_all_is_well(desk, 3)


def test_renamed_but_not_marked_as_filed(desk: Desk) -> None:
    desk.record(0, 1, 2)
    desk.cut("_mark_filed")
    written = desk.folders.data / "part-00000.parquet"
    before = written.stat()
    assert_all_is_well(desk, 3)
    after = written.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "it was whole: not written again"


def test_before_the_types_were_fixed(desk: Desk) -> None:
    desk.record(0, 1, 2)
    desk.cut("_fix_types")
    assert_all_is_well(desk, 3)


def test_leftovers_of_a_part_that_was_being_written_are_cleared(desk: Desk) -> None:
    desk.record(0)
    (desk.folders.tmp / "part-00000.parquet").write_bytes(b"half")
    desk.crash()
    assert_all_is_well(desk, 1)


# Rows written before their part closes.


def with_a_part(desk: Desk) -> int:
    """The types are fixed by three filed rows. Returns the slot of the next row."""
    desk.record(0, 1, 2)
    desk.filing.file(10)
    return desk.checkpoint.last_slot() + 1


def groups_of(path: Path) -> list[int]:
    found = pq.read_metadata(path)
    return [found.row_group(number).num_rows for number in range(found.num_row_groups)]


def test_rows_written_ahead_are_in_their_part_once_and_the_others_beside_them(desk: Desk) -> None:
    first = with_a_part(desk)
    desk.record(*range(3, 10))
    desk.filing.write_ahead([first + 4, first + 5], 100)
    desk.filing.write_ahead([first + 6], 100)
    assert parts_of(desk.folders.root) == [desk.folders.data / "part-00000.parquet"], "not in place yet"
    assert len(desk.filing.file(6)) == 6
    assert groups_of(parts_of(desk.folders.root)[1]) == [2, 1, 3]
    indices = pq.read_table(parts_of(desk.folders.root)[1])["row_index"].to_pylist()
    assert indices == [7, 8, 9, 3, 4, 5], "of the others the oldest"
    assert_all_is_well(desk, 10)
    assert desk.checkpoint.query("SELECT count(*) FROM assigned") == [(0,)]


def test_the_first_part_is_not_written_ahead_since_all_of_its_rows_fix_the_types(desk: Desk) -> None:
    desk.record(0, kept=lambda _: {"n": None})
    desk.filing.write_ahead([1], 100)
    desk.record(1)
    desk.filing.file(10)
    assert pq.read_schema(parts_of(desk.folders.root)[0]).field("n").type == pa.int64()
    assert_all_is_well(desk, 2)


def test_more_rows_than_the_part_has_room_for_wait_for_the_next_one(desk: Desk) -> None:
    first = with_a_part(desk)
    desk.record(*range(3, 9))
    desk.filing.write_ahead([first, first + 1], 3)
    desk.filing.write_ahead([first + 2, first + 3, first + 4], 3)
    assert [len(desk.filing.file(3)) for _ in range(3)] == [3, 3, 0]
    assert_all_is_well(desk, 9)


def test_rows_that_are_filed_or_have_no_outcome_are_not_written_ahead(desk: Desk) -> None:
    with_a_part(desk)
    group = Group()
    life = Life(key=key_of_id("x"), index=50, id="x", kept={}, slot=50)
    group.add_row(life, encode({}), None)
    desk.checkpoint.commit(group)
    desk.filing.write_ahead([1, 2, 50, 51], 100)
    desk.record(3)
    assert len(desk.filing.file(100)) == 1
    assert len(rows_of(desk.folders.root)) == 4


@pytest.mark.parametrize("step", ["file", "_assigned_rows", "_take_out_old", "_mark_filed"])
def test_what_is_written_ahead_is_lost_in_a_crash_and_the_rows_are_not(desk: Desk, step: str) -> None:
    first = with_a_part(desk)
    desk.record(*range(3, 10))
    desk.filing.write_ahead([first + 4, first + 2], 100)
    if step == "file":
        desk.crash()
    else:
        desk.cut(step)
    assert_all_is_well(desk, 10)


def test_a_part_that_cannot_be_written_ahead_leaves_nothing_and_is_written_when_it_closes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = with_a_part(desk)
    desk.record(*range(3, 10))
    desk.filing.write_ahead([first], 100)
    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", lambda *_: exec("raise OSError(28, 'No space left')"))
        with pytest.raises(DiskFullError, match=r"part-00001\.parquet"):
            desk.filing.write_ahead([first + 1], 100)
    assert list(desk.folders.tmp.iterdir()) == []
    assert len(desk.filing.file(100)) == 7
    assert_all_is_well(desk, 10)


def test_a_part_that_could_not_be_written_is_written_first_and_its_rows_are_in_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may have heard of the full disk: a run ended as finished, with exit 0 and without the part. Rows that were
    assigned a second time were said to be a damaged checkpoint."""
    first = with_a_part(desk)
    desk.record(*range(3, 303))
    monkeypatch.setattr(open_part, "ROWS_PER_TABLE", 50)
    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", lambda *_: exec("raise OSError(28, 'No space left')"))
        with pytest.raises(DiskFullError, match=r"part-00001\.parquet") as told:
            desk.filing.file(300)
    its_own, desk.checkpoint = desk.checkpoint, Checkpoint(desk.checkpoint.path)
    desk.record(*range(303, 307))  # by another connection, as in a run
    desk.checkpoint.close()
    desk.checkpoint = its_own
    desk.filing.write_ahead(list(range(first + 298, first + 302)), 300)
    assert [len(desk.filing.file(300)) for _ in range(3)] == [300, 4, 0]
    assert told, "the error, and where it came from, may be kept"
    assert_all_is_well(desk, 307)
    assert [len(pq.read_table(path)) for path in parts_of(desk.folders.root)] == [3, 300, 4]
    assert list(desk.folders.tmp.iterdir()) == []


def test_what_is_written_ahead_of_a_part_that_is_there_already_is_in_no_other(desk: Desk) -> None:
    first = with_a_part(desk)
    desk.record(3, 4)
    desk.filing.write_ahead([first], 100)
    copied = desk.folders.data / "part-00001.parquet"
    pq.write_table(pq.read_table(parts_of(desk.folders.root)[0]).slice(0, 2), copied)
    assert len(desk.filing.file(100)) == 2
    copied.unlink()
    desk.record(5, 6)
    assert len(desk.filing.file(100)) == 2
    assert pq.read_table(parts_of(desk.folders.root)[1])["row_index"].to_pylist() == [5, 6]
    assert list(desk.folders.tmp.iterdir()) == []


def test_slots_go_to_sqlite_as_text(desk: Desk) -> None:
    """Bytes are JSON to this SQLite, maybe. To 3.45.0 they are none, and to those after it `[1234]` is a value of their
    binary form, and a broken one."""
    first = with_a_part(desk)
    desk.record(*range(3, 6))
    said: list[str] = []
    desk.checkpoint._db.set_trace_callback(said.append)
    desk.filing.write_ahead([first, first + 1], 100)
    desk.filing.file(100)
    asked = [sql for sql in said if "json_each(" in sql]
    assert [sql.count(f"json_each('[{first},{first + 1}]')") for sql in asked] == [1, 1], asked


def test_a_run_that_ends_without_its_last_part_leaves_no_file(desk: Desk) -> None:
    first = with_a_part(desk)
    desk.record(3, 4)
    desk.filing.write_ahead([first], 100)
    assert len(list(desk.folders.tmp.iterdir())) == 1
    desk.filing.close()
    assert list(desk.folders.tmp.iterdir()) == []
    desk.crash()
    assert_all_is_well(desk, 5)


# The swap of a retried row.


def with_a_retry_recorded(desk: Desk) -> None:
    """Parts 0 and 1 with three failures; two of them have new outcomes, recorded and not filed."""
    desk.record(0, 1)
    desk.record(2, 3, status="failed", text="old")
    desk.filing.file(10)
    desk.record(4, status="failed", text="old")
    desk.record(5)
    desk.filing.file(10)
    desk.record(2, old_part=0, text="new")
    desk.record(4, old_part=1, text="new")
    desk.record(6)


def assert_swapped(desk: Desk) -> None:
    found = by_id(desk.folders.root)
    assert {name: row["status"] for name, row in found.items()} == {
        name: "failed" if name == "r3" else "completed" for name in (f"r{n}" for n in range(7))
    }
    assert (found["r2"]["text"], found["r4"]["text"]) == ("new 2", "new 4")
    old = superseded_rows(desk.folders.root)
    assert sorted((row["row_id"], row["error_message"]) for row in old) == [("r2", "old 2"), ("r4", "old 4")]
    assert desk.checkpoint.counts() == {"completed": 6, "failed": 1}
    assert [rows for (rows,) in desk.checkpoint.query("SELECT rows FROM part ORDER BY number")] == [3, 1, 3]
    assert desk.checkpoint.finished.ids([key_of_id("r2")])[key_of_id("r2")].status == "completed"


def test_a_new_outcome_replaces_the_old_one_which_is_kept(desk: Desk) -> None:
    with_a_retry_recorded(desk)
    with desk.checkpoint.transaction() as db:
        db.execute("INSERT INTO retry VALUES (?, 0, 1, 0, 0)", (key_of_id("r2"),))
        db.execute("INSERT INTO retry VALUES (?, 0, 1, 0, 0)", (key_of_id("r3"),))
    desk.filing.file(100)
    assert_swapped(desk)
    assert [key for (key,) in desk.checkpoint.query("SELECT key FROM retry")] == [key_of_id("r3")]


@pytest.mark.parametrize("step", range(1, 6))
def test_a_swap_cut_between_any_two_renames_is_finished_once(
    desk: Desk, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five renames: the old outcomes of part 0, the smaller part 0, the same of part 1, the new part."""
    with_a_retry_recorded(desk)
    put = parts.put_in_place
    done: list[Path] = []

    def put_so_many(temporary: Path, final: Path) -> None:
        if len(done) == step - 1:
            raise KeyboardInterrupt
        done.append(final)
        put(temporary, final)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "put_in_place", put_so_many)
        with pytest.raises(KeyboardInterrupt):
            desk.filing.file(100)
    assert len(done) == step - 1
    desk.crash()
    desk.filing.recover()
    assert_swapped(desk)
    assert list(desk.folders.tmp.iterdir()) == []


def test_a_swap_cut_before_it_was_marked_as_filed_is_finished_once(desk: Desk) -> None:
    with_a_retry_recorded(desk)
    desk.cut("_mark_filed")
    desk.filing.recover()
    assert_swapped(desk)


def test_a_part_that_loses_all_its_rows_stays_as_an_empty_one(desk: Desk) -> None:
    desk.record(0, 1, status="failed", text="old")
    desk.filing.file(10)
    desk.record(0, 1, old_part=0, text="new")
    desk.filing.file(10)
    assert pq.read_table(desk.folders.data / "part-00000.parquet").num_rows == 0
    assert {row["text"] for row in rows_of(desk.folders.root)} == {"new 0", "new 1"}
    desk.crash()
    assert desk.filing.recover() == []


def test_a_row_replaced_twice_leaves_both_old_outcomes(desk: Desk) -> None:
    desk.record(0, status="failed", text="first")
    desk.filing.file(10)
    desk.record(0, status="failed", text="second", old_part=0)
    desk.filing.file(10)
    desk.record(0, text="third", old_part=1)
    desk.filing.file(10)
    assert [row["text"] for row in rows_of(desk.folders.root)] == ["third 0"]
    assert sorted(row["error_message"] for row in superseded_rows(desk.folders.root)) == ["first 0", "second 0"]


def test_a_row_without_id_and_one_whose_id_looks_like_a_line_are_not_mistaken_for_each_other(desk: Desk) -> None:
    nameless = {"row_id": "line:1", "key": key_of_line(1)}
    desk.record(0, status="invalid", code=UNREADABLE, text="no id", **nameless)  # type: ignore[arg-type]
    desk.record(1, status="failed", row_id="line:1", text="real id")
    desk.filing.file(10)
    desk.record(0, status="invalid", code=UNREADABLE, text="still none", old_part=0, **nameless)  # type: ignore[arg-type]
    desk.filing.file(10)
    assert sorted(row["error_message"] for row in rows_of(desk.folders.root)) == ["real id 1", "still none 0"]
    desk.record(1, row_id="line:1", old_part=0)
    desk.filing.file(10)
    assert {row["status"] for row in rows_of(desk.folders.root)} == {"invalid", "completed"}
    assert len(superseded_rows(desk.folders.root)) == 2


# What no record names.


@pytest.mark.parametrize("name", ["part-00007.parquet", "notes.txt", "part-00001.parquet.tmp", ".hidden", "sub"])
def test_a_file_that_no_record_names_is_never_touched(desk: Desk, name: str) -> None:
    desk.record(0)
    desk.filing.file(10)
    desk.record(1)
    stranger = desk.folders.data / name
    stranger.write_bytes(b"somebody's")
    desk.crash()
    with pytest.raises(OutputError) as caught:
        desk.filing.recover()
    assert name in str(caught.value)
    assert caught.value.exit_status == 2
    assert stranger.read_bytes() == b"somebody's"
    stranger.unlink()
    assert_all_is_well(desk, 2)


def test_a_first_part_with_rows_that_no_record_names_is_a_stranger_too(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path / "other")
    other.record(0)
    other.filing.file(10)
    other.checkpoint.close()
    source = tmp_path / "other" / "data" / "part-00000.parquet"
    (desk.folders.data / "part-00000.parquet").write_bytes(source.read_bytes())
    with pytest.raises(OutputError, match="no record of this output"):
        desk.filing.recover()


def test_a_filed_part_that_is_gone_is_told_and_nothing_is_sent_again(desk: Desk) -> None:
    desk.record(0)
    desk.filing.file(10)
    desk.record(1)
    desk.filing.file(10)
    (desk.folders.data / "part-00000.parquet").unlink()
    desk.crash()
    with pytest.raises(OutputError, match=r"part-00000\.parquet: this part was filed and is gone"):
        desk.filing.recover()
