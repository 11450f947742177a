"""The fetch of media, over real sockets: what it brings home, where it does not go, and that it always ends."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import pytest
from conftest import http_reply, raw_server, saying

from batchfox import fetching
from batchfox.closed_door import ClosedDoorError
from batchfox.core.addresses import Allowed
from batchfox.fetching import Fetcher

HERE = Allowed(["127.0.0.0/8"])
CONTENT = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_PAUSE_S", 0.001)


async def fetch(url: str, allowed: Allowed = HERE, **limits: Any) -> bytes:
    async with Fetcher(allowed, **limits) as fetcher:
        return await fetcher.fetch(url)


async def refusal(url: str, allowed: Allowed = HERE, **limits: Any) -> str:
    with pytest.raises(ClosedDoorError) as caught:
        await fetch(url, allowed, **limits)
    return caught.value.found


async def test_the_bytes_come_home_without_the_key() -> None:
    async with raw_server(saying(http_reply(CONTENT))) as server:
        assert await fetch(f"{server.url}/a.png") == CONTENT
        assert b"Authorization" not in server.requests[0]


async def test_a_fetch_that_breaks_off_goes_on_where_it_was() -> None:
    async def talk(request: bytes, _: Any, writer: asyncio.StreamWriter) -> None:
        start = int(re.findall(rb"bytes=(\d+)-", request + b"bytes=0-")[0])
        end = min(start + 400_000, len(CONTENT))
        length = f"Content-Length: {len(CONTENT) - start}\r\n"
        head = "HTTP/1.1 200 OK\r\n"
        if start:
            head = f"HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}\r\n"
        writer.write(f"{head}{length}\r\n".encode() + CONTENT[start:end])
        await writer.drain()
        writer.close()

    async with raw_server(talk) as server:
        assert await fetch(f"{server.url}/a.png") == CONTENT
        assert [b"Range" in request for request in server.requests] == [False, True, True]


async def test_a_server_that_knows_no_ranges_is_asked_from_the_start() -> None:
    async def talk(request: bytes, _: Any, writer: asyncio.StreamWriter) -> None:
        is_first = b"Range" not in request
        reply = http_reply(CONTENT)
        writer.write(reply[:500_000] if is_first else reply)
        await writer.drain()
        writer.close()

    async with raw_server(talk) as server:
        assert await fetch(f"{server.url}/a.png") == CONTENT


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (http_reply(b"", "404 Not Found"), "HTTP 404"),
        (http_reply(b"", "503 Busy"), "HTTP 503"),
        (http_reply(bytes(2000)), "more than 0.001 MB"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2000), "more than 0.001 MB"),
        (http_reply(b"x", "200 OK", "Content-Encoding: gzip"), "compressed"),
        (http_reply(b"", "302 Found", "Location: ftp://127.0.0.1/a"), "no http(s) URL"),
        (http_reply(b"", "302 Found", "Location: file:///etc/passwd"), "no http(s) URL"),
        (http_reply(b"", "302 Found", "Location: /again"), "redirects more than"),
    ],
)
async def test_what_cannot_be_had_is_told(reply: bytes, found: str) -> None:
    async def talk(_: bytes, __: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()
        writer.close()

    async with raw_server(talk) as server:
        assert found in await refusal(f"{server.url}/a.png", most_bytes=1000)


async def test_a_body_without_end_ends() -> None:
    async def talk(_: bytes, __: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with raw_server(talk) as server:
        assert "took more than 0.3 s" in await refusal(f"{server.url}/a.png", total_s=0.3)


def literals(port: int) -> list[str]:
    """127.0.0.1 in the ways a URL may write it."""
    hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "017700000001", "127.1", "0x7f.1", "0.0.0.0", "0"]
    hosts += [
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "①27.0.0.1",
    ]
    return [f"http://{host}:{port}/secret" for host in hosts]


async def test_no_form_of_a_local_address_is_connected_to() -> None:
    async with raw_server(saying(http_reply(b"secret"))) as server:
        port = int(server.url.rpartition(":")[2])
        for url in literals(port):
            await refusal(url, Allowed())
        for url in ("http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://10.0.0.1/"):
            assert "is no public address" in await refusal(url, Allowed())
        assert server.connections == 0


async def test_a_redirect_into_the_network_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host is opened by the user, the second is not."""
    async with raw_server(saying(http_reply(b"secret"))) as secret:
        port = secret.url.rpartition(":")[2]
        there = f"Location: http://127.0.0.2:{port}/"
        async with raw_server(saying(http_reply(b"", "302 Found", there))) as server:
            assert "is no public address" in await refusal(f"{server.url}/a.png", Allowed(["127.0.0.1/32"]))
            assert (server.connections, secret.connections) == (1, 0)


async def test_a_name_that_changes_its_answer_is_judged_by_what_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name is public when it is asked about first, and this machine the second time, and both at once."""
    async with raw_server(saying(http_reply(b"secret"))) as server:
        port = int(server.url.rpartition(":")[2])
        asked: list[str] = []

        async def lie(_: Any, host: str, *__: Any, **___: Any) -> Any:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", lie)
        assert "is no public address" in await refusal(f"http://rebinding.example:{port}/a.png", Allowed())
        assert (asked, server.connections) == (["rebinding.example"], 0)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(saying(http_reply(b"proxied"))) as proxy, raw_server(saying(http_reply(b"direct"))) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert await fetch(f"{server.url}/a.png") == b"direct"
        assert proxy.connections == 0
