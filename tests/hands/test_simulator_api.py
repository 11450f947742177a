"""Every endpoint and every refusal of the simulator, over a real socket."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Any

import aiohttp
import pytest

from batchfox.simulator import Settings, SettingsError, Simulator, answer, digest_of
from batchfox.simulator.catalogue import Catalogue
from batchfox.simulator.checks import check
from batchfox.simulator.refusal import RefusalError

SUBMIT = "/v1/llm/generations"
HEADERS = {"Authorization": "Bearer sk-test", "User-Agent": "batchfox/test"}
PNG = "data:image/png;base64,iVBORw0KGgo="
CLIP = "https://example.com/clip.mp4"
PICTURE = "https://example.com/x.png"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[Simulator, aiohttp.ClientSession]]:
    settings.setdefault("latency", "constant:0")
    async with (
        Simulator(Settings(**settings)) as simulator,
        aiohttp.ClientSession(simulator.url, headers=HEADERS) as client,
    ):
        yield simulator, client


def user(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def block(kind: str, url: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}


SHAPES: dict[str, dict[str, Any]] = {
    "text": {"model": "gpt-5.5", "prompt": "count 1 to 3", "temperature": 2, "max_tokens": 1, "system_prompt": None},
    "vision": {"model": "claude-opus-4-7", "prompt": "Describe", "image_urls": [PICTURE, PNG], "max_tokens": 64},
    "video": {
        "model": "gemini-2.5-pro",
        "prompt": "What happens?",
        "video_urls": [
            CLIP,
            "https://youtu.be/abc",
            "https://www.youtube.com/watch?v=abc",
            "data:video/mp4;base64,AAAA",
        ],
    },
    "audio": {"model": "nemotron-3-nano-omni", "audio_url": "https://example.com/a.wav"},
    "custom": {
        "model": "gemini-2.5-pro",
        "messages": [
            {"role": "system", "content": "Be terse."},
            *user(
                {"type": "text", "text": "Sum up"},
                block("image_url", PICTURE),
                block("video_url", CLIP),
                block("audio_url", "https://example.com/a.mp3"),
                block("file_url", "https://example.com/doc.pdf"),
            ),
        ],
        "top_p": 0.5,
        "stop": ["x"],
        "frequency_penalty": 1,
    },
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_request_of_each_shape_is_submitted_and_polled(shape: str) -> None:
    request = SHAPES[shape]
    async with serving() as (simulator, client):
        async with client.post(SUBMIT, json=request) as reply:
            assert reply.status == 200
            task = await reply.json()
        head = "task-llm-" if shape == "custom" else "task-llmrouter-"
        assert task["id"].startswith(f"{head}{task['created']}-")
        assert len(task["id"].rpartition("-")[2]) == 8
        reserved = task["usage"]["credits_reserved"]
        assert task | {"id": "", "created": 0, "usage": None} == {
            "id": "",
            "object": "llm.generation.task",
            "type": "llm",
            "model": request["model"],
            "status": "pending",
            "progress": 0,
            "created": 0,
            "stream": None,
            "results": None,
            "error": None,
            "usage": None,
        }
        async with client.get(f"/v1/tasks/{task['id']}", params={"sync_upstream": "true"}) as reply:
            polled = await reply.json()
        assert polled["status"] == "completed"
        assert polled["progress"] == 100
        assert polled["results"] == [answer(request)]
        assert 0 < polled["usage"]["credits_charged"] <= reserved == polled["usage"]["credits_reserved"]
        (entry,) = simulator.book()["entries"]
        assert (entry["task_id"], entry["shape"], entry["digest"]) == (task["id"], shape, digest_of(request))


def test_an_answer_names_what_was_asked_and_ends_with_the_digest() -> None:
    said = answer(SHAPES["custom"])["choices"][0]["message"]["content"]
    assert said.startswith('The simulator was asked "Sum up" with 1 image, 1 video, 1 audio, 1 file.')
    assert said.endswith(f"[{digest_of(SHAPES['custom'])}]")
    short = answer(SHAPES["text"])
    assert short["choices"][0]["finish_reason"] == "length"
    assert short["usage"]["completion_tokens"] == 1


async def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    async with serving() as (simulator, client):
        for body in ('{"model":"gpt-5.5","prompt":"é"}', '{ "prompt": "\\u00e9", "model": "gpt-5.5" }'):
            async with client.post(SUBMIT, data=body) as reply:
                assert reply.status == 200
        assert [entry["submit_number"] for entry in simulator.book()["entries"]] == [1, 2]


async def test_status_goes_by_the_clock() -> None:
    async with serving(latency="constant:1000", cache_lag_s=1000.0) as (_, client):
        async with client.post(SUBMIT, json=SHAPES["text"]) as reply:
            task = await reply.json()
        async with client.get(f"/v1/tasks/{task['id']}") as reply:
            assert (await reply.json())["status"] == "pending"


async def test_sync_waits_and_returns_the_completion() -> None:
    request = SHAPES["text"] | {"sync": True}
    async with serving(latency="constant:0.05") as (simulator, client):
        async with client.post(SUBMIT, json=request) as reply:
            assert await reply.json() == answer(request)
        (entry,) = simulator.book()["entries"]
        assert entry["answered"]
        assert entry["status"] == "completed"


async def test_the_endpoints_around() -> None:
    async with serving(balance=50.0, models=("gemini-new",)) as (_, client):
        async with client.get("/v1/configs/llm_generations_models") as reply:
            models = await reply.json()
        assert models["object"] == "list"
        assert {
            "id": "gemini-new",
            "object": "model",
            "capabilities": ["text", "vision", "video", "audio", "file"],
        } in (models["data"])
        async with client.get("/api/pricing", headers={"Authorization": ""}) as reply:
            prices = await reply.json()
        assert prices["group_ratio"] == {"default": 1}
        fixed = next(row for row in prices["data"] if row["model_name"] == "nemotron-3-nano-omni")
        assert (fixed["quota_type"], fixed["model_price"]) == (1, 0.01)
        async with client.post(SUBMIT, json=SHAPES["audio"]):
            pass
        async with client.get("/dashboard/billing/subscription") as reply:
            assert (await reply.json())["hard_limit_usd"] == 50
        async with client.get("/dashboard/billing/usage") as reply:
            assert (await reply.json())["total_usage"] == 1.0


async def test_uploads_are_kept_and_served_back() -> None:
    content = bytes(range(256)) * 10
    async with serving(upload_limit_bytes=3000) as (simulator, client):
        form = aiohttp.FormData({"auto_cleanup": "true", "file_name": "a b.png"})
        form.add_field("file", content, filename="ignored.png")
        async with client.post("/v1/files/upload/stream", data=form) as reply:
            streamed = await reply.json()
        encoded = base64.b64encode(content).decode()
        asked = {"file_data": f"data:image/png;base64,{encoded}", "file_name": "../b.png"}
        async with client.post("/v1/files/upload/base64", json=asked) as reply:
            sent = await reply.json()
        async with client.post("/v1/files/upload/url", json={"url": "https://example.com/deep/c.mp4?x=1"}) as reply:
            named = await reply.json()
        assert [said["filename"] for said in (streamed, sent, named)] == ["a b.png", "b.png", "c.mp4"]
        assert streamed.keys() == {"id", "filename", "url", "size", "created"}
        for said in (streamed, sent):
            async with client.get(said["url"]) as reply:
                assert reply.content_type == "image/png"
                assert await reply.read() == content
        digest = blake2b(content, digest_size=16).hexdigest()
        uploads = simulator.book()["uploads"]
        assert [upload["digest"] for upload in uploads[:2]] == [digest, digest]
        assert [upload["how"] for upload in uploads] == ["stream", "base64", "url"]
        assert simulator.book()["totals"]["uploads"] == 3

        form = aiohttp.FormData()
        form.add_field("file", content + content, filename="large")
        async with client.post("/v1/files/upload/stream", data=form) as reply:
            assert reply.status == 413
        asked = {"file_data": base64.b64encode(content + content).decode()}
        async with client.post("/v1/files/upload/base64", json=asked) as reply:
            assert reply.status == 413
        async with client.post("/v1/files/upload/base64", json={"file_data": "!"}) as reply:
            assert reply.status == 422
        async with client.post("/v1/files/upload/stream", data={"file_name": "none"}) as reply:
            assert reply.status == 422
        async with client.get("/files/file-none/x") as reply:
            assert reply.status == 404
    async with serving(body_limit_bytes=5000) as (simulator, client):
        form = aiohttp.FormData()
        form.add_field("file", content * 4, filename="large")
        async with client.post("/v1/files/upload/stream", data=form) as reply:
            assert reply.status == 413
        assert simulator.book()["uploads"] == []


GEMINI: dict[str, Any] = {"model": "gemini-2.5-pro", "prompt": "p"}
CLAUDE: dict[str, Any] = {"model": "claude-opus-4-7", "prompt": "p"}
NEMOTRON: dict[str, Any] = {"model": "nemotron-3-nano-omni", "prompt": "p"}
GPT: dict[str, Any] = {"model": "gpt-5.5", "prompt": "p"}
KIMI: dict[str, Any] = {"model": "kimi-k2.6", "prompt": "p"}
SAY = {"messages": [{"role": "user", "content": "hi"}]}
PARAM, RULE, CAPABILITY = "invalid_param", "model_rule_violation", "model_not_support_capability"

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": "p"}, PARAM, "model:"),
    ({"model": 7, "prompt": "p"}, PARAM, "model:"),
    ({"model": "gpt-none", "prompt": "p"}, "model_not_supported", "model:"),
    ({"model": "gpt-5.5"}, PARAM, "prompt:"),
    ({"model": "gpt-5.5", "prompt": 3}, PARAM, "prompt:"),
    (GEMINI | {"prompt": "x" * 100_001}, PARAM, "prompt: expected at most 100000 characters, found 100001"),
    (GEMINI | {"system_prompt": "x" * 10_001}, PARAM, "system_prompt:"),
    (GEMINI | {"temperature": 2.1}, PARAM, "temperature:"),
    (GEMINI | {"temperature": -0.1}, PARAM, "temperature:"),
    (GEMINI | {"temperature": "1"}, PARAM, "temperature:"),
    (GEMINI | {"max_tokens": 0}, PARAM, "max_tokens:"),
    (GEMINI | {"max_tokens": 1.5}, PARAM, "max_tokens:"),
    (GEMINI | {"max_tokens": True}, PARAM, "max_tokens:"),
    (GEMINI | {"reasoning": "yes"}, PARAM, "reasoning:"),
    (GEMINI | {"sync": "yes"}, PARAM, "sync:"),
    (GEMINI | {"stream": None}, PARAM, "stream:"),
    (GEMINI | {"image_urls": [PICTURE], "video_urls": [CLIP]}, PARAM, "image_urls, video_urls:"),
    (GEMINI | SAY, PARAM, "messages, prompt:"),
    (GEMINI | {"image_urls": []}, PARAM, "image_urls:"),
    (GEMINI | {"image_urls": PICTURE}, PARAM, "image_urls:"),
    (GEMINI | {"image_urls": [PICTURE] * 11}, PARAM, "image_urls: expected 1 to 10 items, found 11"),
    (GEMINI | {"image_urls": [PICTURE, 5]}, PARAM, "image_urls[1]:"),
    (GEMINI | {"image_urls": ["ftp://example.com/x.png"]}, PARAM, "image_urls[0]:"),
    (GEMINI | {"image_urls": ["http://[x.png"]}, PARAM, "image_urls[0]:"),
    (GEMINI | {"image_urls": ["data:image/png,abc"]}, PARAM, "image_urls[0]:"),
    (GEMINI | {"image_urls": ["data:image/png;base64,"]}, PARAM, "image_urls[0]:"),
    (GEMINI | {"image_urls": ["data:image/png;base64,a?b="]}, PARAM, "image_urls[0]:"),
    (GEMINI | {"image_urls": ["data:video/mp4;base64,AAAA"]}, PARAM, "image_urls[0]:"),
    (GEMINI | {"video_urls": ["https://example.com/clip.avi"]}, PARAM, "video_urls[0]:"),
    (GEMINI | {"video_urls": [CLIP] * 11}, PARAM, "video_urls:"),
    (GEMINI | {"video_urls": ["https://www.youtube.com/shorts/abc"]}, PARAM, "video_urls[0]: YouTube Shorts"),
    (GEMINI | {"video_urls": ["https://www.youtube.com/playlist?list=1"]}, PARAM, "video_urls[0]:"),
    (NEMOTRON | {"video_urls": ["https://youtu.be/abc"]}, RULE, "video_urls[0]: YouTube"),
    (NEMOTRON | {"video_urls": [CLIP, CLIP]}, RULE, "video_urls:"),
    (NEMOTRON | {"image_urls": [PICTURE, PICTURE]}, RULE, "image_urls:"),
    (NEMOTRON | {"audio_url": "https://example.com/a.flac"}, RULE, "audio_url:"),
    (NEMOTRON | {"audio_url": "data:audio/ogg;base64,AAAA"}, RULE, "audio_url:"),
    (GEMINI | {"audio_url": "https://example.com/a.wma"}, PARAM, "audio_url:"),
    (GEMINI | {"audio_url": ["https://example.com/a.wav"]}, PARAM, "audio_url:"),
    (GPT | {"image_urls": [PICTURE, PICTURE]}, RULE, "image_urls:"),
    (GPT | {"video_urls": [CLIP]}, CAPABILITY, "video_urls:"),
    (GPT | {"audio_url": "https://example.com/a.wav"}, CAPABILITY, "audio_url:"),
    (CLAUDE | {"video_urls": [CLIP]}, CAPABILITY, "video_urls:"),
    (KIMI | {"audio_url": "https://example.com/a.wav"}, CAPABILITY, "audio_url:"),
    ({"model": "claude-opus-4-7"} | SAY, RULE, "max_tokens:"),
    ({"model": "gpt-5.5", "max_tokens": 15} | SAY, RULE, "max_tokens:"),
    ({"model": "gpt-5.4", "max_tokens": 15} | SAY, RULE, "max_tokens:"),
    ({"model": "gpt-5.5", "temperature": "1"} | SAY, PARAM, "temperature:"),
    ({"model": "gpt-5.5", "top_p": []} | SAY, PARAM, "top_p:"),
    ({"model": "gpt-5.5", "stop": [1]} | SAY, PARAM, "stop:"),
    ({"model": "gpt-5.5", "messages": []}, PARAM, "messages:"),
    ({"model": "gpt-5.5", "messages": "hi"}, PARAM, "messages:"),
    ({"model": "gpt-5.5", "messages": ["hi"]}, PARAM, "messages[0]:"),
    ({"model": "gpt-5.5", "messages": [{"role": "robot", "content": "hi"}]}, PARAM, "messages[0].role:"),
    ({"model": "gpt-5.5", "messages": [{"role": ["user"], "content": "hi"}]}, PARAM, "messages[0].role:"),
    ({"model": "gpt-5.5", "messages": [{"role": "user"}]}, PARAM, "messages[0].content:"),
    ({"model": "gpt-5.5", "messages": user()}, PARAM, "messages[0].content:"),
    ({"model": "gpt-5.5", "messages": user("hi")}, PARAM, "messages[0].content[0]:"),
    ({"model": "gpt-5.5", "messages": user({"type": "text"})}, PARAM, "messages[0].content[0].text:"),
    (
        {"model": "gpt-5.5", "messages": user({"type": "odd"})},
        "unsupported_content_type",
        "messages[0].content[0].type:",
    ),
    (
        {"model": "gpt-5.5", "messages": user({"type": "image_url", "image_url": PICTURE})},
        PARAM,
        "messages[0].content[0]",
    ),
    ({"model": "gpt-5.5", "messages": user(block("file_url", "https://x.org/d.pdf"))}, CAPABILITY, "messages[0]"),
    ({"model": "gpt-5.5", "messages": user(*[block("image_url", PICTURE)] * 2)}, RULE, "messages:"),
    (
        {"model": "nemotron-3-nano-omni", "messages": user(block("image_url", PICTURE), block("video_url", CLIP))},
        RULE,
        "messages:",
    ),
    (
        {"model": "gemini-2.5-pro", "messages": user(block("video_url", "https://youtube.com/shorts/a"))},
        PARAM,
        "messages[0].content[0].video_url.url: YouTube Shorts",
    ),
]


async def test_broken_rules_are_refused_and_not_billed() -> None:
    async with serving() as (simulator, client):
        for request, code, message in REFUSED:
            async with client.post(SUBMIT, json=request) as reply:
                said = (await reply.json())["error"]
                case = f"{request!s:.200}: {said}"
                assert reply.status == 422, case
                assert (said["type"], said["code"]) == ("invalid_request_error", code), case
                assert said["message"].startswith(message), case
        totals = simulator.book()["totals"]
        assert totals["submits_refused"] == {"422": len(REFUSED)}
        assert totals["submits_accepted"] == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff{}", b'"x"', b'{"model":NaN}', b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    async with serving() as (_, client), client.post(SUBMIT, data=body) as reply:
        assert reply.status == 400
        assert (await reply.json())["error"]["type"] == "invalid_request_error"


CALLS: list[tuple[dict[str, Any], dict[str, str], int, str]] = [
    ({}, {"Authorization": ""}, 401, "authentication_error"),
    ({}, {"Authorization": "Bearer pk-test"}, 401, "authentication_error"),
    ({"keys": ("sk-other",)}, {}, 401, "authentication_error"),
    ({"key_refused": True}, {}, 401, "authentication_error"),
    ({"balance": 0.0}, {}, 402, "insufficient_quota"),
    ({"body_limit_bytes": 10}, {}, 413, "invalid_request_error"),
    ({"outage": "503"}, {}, 503, "service_unavailable"),
    ({"outage": "500"}, {}, 500, "server_error"),
]


@pytest.mark.parametrize(("settings", "headers", "status", "kind"), CALLS)
async def test_calls_that_fail_at_the_gate(
    settings: dict[str, Any], headers: dict[str, str], status: int, kind: str
) -> None:
    async with serving(**settings) as (simulator, client):
        async with client.post(SUBMIT, json=SHAPES["text"], headers=headers) as reply:
            assert reply.status == status
            assert (await reply.json())["error"]["type"] == kind
        assert simulator.book()["totals"]["submits_refused"] == {str(status): 1}


@pytest.mark.parametrize(
    "agent", ["Python/3.12 aiohttp/3.14", "python-requests/2.32", "python-httpx/0.28", "curl/8.5", "Python-urllib/3.12"]
)
async def test_the_gateway_refuses_default_user_agents(agent: str) -> None:
    async with serving() as (_, client):
        async with client.get("/api/pricing", headers={"User-Agent": agent}) as reply:
            assert reply.status == 403
            assert "1010" in await reply.text()
        async with client.get("/__book", headers={"User-Agent": agent}) as reply:
            assert reply.status == 200


async def test_unknown_tasks_and_paths() -> None:
    async with serving() as (_, client):
        for path, status in (("/v1/tasks/task-llm-1-x", 404), (f"{SUBMIT}/x/stream", 404), ("/v2", 404), (SUBMIT, 405)):
            async with client.get(path) as reply:
                assert reply.status == status
                assert "error" in await reply.json()


def test_gemini_audio_is_limited_by_the_whole_body() -> None:
    request = {"model": "gemini-2.5-pro", "audio_url": "data:audio/wav;base64,AAAA"}
    check(request, Catalogue(), body_bytes=20_000_000)
    with pytest.raises(RefusalError) as caught:
        check(request, Catalogue(), body_bytes=20_000_001)
    assert caught.value.status == 413


async def test_the_window_refuses_what_is_over_the_rate() -> None:
    async with serving(rpm=3, poll_rpm=1) as (simulator, client):
        statuses, began_at = [], time.monotonic()
        for _ in range(5):
            async with client.post(SUBMIT, json=SHAPES["text"]) as reply:
                statuses.append(reply.status)
                wait = reply.headers.get("Retry-After")
        assert statuses == [200, 200, 200, 429, 429]
        assert wait is not None
        assert 59 - (time.monotonic() - began_at) <= int(wait) <= 60
        totals = simulator.book()["totals"]
        assert (totals["submits_received"], totals["submits_accepted"], totals["max_submits_in_60_s"]) == (5, 3, 5)
        polled = []
        for _ in range(2):
            async with client.get("/v1/tasks/none") as reply:
                polled.append(reply.status)
        assert polled == [404, 429]
        simulator.control(rpm=4)
        async with client.post(SUBMIT, json=SHAPES["text"]) as reply:
            assert reply.status == 200
        async with client.post(SUBMIT, json=SHAPES["text"]) as reply:
            assert reply.status == 429


async def test_the_bucket_allows_its_burst_and_says_a_date() -> None:
    async with serving(rpm=1, rate_limit="bucket", burst=2, retry_after="date") as (_, client):
        seen = []
        for _ in range(3):
            async with client.post(SUBMIT, json=SHAPES["text"]) as reply:
                seen.append((reply.status, reply.headers.get("Retry-After")))
        assert [status for status, _ in seen] == [200, 200, 429]
        date = seen[-1][1]
        assert date is not None
        assert parsedate_to_datetime(date).tzinfo is not None


async def test_the_balance_runs_out_and_can_be_raised() -> None:
    async with serving(balance=0.025) as (simulator, client):
        for status in (200, 200, 402):
            async with client.post(SUBMIT, json=SHAPES["audio"]) as reply:
                assert reply.status == status
        async with client.post("/__control", json={"balance": 1}) as reply:
            assert (await reply.json())["balance"] == 1
        async with client.post(SUBMIT, json=SHAPES["audio"]) as reply:
            assert reply.status == 200
        assert simulator.book()["totals"]["credits_charged"] == 0.03


BAD_SETTINGS: list[dict[str, Any]] = [
    {"faults": {"none": 0.1}},
    {"faults": {"lost": 1.5}},
    {"faults": {"lost": "often"}},
    {"rpm": 0},
    {"rpm": "many"},
    {"latency": "constant:-1"},
    {"latency": "uniform:2,1"},
    {"latency": "bimodal:1,2,3"},
    {"latency": "weekly"},
    {"outage": "flood"},
    {"balance": -1},
    {"colour": "red"},
    {"body_limit_bytes": 5},
]


async def test_controls_are_checked_and_change_nothing_when_wrong() -> None:
    async with serving() as (simulator, client):
        before = await (await client.get("/__control")).json()
        for changes in BAD_SETTINGS:
            async with client.post("/__control", json=changes) as reply:
                assert reply.status == 400, changes
                assert next(iter(changes)) in (await reply.json())["error"]["message"]
        assert await (await client.get("/__control")).json() == before
        with pytest.raises(SettingsError, match="rpm"):
            simulator.control(rpm=0)


def test_only_loopback_is_served() -> None:
    with pytest.raises(SettingsError, match=r"host: expected 127\.0\.0\.1 or ::1"):
        Simulator(host="0.0.0.0")
