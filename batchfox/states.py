"""Where the user's programs remember things: the state folder."""

from __future__ import annotations

import os
from pathlib import Path

from batchfox.errors import UserError


def state_folder() -> Path:
    """batchfox's part of it. Raises `UserError` where there is none."""
    if (named := os.environ.get("XDG_STATE_HOME", "")).startswith("/"):
        return Path(named) / "batchfox"
    try:
        return Path.home() / ".local" / "state" / "batchfox"
    except RuntimeError as error:
        raise UserError("no home folder to remember runs in: set XDG_STATE_HOME to a folder that lasts") from error
