"""Rows whose request is no longer the one that was answered: the job was edited, or the row under the same id.

What the checkpoint keeps of a finished row with an id are 8 bytes of its request's hash, so the input is rendered and
compared, before anything is sent. A row that could not be sent as it stands now keeps its answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import msgspec

from batchfox.checkpoint import Checkpoint
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import STALE
from batchfox.core.prepare import Preparer
from batchfox.core.row import Row
from batchfox.errors import UserError
from batchfox.paths import STDIN
from batchfox.repeats import Repeats

# In `meta`: stale rows are to be found and marked, and not all are yet. All ("") or those that this condition fits.
ASKED = "stale_asked"


class Found(msgspec.Struct, kw_only=True):
    """`stale`: rows to be asked anew. `kept`: rows that changed and cannot be sent as they are now. `outdated`: rows
    whose task is running, begun with the request as it was before the edit: paid for, so the answer is taken."""

    stale: int = 0
    kept: int = 0
    outdated: int = 0


def refuse_stale(paths: Iterable[str], id_column: str | None) -> None:
    """Raises `UserError` for an input that cannot have stale rows, or that cannot be read twice."""
    if id_column is None:
        raise UserError(
            f"--retry {STALE}: rows without an id are known by their position, and their requests may not change "
            '(one output, one request); name an id ([input] id = "COLUMN") in a new output, or use --fresh'
        )
    if STDIN in paths:
        raise UserError(
            f"--retry {STALE}: the input is read twice, once to find such rows, and standard input can be read once; "
            "put it in a file"
        )


def is_stale(life: Life, answered: bytes | None) -> bool:
    """Is the request of this row another than that whose hash begins with `answered`? None: it was never sent."""
    return answered is not None and life.request_hash is not None and bytes.fromhex(life.request_hash)[:8] != answered


def find_stale(
    checkpoint: Checkpoint,
    batches: Iterable[list[Row]],
    preparer: Preparer,
    take: Callable[[list[bytes]], None],
    stop: threading.Event,
) -> Found:
    """Renders every row that is filed or whose task runs, and gives `take` the keys of those that are stale, a few at a
    time. Ends early once `stop` is set. `checkpoint`: a connection of its own. Raises `InputError`."""
    found = Found()
    repeats = Repeats(checkpoint)
    running = checkpoint.running_hashes()
    for batch in batches:
        if stop.is_set():
            break
        keys = [row.key for row in batch]
        hashes = checkpoint.finished.hashes(keys)
        repeated = repeats.among(batch, checkpoint.finished.ids(keys), ())
        stale: list[bytes] = []
        for row, is_again in zip(batch, repeated, strict=True):
            answered = running.get(row.key) or hashes.get(row.key)
            if is_again or answered is None:
                continue
            prepared = preparer.prepare(row)
            if not isinstance(prepared, Life):
                found.kept += 1
            elif is_stale(prepared, answered):
                if row.key in running:
                    found.outdated += 1
                else:
                    stale.append(row.key)
        found.stale += len(stale)
        take(stale)
    return found
