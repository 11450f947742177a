"""Seconds and bytes, as a job file spells them."""

from __future__ import annotations

import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_DURATION_ITEM = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_UNITS_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMG]?B)?", re.IGNORECASE)


class Duration(float):
    """Seconds. Written as a number of seconds, or as text: "90s", "15m", "6h", "1h30m", "1d"."""

    def __new__(cls, value: float | str) -> Duration:
        if isinstance(value, str):
            text = value.replace(" ", "")
            if not _DURATION.fullmatch(text):
                raise ValueError(f'expected a duration such as "90s", "15m" or "6h", got "{value}"')
            value = sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_ITEM.findall(text))
        return super().__new__(cls, value)


class Size(int):
    """Bytes. Written as a number of bytes, or as text: "64MB", "1.5GB"."""

    def __new__(cls, value: float | str) -> Size:
        if isinstance(value, str):
            found = _SIZE.fullmatch(value.replace(" ", ""))
            if found is None:
                raise ValueError(f'expected bytes or a size such as "256MB" or "1GB", got "{value}"')
            value = float(found[1]) * _UNITS_BYTES[(found[2] or "").upper()]
        return super().__new__(cls, value)
