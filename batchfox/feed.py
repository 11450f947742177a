"""The feed loop: pulls rows while the fleet has room, passes over what is done, offers the rest.

What is done is decided by key, before a template is rendered or a medium touched. Without ids the raw rows below what
is done are compared with what they were, block by block, before anything beyond them is sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Protocol

import msgspec

from batchfox.checkpoint import Again, Checkpoint
from batchfox.core.blocks import Comparison
from batchfox.core.dispatch import Fleet
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import Outcome
from batchfox.core.prepare import Invalid, Preparer
from batchfox.core.row import Row
from batchfox.finished import Done
from batchfox.ledger import Ledger
from batchfox.repeats import repeats_of
from batchfox.skimming import Passed, Skimmer, skimmer_of
from batchfox.twins import Twins

ROWS_A_TURN = 32

# A row, what the checkpoint knows of it, and whether its key was met before in this pass.
Entry = tuple[Row, Done | None, Again | None, bool]


class Rows(Protocol):
    """The input, as far as the feed needs it."""

    def skimmed(self, skimmer: Skimmer | None) -> Iterator[list[Row] | Passed]: ...


class Taker(Protocol):
    """Who takes the rows that are to be sent, and those that never will be."""

    def begin(self, life: Life, again: Again | None) -> None: ...
    def meet(self, life: Life) -> None: ...
    def refuse(self, invalid: Invalid) -> None: ...
    def settle_invalid(self, invalid: Invalid, again: Again | None) -> None: ...
    def record_copy(self, life: Life, again: Again | None, outcome: Outcome, saved: float) -> None: ...


class Fed(msgspec.Struct):
    """What the feed has seen so far. `is_limited`: there are rows beyond `--limit`, which were not looked at.
    `has_incomplete`: among the rows passed over is one that did not complete."""

    rows: int = 0
    completed_before: int = 0
    ended_before: int = 0
    duplicates: int = 0
    taken: int = 0
    is_over: bool = False
    is_limited: bool = False
    has_incomplete: bool = False


class Feed:
    """One pass over the input."""

    def __init__(
        self,
        rows: Rows,
        *,
        fleet: Fleet,
        preparer: Preparer,
        taker: Taker,
        ledger: Ledger,
        checkpoint: Checkpoint,
        thread: Executor,
        id_column: str | None,
        limit: int | None,
        inspect: Callable[[list[Row]], bool],
        only: frozenset[bytes] | None = None,
        twins: Twins | None = None,
    ) -> None:
        """`only`: of the rows that are not done these are taken, and no others. `twins`: has rows with the same request
        sent once."""
        self._source = rows
        self._fleet = fleet
        self._preparer = preparer
        self._taker = taker
        self._ledger = ledger
        self._checkpoint = checkpoint
        self._thread = thread
        self._has_ids = id_column is not None
        self._limit = limit
        self._inspect = inspect
        self._only = only
        self._sought = set(only or ())
        self._has_left = False
        self._twins = twins
        self._comparison = Comparison({} if self._has_ids else checkpoint.block_digests())
        self._skimmer = skimmer_of(checkpoint, id_column)
        self._has_retries = bool(checkpoint.query("SELECT EXISTS (SELECT 1 FROM retry)")[0][0])
        self._held: list[Entry] = []
        self._repeats = repeats_of(checkpoint) if self._has_ids else None
        self._taken_again: set[bytes] = set()
        self.fed = Fed()
        self.has_room = asyncio.Event()
        if twins is not None:
            twins.begin(taker, self.has_room)

    async def run(self) -> None:
        """The loop. Ends with the input, at the limit, or when the fleet is stopped."""
        batches = self._source.skimmed(self._skimmer)
        queue: deque[Entry] = deque()
        await self._look_ahead(batches, queue)
        if self._skimmer is not None:
            self._skimmer.is_on = True
        while self._fleet.stopped is None:
            if not queue:
                if not self._held:  # else rows that were looked up before they were filed would be taken for new ones
                    self._ledger.unfiled.forget_filed()
                entries = await self._next(batches)
                if entries is None:
                    self._comparison.end()
                    self.fed.is_over, self.fed.is_limited = True, self._has_left
                    return
                if isinstance(entries, Passed):
                    self._pass_over_all(entries)
                    continue
                queue.extend(entries)
            for _ in range(min(len(queue), ROWS_A_TURN)):
                entries = self._as_before(queue.popleft())
                for number, entry in enumerate(entries, 1):
                    if not await self._wait_for_room():
                        return
                    ready = self._decide(*entry)
                    if ready is not None and not await self._is_shared(ready, entry[2]):
                        self._taker.begin(ready, entry[2])
                    if self._is_enough():
                        await self._end_at_limit(batches, is_more=bool(queue) or number < len(entries))
                        return
            await asyncio.sleep(0)

    def _is_enough(self) -> bool:
        """Is all taken that this execution takes?"""
        is_full = self._limit is not None and self.fed.taken >= self._limit
        return is_full or (self._only is not None and not self._sought)

    async def _end_at_limit(self, batches: Iterator[list[Row] | Passed], *, is_more: bool) -> None:
        """The limit is reached. Is that the end of the input too?"""
        is_cut = is_more or await self._next(batches) is not None
        if not is_cut:
            self._comparison.end()
        self.fed.is_limited = is_cut or self._has_left
        self.fed.is_over = True

    async def _look_ahead(self, batches: Iterator[list[Row] | Passed], queue: deque[Entry]) -> None:
        """Shows the first rows to `inspect` (is a template's variable missing from all of them?) before any is sent."""
        seen = 0
        while seen < 100:
            entries = await self._next(batches)
            if entries is None:
                self._inspect([])
                return
            assert not isinstance(entries, Passed), "the skimmer is not on yet"
            queue.extend(entries)
            seen += len(entries)
            if not self._inspect([row for row, *_ in entries]):
                return

    def take_again(self, key: bytes, index: int, status: str, *, is_own: bool) -> None:
        """A row that ended at `index` gets fresh attempts though the feed did not bring it: it is counted once.
        `is_own`: this execution had settled it."""
        self._ledger.take_back(key, status if is_own else None)
        if index >= self.fed.rows:
            self._taken_again.add(key)
        elif not is_own:
            self.fed.ended_before -= 1
            self.fed.has_incomplete = self.fed.ended_before > 0
            self.fed.taken += 1

    async def _next(self, batches: Iterator[list[Row] | Passed]) -> list[Entry] | Passed | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, batches)

    def _read(self, batches: Iterator[list[Row] | Passed]) -> list[Entry] | Passed | None:
        """In the reading thread: a batch of rows, each with what the checkpoint knows of it, or rows passed over."""
        rows = next(batches, None)
        if rows is None:
            return None
        if isinstance(rows, Passed):
            if self._repeats is None:
                return rows
            if not rows.met:
                self._repeats.pass_over(rows.first, rows.rows)
                return rows
            repeated = self._repeats.among_ended(rows.first, [(key, place) for key, _, place in rows.met])
            ended = [key for (key, status, _), again in zip(rows.met, repeated, strict=True) if status and not again]
            return msgspec.structs.replace(rows, incomplete=ended, met=[], repeated=sum(repeated))
        retries = self._checkpoint.retries([row.key for row in rows]) if self._has_retries else {}
        if self._has_ids:
            done = self._checkpoint.finished.ids([row.key for row in rows])
            repeated = [True] * len(rows) if self._repeats is None else self._repeats.among(rows, done, retries)
            return [
                (row, done.get(row.key), retries.get(row.key), is_again)
                for row, is_again in zip(rows, repeated, strict=True)
            ]
        positions = self._checkpoint.finished.positions([row.index for row in rows])
        return [(row, positions.get(row.index), retries.get(row.key), False) for row in rows]

    async def _wait_for_room(self) -> bool:
        """True once the fleet has room for a row; False when it was stopped."""
        while self._fleet.room() == 0 or (self._twins is not None and self._twins.is_full):
            if self._fleet.stopped is not None:
                return False
            self.has_room.clear()
            await self.has_room.wait()
        return self._fleet.stopped is None

    def _as_before(self, entry: Entry) -> list[Entry]:
        """The rows that may be decided now that this one is read: itself; or, without ids, only one that ended, while
        it is to be seen whether its block is as it was, and then all that were held. Raises `InputError` where it is
        not."""
        row = entry[0]
        if self._has_ids:
            return [entry]
        new = self._comparison.see(row.index, row.digest)
        if new is not None:
            self._ledger.note_block(*new)
            return [entry]
        _, done, again, _ = entry
        has_ended = (done is not None and again is None) or self._ledger.unfiled.get(row.key) is not None
        ready = [entry] if has_ended else []  # nothing is sent for it: a block of such rows need not be kept
        if not has_ended:
            self._held.append(entry)
        if self._comparison.is_settled:
            ready, self._held = [*ready, *self._held], []
        return ready

    async def _is_shared(self, life: Life, again: Again | None) -> bool:
        """Has another row the same request, so that this one gets its answer?"""
        return self._twins is not None and await self._twins.take(life, again, self._ledger.recorded)

    def _decide(self, row: Row, done: Done | None, again: Again | None, is_repeated: bool) -> Life | None:
        """Done, known, duplicate or new? By key alone. Returns the row where it is ready to be sent."""
        self.fed.rows += 1
        if row.key in self._taken_again:
            self._taken_again.discard(row.key)
            self.fed.taken += 1
            return None
        self._sought.discard(row.key)
        is_left = self._only is not None and row.key not in self._only
        life = self._fleet.lives.get(row.key)
        if life is not None:
            if is_left:
                self._has_left = True
            else:
                self._meet(row, life)
        elif (recorded := self._ledger.unfiled.get(row.key)) is not None:
            self._pass_over(recorded, is_repeated=is_repeated)
        elif done is not None and again is None:
            self._pass_over(done, is_repeated=is_repeated)
        elif is_left:
            self._has_left = True
        elif self._twins is not None and self._twins.is_waiting(row.key):
            self.fed.duplicates += 1
        else:
            self.fed.taken += 1
            prepared = self._preparer.prepare(row)
            if not isinstance(prepared, Invalid):
                return prepared
            self._taker.settle_invalid(prepared, again)
        return None

    def _meet(self, row: Row, life: Life) -> None:
        if life.request is not None:
            self.fed.duplicates += 1
            return
        self.fed.taken += 1
        prepared = self._preparer.prepare(row)
        if isinstance(prepared, Life):
            self._taker.meet(prepared)
        else:
            self._taker.refuse(prepared)

    def _pass_over_all(self, passed: Passed) -> None:
        """As `_pass_over` of each."""
        known = self._ledger.unfiled.get
        again = self._taken_again.intersection(passed.incomplete)
        self._taken_again -= again
        incomplete = [key for key in passed.incomplete if key not in again]
        ended = sum((now := known(key)) is None or now.status != "completed" for key in incomplete)
        self.fed.rows += passed.rows
        self.fed.taken += len(again)
        self.fed.duplicates += passed.repeated
        self.fed.completed_before += passed.rows - len(again) - passed.repeated - ended
        self.fed.ended_before += ended
        self.fed.has_incomplete = self.fed.has_incomplete or ended > 0
        if not self._has_ids:
            self._comparison.pass_over(passed.first, passed.rows)

    def _pass_over(self, done: Done, *, is_repeated: bool) -> None:
        """A row that ended: the row itself, wherever it stands now, or a duplicate of it."""
        is_complete = done.status == "completed"
        self.fed.has_incomplete = self.fed.has_incomplete or not is_complete
        if is_repeated:
            self.fed.duplicates += 1
        elif is_complete:
            self.fed.completed_before += 1
        else:
            self.fed.ended_before += 1
