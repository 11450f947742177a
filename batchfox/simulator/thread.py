"""The simulator in a thread with an event loop of its own, for programs whose loop is busy or that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from batchfox.simulator.server import Simulator
from batchfox.simulator.settings import Settings

_STOP_S = 10.0
# A question waits for no one but the loop: longer than that, and it hangs.
_ANSWER_S = 60.0
_Answer = TypeVar("_Answer")


class SimulatorThread:
    """`with SimulatorThread(Settings(...), state=path) as simulator: simulator.url`. Same arguments as `Simulator`.

    What hinders the start is raised by the `with` statement. The thread ends with the process.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        state: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._simulator = Simulator(settings, state=state, host=host, port=port)
        self._thread = threading.Thread(target=self._live, name="simulator", daemon=True)
        self._is_ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._error: BaseException | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return self._simulator.url

    def book(self, *, has_entries: bool = True) -> dict[str, Any]:
        """What `GET /__book` answers."""
        return self._ask(lambda: self._simulator.book(has_entries=has_entries))

    def control(self, **changes: Any) -> Settings:
        """Takes over the named settings from now on. Raises SettingsError."""
        return self._ask(lambda: self._simulator.control(**changes))

    def start(self) -> None:
        """Returns when it serves; raises what hindered it."""
        self._thread.start()
        self._is_ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Returns when port and state are closed. Safe to call twice."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:
                # The loop closed between the question and the call: it is stopping already.
                pass
            self._thread.join(_STOP_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        """Asks in the simulator's own thread: its state has no locks."""

        async def ask() -> _Answer:
            return question()

        if self._loop is None or not self._thread.is_alive():
            raise RuntimeError("the simulator is not running")
        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(_ANSWER_S)

    def _live(self) -> None:
        try:
            with asyncio.Runner(loop_factory=fastest_loop()) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._is_ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._simulator:
            self._is_ready.set()
            await self._stop.wait()


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed, else None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
