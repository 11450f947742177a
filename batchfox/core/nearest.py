"""Suggestions for a name that was misspelt."""

from __future__ import annotations

import difflib
from typing import Any


def nearest(name: str, known: Any, *, before: str = "") -> str:
    """A suggestion to append to an error: ` (did you mean "x"?)`, or nothing. `before`: what stands before the name and
    says nothing of it, as the folder of a file does."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{before}{close[0]}"?)' if close else ""
