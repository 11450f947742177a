"""One heap of (due time, key): when each row is next to be looked at. Never a sleeping coroutine per row.

A row has at most one entry; `put` replaces, `drop` forgets. Replaced entries stay in the heap until they surface,
which keeps both O(log n) (the heap is rebuilt when most of it is stale).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush


class Agenda:
    """Keys by due time. Times are the caller's clock, in seconds."""

    __slots__ = ("_due", "_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, bytes]] = []
        self._due: dict[bytes, int] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: bytes) -> bool:
        return key in self._due

    def put(self, key: bytes, due: float) -> None:
        """Puts `key` at `due`, in place of where it stood."""
        self._serial += 1
        self._due[key] = self._serial
        heappush(self._heap, (due, self._serial, key))
        if len(self._heap) > 64 + 4 * len(self._due):
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[1]]
            heapify(self._heap)

    def drop(self, key: bytes) -> None:
        """Forgets `key`; nothing happens where it has no entry."""
        self._due.pop(key, None)

    def next_due(self) -> float | None:
        """When the earliest key is due, or None where there is none."""
        heap = self._heap
        while heap and self._due.get(heap[0][2]) != heap[0][1]:
            heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: float, most: int) -> list[bytes]:
        """Removes and returns at most `most` keys that are due at `now`, the earliest first."""
        taken: list[bytes] = []
        heap, due = self._heap, self._due
        while heap and len(taken) < most and heap[0][0] <= now:
            _, serial, key = heappop(heap)
            if due.get(key) == serial:
                del due[key]
                taken.append(key)
        return taken
