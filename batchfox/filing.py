"""From recorded outcomes to parts: assign, write, rename, mark as filed; the same steps again after a crash.

The checkpoint assigns rows to a part's number before the part is written, so that after a crash it is known what a
file under that number must hold. Rows that replace earlier outcomes (`--retry`) take the old ones out of their parts
first, by a rename; the old outcomes are kept in `superseded/`.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from batchfox.checkpoint import Checkpoint
from batchfox.core import blocks
from batchfox.core.outcome import EXTRA, STATUSES
from batchfox.core.prepare import UNREADABLE
from batchfox.core.row import key_of_id
from batchfox.durable import sync_folder
from batchfox.errors import OutputError
from batchfox.folders import Folders
from batchfox.group import decode_outcome
from batchfox.kept import decode_columns
from batchfox.part_names import number_of, part_name
from batchfox.twin_table import Shared, put_shared

if TYPE_CHECKING:
    import pyarrow as pa

    from batchfox.open_part import Entry, OpenPart, RecordedRow

# Slots as one value.
_LISTED = "(SELECT value FROM json_each(?))"


class Filing:
    """Writes parts from what the checkpoint holds. Belongs to one thread, with a connection of its own."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        folders: Folders,
        *,
        has_ids: bool,
        known_types: Callable[[], dict[str, pa.DataType] | None],
        note: Callable[[str, dict[str, Any]], None],
        warn: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._checkpoint = checkpoint
        self._folders = folders
        self._has_ids = has_ids
        self._known_types = known_types
        self._note = note
        self._warn = warn
        self._types: dict[str, pa.DataType] | None = None
        self._misfits: set[str] = set()
        self._open: OpenPart | None = None

    def types(self) -> dict[str, pa.DataType] | None:
        """The carried columns' types, once they are fixed."""
        if self._types is None and (kept := self._checkpoint.get("types")) is not None:
            from batchfox import columns

            self._types = columns.decode_types(kept)
        return self._types

    def recover(self) -> list[bytes]:
        """Finishes what a crash cut: parts assigned but not filed. Returns the keys filed. Refuses foreign parts."""
        parts = dict(self._checkpoint.query("SELECT number, is_filed FROM part"))
        self._check_folder(parts)
        filed: list[bytes] = []
        for number, is_filed in sorted(parts.items()):
            if not is_filed:
                filed += self._finish(number)
        for leftover in self._folders.tmp.iterdir():
            leftover.unlink()
        return filed

    def _check_folder(self, parts: dict[int, int]) -> None:
        names = {path.name for path in self._folders.data.iterdir()}
        foreign = sorted(name for name in names if number_of(name) not in parts)
        if foreign and foreign == [part_name(0)] and not parts and self._is_empty_part(self._folders.data / foreign[0]):
            foreign = []
        if foreign and number_of(foreign[0]) is None:
            raise OutputError(
                f"{self._folders.data / foreign[0]}: does not belong here: its name is not that of a part"
                f"{f' (and {len(foreign) - 1} more)' if len(foreign) > 1 else ''}; nothing was changed: move it out "
                "of data/ and run the same command again"
            )
        if foreign:
            raise OutputError(
                f"{self._folders.data / foreign[0]}: no record of this output names this file"
                f"{f' (and {len(foreign) - 1} more)' if len(foreign) > 1 else ''}; nothing was changed: move it out "
                "of data/ and run the same command again; or, where it is a part whose record was lost, "
                f"`batchfox doctor {self._folders.root} --repair` takes it up again"
            )
        lost = sorted(part_name(number) for number, is_filed in parts.items() if is_filed)
        lost = [name for name in lost if name not in names]
        if lost:
            raise OutputError(
                f"{self._folders.data / lost[0]}: this part was filed and is gone"
                f"{f' (and {len(lost) - 1} more)' if len(lost) > 1 else ''}; put it back, or "
                f"`batchfox doctor {self._folders.root} --repair` has its rows sent, and paid for, again"
            )

    @staticmethod
    def _is_empty_part(path: Path) -> bool:
        from batchfox.parts import count_rows

        return count_rows(path) == 0

    def close(self) -> None:
        """What is written ahead of a part that will not close is given up."""
        part, self._open = self._open, None
        if part is not None:
            part.give_up()

    def _next_number(self) -> int:
        return int(self._checkpoint.query("SELECT coalesce(max(number) + 1, 0) FROM part")[0][0])

    def write_ahead(self, slots: list[int], most_rows: int) -> None:
        """Writes recorded outcomes to the part that closes next, as far as it has room for them. Nothing is recorded of
        that. The first part fixes the types by all of its rows: it is written when it closes. Rows of a part that could
        not be written stay in that one."""
        if self.types() is None:
            return
        with self._opened(self._next_number()) as part:
            room = most_rows - len(part.slots)
            free = f"slot IN {_LISTED} AND state = 3 AND slot NOT IN (SELECT slot FROM assigned)"
            _add(part, self._recorded_rows(free, _listed(slots[:room])))

    def file(self, most_rows: int) -> list[bytes]:
        """Files the oldest `most_rows` recorded outcomes as one part, those written ahead first; before that, alone, a
        part that could not be written. Returns the keys filed, none if there were none."""
        left = self._checkpoint.query("SELECT min(number) FROM part WHERE NOT is_filed")[0][0]
        if left is not None:
            self.close()
            return self._finish(left)
        ahead = [] if self._open is None else self._open.slots
        with self._checkpoint.transaction() as db:
            number = self._next_number()
            db.executemany("INSERT INTO assigned VALUES (?, ?)", ((slot, number) for slot in ahead))
            oldest = "SELECT slot, ? FROM row WHERE state = 3 AND slot NOT IN (SELECT slot FROM assigned) ORDER BY slot"
            values = (number, most_rows - len(ahead))
            rows = len(ahead) + db.execute(f"INSERT INTO assigned {oldest} LIMIT ?", values).rowcount
            if not rows:
                return []
            db.execute("INSERT INTO part VALUES (?, 0, ?, '{}')", (number, rows))
        return self._finish(number)

    def _finish(self, number: int) -> list[bytes]:
        """Brings an assigned part to its end, whatever of it is done already."""
        from batchfox import parts
        from batchfox.open_part import entry_of, shared_of

        final = self._folders.data / part_name(number)
        rows = self._checkpoint.query("SELECT rows FROM part WHERE number = ?", (number,))[0][0]
        self._fix_types(number)
        entries: list[Entry] = []
        shared: list[Shared] = []
        if parts.count_rows(final) != rows:
            with self._opened(number) as part:
                _add(part, self._assigned_rows(number, part.slots))
                part.close()
                entries, shared = part.entries, part.shared
                self._take_out_old(number)
                parts.put_in_place(part.path, final)
            self._open = None
        else:
            self.close()
            sync_folder(final.parent)  # the run that renamed it may have been killed before it could
            for _, key, outcome, *_ in self._assigned_rows(number):
                entries.append(entry_of(key, outcome))
                shared += shared_of(outcome)
        return self._mark_filed(number, rows, entries, shared)

    @contextlib.contextmanager
    def _opened(self, number: int) -> Iterator[OpenPart]:
        """The open part, or a new one. Where an error comes between, it is given up."""
        from batchfox.open_part import OpenPart

        if self._open is None:
            path = self._folders.tmp / part_name(number)
            self._open = OpenPart(path, self._types or {}, misfits=self._warn_of)
        try:
            yield self._open
        except Exception:
            self.close()
            raise

    def _fix_types(self, number: int) -> None:
        """The schema is fixed by the first part with rows, for good."""
        if self.types() is not None:
            return
        from batchfox import columns

        kept = (kept for *_, kept, _ in self._assigned_rows(number))
        self._types = columns.infer(kept, self._known_types())
        self._checkpoint.put(types=columns.encode_types(self._types))

    def _assigned_rows(self, number: int, written: Sequence[int] = ()) -> Generator[RecordedRow]:
        """The rows assigned to a part, but for those written already, a few at a time."""
        where = f"slot IN (SELECT slot FROM assigned WHERE part = ?) AND slot NOT IN {_LISTED}"
        return self._recorded_rows(where, number, _listed(written))

    def _recorded_rows(self, where: str, *values: Any) -> Generator[RecordedRow]:
        sql = f"SELECT slot, key, outcome, kept FROM row WHERE {where} ORDER BY slot"
        for slot, key, outcome, kept in self._checkpoint.stream(sql, values):
            yield slot, key, decode_outcome(outcome), decode_columns(kept), len(outcome) + len(kept)

    def _warn_of(self, misfits: set[str]) -> None:
        """One warning a column: what was fixed, and where the values are that differ."""
        for name in sorted(misfits - self._misfits):
            self._misfits.add(name)
            fixed = (self._types or {}).get(name)
            expected = "no such column" if fixed is None else str(fixed)
            self._warn("column_misfit", {"column": name, "first_part_has": expected, "values_now_in": EXTRA})

    def _take_out_old(self, number: int) -> None:
        """Takes the outcomes that this part replaces out of their parts. Done twice, it finds nothing to do."""
        assigned = "SELECT slot FROM assigned WHERE part = ?"
        sql = f"SELECT old_part, key, outcome FROM row WHERE old_part IS NOT NULL AND slot IN ({assigned})"
        named: dict[int, set[str]] = defaultdict(set)
        nameless: dict[int, set[str]] = defaultdict(set)
        for old_part, key, outcome in self._checkpoint.query(sql, (number,)):
            row_id = decode_outcome(outcome).row_id
            is_named = not self._has_ids or key == key_of_id(row_id)
            (named if is_named else nameless)[old_part].add(row_id)
        for old_part in sorted(named.keys() | nameless.keys()):
            self._rewrite_without(old_part, named[old_part], nameless[old_part], number)

    def _rewrite_without(self, old_part: int, named: set[str], nameless: set[str], number: int) -> None:
        """`nameless`: the `row_id`s of rows without an id, which a real id may look like."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from batchfox import parts

        path = self._folders.data / parts.part_name(old_part)
        gone, gone_nameless = pa.array(sorted(named), pa.string()), pa.array(sorted(nameless), pa.string())
        schema = parts.schema_of(self._types or {})

        def half(is_replaced: bool) -> Iterator[pa.Table]:
            for table in parts.read(path):
                is_in = pc.is_in(table["row_id"], value_set=gone)
                if self._has_ids:
                    is_nameless = pc.fill_null(pc.equal(table["error_code"], UNREADABLE), fill_value=False)
                    is_in_nameless = pc.is_in(table["row_id"], value_set=gone_nameless)
                    is_in = pc.if_else(is_nameless, is_in_nameless, is_in)
                yield table.filter(is_in if is_replaced else pc.invert(is_in))

        kept_old = self._folders.tmp / f"part-{old_part:05d}-replaced-by-{number:05d}.parquet"
        if parts.write(kept_old, schema, half(True)) == 0:
            return
        smaller = self._folders.tmp / path.name
        rows = parts.write(smaller, schema, half(False))
        counts = Counter(status for table in half(False) for status in table["status"].to_pylist())
        parts.put_in_place(kept_old, self._folders.superseded / kept_old.name)
        with self._checkpoint.transaction() as db:
            values = (rows, msgspec.json.encode(counts).decode(), old_part)
            db.execute("UPDATE part SET rows = ?, counts = ? WHERE number = ?", values)
        parts.put_in_place(smaller, path)

    def _mark_filed(self, number: int, rows: int, entries: list[Entry], shared: list[Shared]) -> list[bytes]:
        keys = [entry[0] for entry in entries]
        counts = Counter(STATUSES[entry[1]] for entry in entries)
        with self._checkpoint.transaction() as db:
            if self._has_ids:
                db.executemany("INSERT OR REPLACE INTO finished VALUES (?, ?, ?, ?)", sorted(entries))
            else:
                _mark_positions(db, entries)
            if shared:
                put_shared(db, number, shared)
            if db.execute("SELECT 1 FROM retry LIMIT 1").fetchone():
                db.executemany("DELETE FROM retry WHERE key = ?", [(key,) for key in keys])
            values = (rows, msgspec.json.encode(counts).decode(), number)
            db.execute("UPDATE part SET is_filed = 1, rows = ?, counts = ? WHERE number = ?", values)
            db.execute("DELETE FROM row WHERE slot IN (SELECT slot FROM assigned WHERE part = ?)", (number,))
            db.execute("DELETE FROM assigned WHERE part = ?", (number,))
        self._note("part_filed", {"part": number, "rows": rows})
        return keys

    def file_empty(self) -> None:
        """An output without rows holds one empty part with the schema."""
        final = self._folders.data / part_name(0)
        if any(self._folders.data.iterdir()):
            return
        from batchfox import columns, parts

        types = self.types()
        if types is None:
            types = columns.infer([], self._known_types())
        temporary = self._folders.tmp / final.name
        parts.write(temporary, parts.schema_of(types), [])
        parts.put_in_place(temporary, final)


def _add(part: OpenPart, rows: Generator[RecordedRow]) -> None:
    """Where an error comes between, what is not read is let go at once: a query that stays open would have this
    connection see, and lock, what was before."""
    with contextlib.closing(rows):
        part.add(rows)


def _listed(slots: Sequence[int]) -> str:
    """As text: SQLite 3.45 takes bytes for JSON of its own binary form, or may."""
    return msgspec.json.encode(slots).decode()


def _mark_positions(db: Any, entries: list[Entry]) -> None:
    by_block: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for _, status, index, _ in entries:
        block, at = blocks.place(index)
        by_block[block].append((at, status != 0))
    for block, marks in by_block.items():
        row = db.execute("SELECT done, incomplete FROM finished_block WHERE block = ?", (block,)).fetchone()
        done, incomplete = (bytearray(half) for half in row or (bytes(blocks.BITMAP_BYTES),) * 2)
        for at, is_incomplete in marks:
            blocks.mark(done, at)
            blocks.mark(incomplete, at, is_incomplete)
        db.execute("INSERT OR REPLACE INTO finished_block VALUES (?, ?, ?)", (block, bytes(done), bytes(incomplete)))
