"""A set of positions in the input, at one bit each."""

from __future__ import annotations


class Places:
    """Positions from 0. Memory is that of the highest one: 125 kB a million rows."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, at: int) -> None:
        if at >> 3 >= len(self._bits):
            self._bits.extend(bytes((at >> 3) + 1 - len(self._bits) + (len(self._bits) >> 2)))
        self._bits[at >> 3] |= 1 << (at & 7)

    def add_run(self, first: int, number: int) -> None:
        """`number` positions from `first` on."""
        end = first + number
        whole, whole_end = -(-first // 8) * 8, end // 8 * 8
        if whole >= whole_end:
            whole = whole_end = end
        for at in (*range(first, whole), *range(whole_end, end)):
            self.add(at)
        if whole < whole_end:
            self.add(whole_end - 1)
            self._bits[whole >> 3 : whole_end >> 3] = b"\xff" * ((whole_end - whole) >> 3)

    def __contains__(self, at: int) -> bool:
        return at >> 3 < len(self._bits) and bool(self._bits[at >> 3] & (1 << (at & 7)))
