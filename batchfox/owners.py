"""Whose a path is, for who may not touch it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def say_owner(path: str | Path, before: str = "") -> str:
    """Such as "it belongs to root, and this is alice", behind `before`, where the path, or the nearest folder above
    it that can be looked at, is another user's; else ""."""
    try:
        place, me = Path(path).absolute(), os.geteuid()
    except OSError:  # the working directory is gone
        return ""
    for there in (place, *place.parents):
        try:
            owner = there.lstat().st_uid
        except OSError:
            continue
        if owner == me:
            return ""
        which = "it" if there == place else str(there)
        return f"{before}{which} belongs to {_name(owner)}, and this is {_name(me)}"
    return ""


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
