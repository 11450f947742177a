"""The server: opens the state, serves on a loopback port, closes in order."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from batchfox.simulator.desk import Desk
from batchfox.simulator.gate import gate
from batchfox.simulator.polls import Polls
from batchfox.simulator.settings import Settings, SettingsError
from batchfox.simulator.store import Store
from batchfox.simulator.streams import Streams
from batchfox.simulator.submits import Submits
from batchfox.simulator.tasks import SUBMIT_PATH
from batchfox.simulator.uploads import Uploads
from batchfox.simulator.world import World

LOOPBACK = ("127.0.0.1", "::1")

_BACKLOG = 1024
_SHUTDOWN_S = 0.1


class Simulator:
    """The API on a port of this machine. `async with Simulator(Settings(...)) as simulator: simulator.url`.

    `state`: a file in which tasks, uploads and book outlive the process; its uploads lie in a folder beside it. None:
    memory only. `port` 0: any free one. Raises SettingsError, StateError, or OSError where the port is taken.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        state: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if host not in LOOPBACK:
            raise SettingsError(f'host: expected {" or ".join(LOOPBACK)}, found "{host}": the simulator has no secrets')
        self._settings = settings or Settings()
        self._state = state
        self._host = host
        self._port = port
        self._world: World | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it serves; while it runs."""
        return self._open().url

    def book(self, *, has_entries: bool = True) -> dict[str, Any]:
        """What `GET /__book` answers."""
        return Desk(self._open()).book(has_entries=has_entries)

    def control(self, **changes: Any) -> Settings:
        """What `POST /__control` does: takes over the named settings from now on. Raises SettingsError."""
        return self._open().change(changes)

    async def start(self) -> None:
        """Opens the state and the port."""
        folder = None if self._state is None else self._state.with_name(f"{self._state.name}.files")
        store = None if self._state is None else Store(self._state)
        world = self._world = World(self._settings, store, folder)
        try:
            application = _application(world)
            self._runner = web.AppRunner(
                application,
                access_log=None,
                handle_signals=False,
                # A handler that hangs or waits ends when its client leaves.
                handler_cancellation=True,
                shutdown_timeout=_SHUTDOWN_S,
            )
            await self._runner.setup()
            site = web.TCPSite(self._runner, self._host, self._port, backlog=_BACKLOG)
            await site.start()
        except BaseException:
            await self.stop()
            raise
        world.url = f"http://{self._shown_host()}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Ends what hangs, closes port and state. Safe to call twice."""
        world, self._world = self._world, None
        if world is None:
            return
        world.stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
        world.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _shown_host(self) -> str:
        return f"[{self._host}]" if ":" in self._host else self._host

    def _open(self) -> World:
        if self._world is None:
            raise RuntimeError("the simulator is not running")
        return self._world


def _application(world: World) -> web.Application:
    submits, polls, streams = Submits(world), Polls(world), Streams(world)
    uploads, desk = Uploads(world), Desk(world)
    application = web.Application(middlewares=[gate(world)], client_max_size=world.settings.body_limit_bytes)
    application.add_routes(
        [
            web.post(SUBMIT_PATH, submits.post),
            web.get("/v1/tasks/{id}", polls.get),
            web.get(SUBMIT_PATH + "/{id}/stream", streams.get),
            web.get("/v1/configs/llm_generations_models", desk.get_models),
            web.post("/v1/files/upload/stream", uploads.post_stream),
            web.post("/v1/files/upload/base64", uploads.post_base64),
            web.post("/v1/files/upload/url", uploads.post_url),
            web.get("/files/{id}/{filename}", uploads.get),
            web.get("/api/pricing", desk.get_pricing),
            web.get("/dashboard/billing/subscription", desk.get_subscription),
            web.get("/dashboard/billing/usage", desk.get_usage),
            web.get("/__book", desk.get_book),
            web.get("/__control", desk.get_control),
            web.post("/__control", desk.post_control),
        ]
    )
    return application
