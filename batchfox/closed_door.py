"""Why a medium cannot be sent, in the two halves of a complaint."""

from __future__ import annotations


class ClosedDoorError(Exception):
    """A medium that cannot be sent: what was found, what is allowed."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(found)
        self.found = found
        self.allowed = allowed
