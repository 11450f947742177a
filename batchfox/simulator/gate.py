"""What every call passes first: the gateway before the API, outages, the key. And how refusals become answers."""

from __future__ import annotations

import sqlite3

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from batchfox.simulator.refusal import RefusalError
from batchfox.simulator.tasks import SUBMIT_PATH
from batchfox.simulator.wire import drop, refuse
from batchfox.simulator.world import World

# How the user agents begin that HTTP libraries send by themselves; aiohttp's and urllib's name Python first.
_DEFAULT_AGENTS = ("python-requests/", "python-httpx/", "python-urllib", "curl/", "aiohttp/")
_KEYLESS = ("/api/pricing", "/files/")


def gate(world: World) -> Middleware:
    """The middleware of one simulator. The book and the controls lie outside: no key, no outage."""

    @web.middleware
    async def pass_gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        path = request.path
        if path.startswith("/__"):
            return await _answered(request, handler)
        is_submit = path == SUBMIT_PATH and request.method == "POST"
        if is_submit:
            world.book.submit_arrived(world.now())
        if world.settings.outage == "close":
            if is_submit:
                world.book.submit_refused("close")
            return drop(request)
        try:
            _check_agent(world, request)
            _check_outage(world)
            _check_size(world, request)
            _check_key(world, request)
            return await handler(request)
        except RefusalError as refusal:
            answer = refuse(refusal)
        except web.HTTPException as error:
            answer = _of_server(error)
        except sqlite3.Error as error:
            # The state file is written before anything is billed or answered.
            answer = refuse(RefusalError(500, "server_error", f"The simulator's state file cannot be written: {error}"))
        if is_submit:
            world.book.submit_refused(str(answer.status))
        return answer

    return pass_gate


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RefusalError as refusal:
        return refuse(refusal)
    except web.HTTPException as error:
        return _of_server(error)


def _of_server(error: web.HTTPException) -> web.Response:
    """What the server refuses by itself (no such path, body too large) in the form of the API."""
    kind = "not_found" if error.status == 404 else "invalid_request_error"
    return refuse(RefusalError(error.status, kind, error.text or error.reason))


def _check_agent(world: World, request: web.Request) -> None:
    agent = request.headers.get("User-Agent", "").lower()
    is_default = agent.startswith(_DEFAULT_AGENTS) or (agent.startswith("python/") and " aiohttp/" in agent)
    if world.settings.gateway and is_default:
        raise RefusalError(403, "gateway", "error code: 1010", plain="error code: 1010")


def _check_outage(world: World) -> None:
    match world.settings.outage:
        case "503":
            headers = world.retry_after(1.0)
            raise RefusalError(
                503, "service_unavailable", "The service is unavailable", code="service_unavailable", headers=headers
            )
        case "500":
            raise RefusalError(500, "server_error", "Internal server error")
        case _:
            return


def _check_size(world: World, request: web.Request) -> None:
    most = world.settings.body_limit_bytes
    if (request.content_length or 0) > most:
        raise RefusalError(413, "invalid_request_error", f"body: expected at most {most} bytes")


def _check_key(world: World, request: web.Request) -> None:
    if request.path.startswith(_KEYLESS):
        return
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    settings = world.settings
    is_known = key in settings.keys if settings.keys else key.startswith("sk-") and len(key) > len("sk-")
    if settings.key_refused or scheme.lower() != "bearer" or not is_known:
        message = "Invalid API key" if key else "Missing API key: expected Authorization: Bearer sk-..."
        raise RefusalError(401, "authentication_error", message, code="invalid_api_key")
