"""How many files and connections this process may have open at once."""

from __future__ import annotations

import contextlib
import resource

MOST_DESCRIPTORS = 512  # 256 submits, 100 polls, and what is open besides
BESIDE = 64  # checkpoint, log, parts, input
LEAST_CONNECTIONS = 16


def raise_descriptor_limit(streams: int = 0) -> None:
    """For this process, as far as the machine lets it. `streams`: connections that may be open besides."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS + 2 * streams  # both ends of each, where the simulator is embedded
    wanted = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def room_for_connections(wanted: int, *, beside: int) -> int:
    """How many of these connections may be open at once, as the limit of this process stands, `beside` that many."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(min(wanted, soft - beside - BESIDE), LEAST_CONNECTIONS)
