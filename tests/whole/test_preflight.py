"""`validate --media`: what of the remote media would fail, told without paying."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import MODEL, http_reply, raw_server, write_rows
from fit_media import film, silence

from batchfox.cli import cli

PNG = b"\x89PNG\r\n\x1a\n" + bytes(500)
WAV = silence(3.0)
PATHS = {
    "/good.png": http_reply(PNG[:200], "206 Partial", "Content-Range: bytes 0-199/508"),
    "/page.png": http_reply(b"<html>log in</html>"),
    "/gone.png": http_reply(b"", "404 Not Found"),
    "/huge.png": http_reply(PNG[:200], "206 Partial", "Content-Range: bytes 0-199/200000000"),
    "/talk.wav": http_reply(WAV[:4096], "206 Partial", f"Content-Range: bytes 0-4095/{len(WAV)}"),
    "/talk.aiff": http_reply(WAV[:8], "206 Partial", "Content-Range: bytes 0-7/9000"),
    "/moved.png": http_reply(b"", "302 Found", "Location: /good.png"),
}


@pytest.fixture
def server() -> Iterator[Any]:
    """A server in a thread: the command has a loop of its own."""
    ready, stop = threading.Event(), asyncio.Event()
    found: list[Any] = []

    async def talk(request: bytes, _: Any, writer: asyncio.StreamWriter) -> None:
        path = request.split(b" ", 2)[1].partition(b"?")[0].decode()
        writer.write(PATHS[path])
        await writer.drain()

    async def serve() -> None:
        async with raw_server(talk) as raw:
            found.extend([raw, asyncio.get_running_loop()])
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield found[0]
    found[1].call_soon_threadsafe(stop.set)
    thread.join(30)


def validate(folder: Path, urls: list[str], *more: str) -> tuple[int, dict[str, Any]]:
    rows = [{"id": f"r{n}", "prompt": "p", "image_urls": [url]} for n, url in enumerate(urls)]
    source = write_rows(folder / "in.jsonl", rows)
    options = ["--input", str(source), "--id", "id", "--model", MODEL, "--output", str(folder / "out")]
    options += ["--base-url", "http://127.0.0.1:9", "--json", *more]
    done = CliRunner().invoke(cli, ["validate", *options], standalone_mode=False)
    return done.return_value, json.loads(done.stdout)


def test_what_would_fail_is_told_by_reason_with_a_row(server: Any, tmp_path: Path) -> None:
    signed = "X-Amz-Date=20200101T000000Z&X-Amz-Expires=60"
    names = ["good.png", "moved.png", "good.png", "page.png", "gone.png", "gone.png", "huge.png", f"good.png?{signed}"]
    opened = ["--set", 'media.allow_private=["127.0.0.0/8"]']
    status, said = validate(tmp_path, [f"{server.url}/{name}" for name in names], "--media", *opened)
    assert status == 3
    found = said["preflight"]
    assert (found["media"], found["remote"], found["repeated"], found["reachable"]) == (8, 6, 2, 5)
    problems = {problem["rule"]: (problem["rows"], problem["places"]) for problem in found["problems"]}
    source = tmp_path / "in.jsonl"
    assert problems == {
        "media_unreachable": (2, [f"{source}:5"]),
        "media_type": (1, [f"{source}:4"]),
        "media_size": (1, [f"{source}:7"]),
        "media_expires": (1, [f"{source}:8"]),
    }


def test_nothing_is_asked_unless_it_is_wanted_and_no_private_address(server: Any, tmp_path: Path) -> None:
    status, said = validate(tmp_path, [f"{server.url}/good.png"])
    assert (status, "preflight" in said) == (0, False)
    status, said = validate(tmp_path, [f"{server.url}/good.png"], "--media")
    assert status == 3
    assert "is no public address" in said["preflight"]["problems"][0]["example"]
    assert server.connections == 0


def test_how_long_media_play_is_told_for_what_is_here_and_for_urls(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "film.mp4").write_bytes(film(2.0))
    (tmp_path / "talk.wav").write_bytes(silence(1.0))
    audio = ["talk.wav", "talk.wav", f"{server.url}/talk.wav", f"{server.url}/talk.aiff"]
    rows: list[dict[str, Any]] = [{"id": f"r{n}", "prompt": "p", "audio_url": url} for n, url in enumerate(audio)]
    rows.append({"id": "film", "prompt": "p", "video_urls": ["film.mp4"]})
    source = write_rows(tmp_path / "in.jsonl", rows)
    options = ["validate", "--input", str(source), "--id", "id", "--model", "gemini-2.5-pro", "--media"]
    options += ["--output", str(tmp_path / "out"), "--base-url", "http://127.0.0.1:9"]
    options += ["--set", 'media.allow_private=["127.0.0.0/8"]', "--set", f'media.root="{tmp_path}"']
    found = json.loads(CliRunner().invoke(cli, [*options, "--json"], standalone_mode=False).stdout)["preflight"]
    told = {
        kind: (played["media"], played["untold"], round(played["seconds"])) for kind, played in found["plays"].items()
    }
    assert told == {"audio": (4, 1, 5), "video": (1, 0, 2)}
    assert found["plays"]["audio"]["longest"] == f'"{server.url}/talk.wav"'
    monkeypatch.setattr("batchfox.fit.workers.find_spec", lambda _: None)
    said = CliRunner().invoke(cli, options, standalone_mode=False).stdout
    assert "how long media play is not told: av is not installed: pip install 'batchfox[media]'" in said
