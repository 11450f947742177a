"""Objects in stores, through fsspec (an extra), below the prefixes that `media.root` lists and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

from batchfox.closed_door import ClosedDoorError
from batchfox.core.complaint import show
from batchfox.core.store_path import refusal_of, store_of
from batchfox.errors import UserError

_DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "oci": "ocifs"}


class Stores:
    """The prefixes. Threads may share it."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        """Raises `UserError` where the package that reads one of them is missing."""
        self._prefixes = list(prefixes)
        for prefix in prefixes:
            _demand_driver(prefix)

    def size_of(self, path: str) -> int:
        """Bytes of an object. Raises `ClosedDoorError`, `UserError` where a package is missing."""
        size = self._ask(path, lambda system: system.info(path)).get("size")
        if not isinstance(size, int):
            raise ClosedDoorError(f"{show(path)}, whose size the store does not tell", "an object with a size")
        return size

    def open(self, path: str) -> IO[bytes]:
        """An object, read a block at a time. Raises as `size_of` does."""
        opened: IO[bytes] = self._ask(path, lambda system: system.open(path, "rb"))
        return opened

    def _ask(self, path: str, question: Any) -> Any:
        if (reason := refusal_of(path, self._prefixes)) is not None:
            raise ClosedDoorError(
                f"{show(path)}, {reason}", f"objects below the prefixes in media.root = {self._prefixes or 'none'}"
            )
        try:
            import fsspec

            return question(fsspec.filesystem(store_of(path)))
        except Exception as error:  # each store raises errors of its own
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise ClosedDoorError(
                f"{show(path)}, which cannot be read ({type(error).__name__}: {why})", "an object that can be read"
            ) from error


def _demand_driver(prefix: str) -> None:
    protocol = store_of(prefix) or ""
    try:
        import fsspec

        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        driver = _DRIVERS.get(protocol, f"fsspec's package for {protocol}")
        raise UserError(
            f"media.root: {prefix} cannot be read: {error}; install what reads it: "
            f"pip install 'batchfox[stores]' {driver}"
        ) from error
