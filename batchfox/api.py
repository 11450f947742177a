"""The API over HTTP: aiohttp in, events out. The only import of the aiohttp client.

Nothing is retried here and no redirect is followed: what a reply means is `core/verdict.py`'s to say, and a submit
that is repeated behind the runner's back is paid twice.
"""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator, Mapping
from typing import IO, Any, Self

import aiohttp
import msgspec
from yarl import URL

from batchfox.core import wire
from batchfox.core.event import ApiError, Doubted, NotSent, PollEvent, SubmitEvent, Unheard, Unreached
from batchfox.core.secret import Secret
from batchfox.core.uploaded import UPLOAD_PATH, failed_upload, read_upload
from batchfox.deadlines import Deadlines
from batchfox.envelope import Envelope
from batchfox.errors import ApiGoneError
from batchfox.version import __version__

USER_AGENT = f"batchfox/{__version__}"
CONNECT_S = 20.0
SUBMIT_S = 120.0
POLL_S = 60.0
# A body on its way up gets this much longer for each of its bytes (100 kB/s).
PER_BYTE_S = 1e-5
# Idle connections are dropped before common servers drop them: a POST into a connection that the other side has just
# closed would be in doubt for nothing.
KEEPALIVE_S = 12.0
MOST_BODY = 256 << 20
# How long a request may take as a whole is `Deadlines`' business: aiohttp would set and cancel a timer for each.
CONNECTING = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)


class Api:
    """One session with one API. Use as an async context manager. The key goes to `base_url` and nowhere else; an empty
    one goes nowhere, which is enough for the price list."""

    def __init__(self, base_url: str, key: str, *, connections: int, sync_s: float = 3600.0) -> None:
        self._base = URL(base_url.rstrip("/") + "/")
        self._key = key
        self._secret = Secret(key)
        self._connections = connections
        self._submit_url = self._at(wire.SUBMIT_PATH)
        self._deadlines = Deadlines()
        self._sync_s = sync_s
        self._session: aiohttp.ClientSession | None = None

    def _at(self, path: str, query: str = "") -> URL:
        """The URL of a path, which is quoted already. Built from its parts: parsing a text for each request costs more
        than sending it."""
        base = self._base
        path = base.raw_path.rstrip("/") + path
        return URL.build(scheme=base.scheme, authority=base.raw_authority, path=path, query_string=query, encoded=True)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=self._connections, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=60, enable_cleanup_closed=False
        )
        authorization = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"} | authorization,
            trust_env=False,
            auto_decompress=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()
        self._deadlines.close()

    async def submit(self, body: bytes, *, is_sync: bool) -> SubmitEvent:
        """POSTs one request, once. Whatever happens, one event comes back, and it says whether money may be spent."""
        most_s = SUBMIT_S
        if is_sync or len(body) > 1 << 20:
            most_s = (self._sync_s if is_sync else SUBMIT_S) + len(body) * PER_BYTE_S
        try:
            reply = await self._ask("POST", self._submit_url, most_s, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Unreached(error=self._describe(error, "unreached"))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                return Unreached(error=self._describe(error, "unreached"))
            return Doubted(error=self._describe(error, "lost_reply"))
        return wire.read_submit(reply, time.time(), is_sync=is_sync)

    async def poll(self, task_id: str, *, sync_upstream: bool) -> PollEvent:
        """Asks about one task, once. A poll is free and safe to repeat."""
        url = self._at(wire.task_path(task_id), "sync_upstream=true" if sync_upstream else "")
        try:
            reply = await self._ask("GET", url, POLL_S)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Unheard(error=self._describe(error, "poll_unheard"))
        return wire.read_poll(reply, time.time())

    async def fetch(self, path: str) -> Any:
        """A free GET (models, prices): its JSON, or None where the API does not give it. Raises `ApiGoneError` where it
        gives nothing at all just now."""
        try:
            reply = await self._ask("GET", self._at(path), POLL_S)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiGoneError(self._describe(error, "unreached").message) from error
        if reply.status == 429 or reply.status >= 500:
            raise ApiGoneError(f"HTTP {reply.status}")
        try:
            return msgspec.json.decode(reply.body) if reply.status == 200 else None
        except (ValueError, RecursionError):
            return None

    async def upload(self, file: IO[bytes], *, size: int, name: str, mime: str) -> tuple[str | NotSent, bytes]:
        """Uploads a file of `size` bytes from where it stands, streamed: its URL, or why there is none; and BLAKE2b-128
        of the bytes that went out. An upload is free and safe to repeat."""
        envelope = Envelope(file, size=size, name=name, mime=mime)
        headers = {"Content-Type": envelope.content_type, "Content-Length": str(envelope.content_length)}
        try:
            with self._deadlines.within(SUBMIT_S + size * PER_BYTE_S):
                reply = await self._exchange("POST", self._at(UPLOAD_PATH), headers, envelope.blocks())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Unreached(error=self._describe(error, "unreached")), b""
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return failed_upload(self._describe(error, "upload_failed").message or ""), b""
        return read_upload(reply, size, time.time()), envelope.digest

    async def is_there(self) -> bool:
        """Asks for something free, once: does the API answer, and not by saying that it is out of order?"""
        try:
            reply = await self._ask("GET", self._at(wire.MODELS_PATH), POLL_S)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return False
        return reply.status < 500

    async def _ask(self, method: str, url: URL, most_s: float, body: bytes | None = None) -> wire.Reply:
        assert self._session is not None, "use Api as an async context manager"
        headers = {"Content-Type": "application/json"} if body is not None else None
        with self._deadlines.within(most_s):
            return await self._exchange(method, url, headers, body)

    async def _exchange(
        self, method: str, url: URL, headers: Mapping[str, str] | None, body: bytes | AsyncIterator[bytes] | None
    ) -> wire.Reply:
        assert self._session is not None
        async with self._session.request(
            method, url, data=body, headers=headers, timeout=CONNECTING, allow_redirects=False
        ) as response:
            content = self._secret.hide_bytes(await _read(response))  # an echo must not carry it into the output
            headers_in = response.headers
            return wire.Reply(
                status=response.status,
                body=content,
                retry_after=headers_in.get("Retry-After"),
                date=headers_in.get("Date"),
            )

    def _describe(self, error: BaseException, code: str) -> ApiError:
        text = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            text = f"no answer in time ({type(error).__name__})"
        return ApiError(code=code, type="connection", message=self._secret.hide(text))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; a body without end is given up as unreadable (ValueError)."""
    is_packed = "Content-Encoding" in response.headers  # then the length that is announced says nothing
    if not is_packed and response.content_length is not None and response.content_length <= MOST_BODY:
        return await response.read()
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MOST_BODY:
            raise ValueError(f"a reply of more than {MOST_BODY} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
