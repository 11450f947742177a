"""Which rows with ids come a second time in one pass over an input of which some is done.

The position where a row ended does not tell: a row that was put in before it may have ended there too, in a later run.
So keys are kept, on the disk, of all rows but those that stand where they ended; of these one bit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from batchfox.checkpoint import Checkpoint, Done
from batchfox.core.places import Places
from batchfox.core.row import Row

_MOST_KEYS = 500


class Repeats:
    """One pass, in the reading thread. SQLite's temporary tables hold the keys: memory stays flat."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._in_place = Places()
        self._has_met = False
        self._knows_shared = False
        checkpoint.query("PRAGMA temp.journal_mode = OFF")  # nothing is ever taken back
        checkpoint.query("PRAGMA temp.cache_size = -8000")
        checkpoint.query("CREATE TEMP TABLE met (key BLOB PRIMARY KEY) WITHOUT ROWID")

    def pass_over(self, first: int, number: int) -> None:
        """`number` rows from `first` on stand where they ended."""
        self._in_place.add_run(first, number)

    def among(self, rows: Sequence[Row], done: dict[bytes, Done], retried: Collection[bytes]) -> list[bool]:
        """For each of the next rows: was its key met before? `done`, `retried`: what is known of their keys."""
        met = self._met([row.key for row in rows])
        repeated: list[bool] = []
        new: list[tuple[bytes]] = []
        for row in rows:
            ended = done.get(row.key)
            is_repeated = row.key in met or self._stood_before(ended, row)
            repeated.append(is_repeated)
            if ended is not None and ended.row_index == row.index and row.key not in retried:
                self._in_place.add(row.index)
            elif not is_repeated:
                met.add(row.key)
                new.append((row.key,))
        if new:
            self._has_met = True
            self._checkpoint.note("INSERT INTO temp.met VALUES (?)", sorted(new))
        return repeated

    def _met(self, keys: list[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        if not self._has_met:
            return found
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            marks = ",".join("?" * len(some))
            found.update(key for (key,) in self._checkpoint.query(f"SELECT key FROM met WHERE key IN ({marks})", some))
        return found

    def _stood_before(self, ended: Done | None, row: Row) -> bool:
        """Did this pass meet the row where it ended? Where two rows ended at one position it is taken to have met the
        other, so that a second line of one that stands in its place is not counted there."""
        if ended is None or ended.row_index == row.index or ended.row_index not in self._in_place:
            return False
        if not self._knows_shared:
            self._knows_shared = True
            sql = "SELECT row_index FROM finished GROUP BY row_index HAVING count(*) > 1"
            self._checkpoint.query("CREATE TEMP TABLE shared (row_index INTEGER PRIMARY KEY)")
            self._checkpoint.query(f"INSERT INTO shared {sql}")
        return not self._checkpoint.query("SELECT 1 FROM shared WHERE row_index = ?", (ended.row_index,))


def repeats_of(checkpoint: Checkpoint) -> Repeats | None:
    """None where nothing is known yet: whatever is known later was met in this pass."""
    sql = "SELECT EXISTS (SELECT 1 FROM finished) OR EXISTS (SELECT 1 FROM row)"
    return Repeats(checkpoint) if checkpoint.query(sql)[0][0] else None
