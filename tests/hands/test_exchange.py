"""One request and its whole reply: what aiohttp's own way of asking would do, with less."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from conftest import LOOPBACK_PEM, Conversation, http_reply, in_the_end, raw_server, saying
from yarl import URL

from batchfox.exchange import Exchange, QuietConnector

HELLO = http_reply(b'"hello"')


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Exchange]:
    connector = QuietConnector(ssl=ssl.create_default_context(cafile=LOOPBACK_PEM))
    async with aiohttp.ClientSession(headers={"X-Own": "1"}, connector=connector) as session:
        yield Exchange(session, URL(url))


def closing_at(number: int, reply: bytes) -> tuple[Conversation, list[bytes]]:
    """A server that closes the connection instead of answering its request of that number."""
    seen: list[bytes] = []

    async def talk(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        if len(seen) == number:
            writer.close()
            return
        writer.write(reply)
        await writer.drain()

    return talk, seen


async def test_requests_go_below_the_base_path_with_the_sessions_headers_on_one_connection() -> None:
    async with raw_server(saying(HELLO)) as server, asking(server.url + "/gateway/") as exchange:
        for _ in range(3):
            reply = await exchange.get("/v1/models?all=1")
        assert (reply.status, reply.body) == (200, b'"hello"')
        assert (await exchange.post("/v1/x", b"{}")).body == b'"hello"'
        assert server.connections == 1
    get, post = server.requests[0], server.requests[-1]
    assert get.startswith(b"GET /gateway/v1/models?all=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Own: 1\r\n" in get
    assert b"\r\nAccept-Encoding: gzip" in get
    assert post.endswith(b"\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_large_body_arrives_whole(is_tls: bool) -> None:
    body = bytes(range(256)) * 20_000
    async with raw_server(saying(HELLO), is_tls=is_tls) as server, asking(server.url) as exchange:
        assert (await exchange.post("/v1/x", body)).status == 200
        assert (await exchange.get("/v1/y")).status == 200
        assert server.connections == 1
    assert server.requests[0].partition(b"\r\n\r\n")[2] == body


async def test_a_reply_may_have_no_body() -> None:
    async with raw_server(saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as server, asking(server.url) as exchange:
        for _ in range(2):
            reply = await exchange.get("/v1/x")
            assert (reply.status, reply.body) == (204, b"")
        assert server.connections == 1


async def test_what_is_said_before_the_reply_is_passed_over() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with raw_server(saying(early + HELLO)) as server, asking(server.url) as exchange:
        assert (await exchange.post("/v1/x", b"{}")).body == b'"hello"'


async def test_a_get_on_a_connection_that_is_gone_is_asked_again_once_and_a_post_never() -> None:
    talk, seen = closing_at(2, HELLO)
    async with raw_server(talk) as server, asking(server.url) as exchange:
        await exchange.get("/first")
        assert (await exchange.get("/second")).body == b'"hello"'
        assert [request.split()[1] for request in seen] == [b"/first", b"/second", b"/second"]
    talk, seen = closing_at(2, HELLO)
    async with raw_server(talk) as server, asking(server.url) as exchange:
        await exchange.get("/first")
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await exchange.post("/second", b"{}")
        assert len(seen) == 2


async def test_a_reply_before_all_was_sent_ends_the_connection() -> None:
    """Else the rest of the body would be read as the next request."""
    seen: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http_reply(b"{}", "413 Payload Too Large") if seen[-1].startswith(b"POST") else HELLO)
        await writer.drain()
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with asking(url) as exchange:
        assert (await exchange.post("/v1/x", b"x" * (64 << 20))).status == 413
        assert (await exchange.get("/v1/y")).body == b'"hello"'
        assert [request.split()[0] for request in seen] == [b"POST", b"GET"]
    gone.set()
    server.close()


async def test_a_reply_that_closes_the_connection_is_whole_and_the_next_has_a_new_one() -> None:
    async def talk(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        writer.close()

    async with raw_server(talk) as server, asking(server.url) as exchange:
        for _ in range(2):
            assert (await exchange.get("/v1/x")).body == b"until the end"
        assert server.connections == 2


@pytest.mark.parametrize(
    "reply", [b"SSH-2.0-OpenSSH_9\r\n", http_reply(b"hello")[:-1], b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"]
)
async def test_what_is_no_whole_reply_is_an_error_of_aiohttps(reply: bytes) -> None:
    async def talk(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()
        writer.close()

    async with raw_server(talk) as server, asking(server.url) as exchange:
        with pytest.raises(aiohttp.ClientError):
            await exchange.post("/v1/x", b"{}")


async def test_a_cancelled_request_gives_its_connection_up() -> None:
    """Else its reply would be taken for that of the next."""
    release = asyncio.Event()

    async def talk(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/slow" in request:
            await release.wait()
            writer.write(http_reply(b'"slow"'))
        else:
            writer.write(HELLO)
        await writer.drain()

    async with raw_server(talk) as server, asking(server.url) as exchange:
        await exchange.get("/v1/x")
        slow = asyncio.create_task(exchange.get("/slow"))
        while len(server.requests) < 2:
            await asyncio.sleep(0.01)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        release.set()
        assert (await exchange.get("/v1/y")).body == b'"hello"'
        assert server.connections == 2


@pytest.mark.parametrize("unasked", [http_reply(b'"of another row"'), http_reply(b"", "408 Request Timeout")])
@pytest.mark.parametrize("is_whole_aiohttp", [False, True])
async def test_what_is_said_unasked_is_no_reply_to_the_next_request(unasked: bytes, is_whole_aiohttp: bool) -> None:
    """A row would get another's task, or be in doubt for nothing; and so with a stream, or an upload."""
    is_idle = asyncio.Event()

    async def talk(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        if b"/first" in request:
            await is_idle.wait()
            writer.write(unasked)

    async with raw_server(talk) as server, asking(server.url) as exchange:
        await exchange.get("/first")
        connector, session = exchange._connector, exchange._opening._session
        ((idle, _),) = next(iter(connector._conns.values()))
        is_idle.set()
        await in_the_end(lambda: idle.should_close, "what was said unasked has come")
        if is_whole_aiohttp:
            async with session.post(server.url + "/second", data=b"{}") as response:
                assert await response.read() == b'"hello"'
        else:
            assert (await exchange.post("/second", b"{}")).body == b'"hello"'
        assert server.connections == 2
