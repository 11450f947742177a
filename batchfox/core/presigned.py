"""When a presigned link ends, as its query says: S3 and Google (version 4 and 2), Azure, CloudFront."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit


def expires_at(url: str) -> float | None:
    """Unix seconds; None where the link says nothing of an end."""
    try:
        said = {name.lower(): values[-1] for name, values in parse_qs(urlsplit(url).query).items()}
        for maker in ("amz", "goog"):
            if (start := said.get(f"x-{maker}-date")) and (life := said.get(f"x-{maker}-expires")):
                begun = datetime.strptime(start, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return (begun + timedelta(seconds=int(life))).timestamp()
        if "sig" in said and (end := said.get("se")):
            moment = datetime.fromisoformat(end)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if "signature" in said and (end := said.get("expires")):
            return float(int(end))
    except (ValueError, OverflowError):
        pass
    return None
