"""The rows of this run on their way into the checkpoint: what is recorded of each, and what is not filed yet.

The loop's side of the recorder: it is told what became of a row and puts it into the group that is synced next.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import msgspec

from batchfox.checkpoint import NO_PART, Again
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import Outcome
from batchfox.core.prepare import Invalid, hide_in_error, outcome_of
from batchfox.core.secret import NO_SECRET, Secret
from batchfox.core.settle import Orders
from batchfox.finished import Done
from batchfox.kept import encode_columns
from batchfox.recorder import Recorder

BYTES_PER_PART = 64 << 20
PART_AGE_S = 15 * 60.0
# So many rows at a time, or half a part, are written to the open part before it closes.
ROWS_AHEAD = 1_000
_SMALL_ROW = 400


class Tally(msgspec.Struct):
    """What this execution settled. `taken_back`: what it settled once and then gave fresh attempts. `copies`: rows that
    got another row's outcome; `saved_credits`: what that cost."""

    by_status: Counter[str] = msgspec.field(default_factory=Counter)
    taken_back: Counter[str] = msgspec.field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    twice: int = 0
    copies: int = 0
    saved_credits: float = 0.0

    def see(self, outcome: Outcome, *, is_copy: bool = False) -> None:
        self.by_status[outcome.status] += 1
        if is_copy:
            return
        self.twice += outcome.maybe_billed_twice
        if outcome.answer is not None:
            self.prompt_tokens += outcome.answer.prompt_tokens or 0
            self.completion_tokens += outcome.answer.completion_tokens or 0


class Unfiled:
    """Keys whose outcome is recorded and not yet filed, so that a later row with the same id is known."""

    def __init__(self, known: dict[bytes, Done], rows_per_part: int, now: float) -> None:
        self._done = known
        self._rows_per_part = rows_per_part
        self._group = min(ROWS_AHEAD, max(rows_per_part // 2, 1))
        self._sizes: dict[bytes, int] = {}
        # Slots of those that are not written to the open part yet, and how many are.
        self._slots: dict[bytes, int] = {}
        self._written = 0
        self._bytes = 0
        self._filed: list[bytes] = []
        self.first_at: float | None = now if known else None

    def __bool__(self) -> bool:
        return len(self._done) > len(self._filed)

    def get(self, key: bytes) -> Done | None:
        return self._done.get(key)

    def add(self, key: bytes, done: Done, size: int, now: float, *, slot: int) -> None:
        self._done[key] = done
        self._sizes[key] = size
        self._slots[key] = slot
        self._bytes += size
        if self.first_at is None:
            self.first_at = now

    def waits(self, key: bytes) -> bool:
        """Is there an outcome that is not in a part?"""
        return key in self._done and key not in self._filed

    def is_full(self) -> bool:
        """Does the next part close now, by its rows or its bytes?"""
        return len(self._done) - len(self._filed) >= self._rows_per_part or self._bytes >= BYTES_PER_PART

    def has_group(self) -> bool:
        """Are there rows enough to write them ahead, and room for them in the open part?"""
        return len(self._slots) >= self._group and self._written + self._group <= self._rows_per_part

    def take_group(self) -> list[int]:
        """The slots of the oldest rows that are not written yet; they count as written now."""
        keys = list(itertools.islice(self._slots, self._group))
        self._written += len(keys)
        return [self._slots.pop(key) for key in keys]

    def closes_at(self) -> float | None:
        """When the next part closes by age."""
        return None if self.first_at is None else self.first_at + PART_AGE_S

    def filed(self, keys: list[bytes], now: float) -> None:
        """These are in a part now. They stay known here until `forget_filed`."""
        self._filed += keys
        self._bytes -= sum(self._sizes.pop(key, 0) for key in keys)
        for key in keys:
            self._slots.pop(key, None)
        self._written = 0
        self.first_at = now if self else None

    def drop(self, key: bytes) -> None:
        """A filed row is to have another outcome."""
        if self._done.pop(key, None) is not None:
            self._filed = [filed for filed in self._filed if filed != key]

    def forget_filed(self) -> None:
        """No row waits whose key was looked up among the finished ones: keys filed until now will be found there."""
        for key in self._filed:
            self._done.pop(key, None)
        self._filed.clear()


class Ledger:
    """What this run knows of its rows' records."""

    def __init__(
        self,
        recorder: Recorder,
        orders: Orders,
        *,
        unfiled: Unfiled,
        first_slot: int,
        unix: Callable[[], float],
        now: Callable[[], float],
        settled: Callable[[Outcome], None],
        secret: Secret = NO_SECRET,
    ) -> None:
        """`secret`: what rows hold of it by mistake is not recorded."""
        self._recorder = recorder
        self._orders = orders
        self.unfiled = unfiled
        self._slots = itertools.count(first_slot)
        self._old_parts: dict[bytes, int | None] = {}
        # Bytes of the carried columns, by slot, of rows that have no outcome yet.
        self._column_bytes: dict[int, int] = {}
        self._unix = unix
        self._now = now
        self._on_settled = settled
        # Told of each row that ends, where others may get its answer.
        self.shared: Callable[[Life, Outcome], None] | None = None
        self._secret = secret
        self.tally = Tally()

    async def recorded(self) -> None:
        """Returns when all that was told until now is in the checkpoint."""
        await self._recorder.durable()

    def note_block(self, block: int, rows: int, digest: bytes) -> None:
        """How far an input without ids is read, and the digest of the block up to there."""
        self._recorder.group.blocks[block] = (rows, digest)

    def note_retry(self, life: Life, again: Again) -> None:
        """A finished row gets fresh attempts: what was paid before counts on."""
        life.submits, life.unresolved = again.submits, again.unresolved
        life.maybe_billed_twice = again.maybe_billed_twice
        self._old_parts[life.key] = None if again.part == NO_PART else again.part

    def take_back(self, key: bytes, status: str | None) -> None:
        """A filed row is to have another outcome. `status`: what it was, where this execution had settled it."""
        self.unfiled.drop(key)
        if status is not None:
            self.tally.by_status[status] -= 1
            self.tally.taken_back[status] += 1

    def note_known(self, life: Life, old_part: int | None) -> None:
        """A row from the checkpoint, which will replace an outcome in `old_part`, where that is not None."""
        if life.slot:
            self._column_bytes[life.slot] = len(encode_columns(life.kept))
        if old_part is not None:
            self._old_parts[life.key] = old_part

    def record(self, life: Life) -> None:
        """Where the row stands now. An intent is on disk only once `recorder.durable` has returned."""
        group = self._recorder.group
        if life.slot:
            group.add_record(life)
            self._renew_columns(life)
        else:
            life.slot = next(self._slots)
            columns = self._columns_of(life)
            self._column_bytes[life.slot] = len(columns)
            group.add_row(life, columns, self._old_parts.pop(life.key, None))
        self._recorder.touch()

    def record_copy(self, life: Life, again: Again | None, outcome: Outcome, saved: float) -> None:
        """A row that got what another got. What that used was counted there. `saved`: credits that it would have cost
        to send it."""
        if again is not None:
            self.note_retry(life, again)
        self.tally.copies += 1
        self.tally.saved_credits += saved
        self.record_outcome(life, outcome, is_copy=True)

    def record_outcome(self, life: Life, outcome: Outcome, *, is_copy: bool = False) -> None:
        """How the row ended."""
        if outcome.error is not None:
            outcome = msgspec.structs.replace(outcome, error=hide_in_error(self._secret, outcome.error))
        size = _SMALL_ROW
        if life.slot:
            size += self._recorder.group.add_outcome(life.slot, outcome)
            self._renew_columns(life)
            size += self._column_bytes.pop(life.slot, 0)
        else:
            life.slot = next(self._slots)
            columns = self._columns_of(life)
            size += len(columns)
            self._recorder.group.add_row(life, columns, self._old_parts.pop(life.key, None), outcome)
        self._recorder.touch()
        done = Done(status=outcome.status, row_index=outcome.row_index)
        self.unfiled.add(life.key, done, size, self._now(), slot=life.slot)
        self.tally.see(outcome, is_copy=is_copy)
        self._on_settled(outcome)
        if self.shared is not None:
            self.shared(life, outcome)

    def record_invalid(self, invalid: Invalid, again: Again | None) -> None:
        """A row that is never sent."""
        row = invalid.row
        life = Life(key=row.key, index=row.index, id=row.id, kept=invalid.kept)
        if again is not None:
            self.note_retry(life, again)
        orders = self._orders
        outcome = outcome_of(invalid, unix_s=self._unix(), run_id=orders.run_id, run_date=orders.run_date)
        self.record_outcome(life, outcome)

    def record_refused(self, life: Life, invalid: Invalid, outcome: Outcome | None) -> None:
        """A row that an earlier execution left, and that the input now shows as one that may not be sent. `outcome`:
        where something may have been paid for it."""
        life.kept, life.is_kept_new = invalid.kept, True
        if outcome is None:
            orders = self._orders
            outcome = outcome_of(invalid, unix_s=self._unix(), run_id=orders.run_id, run_date=orders.run_date)
        self.record_outcome(life, outcome)

    def _renew_columns(self, life: Life) -> None:
        if life.is_kept_new:
            life.is_kept_new = False
            columns = self._columns_of(life)
            self._recorder.group.add_columns(life.slot, columns)
            self._column_bytes[life.slot] = len(columns)

    def _columns_of(self, life: Life) -> bytes:
        """The columns that travel, encoded: from here on they are in files."""
        columns = encode_columns(life.kept)
        return encode_columns(self._secret.hide_in(life.kept)) if self._secret.is_in_bytes(columns) else columns

    def forget(self, life: Life) -> None:
        """The row left no trace: nothing was paid, and the input no longer has it."""
        self._column_bytes.pop(life.slot, None)
        self._recorder.group.forget(life.slot)
        self._recorder.touch()
