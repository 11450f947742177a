"""Python's garbage collector, kept from looking at what cannot be garbage."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


def settle_heap() -> None:
    """What is loaded by now stays: the collector need not look at it again and again while rows pass through. Rows hold
    no circles, so they need no collector to go. A run that finds nothing to do is spared it."""
    import pyarrow  # noqa: F401 - loaded now, so that it is part of what stays

    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def quiet_heap() -> Iterator[None]:
    """The collector looks rarely; it is left as it was found."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
