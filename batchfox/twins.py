"""`[input] dedupe`: rows with the same request are sent once, and the answer is written to each.

The first row with a request is sent. Those that come while it is on its way wait for it here, a bounded number of them;
those that come later get its answer from the checkpoint or from its part. Where that cannot be had, the row is sent. A
row that an earlier execution left on its way is waited for by none: it may be another row by now, or gone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import msgspec

from batchfox.checkpoint import Again, Checkpoint
from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import Complaint
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import Outcome
from batchfox.core.settle import Orders
from batchfox.core.shape import media_of, replace_media
from batchfox.core.twins import COLUMNS, copy_outcome, outcome_of_row
from batchfox.group import decode_outcome
from batchfox.media import MediaDoor
from batchfox.part_names import part_name
from batchfox.twin_table import CREATE

# Rows that wait for another's answer, at most, and the bytes of their requests.
MOST_WAITING = 1_000
MOST_WAITING_BYTES = 64 << 20
# Answers kept at hand.
MOST_KEPT_BYTES = 16 << 20
_UNFILED = "SELECT slot, outcome FROM row WHERE state = 3"
_encode = msgspec.json.Encoder(order="sorted").encode


class Book(Protocol):
    """Where copies are recorded. `saved`: credits that it would have cost to send the row."""

    def record_copy(self, life: Life, again: Again | None, outcome: Outcome, saved: float) -> None: ...


class _Leader:
    """A row that is on its way, and those that wait for it."""

    def __init__(self, row_id: str) -> None:
        self.row_id = row_id
        self.followers: list[tuple[Life, Again | None]] = []


class Twins:
    """Those of one execution. Belongs to the loop; what takes long is done in `thread`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        door: MediaDoor,
        data: Path,
        thread: Executor,
        orders: Orders,
        unix: Callable[[], float],
        most_unfiled: int,
    ) -> None:
        """`checkpoint`: a connection of its own."""
        with checkpoint.transaction() as db:
            db.execute(CREATE)
        self._checkpoint = checkpoint
        self._door = door
        self._data = data
        self._thread = thread
        self._orders = orders
        self._unix = unix
        self._most_unfiled = most_unfiled
        self._leaders: dict[bytes, _Leader] = {}
        self._slots: OrderedDict[bytes, int] = OrderedDict()
        self._kept: OrderedDict[bytes, Outcome] = OrderedDict()
        self._kept_bytes = 0
        self._waiting: set[bytes] = set()
        self._waiting_bytes = 0
        self._book: Book | None = None
        self._room: asyncio.Event | None = None
        for slot, payload in checkpoint.stream(_UNFILED):
            outcome = decode_outcome(payload)
            if outcome.twin is not None and outcome.status == "completed":
                self._slots[outcome.twin] = slot

    def begin(self, book: Book, room: asyncio.Event) -> None:
        """`room` is set when rows stop waiting."""
        self._book, self._room = book, room

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= MOST_WAITING or self._waiting_bytes >= MOST_WAITING_BYTES

    def is_waiting(self, key: bytes) -> bool:
        return key in self._waiting

    async def take(self, life: Life, again: Again | None, recorded: Callable[[], Any]) -> bool:
        """Answers a row that is ready to be sent, or has it wait for another's answer; False: it is to be sent itself.
        `recorded`: waits until what has ended is in the checkpoint."""
        digest = await self._digest(life)
        if digest is None:
            return False
        leader = self._leaders.get(digest)
        if leader is not None:
            leader.followers.append((life, again))
            self._waiting.add(life.key)
            self._waiting_bytes += life.size
            return True
        found = await self._find(digest, recorded)
        if found is not None:
            self._copy(found, life, again)
            return True
        life.twin = digest
        self._leaders[digest] = _Leader(life.id)
        return False

    def settled(self, life: Life, outcome: Outcome) -> None:
        """A row ended: those that waited for it get what it got."""
        digest = outcome.twin
        if digest is None:
            return
        leader = self._leaders.get(digest)
        is_completed = outcome.status == "completed"
        if is_completed:
            self._keep(digest, outcome)
            self._slots[digest] = life.slot
            if len(self._slots) > self._most_unfiled:
                self._slots.popitem(last=False)
        if leader is None or not (is_completed or leader.row_id == outcome.row_id):
            return
        del self._leaders[digest]
        for follower, again in leader.followers:
            self._waiting.discard(follower.key)
            self._waiting_bytes -= follower.size
            self._copy(outcome, follower, again)
        if leader.followers and self._room is not None:
            self._room.set()

    def _copy(self, of: Outcome, life: Life, again: Again | None) -> None:
        assert self._book is not None
        if again is not None:
            life.submits, life.maybe_billed_twice = again.submits, again.maybe_billed_twice
        self._book.record_copy(life, again, copy_outcome(of, life, self._orders, self._unix()), of.credits or 0.0)

    # Which requests are the same.

    async def _digest(self, life: Life) -> bytes | None:
        """Of the request, its media by their bytes, those at a URL by that; None where they cannot be read."""
        request = life.request
        assert request is not None
        if not has_own_media(request):
            return hash_of(life)
        return await asyncio.get_running_loop().run_in_executor(self._thread, digest_of_content, self._door, request)

    # What was answered.

    async def _find(self, digest: bytes, recorded: Callable[[], Any]) -> Outcome | None:
        kept = self._kept.get(digest)
        if kept is not None:
            self._kept.move_to_end(digest)
            return kept
        if digest in self._slots:
            await recorded()
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, self._read, digest, self._slots.get(digest))
        if found is not None:
            self._keep(digest, found)
        return found

    def _keep(self, digest: bytes, outcome: Outcome) -> None:
        if (old := self._kept.pop(digest, None)) is not None:
            self._kept_bytes -= _weight(old)
        self._kept[digest] = outcome
        self._kept_bytes += _weight(outcome)
        while self._kept_bytes > MOST_KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= _weight(oldest)

    def _read(self, digest: bytes, slot: int | None) -> Outcome | None:
        """In the thread: from the checkpoint where it is not filed yet, else from its part."""
        if slot is not None:
            for (payload,) in self._checkpoint.query("SELECT outcome FROM row WHERE slot = ? AND state = 3", (slot,)):
                found = decode_outcome(payload)
                if found.twin == digest:
                    return found
        for part, row_index, short in self._checkpoint.query(
            "SELECT part, row_index, hash FROM twin WHERE digest = ?", (digest,)
        ):
            return read_answer(self._data / part_name(part), row_index, short)
        return None


def has_own_media(request: dict[str, Any]) -> bool:
    """Are media in it that do not lie at a URL, so that their bytes tell it from others?"""
    return not all(_is_remote(medium.value) for medium in media_of(request))


def hash_of(life: Life) -> bytes | None:
    """Of a request whose media, if it has any, all lie at URLs."""
    return None if life.request_hash is None else bytes.fromhex(life.request_hash)


def digest_of_content(door: MediaDoor, request: dict[str, Any]) -> bytes | None:
    """What tells a request with media that are here from another. Reads files; None where they cannot be read."""
    parcels = door.look(request)
    if isinstance(parcels, Complaint):
        return None
    try:
        new = {
            parcel.place: f"content:{parcel.mime}:{door.digest(parcel).hex()}"
            for parcel in parcels
            if parcel.origin != "remote"
        }
    except ClosedDoorError:
        return None
    return blake2b(_encode(replace_media(request, new)), digest_size=16, person=b"twin").digest()


def read_answer(path: Path, row_index: int, short: bytes) -> Outcome | None:
    """The answer of the row at this position whose request's hash begins so; None where it is not in the part (any
    more), or is no answer."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                places = file.read_row_group(group, columns=["row_index"])["row_index"]
                at = pc.index(places, row_index).as_py()
                if at < 0:
                    continue
                row = file.read_row_group(group, columns=list(COLUMNS)).slice(at, 1).to_pylist()[0]
                is_same = row["request_hash"] is not None and bytes.fromhex(row["request_hash"])[: len(short)] == short
                return outcome_of_row(row) if is_same and row["status"] == "completed" else None
    except (OSError, pa.ArrowException):
        return None
    return None


def _is_remote(value: Any) -> bool:
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))


def _weight(outcome: Outcome) -> int:
    return 500 + (2 * len(outcome.answer.completion) if outcome.answer is not None else 0)
