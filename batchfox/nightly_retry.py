"""`[schedule] retry`: a scheduled run gives the rows that ended badly on earlier nights fresh attempts, so many times.

How many nights a row was given is known in the checkpoint as long as it goes on ending badly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batchfox.checkpoint import Checkpoint
from batchfox.retry import mark

_TABLE = """
CREATE TABLE IF NOT EXISTS tried (
    key BLOB PRIMARY KEY,
    nights INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""
_MARKED = "SELECT key FROM retry WHERE part >= 0"


def mark_again(checkpoint: Checkpoint, data: Path, statuses: Sequence[str], nights: int, *, has_ids: bool) -> int:
    """Marks the filed rows of these statuses that were given fewer nights than these. Returns how many.

    For a run that begins: nothing else is marked yet.
    """
    mark(checkpoint, data, statuses, has_ids=has_ids)
    with checkpoint.transaction() as db:
        db.execute(_TABLE)
        db.execute(f"DELETE FROM tried WHERE key NOT IN ({_MARKED})")
        db.execute("DELETE FROM retry WHERE part >= 0 AND key IN (SELECT key FROM tried WHERE nights >= ?)", (nights,))
        db.execute(
            f"INSERT INTO tried SELECT key, 1 FROM ({_MARKED}) WHERE true "
            "ON CONFLICT (key) DO UPDATE SET nights = nights + 1"
        )
    return int(checkpoint.query(f"SELECT count(*) FROM ({_MARKED})")[0][0])
