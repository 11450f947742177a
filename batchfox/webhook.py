"""One POST of JSON to an address of the user's."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from typing import IO, Any

from batchfox.version import __version__

TRY_S = 10.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer, not an order: what is posted goes to the address that was named."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def post(url: str, body: bytes) -> str | None:
    """What went wrong, without the address; None where nothing did."""
    headers = {"Content-Type": "application/json", "User-Agent": f"batchfox/{__version__}"}
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TRY_S) as reply:
            reply.read(1)
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, HTTPException, ValueError) as error:
        return type(error).__name__
    return None
