"""What a kill left behind, and what must hold once the run was resumed to its end."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from boundaries import RUNNING, SENDING, SETTLED
from conftest import MODEL

from batchfox.checkpoint import Checkpoint
from batchfox.core import blocks
from batchfox.core.row import key_of_id, key_of_position
from batchfox.parts import count_rows, number_of
from batchfox.simulator import answer, digest_of


def request_of(row: dict[str, Any]) -> dict[str, Any]:
    return {"model": MODEL, "prompt": row["prompt"]}


def digest_of_row(row: dict[str, Any]) -> str:
    return digest_of(request_of(row))


def text_for(row: dict[str, Any]) -> str:
    """The right answer to a row's own request."""
    found: str = answer(request_of(row))["choices"][0]["message"]["content"]
    return found


def keys_of(rows: list[dict[str, Any]], *, has_ids: bool) -> list[bytes]:
    return [key_of_id(row["id"]) if has_ids else key_of_position(n) for n, row in enumerate(rows)]


# After a kill.


class Kill(NamedTuple):
    """What was on disk when a run had been killed. Keys of rows."""

    at: float
    doubtful: frozenset[bytes]  # the intent is known, the task's id is not
    safe: frozenset[bytes]  # the task's id or an answer is known: never to be paid for again
    known: frozenset[bytes]  # at least the intent is


NOTHING = frozenset[bytes]()


def look_after_kill(folder: Path) -> Kill:
    """Reads a copy of the checkpoint as the kill left it: opening the thing itself would recover it before the resume
    has to."""
    at = time.time()
    path = folder / "_batchfox" / "checkpoint.db"
    if not path.exists():
        return Kill(at, NOTHING, NOTHING, NOTHING)
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / path.name
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        with contextlib.closing(Checkpoint(copy)) as checkpoint:
            states = dict(checkpoint.query("SELECT key, state FROM row"))
            finished = {key for (key,) in checkpoint.query("SELECT key FROM finished WHERE status = 0")}
            for block, done, incomplete in checkpoint.query("SELECT * FROM finished_block"):
                places = [n for n in range(blocks.ROWS_PER_BLOCK) if blocks.has(done, n)]
                first = block * blocks.ROWS_PER_BLOCK
                finished |= {key_of_position(first + n) for n in places if not blocks.has(incomplete, n)}
    doubtful = {key for key, state in states.items() if state == SENDING}
    safe = {key for key, state in states.items() if state in (RUNNING, SETTLED)} | finished
    return Kill(at, frozenset(doubtful), frozenset(safe), frozenset(states.keys() | finished))


# At any time.


def check_parts(folder: Path) -> list[dict[str, Any]]:
    """`data/` holds whole parts and nothing else, and no row twice, at any instant. Returns its rows."""
    rows: list[dict[str, Any]] = []
    if (folder / "data").exists():
        for path in sorted((folder / "data").iterdir()):
            assert number_of(path.name) is not None, f"{path} is no part"
            rows += pq.read_table(path).to_pylist()
    most = Counter(row["row_id"] for row in rows).most_common(1)
    assert not most or most[0][1] == 1, f"row {most[0][0]} stands in the output {most[0][1]} times"
    return rows


# At the end.


def check_output(rows: list[dict[str, Any]], folder: Path, *, has_ids: bool) -> list[dict[str, Any]]:
    """Every row once, with the answer to its own request. Returns the output's rows in the order of the input's."""
    found = check_parts(folder)
    assert len(found) == len(rows)
    found.sort(key=lambda out: out["row_index"])
    for number, (row, out) in enumerate(zip(rows, found, strict=True)):
        assert (out["row_index"], out["row_id"]) == (number, row["id"] if has_ids else str(number))
        assert out["status"] == "completed", out
        assert out["text"] == text_for(row)
        assert out["prompt"] == row["prompt"]
    return found


def check_at_rest(folder: Path) -> None:
    """A finished output has no unfinished business: every part on record, nothing in `tmp`, no row, no mark."""
    assert [path.name for path in (folder / "_batchfox" / "tmp").iterdir()] == []
    with contextlib.closing(Checkpoint(folder / "_batchfox" / "checkpoint.db", read_only=True)) as checkpoint:
        parts = {number: (rows, is_filed) for number, is_filed, rows, _ in checkpoint.query("SELECT * FROM part")}
        assert checkpoint.query("SELECT count(*) FROM row") == [(0,)]
        assert checkpoint.query("SELECT count(*) FROM retry") == [(0,)]
    names = {number_of(path.name): count_rows(path) for path in (folder / "data").iterdir()}
    assert {number: (rows, 1) for number, rows in names.items()} == parts


def check_bill(
    rows: Iterable[tuple[bytes, dict[str, Any], dict[str, Any]]],
    entries: Iterable[dict[str, Any]],
    kills: list[Kill],
    *,
    wires: list[frozenset[bytes]] | None = None,
) -> int:
    """Every submit is paid for by its row, and twice only where a kill found it on the wire; what was in doubt is
    flagged, and nothing else is. `rows`: key, row of the input, row of the output; `wires`: for each kill the rows
    whose POST had left and whose task's id was not recorded, where more is known of them than that they were in doubt.
    Returns how many tasks were paid for beyond one a row."""
    created: dict[str, list[float]] = {}
    for entry in entries:
        created.setdefault(entry["digest"], []).append(entry["created"])
    lost = Counter(key for keys in (wires or [kill.doubtful for kill in kills]) for key in keys)
    in_doubt = frozenset[bytes]().union(*(kill.doubtful for kill in kills))
    paid_twice = 0
    for key, row, out in rows:
        times = created.pop(digest_of_row(row))
        assert 1 <= len(times) <= out["submits"], (times, out)
        assert len(times) <= 1 + lost[key], f"{out['row_id']} was paid {len(times)} times, lost {lost[key]} times"
        assert out["maybe_billed_twice"] == (key in in_doubt) == (out["submits"] > 1), out
        for kill in kills:
            later = sum(at > kill.at for at in times)
            if key in kill.safe:
                assert not later, f"{out['row_id']} was paid for again although its task was known"
            if key not in kill.known:
                assert later == len(times), f"{out['row_id']} was POSTed before its intent was on disk"
        paid_twice += len(times) - 1
    assert not created, "tasks that no row asked for"
    return paid_twice
