"""One request and its whole reply, over the connections of an aiohttp session.

aiohttp's own way of asking builds a request and a response object, merges headers and spawns a writer for each call:
two thirds of what such a call costs. Here aiohttp opens, pools and closes the connections and parses what comes; what
goes out is written at once, as bytes whose greater part never changes. No redirect is followed and no POST repeated.
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Final

import aiohttp
import msgspec
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.helpers import TimerNoop
from aiohttp.http import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.tracing import Trace
from multidict import CIMultiDictProxy
from yarl import URL

MOST_BODY = 256 << 20
CONNECT_S = 20.0
# How long a request may take as a whole is its caller's business: aiohttp would set and cancel a timer for each.
CONNECTING: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
# A larger body is not copied to stand behind its headers.
_SMALL = 64 << 10
_NEVER: Final = TimerNoop()
# So many connections in a row are given up unused before a request is.
_MOST_STALE = 8


class NothingSentError(aiohttp.ClientConnectionError):
    """No connection was to be had that could be trusted: not a byte of the request went out."""


class QuietConnector(aiohttp.TCPConnector):
    """Gives out connections on which nothing was said since their last reply: what comes unasked, as a second reply or
    a 408 to an idle connection, would be taken for the reply to what is asked next."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> aiohttp.connector.Connection:
        for _ in range(_MOST_STALE):
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is not None and protocol.is_connected() and not protocol.should_close:
                return connection
            connection.close()
        raise NothingSentError(f"{req.url.host} speaks, or hangs up, before it is asked")


class Reply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What came back: `body` is whole and unpacked."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class _Opening(aiohttp.ClientRequest):
    """Names the API to the pool of connections, and says how one is opened."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key


class Exchange:
    """Asks one API. For one event loop; the connections are the session's."""

    def __init__(self, session: aiohttp.ClientSession, base: URL) -> None:
        """`base`: paths are relative to it. The session's own headers go with every request."""
        connector = session.connector
        assert connector is not None
        self._connector = connector
        self._opening = _Opening("GET", base, headers=session.headers, loop=asyncio.get_running_loop(), session=session)
        headers = "".join(f"{name}: {value}\r\n" for name, value in self._opening.headers.items())
        prefix = base.raw_path.rstrip("/")
        self._get = (f"GET {prefix}".encode(), f" HTTP/1.1\r\n{headers}\r\n".encode())
        self._post = (
            f"POST {prefix}".encode(),
            f" HTTP/1.1\r\n{headers}Content-Type: application/json\r\nContent-Length: ".encode(),
        )

    async def get(self, path: str) -> Reply:
        """`path` is quoted already. Asked again, once, where the connection was gone: the other side may have closed it
        before it saw anything. Raises `aiohttp.ClientError`, `OSError`, or `ValueError` for a body without end."""
        before, after = self._get
        head = before + path.encode("ascii") + after
        try:
            return await self._converse(head, b"")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            return await self._converse(head, b"")

    async def post(self, path: str, body: bytes) -> Reply:
        """JSON, once. Raises as `get`."""
        before, after = self._post
        return await self._converse(b"%b%b%b%d\r\n\r\n" % (before, path.encode("ascii"), after, len(body)), body)

    async def _converse(self, head: bytes, body: bytes) -> Reply:
        try:
            connection = await self._connector.connect(self._opening, traces=[], timeout=CONNECTING)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {self._opening.url.host} in time") from error
        try:
            reply = await self._speak(connection, head, body)
        except BaseException:
            connection.close()
            raise
        transport = connection.transport
        if transport is not None and transport.get_write_buffer_size():
            connection.close()  # answered before it was told everything
        else:
            connection.release()
        return reply

    async def _speak(self, connection: aiohttp.connector.Connection, head: bytes, body: bytes) -> Reply:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(timer=_NEVER, read_until_eof=True)
        if len(body) <= _SMALL:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        try:
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:
                message, content = await protocol.read()
        except (HttpProcessingError, aiohttp.EofStream) as error:
            what = error.message if isinstance(error, HttpProcessingError) else str(error)
            raise aiohttp.ClientPayloadError(f"no HTTP: {what}") from error
        return Reply(status=message.code, headers=message.headers, body=await read_body(message.headers, content))


async def read_body(headers: CIMultiDictProxy[str], content: StreamReader) -> bytes:
    """The whole body; a body without end is given up as unreadable (ValueError)."""
    if content.is_eof() and content.total_bytes <= MOST_BODY:
        return content.read_nowait()  # it came with its headers, as most do
    is_packed = "Content-Encoding" in headers  # then the length that is announced says nothing
    if not is_packed and (length := headers.get("Content-Length")) is not None and int(length) <= MOST_BODY:
        return await content.read()
    chunks: list[bytes] = []
    size = 0
    async for chunk in content.iter_any():
        size += len(chunk)
        if size > MOST_BODY:
            raise ValueError(f"a reply of more than {MOST_BODY} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
