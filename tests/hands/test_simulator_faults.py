"""Every fault by its name, and that chance is a function: of seed, request and number, not of order or time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import aiohttp
import pytest
from conftest import GUARD_S, in_the_end

from batchfox.core.chunks import Ear
from batchfox.simulator import FAULTS, Settings, Simulator, answer, digest_of
from batchfox.simulator.draws import draw
from batchfox.simulator.latency import parse_latency

SUBMIT = "/v1/llm/generations"
HEADERS = {"Authorization": "Bearer sk-test", "User-Agent": "batchfox/test"}
REQUEST: dict[str, Any] = {"model": "gemini-2.5-pro", "prompt": "count 1 to 3"}
STREAMED = REQUEST | {"stream": True}
PATIENT = aiohttp.ClientTimeout(total=GUARD_S)
SILENT_S = 0.1
SILENCE = "no answer"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[Simulator, aiohttp.ClientSession]]:
    settings.setdefault("latency", "constant:0")
    async with (
        Simulator(Settings(**settings)) as simulator,
        aiohttp.ClientSession(simulator.url, headers=HEADERS) as client,
    ):
        yield simulator, client


async def call(client: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> tuple[str, bytes]:
    """What a client sees: the status as text or the name of what went wrong, and the body."""
    try:
        async with client.request(method, path, json=body, timeout=PATIENT, allow_redirects=False) as reply:
            content = await reply.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__, b""
    try:
        json.loads(content)
    except UnicodeDecodeError:
        return f"{reply.status} not utf-8", content
    except ValueError:
        return f"{reply.status} no json", content
    return str(reply.status), content


async def call_in_vain(
    client: aiohttp.ClientSession, method: str, path: str, has_arrived: Callable[[], Any], body: Any = None
) -> str:
    """What a client sees of a call that the server has taken and never answers: `SILENCE`, and then it leaves."""
    asked = asyncio.ensure_future(call(client, method, path, body))
    try:
        await in_the_end(lambda: has_arrived() or asked.done(), "the call at the server")
        heard, _ = await asyncio.wait({asked}, timeout=SILENT_S)
        return asked.result()[0] if heard else SILENCE
    finally:
        asked.cancel()


async def submit(client: aiohttp.ClientSession, request: dict[str, Any] = REQUEST) -> str:
    async with client.post(SUBMIT, json=request) as reply:
        task = await reply.json()
    return str(task["id"])


async def poll(client: aiohttp.ClientSession, task_id: str, *, sync_upstream: bool = False) -> dict[str, Any]:
    params = {"sync_upstream": "true"} if sync_upstream else {}
    async with client.get(f"/v1/tasks/{task_id}", params=params) as reply:
        said: dict[str, Any] = await reply.json()
    return said


SUBMIT_FAULTS = {
    "reset_before": ("ClientOSError", "reset"),
    "hang_before": (SILENCE, "hang"),
    "http_500_before": ("500", "500"),
    "redirect_307": ("307 no json", "307"),
    "refuse_429": ("429", "429"),
    "refuse_503": ("503", "503"),
    "refuse_503_html": ("503 no json", "503"),
    "no_channel": ("422", "422"),
    "refuse_403_model": ("403", "403"),
    "refuse_no_model": ("422", "422"),
    "refuse_options": ("422", "422"),
    "lost": ("ServerDisconnectedError", None),
    "reset_after": ("ClientOSError", None),
    "hang": (SILENCE, None),
    "http_500": ("500", None),
    "http_502": ("502 no json", None),
    "http_504": ("504 no json", None),
    "http_408": ("408", None),
    "http_520": ("520 no json", None),
    "html_200": ("200 no json", None),
    "truncated_200": ("200 no json", None),
    "cut_200": ("ClientPayloadError", None),
    "empty_200": ("200 no json", None),
    "not_utf8_200": ("200 not utf-8", None),
    "wrong_json_200": ("200", None),
    "slow_answer": ("200", None),
}


def decided(simulator: Simulator) -> int:
    """Submits of which the book says what became of them."""
    totals = simulator.book()["totals"]
    refused: dict[str, int] = totals["submits_refused"]
    return int(totals["submits_accepted"]) + sum(refused.values())


@pytest.mark.parametrize("name", SUBMIT_FAULTS)
async def test_a_submit_fault_looks_right_and_is_billed_right(name: str) -> None:
    seen, refused = SUBMIT_FAULTS[name]
    async with serving(faults={name: 1.0}, slow_s=0.02) as (simulator, client):
        if seen == SILENCE:
            found, content = await call_in_vain(client, "POST", SUBMIT, lambda: decided(simulator), REQUEST), b""
        else:
            found, content = await call(client, "POST", SUBMIT, REQUEST)
        assert found == seen
        totals = simulator.book()["totals"]
        assert totals["submits_refused"] == ({} if refused is None else {refused: 1})
        assert totals["submits_accepted"] == (1 if refused is None else 0)
        if refused is None:
            (entry,) = simulator.book()["entries"]
            assert entry["fault"] == name
            assert entry["answered"] == (name == "slow_answer")
            assert (await poll(client, entry["task_id"]))["results"] == [answer(REQUEST)]
        if name == "no_channel":
            error = json.loads(content)["error"]
            assert (error["type"], error["code"]) == ("service_unavailable_error", "no_compatible_channel")


POLL_FAULTS = {
    "poll_500": "500",
    "poll_502_html": "502 no json",
    "poll_429": "429",
    "poll_hang": SILENCE,
    "poll_reset": "ClientOSError",
    "poll_truncated": "200 no json",
    "poll_cut": "ClientPayloadError",
    "poll_404": "404",
    "poll_not_utf8": "200 not utf-8",
}


@pytest.mark.parametrize("name", POLL_FAULTS)
async def test_a_poll_fault_looks_right_and_passes(name: str) -> None:
    async with serving(faults={name: 1.0}) as (simulator, client):
        task_id = await submit(client)
        path = f"/v1/tasks/{task_id}"
        if POLL_FAULTS[name] == SILENCE:
            seen = await call_in_vain(client, "GET", path, lambda: simulator.book()["totals"]["polls"])
        else:
            seen, _ = await call(client, "GET", path)
        assert seen == POLL_FAULTS[name]
        simulator.control(faults={})
        assert (await poll(client, task_id))["status"] == "completed"


async def test_poll_faults_are_drawn_for_each_poll() -> None:
    async with serving(faults={"poll_500": 0.5}) as (_, client):
        task_id = await submit(client)
        seen = {(await call(client, "GET", f"/v1/tasks/{task_id}"))[0] for _ in range(20)}
        assert seen == {"200", "500"}


async def test_null_results_pass_when_asked_without_sync_upstream() -> None:
    async with serving(faults={"null_results": 1.0}) as (simulator, client):
        task_id = await submit(client)
        found = [await poll(client, task_id, sync_upstream=True) for _ in range(12)]
        assert {said["status"] for said in found} == {"completed"}
        assert {json.dumps(said["results"]) for said in found} == {"null", "[]"}
        assert (await poll(client, task_id))["results"] == [answer(REQUEST)]
        simulator.control(faults={"null_results_cached": 1.0})
        assert not (await poll(client, task_id))["results"]


async def test_an_unknown_status_word_means_not_finished() -> None:
    async with serving(faults={"unknown_status": 1.0}) as (_, client):
        task_id = await submit(client)
        found = [await poll(client, task_id) for _ in range(3)]
        assert [said["status"] for said in found] == ["moderating", "moderating", "completed"]
        assert found[0]["results"] is None


async def test_legacy_results() -> None:
    async with serving(faults={"legacy_results": 1.0}) as (_, client):
        said = await poll(client, await submit(client))
        assert said["results"][0]["message"] == answer(REQUEST)["choices"][0]["message"]


@pytest.mark.parametrize("name", ["task_failed", "task_rejected"])
async def test_a_failed_task_says_why_and_costs_nothing(name: str) -> None:
    async with serving(faults={name: 1.0}) as (simulator, client):
        said = await poll(client, await submit(client))
        assert (said["status"], said["results"]) == ("failed", None)
        assert said["error"].keys() == {"code", "message", "type"}
        assert said["error"]["type"] == "task_error"
        assert said["usage"]["credits_charged"] == 0
        assert simulator.book()["totals"]["credits_charged"] == 0


async def test_a_rejection_recurs_and_a_failure_is_drawn_anew() -> None:
    async with serving(faults={"task_failed": 0.5, "task_rejected": 0.5}) as (_, client):
        by_request: dict[str, set[str]] = {}
        for prompt in "abcdefghij":
            ends = by_request.setdefault(prompt, set())
            for _ in range(8):
                said = await poll(client, await submit(client, REQUEST | {"prompt": prompt}))
                ends.add(said["error"]["code"] if said["error"] else "completed")
        rejected = [ends for ends in by_request.values() if ends <= {"content_policy_violation", "invalid_param"}]
        others = [ends for ends in by_request.values() if ends == {"upstream_error", "completed"}]
        assert all(len(ends) == 1 for ends in rejected)
        assert rejected
        assert len(rejected) + len(others) == len(by_request)


async def test_stuck_late_and_expired_tasks() -> None:
    async with serving(latency="constant:0.01") as (simulator, client):
        simulator.control(faults={"stuck": 1.0})
        stuck = await submit(client, REQUEST | {"prompt": "stuck"})
        simulator.control(faults={"late": 1.0})
        late = await submit(client, REQUEST | {"prompt": "late"})
        simulator.control(faults={"expired": 1.0}, latency="constant:0")
        expired = await submit(client, REQUEST | {"prompt": "expired"})
        assert (await call(client, "GET", f"/v1/tasks/{expired}"))[0] == "404"
        assert (await poll(client, stuck))["status"] in ("pending", "processing")
        entries = simulator.book()["entries"]
        assert [entry["fate"] for entry in entries] == ["stuck", "late", "expired"]
        assert entries[0]["finish_at"] is None
        assert entries[1]["finish_at"] - entries[1]["created"] == pytest.approx(0.2)
        assert late != stuck


SYNC_FATES = {"task_failed": ("500", 1), "task_rejected": ("422", 0), "expired": ("504", 1), "stuck": (SILENCE, 1)}


@pytest.mark.parametrize("fate", SYNC_FATES)
async def test_fates_of_a_synchronous_submit(fate: str) -> None:
    seen, billed = SYNC_FATES[fate]
    async with serving(faults={fate: 1.0}) as (simulator, client):
        request = REQUEST | {"sync": True}
        if seen == SILENCE:
            found = await call_in_vain(client, "POST", SUBMIT, lambda: decided(simulator), request)
        else:
            found, _ = await call(client, "POST", SUBMIT, request)
        assert found == seen
        assert simulator.book()["totals"]["submits_accepted"] == billed


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for part in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.split("\n"))
        found.append((fields.get("event", ""), json.loads(fields["data"])))
    return found


async def stream(client: aiohttp.ClientSession, task_id: str) -> list[tuple[str, Any]]:
    async with client.get(f"{SUBMIT}/{task_id}/stream") as reply:
        assert reply.content_type == "text/event-stream"
        return events(await reply.text())


def joined(found: list[tuple[str, Any]], field: str) -> str:
    deltas = [data["choices"][0]["delta"] for name, data in found if name in ("chunk", "")]
    return "".join(delta.get(field, "") for delta in deltas)


async def test_a_stream_tells_the_whole_answer_and_the_reasoning() -> None:
    async with serving(latency="constant:0.05") as (_, client):
        async with client.post(SUBMIT, json=STREAMED) as reply:
            task = await reply.json()
        assert task["stream"] == {"url": f"{SUBMIT}/{task['id']}/stream"}
        found = await stream(client, task["id"])
        assert found[-1] == ("done", {"total_chunks": len(found) - 1})
        whole = answer(STREAMED)
        assert joined(found, "content") == whole["choices"][0]["message"]["content"]
        assert joined(found, "reasoning_content")
        assert found[-2][1]["choices"][0]["finish_reason"] == "stop"
        polled = await poll(client, task["id"])
        assert polled["results"] == [whole]
        assert "reasoning" not in json.dumps(polled["results"])
        assert polled["data"] == {"content": joined(found, "content")}
        assert await stream(client, task["id"]) == found


async def test_sync_and_stream_answer_with_the_events() -> None:
    request = STREAMED | {"sync": True, "reasoning": False}
    async with serving() as (simulator, client):
        async with client.post(SUBMIT, json=request) as reply:
            found = events(await reply.text())
        assert joined(found, "content") == answer(request)["choices"][0]["message"]["content"]
        assert joined(found, "reasoning_content") == ""
        assert simulator.book()["entries"][0]["answered"]


async def test_a_task_without_stream_has_none() -> None:
    async with serving() as (_, client):
        found, _ = await call(client, "GET", f"{SUBMIT}/{await submit(client)}/stream")
        assert found == "404"


async def test_stream_faults() -> None:
    async with serving(slow_s=0.02) as (simulator, client):
        task_id = await submit(client, STREAMED)
        simulator.control(faults={"stream_cut": 1.0})
        assert (await call(client, "GET", f"{SUBMIT}/{task_id}/stream"))[0] == "ClientPayloadError"
        simulator.control(faults={"stream_error": 1.0})
        found = await stream(client, task_id)
        assert found[-1][0] == "error"
        assert found[-1][1]["message"]
        simulator.control(faults={"stream_slow": 1.0, "stream_unnamed": 1.0})
        found = await stream(client, task_id)
        assert [name for name, _ in found] == [""] * (len(found) - 1) + ["done"]
        simulator.control(faults={"task_failed": 1.0})
        found = await stream(client, await submit(client, STREAMED))
        assert found[-1][0] == "error"


async def test_streams_that_look_odd_tell_the_same() -> None:
    odd = ("unnamed", "marker", "crlf", "comments", "multiline", "split", "task")
    async with serving() as (simulator, client):
        task_id = await submit(client, STREAMED)
        for name in odd:
            simulator.control(faults={f"stream_{name}": 1.0})
            async with client.get(f"{SUBMIT}/{task_id}/stream") as reply:
                raw = await reply.read()
            assert ODDITIES[name](raw), (name, raw)
            ear = Ear()
            ear.hear(raw)
            assert ear.fold.is_whole
            whole = answer(STREAMED)["choices"][0]["message"]["content"]
            assert json.loads(ear.fold.completion() or b"")["choices"][0]["message"]["content"] == whole


ODDITIES: dict[str, Callable[[bytes], object]] = {
    "unnamed": lambda raw: b"event: chunk" not in raw and b"event: done" in raw,
    "marker": lambda raw: raw.endswith(b"data: [DONE]\n\n"),
    "crlf": lambda raw: b"\r\n\r\n" in raw or b"\r\r" in raw,
    "comments": lambda raw: b"\n: end\n" in raw and b"event: ping\n\n" in raw,
    "multiline": lambda raw: raw.count(b"\ndata: ") > 2 * raw.count(b"\n\n"),
    "split": lambda raw: b"event: done" in raw,
    "task": lambda raw: raw.startswith(b"event: task\n") and b'"task-llm' in raw.split(b"\n\n")[0],
}


async def test_streams_that_break_off() -> None:
    async with serving() as (simulator, client):
        task_id = await submit(client, STREAMED)
        simulator.control(faults={"stream_end": 1.0})
        found = await stream(client, task_id)
        assert found
        assert {name for name, _ in found} == {"chunk"}
        simulator.control(faults={"stream_refused": 1.0})
        assert (await call(client, "GET", f"{SUBMIT}/{task_id}/stream"))[0] == "503"
        simulator.control(faults={"stream_scrap": 1.0})
        async with client.get(f"{SUBMIT}/{task_id}/stream") as reply:
            assert b'data: {"choices": [{"del\n\n' in await reply.read()
        simulator.control(faults={"stream_hang": 1.0})
        with pytest.raises(TimeoutError):
            async with client.get(f"{SUBMIT}/{task_id}/stream", timeout=aiohttp.ClientTimeout(sock_read=0.3)) as reply:
                await reply.read()


def test_every_fault_has_its_test() -> None:
    others = {
        "task_failed",
        "task_rejected",
        "stuck",
        "expired",
        "late",
        "unknown_status",
        "legacy_results",
        "null_results",
        "null_results_cached",
        "refuse_unfetched",
        "media_unfetched",
        "stream_cut",
        "stream_error",
        "stream_slow",
        *(f"stream_{name}" for name in ODDITIES),
        "stream_end",
        "stream_refused",
        "stream_scrap",
        "stream_hang",
    }
    assert {fault.name for fault in FAULTS} == SUBMIT_FAULTS.keys() | POLL_FAULTS.keys() | others
    billed = {fault.name for fault in FAULTS if fault.where == "submit" and fault.is_task_made}
    assert billed == {name for name, (_, refused) in SUBMIT_FAULTS.items() if refused is None}


async def test_an_outage_that_closes_connections_ends() -> None:
    async with serving(outage="close") as (simulator, client):
        assert (await call(client, "POST", SUBMIT, REQUEST))[0] == "ServerDisconnectedError"
        assert simulator.book()["totals"]["submits_refused"] == {"close": 1}
        async with client.post("/__control", json={"outage": None}):
            pass
        assert (await call(client, "POST", SUBMIT, REQUEST))[0] == "200"


def lasted(entry: dict[str, Any]) -> float:
    return round(entry["finish_at"] - entry["created"], 3) if entry["finish_at"] else -1.0


async def test_the_same_seed_gives_the_same_in_any_order() -> None:
    mixed = {"task_failed": 0.3, "refuse_503": 0.3, "stuck": 0.3, "late": 0.3, "empty_200": 0.2}
    prompts = list("abcdefghijklmnop")

    async def rehearse(seed: int, order: list[str]) -> list[tuple[Any, ...]]:
        async with serving(seed=seed, latency="lognormal:2,0.5", faults=mixed) as (simulator, client):
            for prompt in order:
                await call(client, "POST", SUBMIT, REQUEST | {"prompt": prompt})
            return sorted(
                (entry["prompt_head"], entry["fate"], entry["fault"] or "", lasted(entry))
                for entry in simulator.book()["entries"]
            )

    first = await rehearse(1, prompts)
    assert await rehearse(1, prompts[::-1]) == first
    assert await rehearse(2, prompts) != first


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("constant:1", 1.0, 1.0),
        ("uniform:2,4", 2.8, 3.2),
        ("lognormal:2,0.5", 1.9, 2.1),
        ("bimodal:1,30,0.1", 0.95, 1.05),
    ],
)
def test_latencies_have_their_median(text: str, low: float, high: float) -> None:
    latency = parse_latency(text)
    drawn = [latency.seconds(draw(7, "first", number), draw(7, "second", number)) for number in range(3000)]
    assert low <= median(drawn) <= high
    if text.startswith("bimodal"):
        assert sum(second > 10 for second in drawn) == pytest.approx(300, abs=60)


def test_the_digest_is_blake2b_128_of_sorted_compact_json() -> None:
    assert digest_of({"b": 1, "a": "é"}) == digest_of({"a": "é", "b": 1})
    assert len(digest_of({})) == 32
