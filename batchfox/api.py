"""The API over HTTP: aiohttp in, events out.

Nothing is retried here and no redirect is followed: what a reply means is `core/verdict.py`'s to say, and a submit
that is repeated behind the runner's back is paid twice.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import IO, Any, Protocol, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from batchfox.core import wire
from batchfox.core.event import ApiError, Doubted, NotSent, PollEvent, StreamEnd, SubmitEvent, Unheard, Unreached
from batchfox.core.secret import Secret
from batchfox.core.uploaded import UPLOAD_PATH, failed_upload, read_upload
from batchfox.deadlines import Deadlines
from batchfox.envelope import Envelope
from batchfox.errors import ApiGoneError
from batchfox.exchange import CONNECTING, Exchange, NothingSentError, QuietConnector, read_body
from batchfox.version import __version__

USER_AGENT = f"batchfox/{__version__}"
SUBMIT_S = 120.0
POLL_S = 60.0
# A body on its way up gets this much longer for each of its bytes (100 kB/s).
PER_BYTE_S = 1e-5
# Idle connections are dropped before common servers drop them: a POST into a connection that the other side has just
# closed would be in doubt for nothing.
KEEPALIVE_S = 12.0
# A stream that has told all may still be closed by the other side within so long: its connection is then used again.
LINGER_S = 0.2
STREAM_BUFFER = 16 << 10
STREAM_HEADERS = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
EVENT_STREAM = "text/event-stream"

_UNREACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, NothingSentError)

_Answer = TypeVar("_Answer")


class Listener(Protocol):
    """Who hears a stream. `hear`: True once it has heard enough; `close`: the stream came to its end."""

    def hear(self, chunk: bytes) -> bool: ...
    def close(self) -> None: ...


class Api:
    """One session with one API. Use as an async context manager. The key goes to `base_url` and nowhere else; an empty
    one goes nowhere, which is enough for the price list."""

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        connections: int,
        sync_s: float = 3600.0,
        streams: int = 100,
        stream_idle_s: float = 300.0,
    ) -> None:
        """`sync_s`: the longest that a synchronous call or a stream may take; `stream_idle_s`: that a stream may be
        silent. `streams` have connections of their own: none of them keeps a submit or a poll waiting."""
        self._base = URL(base_url.rstrip("/") + "/")
        self._key = key
        self._secret = Secret(key)
        self._connections = connections
        self._submit_url = self._at(wire.SUBMIT_PATH)
        self._deadlines = Deadlines()
        self._sync_s = sync_s
        self._streams = streams
        self._stream_idle_s = stream_idle_s
        self._session: aiohttp.ClientSession | None = None
        self._exchange: Exchange | None = None
        self._stream_session: aiohttp.ClientSession | None = None

    def hide(self, text: str) -> str:
        """The text without the key, should it be there. What comes in pieces is looked at when it is whole."""
        return self._secret.hide(text)

    def _at(self, path: str, query: str = "") -> URL:
        """The URL of a path, which is quoted already. Built from its parts: parsing a text for each request costs more
        than sending it."""
        base = self._base
        path = base.raw_path.rstrip("/") + path
        return URL.build(scheme=base.scheme, authority=base.raw_authority, path=path, query_string=query, encoded=True)

    async def __aenter__(self) -> Self:
        self._session = self._open_session(self._connections, {"Accept": "application/json"})
        self._exchange = Exchange(self._session, self._base)
        self._stream_session = self._open_session(self._streams, STREAM_HEADERS, read_bufsize=STREAM_BUFFER)
        return self

    def _open_session(self, connections: int, headers: dict[str, str], **more: Any) -> aiohttp.ClientSession:
        connector = QuietConnector(
            limit=connections, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=60, enable_cleanup_closed=False
        )
        authorization = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT} | headers | authorization,
            trust_env=False,
            auto_decompress=True,
            **more,
        )

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        assert self._stream_session is not None
        await self._stream_session.close()
        await self._session.close()
        self._deadlines.close()

    async def submit(self, body: bytes, *, is_sync: bool) -> SubmitEvent:
        """POSTs one request, once. Whatever happens, one event comes back, and it says whether money may be spent."""
        most_s = SUBMIT_S
        if is_sync or len(body) > 1 << 20:
            most_s = (self._sync_s if is_sync else SUBMIT_S) + len(body) * PER_BYTE_S
        try:
            reply = await self._post(wire.SUBMIT_PATH, body, most_s)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return self._without_reply(error)
        return wire.read_submit(reply, time.time(), is_sync=is_sync)

    def _without_reply(self, error: Exception) -> SubmitEvent:
        """What became of a submit: nothing, where no connection came about."""
        is_unreached = isinstance(error, _UNREACHED)
        if is_unreached or (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
            return Unreached(error=self._describe(error, "unreached"))
        return Doubted(error=self._describe(error, "lost_reply"))

    async def submit_streamed(self, body: bytes, listener: Listener) -> SubmitEvent | StreamEnd:
        """POSTs a request whose reply is the stream itself, once. The end of the stream comes back, or what `submit`
        says where the reply is none."""
        started = False

        async def exchange(response: aiohttp.ClientResponse) -> SubmitEvent | StreamEnd:
            nonlocal started
            if not _is_stream(response):
                return wire.read_submit(await self._reply_of(response), time.time(), is_sync=True)
            started = True
            return await self._hear(response, listener)

        first_s = self._sync_s + len(body) * PER_BYTE_S
        try:
            return await self._converse("POST", self._submit_url, exchange, first_s, body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return StreamEnd(error=self._describe(error, "stream_broken")) if started else self._without_reply(error)

    async def listen(self, path: str, listener: Listener) -> StreamEnd:
        """Hears the stream of a task, once, from its beginning. It is free, as a poll is."""

        started = False

        async def exchange(response: aiohttp.ClientResponse) -> StreamEnd:
            nonlocal started
            if not _is_stream(response):
                return wire.read_no_stream(await self._reply_of(response), time.time())
            started = True
            return await self._hear(response, listener)

        try:
            first_s = min(self._stream_idle_s, self._sync_s)
            return await self._converse("GET", self._at(*path.split("?", 1)), exchange, first_s)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return StreamEnd(error=self._describe(error, "stream_broken"), may_open_again=not started)

    async def _converse(
        self,
        method: str,
        url: URL,
        exchange: Callable[[aiohttp.ClientResponse], Awaitable[_Answer]],
        first_s: float,
        body: bytes | None = None,
    ) -> _Answer:
        """One request on a stream's connection; `first_s`: until the reply begins."""
        assert self._stream_session is not None, "use Api as an async context manager"
        headers = {"Content-Type": "application/json"} if body is not None else None
        with self._deadlines.within(first_s):
            async with self._stream_session.request(
                method, url, data=body, headers=headers, timeout=CONNECTING, allow_redirects=False
            ) as response:
                return await exchange(response)

    async def _hear(self, response: aiohttp.ClientResponse, listener: Listener) -> StreamEnd:
        """All that comes, each piece as it comes. Silence counts from the last piece."""
        task = asyncio.current_task()
        assert task is not None
        ends_at = time.monotonic() + self._sync_s
        has_enough = False
        try:
            async for chunk in response.content.iter_any():
                if not has_enough:
                    has_enough = listener.hear(chunk)
                left_s = ends_at - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"no end after {self._sync_s:.0f} s")
                self._deadlines.begin(task, LINGER_S if has_enough else min(self._stream_idle_s, left_s))
        except (aiohttp.ClientError, OSError):
            if not has_enough:
                raise
        if not has_enough:
            listener.close()
        return StreamEnd(http_status=response.status)

    async def poll(self, task_id: str, *, sync_upstream: bool) -> PollEvent:
        """Asks about one task, once. A poll is free and safe to repeat."""
        path = wire.task_path(task_id) + ("?sync_upstream=true" if sync_upstream else "")
        try:
            reply = await self._get(path)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Unheard(error=self._describe(error, "poll_unheard"))
        return wire.read_poll(reply, time.time(), task_id)

    async def fetch(self, path: str) -> Any:
        """A free GET (models, prices): its JSON, or None where the API does not give it. Raises `ApiGoneError` where it
        gives nothing at all just now."""
        reply = await self.ask(path)
        if reply.status == 429 or reply.status >= 500:
            raise ApiGoneError(f"HTTP {reply.status}")
        try:
            return msgspec.json.decode(reply.body) if reply.status == 200 else None
        except (ValueError, RecursionError):
            return None

    async def ask(self, path: str) -> wire.Reply:
        """A free GET: the reply, whatever it says. Raises `ApiGoneError` where none comes."""
        try:
            return await self._get(path)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiGoneError(self._describe(error, "unreached").message) from error

    async def upload(self, file: IO[bytes], *, size: int, name: str, mime: str) -> tuple[str | NotSent, bytes]:
        """Uploads a file of `size` bytes from where it stands, streamed: its URL, or why there is none; and BLAKE2b-128
        of the bytes that went out. An upload is free and safe to repeat."""
        assert self._session is not None, "use Api as an async context manager"
        envelope = Envelope(file, size=size, name=name, mime=mime)
        headers = {"Content-Type": envelope.content_type, "Content-Length": str(envelope.content_length)}
        try:
            with self._deadlines.within(SUBMIT_S + size * PER_BYTE_S):
                async with self._session.post(
                    self._at(UPLOAD_PATH),
                    data=envelope.blocks(),
                    headers=headers,
                    timeout=CONNECTING,
                    allow_redirects=False,
                ) as response:
                    reply = await self._reply_of(response)
        except _UNREACHED as error:
            return Unreached(error=self._describe(error, "unreached")), b""
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return failed_upload(self._describe(error, "upload_failed").message or ""), b""
        return read_upload(reply, size, time.time()), envelope.digest

    async def is_there(self) -> bool:
        """Asks for something free, once: does the API answer, and not by saying that it is out of order?"""
        try:
            reply = await self._get(wire.MODELS_PATH)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return False
        return reply.status < 500

    async def _get(self, path: str) -> wire.Reply:
        assert self._exchange is not None, "use Api as an async context manager"
        with self._deadlines.within(POLL_S):
            reply = await self._exchange.get(path)
        return self._told(reply.status, reply.headers, reply.body)

    async def _post(self, path: str, body: bytes, most_s: float) -> wire.Reply:
        assert self._exchange is not None, "use Api as an async context manager"
        with self._deadlines.within(most_s):
            reply = await self._exchange.post(path, body)
        return self._told(reply.status, reply.headers, reply.body)

    async def _reply_of(self, response: aiohttp.ClientResponse) -> wire.Reply:
        return self._told(response.status, response.headers, await read_body(response.headers, response.content))

    def _told(self, status: int, headers: Mapping[str, str], body: bytes) -> wire.Reply:
        content = self._secret.hide_bytes(body)  # an echo must not carry it into the output
        return wire.Reply(status=status, body=content, retry_after=headers.get("Retry-After"), date=headers.get("Date"))

    def _describe(self, error: BaseException, code: str) -> ApiError:
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, TimeoutError):
            text = f"no answer in time ({type(error).__name__})"
        return ApiError(code=code, type="connection", message=self._secret.hide(text))


def _is_stream(response: aiohttp.ClientResponse) -> bool:
    return response.status == 200 and response.content_type == EVENT_STREAM
