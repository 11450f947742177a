"""Findings about rows: what is missing, double, foreign or altered, by input, parts and checkpoint side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from batchfox.audit.asked import Asked
from batchfox.audit.finding import Finding
from batchfox.audit.recorded import Recorded
from batchfox.audit.rolls import Rolls
from batchfox.audit.written import Written
from batchfox.core.outcome import STATUSES
from batchfox.part_names import part_name
from batchfox.words import count, shorten

_ON_ITS_WAY = "EXISTS (SELECT 1 FROM pending p WHERE p.key = {0}.key)"
_IN_A_SWAP = "EXISTS (SELECT 1 FROM pending p WHERE p.key = h.key AND p.part IS NOT NULL)"
_INVALID = STATUSES.index("invalid")


class RowChecks:
    """Compares the rolls once they are sorted. `asked`: None where the input was not read; `is_rendered`: its requests
    were."""

    def __init__(
        self, rolls: Rolls, recorded: Recorded, asked: Asked | None, *, root: str, is_running: bool, is_rendered: bool
    ) -> None:
        self._rolls = rolls
        self._recorded = recorded
        self._asked = asked
        self._is_over = recorded.is_finished and not is_running
        self._is_rendered = is_rendered
        self._repair = f"`batchfox doctor {root} --repair`"

    def all(self, written: Written) -> Iterator[Finding]:
        """Every finding, those that cost answers first."""
        yield from self._missing()
        yield from self._double()
        yield from self._foreign()
        yield from self._altered(written)
        yield from self._shared_tasks()
        yield from self._replaced()
        yield from self._notes()

    # Missing.

    def _missing(self) -> Iterator[Finding]:
        put_back = f"put the part that held them back; or {self._repair} has them sent, and paid for, again"
        lost = f"FROM done d LEFT JOIN held h USING (key) WHERE h.key IS NULL AND NOT {_ON_ITS_WAY.format('d')}"
        number, found = self._rolls.find(
            f"{lost.replace('WHERE', 'LEFT JOIN asked a USING (key) WHERE')}", "a.row_id, d.row_index", "d.row_index"
        )
        if number:
            examples = [row_id or f"row {index} (from 0)" for row_id, index in found]
            yield self._problem("row_missing", number, "done on record, and in no part", examples, put_back)
        if self._asked is None:
            return
        left = "FROM asked a LEFT JOIN held h USING (key) LEFT JOIN done d USING (key) "
        left += f"WHERE h.key IS NULL AND d.key IS NULL AND NOT {_ON_ITS_WAY.format('a')}"
        reached = self._recorded.rows_read if self._is_over else 0
        yield from self._find(
            "row_unanswered",
            f"{left} AND a.row_index < {reached}",
            "in the input, without an output row or a record, though the run that finished read that far (or the "
            "input changed since)",
            "the same `batchfox run` sends them",
        )
        yield from self._find(
            "still_to_come",
            f"{left} AND a.row_index >= {reached}",
            "added to the input since the run that finished" if self._is_over else "of the input still to come",
            "the same `batchfox run` sends them" if self._is_over else "the run, or its resume, takes them",
            is_problem=False,
        )

    # Double.

    def _double(self) -> Iterator[Finding]:
        number = self._rolls.count("SELECT count(*) FROM held WHERE times > 1")
        if not number:
            return
        sql = (
            "SELECT min(w.row_id), group_concat(w.part) FROM written w JOIN held h ON h.key = w.key WHERE h.times > 1 "
            "GROUP BY w.key ORDER BY min(w.row_index) LIMIT 5"
        )
        examples = []
        for row_id, places in self._rolls.query(sql):
            numbers = sorted(int(place) for place in places.split(","))[:5]
            examples.append(f"{shorten(row_id, 80)} ({', '.join(part_name(number) for number in numbers)})")
        then = "one of the files was put there or changed by hand: move the copy out of data/"
        yield self._problem("row_double", number, "in the parts more than once", examples, then)

    # Foreign.

    def _foreign(self) -> Iterator[Finding]:
        if self._asked is None:
            return
        beyond = "FROM held h LEFT JOIN asked a USING (key) LEFT JOIN done d USING (key) WHERE a.key IS NULL "
        yield from self._find(
            "row_foreign",
            f"{beyond} AND d.key IS NULL AND NOT {_ON_ITS_WAY.format('h')}",
            "in the output, of no row of the input, and on no record",
            "not this output's: find out who put it there, and put the right part back",
            of="h",
        )
        if self._recorded.has_ids:
            yield from self._find(
                "no_longer_asked",
                f"{beyond} AND d.key IS NOT NULL",
                "in the output, and not in the input any more",
                "nothing, where the input was meant to shrink",
                of="h",
                is_problem=False,
            )
            return
        yield from self._find(
            "row_beyond_input",
            f"{beyond} AND d.key IS NOT NULL",
            "in the output, beyond the end of the input",
            "put the whole input back: without ids a run refuses one that is shorter than what is done",
            of="h",
        )
        if changed := self._asked.changed:
            examples = [f"rows {first:,} to {last:,} (from 0)" for first, last in changed[:5]]
            yield Finding(
                kind="input_changed",
                number=len(changed),
                what=f"{count(len(changed), 'block')} of the input, which has no ids, not as it was when it was read",
                examples=examples,
                next="put the old input back, or name an id and begin a new output",
            )

    # Altered.

    def _altered(self, written: Written) -> Iterator[Finding]:
        unsound = sum(rows for rows, _ in written.unsound.values())
        if unsound:
            examples = [place for _, places in written.unsound.values() for place in places][:5]
            then = "put the right part back; these rows count as missing"
            yield self._problem("row_unsound", unsound, "in the parts such as no run writes", examples, then)
        held = "FROM held h LEFT JOIN done d USING (key) "
        in_input = "" if self._asked is None else "JOIN asked a USING (key) "
        yield from self._find(
            "row_unrecorded",
            f"{held} {in_input} WHERE d.key IS NULL AND NOT {_ON_ITS_WAY.format('h')} "
            "AND h.part IN (SELECT number FROM recorded_part)",
            "in a part, and not on record as done: the next run would send, and pay for, them again",
            f"{self._repair} goes by the parts",
            of="h",
        )
        same = "d.status IS h.status AND d.hash IS substr(h.hash, 1, 8)"
        if not self._recorded.has_ids:
            same = "(d.status IS 0) = (h.status = 0)"
        yield from self._find(
            "row_altered",
            f"{held} WHERE d.key IS NOT NULL AND NOT (d.row_index = h.row_index AND {same}) AND NOT {_IN_A_SWAP}",
            "with another status, position or request in their part than on record",
            f"put the right part back; or {self._repair} goes by the parts",
            of="h",
        )
        if self._is_rendered:
            anew = "these with --retry stale" if self._recorded.has_ids else "with an id in a new output"
            yield from self._find(
                "row_edited",
                "FROM held h JOIN asked a USING (key) WHERE h.hash IS NOT NULL AND h.hash IS NOT a.hash",
                "edited since they were answered, or the job was: their request has another request_hash now",
                f"put the old rows (or the old job) back; or ask anew: {anew}, or all of them with --fresh",
                of="h",
            )

    def _shared_tasks(self) -> Iterator[Finding]:
        tables = " UNION ALL ".join(
            f"SELECT task_id, key, row_id FROM {table} WHERE task_id IS NOT NULL"
            for table in ("written", "pending", "replaced")
        )
        shared = f"FROM (SELECT task_id, min(row_id) AS one, max(row_id) AS other FROM ({tables}) "
        shared += "GROUP BY task_id HAVING min(key) != max(key))"
        number, found = self._rolls.find(shared, "task_id, one, other", "task_id")
        if number:
            examples = [f"{shorten(task, 60)} ({shorten(one, 40)}, {shorten(other, 40)})" for task, one, other in found]
            then = "one task answers one row: one of them was put there or changed by hand; --fresh asks anew"
            what = f"{count(number, 'task')} named by more than one row"
            yield Finding(kind="task_shared", number=number, what=what, examples=examples, next=then)

    def _replaced(self) -> Iterator[Finding]:
        yield from self._find(
            "replaced_lost",
            "FROM (SELECT key, min(row_index) AS row_index, row_id FROM replaced GROUP BY key) r "
            "LEFT JOIN held h USING (key) LEFT JOIN done d USING (key) LEFT JOIN asked a USING (key) "
            f"WHERE h.key IS NULL AND d.key IS NULL AND a.key IS NULL AND NOT {_ON_ITS_WAY.format('r')}",
            "with an outcome in _batchfox/superseded/ and none in the parts: the newer one is gone",
            "put the part that held it back",
            of="r",
        )

    # Good to know.

    def _notes(self) -> Iterator[Finding]:
        yield from self._find(
            "maybe_billed_twice",
            "FROM held h WHERE h.twice",
            "that may have been billed twice",
            "compare with the API's own account",
            of="h",
            is_problem=False,
        )
        if self._recorded.has_ids and self._asked is not None:
            yield from self._find(
                "moved",
                "FROM held h JOIN asked a USING (key) WHERE h.row_index != a.row_index",
                "elsewhere in the input than when they ended",
                of="h",
                is_problem=False,
            )
        if self._is_rendered:
            yield from self._find(
                "mended",
                f"FROM held h JOIN asked a USING (key) WHERE h.status = {_INVALID} AND h.hash IS NULL "
                "AND a.hash IS NOT NULL",
                "that ended as invalid and could be sent now",
                "--retry invalid sends them",
                of="h",
                is_problem=False,
            )

    def _find(
        self, kind: str, what: str, words: str, then: str = "", *, of: str = "a", is_problem: bool = True
    ) -> Iterator[Finding]:
        number, found = self._rolls.find(what, f"{of}.row_id", f"{of}.row_index")
        if number:
            yield self._problem(kind, number, words, [row_id for (row_id,) in found], then, is_problem=is_problem)

    @staticmethod
    def _problem(
        kind: str, number: int, words: str, examples: list[Any], then: str, *, is_problem: bool = True
    ) -> Finding:
        return Finding(
            kind=kind,
            number=number,
            what=f"{count(number, 'row')}: {words}",
            examples=[shorten(str(example), 160) for example in examples],
            next=then,
            is_problem=is_problem,
        )
