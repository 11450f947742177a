"""Fetches media from the web for rows whose URL the API could not fetch, and goes nowhere that a row may not lead.

Every address is asked about when its socket is made, so names that change their answer, literals of any form and
redirects are all caught at one place (aiohttp asks no resolver about IP literals). Proxies of the environment are not
used, the API's key is not known here, redirects are followed one by one.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any, Self

import aiohttp
import msgspec
from yarl import URL

from batchfox.closed_door import ClosedDoorError
from batchfox.core.addresses import Allowed
from batchfox.core.complaint import show
from batchfox.core.mime import HEAD_BYTES
from batchfox.roots import MOST_FILE_BYTES
from batchfox.version import __version__

CONNECT_S = 10.0
READ_S = 30.0
TOTAL_S = 300.0
PROBE_S = 30.0
MOST_REDIRECTS = 5
MOST_TRIES = 4
MOST_AT_ONCE = 2
_PAUSE_S = 0.5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CLOSED = "is no public address; media.allow_private opens networks"


class _BrokenOffError(Exception):
    """A fetch that may be taken up where it broke off."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The beginning of a medium, and its size in bytes where the server tells it."""

    head: bytes
    size: int | None


class Fetcher:
    """Use as an async context manager. `most_bytes`: of one medium."""

    def __init__(
        self,
        allowed: Allowed,
        *,
        most_bytes: int = MOST_FILE_BYTES,
        total_s: float = TOTAL_S,
        most_at_once: int = MOST_AT_ONCE,
    ) -> None:
        self._allowed = allowed
        self._most_bytes = most_bytes
        self._total_s = total_s
        self._turns = asyncio.Semaphore(most_at_once)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(socket_factory=self._make_socket, use_dns_cache=False, force_close=True)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"batchfox/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S),
            trust_env=False,
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    def _make_socket(self, address: Any) -> socket.socket:
        """The socket for an address that is about to be connected to; or none. Raises OSError."""
        family, kind, protocol, _, where = address
        if not self._allowed.permits(str(where[0])):
            raise OSError(errno.EACCES, f"{where[0]} {_CLOSED}")
        return socket.socket(family=family, type=kind, proto=protocol)

    async def fetch(self, url: str) -> bytes:
        """The bytes at a URL. Raises `ClosedDoorError`, which says why there are none."""
        content = bytearray()
        try:
            async with self._turns, asyncio.timeout(self._total_s):
                await self._fetch(url, content)
        except TimeoutError:
            raise _closed(url, f"took more than {self._total_s:g} s") from None
        return bytes(content)

    async def probe(self, url: str) -> Probe:
        """The beginning of what is at a URL, by a ranged GET: links that are signed for GET refuse HEAD. Raises
        `ClosedDoorError`."""
        try:
            async with self._turns, asyncio.timeout(PROBE_S):
                return await self._probe(url)
        except TimeoutError:
            raise _closed(url, "gave no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _closed(url, _say(error)) from error

    async def _probe(self, url: str) -> Probe:
        assert self._session is not None, "use Fetcher as an async context manager"
        place = _demand_web(URL(url), url)
        for _ in range(MOST_REDIRECTS + 1):
            headers = {"Range": f"bytes=0-{HEAD_BYTES - 1}"}
            async with self._session.get(place, headers=headers, allow_redirects=False) as reply:
                if reply.status in _REDIRECTS:
                    place = _demand_web(place.join(URL(reply.headers.get("Location", ""))), url)
                    continue
                if reply.status not in (200, 206):
                    raise _closed(url, f"HTTP {reply.status}")
                head = b""
                while len(head) < HEAD_BYTES and (block := await reply.content.read(HEAD_BYTES - len(head))):
                    head += block
                total = reply.headers.get("Content-Range", "").rpartition("/")[2]
                size = int(total) if total.isdecimal() else reply.content_length if reply.status == 200 else None
                return Probe(head=head, size=size)
        raise _closed(url, f"redirects more than {MOST_REDIRECTS} times")

    async def _fetch(self, url: str, content: bytearray) -> None:
        for attempt in range(1, MOST_TRIES + 1):
            try:
                await self._follow(url, content)
                return
            except (_BrokenOffError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                if _CLOSED in str(error) or isinstance(error, ValueError) or attempt == MOST_TRIES:
                    raise _closed(url, _say(error)) from error
            await asyncio.sleep(_PAUSE_S * 2 ** (attempt - 1))

    async def _follow(self, url: str, content: bytearray) -> None:
        """One try, redirects included; goes on behind what `content` holds already."""
        assert self._session is not None, "use Fetcher as an async context manager"
        place = _demand_web(URL(url), url)
        for _ in range(MOST_REDIRECTS + 1):
            headers = {"Range": f"bytes={len(content)}-"} if content else {}
            async with self._session.get(place, headers=headers, allow_redirects=False) as reply:
                if reply.status not in _REDIRECTS:
                    await self._read(url, reply, content)
                    return
                place = _demand_web(place.join(URL(reply.headers.get("Location", ""))), url)
        raise _closed(url, f"redirects more than {MOST_REDIRECTS} times")

    async def _read(self, url: str, reply: aiohttp.ClientResponse, content: bytearray) -> None:
        if reply.status == 429 or reply.status >= 500:
            raise _BrokenOffError(f"HTTP {reply.status}")
        goes_on = f"bytes {len(content)}-"
        if reply.status != 206 or not content or not reply.headers.get("Content-Range", "").startswith(goes_on):
            content.clear()
            if reply.status == 206:
                raise _BrokenOffError("another part than the one that was asked for")
        if reply.status not in (200, 206):
            raise _closed(url, f"HTTP {reply.status}")
        if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _closed(url, "is sent compressed, although that was not asked for")
        if len(content) + (reply.content_length or 0) > self._most_bytes:
            raise self._too_large(url)
        async for block in reply.content.iter_any():
            content += block
            if len(content) > self._most_bytes:
                raise self._too_large(url)

    def _too_large(self, url: str) -> ClosedDoorError:
        return _closed(url, f"has more than {self._most_bytes / 1e6:g} MB")


def _demand_web(place: URL, url: str) -> URL:
    if place.scheme not in ("http", "https") or not place.host:
        raise _closed(url, "leads to something that is no http(s) URL")
    return place


def _say(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "gave no answer in time"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _closed(url: str, why: str) -> ClosedDoorError:
    return ClosedDoorError(f"{show(url)}, which cannot be fetched here either ({why})", "a URL that can be fetched")
