"""A bare API server that answers at once and keeps nothing: what the other end costs when it costs next to nothing.

Run as a process of its own. It prints its port on the first line, then serves until its standard input closes. A
submit is accepted, a poll finds the task completed (with `--latency`: processing, until so long after the submit; the
moment of the submit is in the task's id). `GET /__usage` reports the CPU seconds this process has used.

It checks nothing and faithfully implements nothing: that is the simulator's work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
from typing import cast

import uvloop

_SUBMIT = b"POST /v1/llm/generations "
_POLL = b"GET /v1/tasks/"
_USAGE = b"GET /__usage "
_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
# task-llmrouter-<ms of the submit, 10 digits>-<serial, 8 digits>: of one width, so that lengths are known beforehand.
_ID_WIDTH = 34
_MS = slice(15, 25)

_COMPLETION = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1776874483,
    "model": "gemini-2.5-flash",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "A red fox stands at the edge of a snow-covered birch wood in the low light of an early "
                "winter morning, its breath visible, one forepaw lifted, looking past the camera toward something "
                "that moves among the trees. Behind it a line of tracks leads back to a frozen stream. (<id>)",
                "refusal": None,
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1290, "completion_tokens": 61, "total_tokens": 1351},
}


def _task(status: str, *, results: list[object] | None, usage: dict[str, float]) -> bytes:
    task = {
        "id": "<id>",
        "object": "llm.generation.task",
        "type": "llm",
        "model": "gemini-2.5-flash",
        "status": status,
        "progress": 100 if results else 0,
        "created": 1776874481,
        "stream": None,
        "results": results,
        "error": None,
        "usage": usage,
    }
    return json.dumps(task, separators=(",", ":")).encode()


def _reply(body: bytes, status: str = "200 OK") -> list[bytes]:
    """A whole HTTP reply, cut where the task's id goes: put back together by `task_id.join`."""
    length = len(body) + body.count(b"<id>") * (_ID_WIDTH - len(b"<id>"))
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return (head.encode() + body).split(b"<id>")


_ACCEPTED = _reply(_task("pending", results=None, usage={"credits_reserved": 1.25}))
_PROCESSING = _reply(_task("processing", results=None, usage={"credits_reserved": 1.25}))
_COMPLETED = _reply(_task("completed", results=[_COMPLETION], usage={"credits_charged": 1.0}))
_UNKNOWN = _reply(b'{"error":{"message":"no such path","type":"not_found"}}', "404 Not Found")[0]


class Server:
    """What the connections share: the clock, the serial number, the counts."""

    def __init__(self, loop: asyncio.AbstractEventLoop, latency_s: float) -> None:
        self.submits = 0
        self.polls = 0
        self._loop = loop
        self._began_at = loop.time()
        self._latency_ms = latency_s * 1000.0

    def _now_ms(self) -> float:
        return (self._loop.time() - self._began_at) * 1000.0

    def submitted(self) -> bytes:
        self.submits += 1
        ms = int(self._now_ms()) if self._latency_ms else 0
        return (b"task-llmrouter-%010d-%08d" % (ms, self.submits)).join(_ACCEPTED)

    def polled(self, task_id: bytes) -> bytes:
        self.polls += 1
        is_running = self._latency_ms and self._now_ms() < int(task_id[_MS]) + self._latency_ms
        return task_id.join(_PROCESSING if is_running else _COMPLETED)

    def usage(self) -> bytes:
        used = resource.getrusage(resource.RUSAGE_SELF)
        report = {"cpu_s": used.ru_utime + used.ru_stime, "submits": self.submits, "polls": self.polls}
        return b"".join(_reply(json.dumps(report).encode()))


class Connection(asyncio.Protocol):
    """One keep-alive connection. HTTP as the aiohttp client writes it, no more."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._wanted = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return
            data = bytes(self._buffer)
        self._wanted = 0
        while data:
            end = data.find(_END)
            if end < 0:
                break
            end += len(_END)
            if data.startswith(_SUBMIT):
                end += _body_length(data[:end])
                if len(data) < end:
                    self._wanted = end
                    break
                reply = self._server.submitted()
            elif data.startswith(_POLL):
                reply = self._server.polled(data[len(_POLL) : len(_POLL) + _ID_WIDTH])
            else:
                reply = self._server.usage() if data.startswith(_USAGE) else _UNKNOWN
            self._transport.write(reply)
            data = data[end:]
        self._buffer = bytearray(data)


def _body_length(head: bytes) -> int:
    head = head.lower()
    start = head.index(_LENGTH) + len(_LENGTH)
    return int(head[start : head.index(b"\r\n", start)])


async def serve(latency_s: float) -> None:
    """Serves until standard input closes: when the process that started this one is gone, so is this one."""
    loop = asyncio.get_running_loop()
    served = Server(loop, latency_s)
    listening = await loop.create_server(lambda: Connection(served), "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 1) else closed.set())
    await closed.wait()
    listening.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A bare API server that answers at once and keeps nothing.")
    parser.add_argument("--latency", type=float, default=0.0, metavar="S", help="seconds from submit to completed")
    uvloop.run(serve(parser.parse_args().latency))


if __name__ == "__main__":
    main()
