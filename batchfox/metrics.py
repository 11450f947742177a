"""`--metrics-port`: a run's figures for Prometheus, over HTTP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator

from batchfox.core.metrics import CONTENT_TYPE
from batchfox.errors import UserError

HOST = "127.0.0.1"
# A scraper says what it wants within so long, in so many bytes.
ASKS_S = 5.0
MOST_HEAD = 16 << 10


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket bound to this port of loopback; 0 takes a free one. Raises `UserError`."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--metrics-port {port}: {error.strerror}; choose another, or 0 for a free one") from error
        yield bound


@contextlib.asynccontextmanager
async def serving(bound: socket.socket, text: Callable[[], str]) -> AsyncIterator[str]:
    """Serves what `text` gives, until the block ends. Yields the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASKS_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_reply(head, text))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # whoever asks has gone, says nothing, or too much; or the run ends
        finally:
            writer.close()

    server = await asyncio.start_server(serve, sock=bound, limit=MOST_HEAD)
    try:
        yield f"http://{HOST}:{bound.getsockname()[1]}/metrics"
    finally:
        server.close()


def _reply(head: bytes, text: Callable[[], str]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return _http("405 Method Not Allowed", "only GET\n")
    if path not in (b"/", b"/metrics"):
        return _http("404 Not Found", "the metrics are at /metrics\n")
    try:
        status, said = "200 OK", text()
    except Exception as error:  # looking never ends a run
        status, said = "500 Internal Server Error", f"{error!r}\n"
    return _http(status, said, with_body=method == b"GET")


def _http(status: str, said: str, *, with_body: bool = True) -> bytes:
    body = said.encode()
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {CONTENT_TYPE}", f"Content-Length: {len(body)}", "Connection: close")
    head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode() + (body if with_body else b"")
