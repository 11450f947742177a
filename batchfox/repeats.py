"""Which rows with ids come a second time in one pass over an input of which some is done.

A row that ended is known by the position where it ended, at one bit. Several may have ended at one position, in
different runs, and rows that never ended have none: of these keys are kept, on the disk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from batchfox.checkpoint import Checkpoint
from batchfox.core.places import Places
from batchfox.core.row import Row
from batchfox.finished import Done

_MOST_KEYS = 500


class Repeats:
    """One pass, in the reading thread. SQLite's temporary tables hold the keys: memory stays flat."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._places = Places()
        self._has_met = False
        self._shared: Places | None = None
        checkpoint.query("PRAGMA temp.journal_mode = OFF")  # nothing is ever taken back
        checkpoint.query("PRAGMA temp.cache_size = -3000")
        checkpoint.query("CREATE TEMP TABLE met (key BLOB PRIMARY KEY) WITHOUT ROWID")

    def pass_over(self, first: int, number: int) -> None:
        """`number` rows from `first` on stand where they ended."""
        self._places.add_run(first, number)

    def among(self, rows: Sequence[Row], done: dict[bytes, Done], retried: Collection[bytes]) -> list[bool]:
        """For each of the next rows: was its key met before? `done`, `retried`: what is known of their keys."""
        ends = [done.get(row.key) if row.key not in retried else None for row in rows]
        places = (None if end is None else end.row_index for end in ends)
        return self._among([(row.key, row.index, place) for row, place in zip(rows, places, strict=True)])

    def among_ended(self, first: int, ends: Sequence[tuple[bytes, int]]) -> list[bool]:
        """The same of rows from `first` on that ended: their keys, and the positions where they did."""
        return self._among([(key, index, place) for index, (key, place) in enumerate(ends, first)])

    def _among(self, rows: Sequence[tuple[bytes, int, int | None]]) -> list[bool]:
        places, repeated = self._places, [False] * len(rows)
        by_key: list[int] = []  # those whose place does not tell
        for at, (_, index, place) in enumerate(rows):
            if place is None:
                by_key.append(at)
            elif place == index and place not in places:
                places.add(place)
            elif place in self._shared_places():
                by_key.append(at)
            elif place in places:
                repeated[at] = True
            else:
                places.add(place)
        if by_key:
            self._look_up([rows[at][0] for at in by_key], by_key, repeated)
        return repeated

    def _look_up(self, keys: list[bytes], at: list[int], repeated: list[bool]) -> None:
        met = self._met(keys)
        new: list[tuple[bytes]] = []
        for place, key in zip(at, keys, strict=True):
            repeated[place] = key in met
            if key not in met:
                met.add(key)
                new.append((key,))
        if new:
            self._has_met = True
            self._checkpoint.note("INSERT INTO temp.met VALUES (?)", sorted(new))

    def _met(self, keys: list[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        if not self._has_met:
            return found
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            marks = ",".join("?" * len(some))
            found.update(key for (key,) in self._checkpoint.query(f"SELECT key FROM met WHERE key IN ({marks})", some))
        return found

    def _shared_places(self) -> Places:
        """Positions where more than one row ended, in different runs. A row that stands in such a place is known by the
        place alone; a second line of it, elsewhere, is not counted as repeated."""
        if self._shared is None:
            self._shared, seen = Places(), Places()
            for (place,) in self._checkpoint.stream("SELECT row_index FROM finished"):
                (self._shared if place in seen else seen).add(place)
        return self._shared


def repeats_of(checkpoint: Checkpoint) -> Repeats | None:
    """None where nothing is known yet: whatever is known later was met in this pass."""
    sql = "SELECT EXISTS (SELECT 1 FROM finished) OR EXISTS (SELECT 1 FROM row)"
    return Repeats(checkpoint) if checkpoint.query(sql)[0][0] else None
