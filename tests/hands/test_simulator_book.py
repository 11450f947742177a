"""The simulator's book, its state across restarts and kills, its thread and its command."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from conftest import GUARD_S

from batchfox.cli.simulate import command
from batchfox.simulator import FAULTS, Settings, SettingsError, Simulator, SimulatorThread, StateError, answer

SUBMIT = "/v1/llm/generations"
HEADERS = {"Authorization": "Bearer sk-test", "User-Agent": "batchfox/test"}
REQUEST: dict[str, Any] = {"model": "nemotron-3-nano-omni", "prompt": "count 1 to 3"}


@asynccontextmanager
async def serving(state: Path | None = None, **settings: Any) -> AsyncIterator[tuple[Simulator, aiohttp.ClientSession]]:
    settings.setdefault("latency", "constant:0")
    async with (
        Simulator(Settings(**settings), state=state) as simulator,
        aiohttp.ClientSession(simulator.url, headers=HEADERS) as client,
    ):
        yield simulator, client


async def submit(client: aiohttp.ClientSession, prompt: str = "count 1 to 3") -> str:
    async with client.post(SUBMIT, json=REQUEST | {"prompt": prompt}) as reply:
        task = await reply.json()
    return str(task["id"])


async def poll(client: aiohttp.ClientSession, task_id: str) -> dict[str, Any]:
    async with client.get(f"/v1/tasks/{task_id}") as reply:
        said: dict[str, Any] = await reply.json()
    return said


async def test_the_book_counts_all_that_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (simulator, client):
        at = simulator._world.now() if simulator._world else 0.0
        monkeypatch.setattr(simulator._world, "now", lambda: at)  # all within one second, however long it takes
        ids = await asyncio.gather(*(submit(client, prompt) for prompt in ("a", "b", "a", "c" * 300)))
        assert len(set(ids)) == 4
        for _ in range(2):
            await poll(client, ids[0])
        async with client.post(SUBMIT, json={"model": "none", "prompt": "x"}):
            pass
        async with client.get("/__book") as reply:
            book = await reply.json()
        assert book == simulator.book()
        assert book["totals"] == {
            "submits_received": 5,
            "submits_accepted": 4,
            "submits_refused": {"422": 1},
            "polls": 2,
            "streams": 0,
            "uploads": 0,
            "credits_reserved": 0.04,
            "credits_charged": 0.04,
            "max_submits_in_60_s": 5,
            "max_submits_in_1_s": 5,
        }
        entries = {entry["task_id"]: entry for entry in book["entries"]}
        assert entries.keys() == set(ids)
        assert sorted(entry["submit_number"] for entry in book["entries"]) == [1, 1, 1, 2]
        assert entries[ids[0]]["polls"] == 2
        assert entries[ids[3]]["prompt_head"] == "c" * 200
        assert all(entry["answered"] for entry in book["entries"])
        async with client.get("/__book?entries=0") as reply:
            assert (await reply.json()).keys() == {"totals"}


async def test_the_credits_of_unfinished_tasks_are_held() -> None:
    async with serving(latency="constant:1000") as (simulator, client):
        await submit(client)
        totals = simulator.book()["totals"]
        assert (totals["credits_reserved"], totals["credits_charged"]) == (0.01, 0.0)
        async with client.get("/dashboard/billing/usage") as reply:
            assert (await reply.json())["total_usage"] == 1.0


async def test_tasks_uploads_and_book_survive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state.db"
    faults = {"lost": 1.0}
    async with serving(state, latency="constant:0.05") as (first, client):
        ids = [await submit(client, prompt) for prompt in "abc"]
        await poll(client, ids[0])
        simulator_before = first.url
        first.control(faults=faults)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await submit(client, "lost")
        first.control(faults={"refuse_503": 1.0})
        with pytest.raises(KeyError):
            await submit(client, "refused")
        async with client.post("/v1/files/upload/base64", json={"file_data": "AAAA", "file_name": "a.png"}) as reply:
            kept = await reply.json()
        before = first.book()
    async with serving(state, rpm=4) as (second, client):
        after = second.book()
        for book in (before, after):
            book["totals"].pop("credits_charged")
            for entry in book["entries"]:
                entry.pop("status")
        assert after == before
        assert [entry["answered"] for entry in after["entries"]] == [True, True, True, False]
        for task_id in [*ids, after["entries"][3]["task_id"]]:
            await poll(client, task_id)
        async with client.get(kept["url"].replace(simulator_before, second.url)) as reply:
            assert await reply.read() == b"\0\0\0"
        # The sliding window is remembered as well.
        async with client.post(SUBMIT, json=REQUEST) as reply:
            assert reply.status == 429
        second.control(rpm=None)
        await submit(client, "a")
        await submit(client, "refused")
        assert [entry["submit_number"] for entry in second.book()["entries"][-2:]] == [2, 2]


async def test_the_same_second_gives_other_ids_after_a_restart() -> None:
    ids = set()
    for _ in range(5):
        async with serving(seed=1) as (_, client):
            ids.add((await submit(client)).rpartition("-")[2])
    assert len(ids) == 5


async def test_a_foreign_or_held_state_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database, but long enough to look like one" * 100)
    with pytest.raises(StateError, match="no state file"):
        await Simulator(state=text).start()
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("create table x (y)")
    connection.close()
    with pytest.raises(StateError, match="something else"):
        await Simulator(state=other).start()
    assert "task" not in other.read_bytes().decode("latin-1")


async def test_a_full_disk_bills_nothing_and_passes(tmp_path: Path) -> None:
    async with serving(tmp_path / "state.db") as (simulator, client):
        assert simulator._world is not None
        assert simulator._world._store is not None
        connection = simulator._world._store._connection
        connection.execute("pragma max_page_count = 1")
        statuses: list[int] = []
        for _ in range(100):
            async with client.post(SUBMIT, json=REQUEST | {"prompt": "x" * 200}) as reply:
                statuses.append(reply.status)
            if reply.status != 200:
                break
        assert statuses[-1] == 500
        totals = simulator.book()["totals"]
        assert totals["submits_refused"] == {"500": 1}
        assert totals["submits_accepted"] == len(statuses) - 1
        connection.execute("pragma max_page_count = 100000")
        await submit(client)
    async with serving(tmp_path / "state.db") as (simulator, _):
        assert simulator.book()["totals"]["submits_accepted"] == len(statuses)
        assert simulator.book()["totals"]["submits_received"] == len(statuses) + 1


async def test_a_taken_port_is_an_error_and_frees_the_state(tmp_path: Path) -> None:
    async with serving() as (simulator, _):
        port = int(simulator.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            await Simulator(port=port, state=tmp_path / "state.db").start()
    async with serving(tmp_path / "state.db"):
        pass


def fetch(url: str, body: dict[str, Any]) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with aiohttp.ClientSession(url, headers=HEADERS) as client, client.post(SUBMIT, json=body) as reply:
            said: dict[str, Any] = await reply.json()
            return said

    return asyncio.run(ask())


def test_the_thread_serves_and_stops() -> None:
    before = threading.active_count()
    with SimulatorThread(Settings(latency="constant:0")) as simulator:
        assert fetch(simulator.url, REQUEST | {"sync": True}) == answer(REQUEST | {"sync": True})
        assert simulator.book()["totals"]["submits_accepted"] == 1
        assert simulator.control(rpm=1).rpm == 1
        with pytest.raises(SettingsError):
            simulator.control(rpm=0)
    assert threading.active_count() == before
    simulator.stop()


def test_the_thread_raises_what_hinders_its_start(tmp_path: Path) -> None:
    with pytest.raises(StateError):
        SimulatorThread(state=tmp_path).start()


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    code = "from batchfox.cli.simulate import command; command()"
    running = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        yield running, running.stdout.readline().strip()
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_prints_its_url_and_ends_with_the_signal(number: int, status: int) -> None:
    with process("--latency", "constant:0") as (running, url):
        assert fetch(url, REQUEST)["status"] == "pending"
        running.send_signal(number)
        out, hints = running.communicate(timeout=GUARD_S)
    assert running.returncode == status
    assert out == ""
    assert f"{url}/__book" in hints
    assert "Traceback" not in hints


def test_a_kill_loses_no_task_that_a_client_knows_of(tmp_path: Path) -> None:
    arguments = ("--latency", "constant:0", "--state", str(tmp_path / "state.db"))

    async def hammer(url: str, pid: int) -> list[str]:
        known: list[str] = []

        async def work(client: aiohttp.ClientSession, worker: int) -> None:
            number = 0
            while True:
                try:
                    known.append(await submit(client, f"{worker} {number}"))
                except aiohttp.ClientError:
                    return
                number += 1
                if len(known) == 200:
                    os.kill(pid, signal.SIGKILL)

        async with aiohttp.ClientSession(url, headers=HEADERS) as client:
            await asyncio.gather(*(work(client, worker) for worker in range(8)))
        return known

    with process(*arguments) as (running, url):
        known = asyncio.run(hammer(url, running.pid))
    assert len(known) >= 200
    with SimulatorThread(state=tmp_path / "state.db") as simulator:
        billed = {entry["task_id"] for entry in simulator.book()["entries"]}
    assert set(known) <= billed
    # At most what was on the wire of eight workers.
    assert len(billed) <= len(known) + 8


WRONG = [
    (["--fault", "none=1"], 'no fault is named "none"'),
    (["--fault", "lost"], "expected NAME=RATE"),
    (["--fault", "lost=2"], "expected a rate from 0 to 1"),
    (["--host", "0.0.0.0"], "expected 127.0.0.1 or ::1"),
    (["--latency", "weekly"], "expected constant:1"),
    (["--rpm", "0"], "rpm: expected 1 or more"),
    (["--retry-after", "never"], "--retry-after"),
    (["--state", "/proc/none/state.db"], "cannot be opened"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_wrong_options_are_usage_errors(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_faults_are_listed() -> None:
    result = CliRunner().invoke(command, ["--list-faults"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == [fault.name for fault in FAULTS]
