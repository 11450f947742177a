"""What the checkpoint holds, copied in one moment: a run that is at work is not held up, nor seen half way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from batchfox.audit.rolls import Rolls
from batchfox.checkpoint import Checkpoint
from batchfox.columns import mend
from batchfox.core import blocks
from batchfox.core.outcome import STATUSES
from batchfox.core.row import key_of_position
from batchfox.errors import DamagedError
from batchfox.group import decode_outcome, decode_record
from batchfox.sqlite_border import at_the_border, damaged

# A row's state, by its number.
STATES = ("waiting", "sending", "running", "recorded")


class FiledPart(msgspec.Struct, frozen=True):
    """A part as it is on record."""

    is_filed: bool
    rows: int
    counts: dict[str, int]


class Recorded(msgspec.Struct, kw_only=True):
    """What a checkpoint says of its output, the rows aside.

    `rows_read`: how many rows the last run read of its input, where it came to its end. `swapping`: parts that a new
    one is just taking rows out of. `blocks`: of an input without ids, rows read and their digest. `marked`: rows
    that `--retry` named.
    """

    job: dict[str, Any] | None
    id_column: str | None
    run_id: str | None = None
    is_finished: bool = False
    rows_read: int = 0
    parts: dict[int, FiledPart] = msgspec.field(default_factory=dict)
    swapping: set[int] = msgspec.field(default_factory=set)
    blocks: dict[int, tuple[int, bytes]] = msgspec.field(default_factory=dict)
    marked: int = 0

    @property
    def has_ids(self) -> bool:
        return bool(self.id_column)

    @property
    def filed(self) -> dict[int, FiledPart]:
        return {number: part for number, part in self.parts.items() if part.is_filed}


def copy(checkpoint: Checkpoint, rolls: Rolls) -> Recorded:
    """Copies what is on record, as of now. Raises `DamagedError` where it cannot be understood."""
    rolls.clear("done", "pending", "recorded_part")
    checkpoint.query("BEGIN")
    try:
        with at_the_border(checkpoint.path):
            found = _copy(checkpoint, rolls)
    except (TypeError, ValueError, KeyError) as error:
        raise damaged(checkpoint.path, f"a record cannot be understood ({error})") from error
    finally:
        checkpoint.query("COMMIT")
    return found


def _copy(checkpoint: Checkpoint, rolls: Rolls) -> Recorded:
    job = checkpoint.get("job")
    found = Recorded(job=msgspec.json.decode(job) if job else None, id_column=checkpoint.get("id_column"))
    _copy_run(checkpoint, found)
    for number, is_filed, rows, counts in checkpoint.query("SELECT number, is_filed, rows, counts FROM part"):
        found.parts[number] = FiledPart(bool(is_filed), rows, msgspec.json.decode(counts))
    rolls.put("recorded_part", ((number,) for number in found.parts), 1)
    swapping = "SELECT DISTINCT old_part FROM assigned JOIN row USING (slot) WHERE old_part IS NOT NULL"
    found.swapping = {part for (part,) in checkpoint.query(swapping)}
    found.marked = int(checkpoint.query("SELECT count(*) FROM retry")[0][0])
    rolls.put("pending", _pending(checkpoint), 11)
    if found.has_ids:
        rolls.put("done", checkpoint.stream("SELECT key, status, row_index, hash FROM finished ORDER BY key"), 4)
    else:
        found.blocks = checkpoint.block_digests()
        rolls.put("done", _positions(checkpoint), 4)
    return found


def _copy_run(checkpoint: Checkpoint, found: Recorded) -> None:
    runs = checkpoint.query("SELECT run_id, is_finished, progress FROM run ORDER BY rowid DESC LIMIT 1")
    if runs:
        found.run_id, found.is_finished = runs[0][0], bool(runs[0][1])
        progress = checkpoint.figures(runs[0][2])
        found.rows_read = int(progress.get("fed", {}).get("rows", 0))


def _pending(checkpoint: Checkpoint) -> Iterator[tuple[Any, ...]]:
    """Rows on their way: of one that is settled its outcome, else what was recorded of its last attempt."""
    sql = (
        "SELECT key, state, assigned.part, old_part, record, outcome FROM row LEFT JOIN assigned ON "
        "assigned.slot = row.slot"
    )
    for key, state, part, old_part, record, outcome in checkpoint.stream(sql):
        if state == 3:
            end = decode_outcome(outcome)
            named = (end.row_index, mend(end.row_id), STATUSES.index(end.status))
            paid = (end.task_id, end.credits, end.submits, int(end.maybe_billed_twice))
            yield key, state, part, old_part, *named, *paid
        else:
            life = decode_record(record)
            paid = (life.task_id, life.reserved, life.submits, int(life.maybe_billed_twice))
            yield key, state, part, old_part, life.index, mend(life.id), None, *paid


def _positions(checkpoint: Checkpoint) -> Iterator[tuple[Any, ...]]:
    """Of an input without ids: every finished position; as its status 0 (completed) or nothing finer."""
    for block, done, incomplete in checkpoint.stream("SELECT block, done, incomplete FROM finished_block"):
        if len(done) != blocks.BITMAP_BYTES or len(incomplete) != blocks.BITMAP_BYTES:
            raise DamagedError(f"{checkpoint.path}: the bitmap of block {block} has a wrong length")
        first = block * blocks.ROWS_PER_BLOCK
        for at in range(blocks.ROWS_PER_BLOCK):
            if blocks.has(done, at):
                status = None if blocks.has(incomplete, at) else 0
                yield key_of_position(first + at), status, first + at, None
