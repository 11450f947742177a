"""What tests of hands, whole runs, crashes and commands share: rows, jobs, outputs, processes, tiny servers.

Imported as `from conftest import …` by those tests; nothing here stands in for a part of batchfox.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from batchfox.core.job import Job
from batchfox.simulator import Settings, Simulator, SimulatorThread

KEY = "sk-test-5ecret-0123456789"
MODEL = "nemotron-3-nano-omni"
QUICK = "constant:0.02"
# How long a test waits before it is said to hang. It guards, and no verdict depends on it: a machine may be ten times
# slower than another, and stand still for seconds.
GUARD_S = 240.0

# The same examples every time, at any pace: a failure is of the change that was made, not of the day.
# `pytest --hypothesis-profile=explore` looks further.
_AT_ANY_PACE: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis_settings.register_profile("repeatable", derandomize=True, **_AT_ANY_PACE)
hypothesis_settings.register_profile("explore", print_blob=True, **_AT_ANY_PACE)
hypothesis_settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What runs remember in the user's state folder stays out of the user's."""
    folder, before = tmp_path_factory.mktemp("state"), os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(folder)
    yield folder
    os.environ.pop("XDG_STATE_HOME")
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before


# Rows and jobs.


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """A JSONL file of these rows."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_with_ids(number: int, *, first: int = 0) -> list[dict[str, Any]]:
    """`{"id": "r7", "prompt": "question 7"}` and so on."""
    return [{"id": f"r{n}", "prompt": f"question {n}"} for n in range(first, first + number)]


def tables_of(
    source: Path, folder: Path, base_url: str, /, *, rows_per_part: int = 50, **tables: dict[str, Any]
) -> dict[str, Any]:
    """A job's tables: ids and a high pace unless `tables` say otherwise; None takes a key out."""
    job: dict[str, Any] = {
        "input": {"path": str(source), "id": "id"},
        "request": {"model": MODEL},
        "api": {"base_url": base_url},
        "limits": {"requests_per_minute": 60_000},
        "output": {"path": str(folder), "rows_per_part": rows_per_part},
    }
    for name, table in tables.items():
        job[name] = {key: value for key, value in (job.get(name, {}) | table).items() if value is not None}
    return job


def job_of(source: Path, folder: Path, base_url: str, /, *, rows_per_part: int = 50, **tables: dict[str, Any]) -> Job:
    """The same as a `Job`."""
    return Job.from_dict(tables_of(source, folder, base_url, rows_per_part=rows_per_part, **tables))


# Outputs.


def parts_of(folder: Path) -> list[Path]:
    """The parts of an output, in order."""
    return sorted((folder / "data").glob("part-*.parquet"))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Every row of an output, part by part."""
    return [row for path in parts_of(folder) for row in pq.read_table(path).to_pylist()]


def by_id(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows by `row_id`; no id stands there twice."""
    rows = rows_of(folder)
    found = {row["row_id"]: row for row in rows}
    assert len(found) == len(rows), "an id stands in the output twice"
    return found


def superseded_rows(folder: Path) -> list[dict[str, Any]]:
    """Every outcome that a retry replaced."""
    paths = sorted((folder / "_batchfox" / "superseded").iterdir())
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def log_events(folder: Path) -> list[str]:
    """The names of the events in an output's log."""
    lines = (folder / "_batchfox" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [str(json.loads(line)["event"]) for line in lines]


# Conditions.


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Looks until the condition holds, and returns what it gave."""
    deadline = time.monotonic() + GUARD_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {GUARD_S:g} s for {what}"
        time.sleep(0.002)
    return found


@contextmanager
def once(condition: Callable[[], Any], what: str, then: Callable[[], Any]) -> Iterator[None]:
    """Does `then` in a thread as soon as the condition holds, while the block runs."""

    def wait() -> None:
        eventually(condition, what)
        then()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    yield
    waiter.join()


async def in_the_end(condition: Callable[[], Any], what: str) -> Any:
    """The same on an event loop, which goes on meanwhile."""
    deadline = time.monotonic() + GUARD_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {GUARD_S:g} s for {what}"
        await asyncio.sleep(0.002)
    return found


# Servers that are told things.


class Hearer:
    """A server that is told things. `statuses`: what it replies, the last again and again."""

    def __init__(self, *statuses: int) -> None:
        heard = self.heard = list[tuple[str, dict[str, Any]]]()
        self.may_reply = threading.Event()
        self.may_reply.set()
        may_reply = self.may_reply
        left = list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                heard.append((self.path, json.loads(body)))
                may_reply.wait(GUARD_S)
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


# Processes.


def environment(**values: str) -> dict[str, str]:
    """The environment of a child: the key is in it unless `values` take it out ("")."""
    chosen = os.environ | {"FOXAPI_API_KEY": KEY, "COLUMNS": "200", "PYTHONWARNINGS": "error"} | values
    return {name: value for name, value in chosen.items() if value != ""}


# Root without the right to pass over permissions: what a test locks is locked for its child, whoever runs the tests.
_AS_ANYBODY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    if os.geteuid() == 0 and libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the capability cannot be dropped")
os.execv(sys.argv[1], sys.argv[1:])
"""


def as_anybody(*arguments: str | Path) -> list[str]:
    """The command line that runs this Python with these arguments and no right to pass over permissions."""
    return [sys.executable, "-c", _AS_ANYBODY, sys.executable, *(str(argument) for argument in arguments)]


class Child:
    """A command of batchfox as a process; its output goes to files, so that no pipe can fill up."""

    def __init__(
        self, arguments: list[str], folder: Path, number: int, env: dict[str, str] | None = None, code: str = ""
    ) -> None:
        words = ["-c", f"{code}\nimport sys\nfrom batchfox.cli import main\nmain(sys.argv[1:])"] if code else []
        self._out = folder / f"child-{number}.out"
        self._err = folder / f"child-{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, *(words or ["-m", "batchfox"]), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment() if env is None else env,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status; minus the signal that ended it."""
        return self._process.wait(GUARD_S)

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(GUARD_S)


@pytest.fixture(autouse=True)
def importers() -> Iterator[None]:
    """A command that a test runs in this process keeps pandas out of it, which later tests import."""
    before = list(sys.meta_path)
    yield
    sys.meta_path[:] = before


class Starter(Protocol):
    """Starts `batchfox` with these arguments; `code` comes before it."""

    def __call__(self, *arguments: str | Path, env: dict[str, str] | None = None, code: str = "") -> Child: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts commands in the test's folder; whatever still runs at its end is killed."""
    children: list[Child] = []

    def begin(*arguments: str | Path, env: dict[str, str] | None = None, code: str = "") -> Child:
        child = Child([str(argument) for argument in arguments], tmp_path, len(children), env, code)
        children.append(child)
        return child

    yield begin
    for child in children:
        child.kill()


class Remote:
    """A simulator in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data=body), timeout=GUARD_S) as reply:
            return json.load(reply)

    def totals(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("/__book?entries=0")["totals"]
        return found

    def entries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("/__book")["entries"]
        return found

    def control(self, **changes: Any) -> None:
        self._ask("/__control", json.dumps(changes).encode())


@pytest.fixture
def remote(start: Starter, tmp_path: Path) -> Callable[..., Remote]:
    """Starts `batchfox simulate` with these options and a state file."""

    def begin(*options: str) -> Remote:
        child = start("simulate", "--state", tmp_path / "simulator.db", *options)
        eventually(lambda: child.out.endswith("\n") or child.is_over(), "the simulator's address")
        assert not child.is_over(), child.err
        return Remote(child.out.strip())

    return begin


# Simulators and other servers.


class Simulate(Protocol):
    """Starts a simulator in a thread."""

    def __call__(self, **settings: Any) -> SimulatorThread: ...


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulate]:
    """Starts simulators with these settings (quick ones unless told otherwise); the key is in the environment."""
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)
    running: list[SimulatorThread] = []

    def begin(**settings: Any) -> SimulatorThread:
        simulator = SimulatorThread(Settings(**({"latency": QUICK} | settings)))
        simulator.start()
        running.append(simulator)
        return simulator

    yield begin
    for simulator in running:
        simulator.stop()


def put_forward(simulator: Simulator | SimulatorThread, seconds: float) -> None:
    """The simulator's clock shows so much more from now on: tasks end without anybody waiting for them."""
    world = (simulator._simulator if isinstance(simulator, SimulatorThread) else simulator)._world
    assert world is not None
    now = world.now
    world.now = lambda: now() + seconds  # type: ignore[method-assign]


Conversation = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Takes HTTP requests off the wire and leaves the reply to the test. `requests`: head and body of each."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                request = head + await reader.readexactly(length)
                self.requests.append(request)
                await self._talk(request, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


LOOPBACK_PEM = Path(__file__).with_name("loopback.pem")


@asynccontextmanager
async def raw_server(talk: Conversation, *, is_tls: bool = False) -> AsyncIterator[RawServer]:
    """A server on a loopback port that says what `talk` says. `is_tls`: by the certificate of `LOOPBACK_PEM`."""
    raw = RawServer(talk)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if is_tls else None
    if tls is not None:
        tls.load_cert_chain(LOOPBACK_PEM)
    server = await asyncio.start_server(raw.handle, "127.0.0.1", 0, ssl=tls)
    raw.url = f"http{'s' if is_tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()


def http_reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole HTTP reply."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def saying(reply: bytes) -> Conversation:
    """Every request gets these bytes."""

    async def talk(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    return talk
