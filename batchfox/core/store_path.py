"""Paths of object stores (`s3://bucket/key`): which there are, and whether one lies below a prefix of `media.root`.

A key is taken literally, so nothing is decoded or resolved: a step that some store might resolve is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# The protocols of fsspec that name an object in a store and nothing on this machine or in its network.
STORES = frozenset({"s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "memory"})
_PATH = re.compile(r"([a-z][a-z0-9]*)://(.*)", re.DOTALL)


def store_of(path: str) -> str | None:
    """The protocol of an object's path; None where it is none, or a chain (`zip://a::s3://b`)."""
    found = _PATH.fullmatch(path)
    return found[1] if found and found[1] in STORES else None


def refusal_of(path: str, prefixes: Iterable[str]) -> str | None:
    """Why the object at `path` may not be opened; None where it may."""
    if "::" in path:
        return "a chain of file systems"
    protocol = store_of(path)
    if protocol is None:
        return "no path of a known object store"
    steps = path[len(protocol) + 3 :].split("/")
    if any(step in ("", ".", "..") for step in steps) or any(sign in path for sign in "\0?#*[]{}\\"):
        return "a path with steps or signs that a store may take for something else"
    if not any(path.startswith(prefix.rstrip("/") + "/") for prefix in prefixes):
        return "which lies outside"
    return None
