"""An upload's reply: its URL, or why there is none in the words of a row's events. An upload is free.

Source: api.md, "Around it". The same statuses mean the same as for a submit; what leaves a submit in doubt only means
here that the upload is tried again.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from batchfox.core import verdict
from batchfox.core.event import ApiError, Deferred, Halted, NotSent, Unsendable
from batchfox.core.retry_after import retry_after_s
from batchfox.core.wire import Reply, read_error

UPLOAD_PATH = "/v1/files/upload/stream"
_decode = msgspec.json.Decoder().decode


def read_upload(reply: Reply, size: int, now_unix_s: float) -> str | NotSent:
    """The URL under which the file of `size` bytes is kept; or why it is not."""
    if 200 <= reply.status < 300:
        return _read_kept(reply, size)
    error = read_error(reply)
    match verdict.of_submit(reply.status, error, reply.body):
        case "key" | "balance" | "gateway" as cause:
            return Halted(cause=cause, error=error, http_status=reply.status, was_posted=False)
        case "refused":
            said = f"the upload was refused (HTTP {reply.status}): {error.message}"
            return Unsendable(error=ApiError(code="upload_refused", type=error.type, message=said))
        case "rate":
            wait_s = retry_after_s(reply.retry_after, now_unix_s)
            return _put_off(f"HTTP {reply.status}: {error.message}", reply.status, scope="rate", wait_s=wait_s)
        case _:
            return _put_off(f"HTTP {reply.status}: {error.message}", reply.status)


def failed_upload(why: str) -> Deferred:
    """An upload that got no readable reply: it is tried again."""
    return _put_off(why, None)


def _put_off(why: str, status: int | None, *, scope: Any = "row", wait_s: float | None = None) -> Deferred:
    said = ApiError(code="upload_failed", type="upload", message=f"the upload failed: {why}")
    return Deferred(error=said, scope=scope, http_status=status, retry_after_s=wait_s, was_posted=False)


def _read_kept(reply: Reply, size: int) -> str | NotSent:
    try:
        kept = _decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        kept = None
    url = kept.get("url") if isinstance(kept, dict) else None
    if not isinstance(url, str) or not _is_web(url):
        return failed_upload(f"HTTP {reply.status} without the file's URL")
    arrived = kept.get("size")
    if isinstance(arrived, int) and not isinstance(arrived, bool) and arrived != size:
        return failed_upload(f"{arrived:,} of {size:,} bytes arrived")
    return url


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
