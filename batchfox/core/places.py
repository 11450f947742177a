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

    def __contains__(self, at: int) -> bool:
        return at >> 3 < len(self._bits) and bool(self._bits[at >> 3] & (1 << (at & 7)))
