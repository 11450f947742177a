"""What the header `Retry-After` asks for, and when a header of HTTP says it is. Source: RFC 9110, 10.2.3 and 5.6.7."""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime

_MOST_WAIT_S = 3600.0


def retry_after_s(header: str | None, now_unix_s: float) -> float | None:
    """Seconds that `Retry-After` asks for: a number of seconds or an HTTP date; None where it says nothing sane.

    Never negative, and never more than an hour: a wrong clock at the other end must not park the run for a day.
    """
    if header is None:
        return None
    try:
        wait_s = float(header.strip())
    except ValueError:
        moment = moment_of(header)
        if moment is None:
            return None
        wait_s = moment - now_unix_s
    return min(max(wait_s, 0.0), _MOST_WAIT_S) if math.isfinite(wait_s) else None


def moment_of(header: str | None) -> float | None:
    """An HTTP date as unix seconds; None where it is none."""
    try:
        moment = parsedate_to_datetime((header or "").strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
