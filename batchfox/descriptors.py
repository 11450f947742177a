"""How many files and connections this process may have open at once."""

from __future__ import annotations

import contextlib
import resource

MOST_DESCRIPTORS = 512  # 256 submits, 100 polls, and what is open besides


def raise_descriptor_limit() -> None:
    """For this process, as far as the machine lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
