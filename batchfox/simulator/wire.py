"""Answers on the wire: whole ones, and those that a fault breaks."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from batchfox.simulator.faults import Fault
from batchfox.simulator.refusal import RefusalError
from batchfox.simulator.world import World

_HTML = "<html><head><title>{0} {1}</title></head><body><center><h1>{0} {1}</h1></center><hr>gateway</body></html>"
_REASONS = {200: "Welcome", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Time-out", 520: "Unknown"}
_FAULT_WAIT_S = 1.0


def reply(said: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=msgspec.json.encode(said), status=status, headers=headers, content_type="application/json")


def refuse(refusal: RefusalError) -> web.Response:
    """The answer to a refused call."""
    if refusal.plain is not None:
        return web.Response(text=refusal.plain, status=refusal.status, headers=refusal.headers)
    return reply(refusal.body(), refusal.status, refusal.headers)


async def send(request: web.Request, response: web.Response) -> bool:
    """Sends the answer at once; True where all of it went out to a client that was still there."""
    try:
        await response.prepare(request)
        await response.write_eof()
    except ConnectionError:
        return False
    return request.transport is not None and not request.transport.is_closing()


def drop(request: web.Request) -> web.Response:
    """Closes the connection without a byte. What is returned is for the server's form and never sent."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def reset(request: web.Request) -> web.Response:
    """Resets the connection (RST) without a byte."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            # Lingering for zero seconds is how a socket is told to send RST instead of FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def hang(world: World, request: web.Request) -> web.Response:
    """Never answers: ends when the client leaves (the handler is cancelled) or the simulator stops."""
    await world.stopping.wait()
    return drop(request)


async def broken(world: World, request: web.Request, fault: Fault, said: Mapping[str, Any]) -> web.StreamResponse:
    """The answer as the fault leaves it; `said` is what would have been answered."""
    whole = msgspec.json.encode(said)
    match fault.way:
        case "close":
            return drop(request)
        case "reset":
            return reset(request)
        case "hang":
            return await hang(world, request)
        case "cut":
            return await _cut(request, whole)
        case "error":
            return _error(world, fault)
        case "html":
            page = _HTML.format(fault.status, _REASONS.get(fault.status, "Error"))
            headers = world.retry_after(_FAULT_WAIT_S) if fault.status == 503 else None
            return web.Response(text=page, status=fault.status, content_type="text/html", headers=headers)
        case "redirect":
            return web.Response(status=fault.status, headers={"Location": request.path_qs})
        case "truncated":
            return _json(whole[: len(whole) // 2])
        case "empty":
            return _json(b"")
        case "not_utf8":
            return _json(whole.replace(b'"', b'"\xff\xfe', 1))
        case "wrong_json":
            return _json(b'{"success": true, "data": {"queued": 1}}')
        case "slow" | "other":
            raise AssertionError(f"{fault.name} breaks no answer")


def _error(world: World, fault: Fault) -> web.Response:
    message = f"Simulated {fault.name}: {fault.says}"
    headers = world.retry_after(_FAULT_WAIT_S) if fault.status in (429, 503) else None
    return refuse(RefusalError(fault.status, fault.kind, message, code=fault.code, headers=headers))


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


async def _cut(request: web.Request, whole: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(whole))})
    await response.prepare(request)
    await response.write(whole[: len(whole) // 2])
    # The half is to arrive before the end does.
    await asyncio.sleep(0)
    drop(request)
    return response
