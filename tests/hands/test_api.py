"""HTTP in, events out: against the simulator, and against servers that say anything or nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import time
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from conftest import KEY, MODEL, Conversation, http_reply, put_forward, raw_server, saying

from batchfox import api as api_module
from batchfox import exchange
from batchfox.api import USER_AGENT, Api
from batchfox.core.event import (
    Accepted,
    Answered,
    Deferred,
    Doubted,
    Halted,
    Missing,
    Refused,
    Running,
    SubmitEvent,
    TaskFailed,
    Unheard,
    Unreached,
)
from batchfox.errors import ApiGoneError
from batchfox.simulator import FAULTS, Settings, Simulator, answer
from batchfox.version import __version__

BODY = json.dumps({"model": MODEL, "prompt": "hello"}).encode()
TASK = json.dumps({"id": "task-1", "status": "pending"}).encode()


def client(url: str, key: str = KEY) -> Api:
    return Api(url, key, connections=10)


async def submit_to(url: str, body: bytes = BODY, *, is_sync: bool = False) -> SubmitEvent:
    async with client(url) as api:
        return await api.submit(body, is_sync=is_sync)


# Against the simulator.


async def test_a_submit_is_accepted_polled_while_it_runs_and_answered() -> None:
    async with Simulator(Settings(latency="constant:600")) as simulator, client(simulator.url) as api:
        accepted = await api.submit(BODY, is_sync=False)
        assert isinstance(accepted, Accepted)
        assert (accepted.task_id[:4], accepted.reserved, accepted.http_status) == ("task", 0.01, 200)
        found = await api.poll(accepted.task_id, sync_upstream=False)
        assert isinstance(found, Running)
        put_forward(simulator, 600)
        found = await api.poll(accepted.task_id, sync_upstream=True)
        assert isinstance(found, Answered)
        assert json.loads(found.answer.completion) == answer(json.loads(BODY))
        assert found.answer.credits == 0.01


async def test_a_synchronous_submit_is_answered_at_once() -> None:
    request = {"model": MODEL, "prompt": "hello", "sync": True}
    async with Simulator(Settings(latency="constant:0.05")) as simulator:
        event = await submit_to(simulator.url, json.dumps(request).encode(), is_sync=True)
    assert isinstance(event, Answered)
    assert json.loads(event.answer.completion) == answer(request)


async def test_a_synchronous_submit_may_take_longer_than_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "SUBMIT_S", 0.1)
    request = json.dumps({"model": MODEL, "prompt": "hello", "sync": True}).encode()
    async with Simulator(Settings(latency="constant:0.4")) as simulator:
        assert isinstance(await submit_to(simulator.url, request, is_sync=True), Answered)
        simulator.control(latency="constant:600")
        async with Api(simulator.url, KEY, connections=1, sync_s=0.1) as api:
            assert isinstance(await api.submit(request, is_sync=True), Doubted)


async def test_a_failed_task_and_an_unknown_one_are_told_apart() -> None:
    settings = Settings(latency="constant:0", faults={"task_failed": 1.0})
    async with Simulator(settings) as simulator, client(simulator.url) as api:
        accepted = await api.submit(BODY, is_sync=False)
        assert isinstance(accepted, Accepted)
        failed = await api.poll(accepted.task_id, sync_upstream=False)
        assert isinstance(failed, TaskFailed)
        assert (failed.error.code, failed.transient) == ("upstream_error", True)
        assert isinstance(await api.poll("task-none", sync_upstream=False), Missing)
        assert isinstance(await api.poll("../../__book", sync_upstream=False), Missing)


KINDS: dict[str, type] = {
    "refuse_429": Deferred,
    "refuse_503": Deferred,
    "refuse_503_html": Deferred,
    "no_channel": Deferred,
    "refuse_403_model": Refused,
    "refuse_no_model": Refused,
    "refuse_options": Refused,
    "slow_answer": Accepted,
    "refuse_unfetched": Accepted,  # BODY has no medium: see test_unfetched.py
}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.where == "submit"], ids=lambda fault: fault.name)
async def test_a_submit_is_in_doubt_unless_the_reply_says_that_no_task_exists(
    fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault.way == "hang":
        monkeypatch.setattr(api_module, "SUBMIT_S", 1.0)
    settings = Settings(latency="constant:0", faults={fault.name: 1.0}, slow_s=0.05)
    async with Simulator(settings) as simulator:
        event = await submit_to(simulator.url)
        made = simulator.book()["totals"]["submits_accepted"]
        assert simulator.book()["totals"]["submits_received"] == 1, "a submit was repeated"
    assert type(event) is KINDS.get(fault.name, Doubted)
    assert made == 0 or isinstance(event, (Doubted, Accepted)), "money may be spent, and the event does not say so"


@pytest.mark.parametrize("fault", [fault.name for fault in FAULTS if fault.where == "poll"])
async def test_a_poll_that_brings_no_news_is_unheard_or_missing(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "poll_hang":
        monkeypatch.setattr(api_module, "POLL_S", 0.5)
    settings = Settings(latency="constant:0", faults={fault: 1.0})
    async with Simulator(settings) as simulator, client(simulator.url) as api:
        accepted = await api.submit(BODY, is_sync=False)
        assert isinstance(accepted, Accepted)
        event = await api.poll(accepted.task_id, sync_upstream=False)
    # Bytes that are no UTF-8 elsewhere in the body do not spoil an answer that is whole.
    kinds: dict[str, type] = {"poll_404": Missing, "poll_not_utf8": Answered}
    assert type(event) is kinds.get(fault, Unheard)
    assert not isinstance(event, Unheard) or event.is_rate == (fault == "poll_429")


async def test_refusals_that_concern_the_whole_run_name_their_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings, cause, status in (
        (Settings(key_refused=True), "key", 401),
        (Settings(keys=("sk-another",)), "key", 401),
        (Settings(balance=0), "balance", 402),
    ):
        async with Simulator(settings) as simulator:
            event = await submit_to(simulator.url)
            assert isinstance(event, Halted)
            assert (event.cause, event.http_status) == (cause, status)
    monkeypatch.setattr(api_module, "USER_AGENT", "curl/8.5")
    async with Simulator(Settings()) as simulator, client(simulator.url) as api:
        submitted, polled = await api.submit(BODY, is_sync=False), await api.poll("task-1", sync_upstream=False)
    for refusal in (submitted, polled):
        assert isinstance(refusal, Halted)
        assert refusal.cause == "gateway"


async def test_the_wait_that_a_429_asks_for_is_read_in_both_forms() -> None:
    async with raw_server(saying(http_reply(b"{}", "429 Too Many Requests", "Retry-After: 7"))) as server:
        event = await submit_to(server.url)
        assert isinstance(event, Deferred)
        assert (event.scope, event.retry_after_s) == ("rate", 7.0)
    began_at = time.time()
    date = formatdate(began_at + 30, usegmt=True)
    async with raw_server(saying(http_reply(b"{}", "503 Unavailable", f"Retry-After: {date}"))) as server:
        event = await submit_to(server.url)
        assert isinstance(event, Deferred)
        assert event.scope == "service"
        assert event.retry_after_s is not None
        assert 28.9 - (time.time() - began_at) <= event.retry_after_s <= 30, "a date has whole seconds"


async def test_a_free_question_gets_its_json_or_nothing() -> None:
    async with Simulator(Settings()) as simulator, client(simulator.url) as api:
        prices = await api.fetch("/api/pricing")
        assert MODEL in {entry["model_name"] for entry in prices["data"]}
        assert await api.fetch("/nothing/here") is None
    for reply in (http_reply(b"<html>"), http_reply(b""), http_reply(b"\xff")):
        async with raw_server(saying(reply)) as server, client(server.url) as api:
            assert await api.fetch("/api/pricing") is None
    for reply in (b"nonsense\r\n\r\n", http_reply(b"{}", "503 Unavailable"), http_reply(b"{}", "429 Too Many")):
        async with raw_server(saying(reply)) as server, client(server.url) as api:
            with pytest.raises(ApiGoneError):
                await api.fetch("/api/pricing")


# Nobody there, or somebody who hangs up.


async def test_without_a_key_none_is_sent_and_none_is_hidden() -> None:
    async with raw_server(saying(http_reply(b'{"data": []}'))) as raw, Api(raw.url, "", connections=1) as api:
        assert await api.fetch("/api/pricing") == {"data": []}
    assert b"authorization" not in raw.requests[0].lower()
    async with Api("http://127.0.0.1:9", "", connections=1) as api:
        with pytest.raises(ApiGoneError) as gone:
            await api.fetch("/api/pricing")
    assert "[key]" not in str(gone.value)


async def test_no_connection_means_that_no_task_exists() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        event = await submit_to(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert isinstance(event, Unreached)
    assert event.error.code == "unreached"
    assert isinstance(await submit_to("http://name.invalid"), Unreached)


async def test_a_handshake_that_gets_no_answer_means_that_no_task_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without TLS waits for a request, the client for the server's part of the handshake."""
    monkeypatch.setattr(exchange, "CONNECTING", aiohttp.ClientTimeout(total=None, sock_connect=0.2))
    async with raw_server(saying(http_reply(TASK))) as server:
        event = await submit_to(server.url.replace("http://", "https://"))
    assert isinstance(event, Unreached)
    assert "no answer in time" in (event.error.message or "")
    assert server.requests == []


def closing(before: bytes = b"") -> Conversation:
    async def talk(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        await writer.drain()
        writer.close()

    return talk


async def resetting(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hanging(_: bytes, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await reader.read()


def dripping(reply: bytes) -> Conversation:
    """Sends what it has and then nothing more, ever."""

    async def talk(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()
        await reader.read()

    return talk


WHOLE = http_reply(TASK)
BROKEN: dict[str, Conversation] = {
    "closed without a byte": closing(),
    "reset after the request": resetting,
    "closed within the head": closing(WHOLE[:20]),
    "closed within the body": closing(WHOLE[:-5]),
    "closed within a chunk": closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc"),
    "hangs": hanging,
    "hangs within the head": dripping(WHOLE[:20]),
    "hangs within the body": dripping(WHOLE[:-5]),
    "no HTTP": saying(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "a head without end": saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
    "a body that is no gzip": closing(http_reply(b"no gzip at all", "200 OK", "Content-Encoding: gzip")),
    "two lengths": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "html": saying(http_reply(b"<html><h1>Welcome</h1></html>")),
    "empty": saying(http_reply(b"")),
    "not utf-8": saying(http_reply(b'{"id": "\xff\xfe"}')),
    "another json": saying(http_reply(b'{"ok": true}')),
    "json of no object": saying(http_reply(b"[]")),
    "502": saying(http_reply(b"<html>bad gateway</html>", "502 Bad Gateway")),
    "418": saying(http_reply(b"", "418 I'm a teapot")),
    "204": saying(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": saying(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_is_no_readable_verdict_is_in_doubt_and_never_sent_twice(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "hangs" in what:
        monkeypatch.setattr(api_module, "SUBMIT_S", 1.0)
        monkeypatch.setattr(api_module, "POLL_S", 0.3)
    async with raw_server(BROKEN[what]) as server:
        event = await submit_to(server.url)
        assert isinstance(event, Doubted)
        assert event.error.message
        assert len(server.requests) == 1
        async with client(server.url) as api:
            assert isinstance(await api.poll("task-1", sync_upstream=False), Unheard)


async def test_a_post_into_a_connection_that_dies_is_not_sent_again_behind_our_back() -> None:
    """aiohttp repeats idempotent requests on a dead keep-alive connection; a submit is not idempotent."""

    async def answer_once(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        posts.append(request)
        if len(posts) == 1:
            writer.write(WHOLE)
            await writer.drain()
        else:
            writer.close()

    posts: list[bytes] = []
    async with raw_server(answer_once) as server, client(server.url) as api:
        assert isinstance(await api.submit(BODY, is_sync=False), Accepted)
        assert isinstance(await api.submit(BODY, is_sync=False), Doubted)
        assert len(posts) == 2
        assert server.connections == 1, "the connection is used again"


async def test_a_body_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_BODY", 100_000)

    async def flood(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()

    async with raw_server(flood) as server:
        event = await submit_to(server.url)
    assert isinstance(event, Doubted)
    assert "more than 100000 bytes" in (event.error.message or "")


async def test_a_compressed_reply_is_read() -> None:
    async with raw_server(saying(http_reply(gzip.compress(TASK), "200 OK", "Content-Encoding: gzip"))) as server:
        assert await submit_to(server.url) == Accepted(task_id="task-1")


async def test_a_reply_that_unpacks_to_too_much_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_BODY", 1_000_000)
    bomb = gzip.compress(b"x" * 50_000_000)
    assert len(bomb) < 100_000
    async with raw_server(saying(http_reply(bomb, "200 OK", "Content-Encoding: gzip"))) as server:
        event = await submit_to(server.url)
    assert isinstance(event, Doubted)
    assert "more than 1000000 bytes" in (event.error.message or "")


# The key, and where it goes.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_and_the_key_goes_nowhere_else(status: int) -> None:
    async with raw_server(saying(WHOLE)) as other:
        to = f"Location: {other.url}/v1/llm/generations"
        async with raw_server(saying(http_reply(b"", f"{status} Moved", to))) as server, client(server.url) as api:
            event = await api.submit(BODY, is_sync=False)
            assert isinstance(event, Doubted)
            assert event.http_status == status
            assert isinstance(await api.poll("task-1", sync_upstream=False), Unheard)
            assert await api.fetch("/api/pricing") is None
            assert len(server.requests) == 3
        assert other.connections == 0


async def test_a_proxy_of_the_environment_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(saying(http_reply(b"{}", "503 Unavailable"))) as proxy, raw_server(saying(WHOLE)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert isinstance(await submit_to(server.url), Accepted)
        assert proxy.connections == 0


async def test_a_request_carries_the_key_and_an_agent_of_our_own_and_no_cookie() -> None:
    reply = http_reply(TASK, "200 OK", "Set-Cookie: session=1")
    async with raw_server(saying(reply)) as server, client(server.url + "/") as api:
        await api.submit(BODY, is_sync=False)
        await api.poll("task 1/é", sync_upstream=True)
    post, get = server.requests
    head, _, sent = post.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /v1/llm/generations http/1.1"
    assert f"authorization: bearer {KEY}" in lines
    assert f"user-agent: {USER_AGENT}".lower() in lines
    assert f"batchfox/{__version__}" == USER_AGENT
    assert "content-type: application/json" in lines
    assert sent == BODY
    assert get.startswith(b"GET /v1/tasks/task%201%2F%C3%A9?sync_upstream=true HTTP/1.1\r\n")
    assert b"cookie" not in get.lower()


async def test_an_echoed_key_is_hidden_from_answers_and_errors() -> None:
    message = {"role": "assistant", "content": f"your key is {KEY}"}
    completed = {"status": "completed", "results": [{"choices": [{"message": message}]}]}
    async with raw_server(saying(http_reply(json.dumps(completed).encode()))) as server, client(server.url) as api:
        event = await api.poll("task-1", sync_upstream=False)
        assert isinstance(event, Answered)
        assert event.answer.text == "your key is [key]"
        assert KEY not in event.answer.completion
    refusal = json.dumps({"error": {"message": f"bad {KEY}", "code": KEY, "type": "invalid_request_error"}}).encode()
    for reply in (
        http_reply(refusal, "422 Unprocessable"),
        http_reply(f"<html>Bearer {KEY}</html>".encode(), "502 Bad Gateway"),
        http_reply(json.dumps({"queued": KEY}).encode()),
        f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode(),
    ):
        async with raw_server(saying(reply)) as server:
            assert KEY not in repr(await submit_to(server.url))


def _in_unicode(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


@pytest.mark.parametrize(
    "spelt",
    [
        _in_unicode(KEY),
        _in_unicode(KEY[0]) + KEY[1:],
        KEY[:-1] + _in_unicode(KEY[-1]).upper().replace("U", "u"),
        _in_unicode(KEY).replace("\\", "\\\\"),
        "".join(f"%{ord(letter):02X}" for letter in KEY),
        KEY.replace("-", "%2d"),
        KEY.replace("-", "&#45;"),
    ],
)
async def test_an_echoed_key_is_hidden_however_it_is_spelt(spelt: str) -> None:
    completed = json.dumps({"status": "completed", "results": [{"choices": [{"message": {"content": "so: KEY"}}]}]})
    body = completed.replace("KEY", spelt).encode()
    async with raw_server(saying(http_reply(body))) as server, client(server.url) as api:
        event = await api.poll("task-1", sync_upstream=False)
    assert isinstance(event, Answered)
    assert event.answer.text == "so: [key]"
    assert "so: [key]" in event.answer.completion
    refusal = json.dumps({"error": {"message": "bad KEY", "code": "KEY"}}).replace("KEY", spelt).encode()
    async with raw_server(saying(http_reply(refusal, "422 Unprocessable"))) as server:
        refused = await submit_to(server.url)
    assert isinstance(refused, Refused)
    assert (refused.error.message, refused.error.code) == ("bad [key]", "[key]")


async def test_what_is_told_of_another_task_is_not_taken_for_the_one_asked_about() -> None:
    completed = {"id": "task-2", "status": "completed", "results": [{"choices": [{"message": {"content": "hi"}}]}]}
    async with raw_server(saying(http_reply(json.dumps(completed).encode()))) as server, client(server.url) as api:
        other = await api.poll("task-1", sync_upstream=False)
        same = await api.poll("task-2", sync_upstream=False)
    assert isinstance(other, Unheard)
    assert isinstance(same, Answered)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
async def test_json_in_another_encoding_is_no_way_around_that(encoding: str) -> None:
    """The standard decoder guesses encodings; a key in one would pass as an answer's text."""
    completed = {"status": "completed", "results": [{"choices": [{"message": {"content": KEY}}]}]}
    body = json.dumps(completed).encode(encoding)
    async with raw_server(saying(http_reply(body))) as server, client(server.url) as api:
        event = await api.poll("task-1", sync_upstream=False)
    assert isinstance(event, Unheard)
    assert KEY not in repr(event)


async def test_a_price_list_nested_beyond_measure_is_none() -> None:
    async with raw_server(saying(http_reply(b"[" * 100_000))) as server, client(server.url) as api:
        assert await api.fetch("/api/pricing") is None
