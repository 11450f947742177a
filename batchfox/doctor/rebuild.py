"""A checkpoint made anew: what is done by the parts, the rest by what is left of the old checkpoint."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from batchfox.checkpoint import NO_PART, Checkpoint
from batchfox.columns import encode_types
from batchfox.core.job import Job
from batchfox.core.prepare import UNREADABLE
from batchfox.doctor.census import Census, RunTrace
from batchfox.doctor.paid_before import holds_unclear, paid_before, paid_before_by_position
from batchfox.doctor.salvage import Remains, SavedRow
from batchfox.errors import OutputError
from batchfox.figures import ADDED, CARRIED

BATCH_FORM_ID = "custom_id"
_STATES = ("waiting", "in_doubt", "in_flight", "recorded")


class Account(msgspec.Struct):
    """What the new checkpoint knows. Counts are rows, `parts` aside. `maybe_paid`: rows whose outcome is lost, and that
    are flagged once they are sent again."""

    done: int = 0
    parts: int = 0
    maybe_paid: int = 0
    saved: Counter[str] = msgspec.field(default_factory=Counter)
    is_run_known: bool = True
    is_input_compared: bool = True


def id_column_of(remains: Remains, job: Job | None, data: Path) -> str:
    """The column that names a row in this output, "" where its position does. Raises `OutputError` where nobody
    knows."""
    saved = remains.get("id_column")
    if isinstance(saved, str) and (remains.is_whole or job is None):
        return saved
    if job is None:
        raise OutputError(
            f"{data.parent / '_batchfox' / 'job.toml'}: cannot be read, and the checkpoint cannot either, so nobody "
            "knows which column names a row: put a job file there whose [input] id is what it was (without an id where "
            "there was none), then run the same command again"
        )
    if job.input.id is not None:
        return job.input.id
    return BATCH_FORM_ID if _is_named(remains, data) else ""


def _is_named(remains: Remains, data: Path) -> bool:
    """Have rows ids although the job names no column? Then they are lines in the OpenAI batch form."""
    from batchfox import parts

    for path in sorted(data.glob("part-*.parquet")):
        try:
            for table in parts.read(path):
                if {BATCH_FORM_ID, "body"} <= set(table.column_names):
                    return True
                for row in table.select(["row_index", "row_id", "error_code"]).to_pylist():
                    if row["error_code"] != UNREADABLE and row["row_id"] != str(row["row_index"]):
                        return True
        except (OutputError, KeyError):  # no part, or none that can be read
            continue
    return any(len(key) > 8 for _, key, *_ in remains.rows())


def rebuild(path: Path, census: Census, remains: Remains, *, job: Job | None, id_column: str) -> Account:
    """Writes a new checkpoint at `path`, which must not exist. Whole and closed when this returns."""
    account = Account()
    checkpoint = Checkpoint(path)
    try:
        with checkpoint.transaction() as db:
            _write_facts(db, census, remains, job, id_column)
            _write_parts(db, census, account, recorded=set(remains.parts()))
            _write_done(db, census, has_ids=bool(id_column))
            _write_rows(db, census, remains, account)
            _write_retries(db, census, remains)
            account.maybe_paid = _write_paid_before(db, census, remains, has_ids=bool(id_column))
            _write_runs(db, census, remains, account)
            if not id_column:
                _write_blocks(db, remains, account)
    finally:
        checkpoint.close()
    return account


def _write_facts(db: Any, census: Census, remains: Remains, job: Job | None, id_column: str) -> None:
    """Of a damaged checkpoint only what can be checked: the job is in `job.toml` too, the types are in the parts, and
    latencies are learned again."""
    known = {name: remains.get(name) for name in ("job", "types", "latencies")}
    if not remains.is_whole:
        known = {"job": known["job"] if _is_json(known["job"]) else None}
        if job is not None:
            known["job"] = msgspec.json.encode(job.to_dict())
    if census.types is not None:
        known["types"] = encode_types(census.types)
    known["id_column"] = id_column
    db.executemany("INSERT INTO meta VALUES (?, ?)", [(k, value) for k, value in known.items() if value is not None])


def _is_json(text: Any) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return False


def _write_parts(db: Any, census: Census, account: Account, *, recorded: set[int]) -> None:
    for number, part in census.parts.items():
        if part.rows == 0 and number not in recorded and len(census.parts) == 1:
            continue  # the one empty part of an output without rows is on no record
        values = (number, part.rows, msgspec.json.encode(part.counts).decode())
        db.execute("INSERT INTO part VALUES (?, 1, ?, ?)", values)
        account.parts += 1
    account.done = census.rows


def _write_done(db: Any, census: Census, *, has_ids: bool) -> None:
    if has_ids:
        db.executemany("INSERT INTO finished VALUES (?, ?, ?, ?)", census.known())
    else:
        db.executemany("INSERT INTO finished_block VALUES (?, ?, ?)", census.bitmaps())


def _write_rows(db: Any, census: Census, remains: Remains, account: Account) -> None:
    """The rows on their way, without those whose outcome is in a part. A part that they were assigned to and that is
    not there is written by the next run, as after a crash."""
    assigned: Counter[int] = Counter()
    seen: set[bytes] = set()
    for row in remains.rows():
        kept = _still_on_its_way(row, census)
        if kept is None or kept[1] in seen:
            continue
        seen.add(kept[1])
        slot, key, state, record, columns, outcome, part, old_part = kept
        sql = "INSERT INTO row (slot, key, state, record, kept, outcome, old_part) VALUES (?, ?, ?, ?, ?, ?, ?)"
        db.execute(sql, (slot, key, state, record, columns, outcome, old_part))
        account.saved[_STATES[state]] += 1
        if part is not None and state == 3:
            db.execute("INSERT INTO assigned VALUES (?, ?)", (slot, part))
            assigned[part] += 1
    db.executemany("INSERT INTO part VALUES (?, 0, ?, '{}')", assigned.items())


def _still_on_its_way(row: SavedRow, census: Census) -> SavedRow | None:
    slot, key, state, record, kept, outcome, part, old_part = row
    holders = census.parts_with(key)
    if part is not None and part in census.parts:
        if part in holders:
            return None
        part = None
    if old_part is not None and old_part not in holders:
        old_part = None
    if holders and old_part is None:
        return None
    return slot, key, state, record, kept, outcome, part, old_part


def _write_retries(db: Any, census: Census, remains: Remains) -> None:
    marks = [mark for mark in remains.retries() if mark[1] in census.parts_with(mark[0])]
    db.executemany("INSERT OR IGNORE INTO retry VALUES (?, ?, ?, ?, ?)", marks)


def _write_paid_before(db: Any, census: Census, remains: Remains, *, has_ids: bool) -> int:
    """Marks rows that are in no part any more, nor on their way, and that were maybe paid for. Returns how many."""
    lost = [
        (key, NO_PART, submits, unresolved, doubled)
        for key, _, submits, unresolved, doubled in remains.retries()
        if not census.parts_with(key)
    ]
    db.executemany("INSERT OR IGNORE INTO retry VALUES (?, ?, ?, ?, ?)", lost)
    if has_ids:
        marks = paid_before(remains.finished(), (key for key, *_ in census.known()))
    else:
        is_any_unclear = any(
            holds_unclear(counts) for number, counts in remains.counts().items() if _is_short(number, counts, census)
        )
        marks = paid_before_by_position(remains.finished_blocks(), census.bitmaps(), is_any_unclear=is_any_unclear)
    db.executemany("INSERT OR IGNORE INTO retry VALUES (?, ?, ?, ?, ?)", marks)
    for table in ("row", "finished"):  # what a damaged page says twice, or in another order, is not lost
        db.execute(f"DELETE FROM retry WHERE part = {NO_PART} AND key IN (SELECT key FROM {table})")
    return int(db.execute(f"SELECT count(*) FROM retry WHERE part = {NO_PART}").fetchone()[0])


def _is_short(number: int, counts: str, census: Census) -> bool:
    """Is this part gone, or other than it was?"""
    part = census.parts.get(number)
    return part is None or not _is_json(counts) or msgspec.json.decode(counts) != part.counts


def _write_runs(db: Any, census: Census, remains: Remains, account: Account) -> None:
    runs = {run[0]: run for run in remains.runs()}
    if not runs and census.runs:
        run_id, trace = max(census.runs.items(), key=lambda item: item[1].last)
        runs[run_id] = _run_of(run_id, trace)
        account.is_run_known = False
    db.executemany("INSERT OR IGNORE INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?)", runs.values())


def _run_of(run_id: str, trace: RunTrace) -> tuple[Any, ...]:
    """The last run as its rows tell of it: not finished, so that what it spent counts on against its limits."""
    figures = dict.fromkeys((*CARRIED, *ADDED), 0)
    progress = figures | {"submits": trace.submits, "polls": trace.polls, "credits_spent": trace.credits}
    return run_id, trace.run_date, trace.first, trace.last, None, None, 0, msgspec.json.encode(progress)


def _write_blocks(db: Any, remains: Remains, account: Account) -> None:
    digests = remains.blocks()
    db.executemany("INSERT OR IGNORE INTO block VALUES (?, ?, ?)", digests)
    done = {block for (block,) in db.execute("SELECT block FROM finished_block")}
    account.is_input_compared = done <= {block for block, *_ in digests}
