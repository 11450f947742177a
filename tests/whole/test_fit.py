"""Media that are too large are made to fit before they are sent; what arrives is what was made."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from conftest import Simulate, by_id, http_reply, job_of, raw_server, write_rows
from fit_media import film, look, picture, silence

from batchfox import arun, run
from batchfox.core.job import Job
from batchfox.errors import UserError
from batchfox.fit.workers import Workers
from batchfox.survey.surveyor import Surveyor

MODEL = "gemini-2.5-pro"
FIT = {"image": {"largest_side": 100}, "video": {"fps": 2, "height": 60, "seconds": 1}, "audio": {"format": "mp3"}}


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def arrived(simulator: Any, output: Path) -> dict[str, Any]:
    """What arrived for each row: the kept result with those bytes, or the digest of bytes that nobody made."""
    made = {digest(path.read_bytes()): path.read_bytes() for path in (output / "_batchfox" / "fitted").iterdir()}
    tasks = {row["task_id"]: name for name, row in by_id(output).items()}
    entries = [entry for entry in simulator.book()["entries"] if entry["task_id"] in tasks]
    found = {tasks[entry["task_id"]]: entry["media"][0] for entry in entries}
    return {name: made.get(told.partition(":")[2], told) for name, told in found.items()}


def test_what_does_not_fit_is_made_to_fit_and_kept_for_other_rows_and_resumes(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    root, output = tmp_path / "media", tmp_path / "out"
    root.mkdir()
    photo, small = picture("JPEG", turned=True), picture("PNG", 80, 40)
    files = {
        "photo.jpg": photo,
        "small.png": small,
        "phone.heic": picture("HEIF"),
        "film.mp4": film(),
        "talk.wav": silence(1.0),
    }
    for name, data in (files | {"torn.jpg": photo[:700]}).items():
        (root / name).write_bytes(data)
    inline = f"data:image/jpg;base64,{base64.b64encode(photo).decode()}"
    rows: list[dict[str, Any]] = [
        {"id": name, "prompt": name, "image_urls": [value]}
        for name, value in (
            ("photo", "photo.jpg"),
            ("held", inline),
            ("small", "small.png"),
            ("phone", "phone.heic"),
            ("torn", "torn.jpg"),
        )
    ]
    rows += [
        {"id": "film", "prompt": "film", "video_urls": ["film.mp4"]},
        {"id": "talk", "prompt": "talk", "audio_url": "talk.wav"},
    ]
    source = write_rows(tmp_path / "in.jsonl", rows)
    tables: dict[str, Any] = {"request": {"model": MODEL}, "media": {"root": str(root)} | FIT}
    done = run(job_of(source, output, simulator.url, **tables))
    assert done.by_status == {"completed": 6, "invalid": 1}
    torn = by_id(output)["torn"]
    assert torn["error_code"] == "media"
    assert "cannot be made to fit" in torn["error_message"]
    came = arrived(simulator, output)
    assert came["photo"] == came["held"]
    assert look(came["photo"]) == {"form": "JPEG", "size": (50, 100), "red": "top right"}
    assert look(came["phone"]) == {"form": "JPEG", "size": (100, 50), "red": "top left"}
    assert came["small"] == f"inline:{digest(small)}"
    assert look(came["film"]) == {
        "seconds": 1.0,
        "sound": ("aac", 32_000, 1),
        "size": (80, 60),
        "frames": 2,
        "red": "top left",
    }
    assert look(came["talk"])["sound"][1:] == (16_000, 1)
    made = list((output / "_batchfox" / "fitted").iterdir())
    assert len(made) == 4, "one for each content, nothing left half-done"

    # request_hash is that of the row, not of what was made of its medium.
    plain = tmp_path / "plain"
    run(job_of(source, plain, simulator.url, request={"model": MODEL}, media={"root": str(root)}))
    assert {row["row_id"]: row["request_hash"] for row in by_id(plain).values() if row["row_id"] != "torn"} == {
        row["row_id"]: row["request_hash"] for row in by_id(output).values() if row["row_id"] != "torn"
    }

    # A later run finds the results: no worker is asked.
    monkeypatch.setattr(Workers, "ask", lambda *_: pytest.fail("it was made again"))
    write_rows(source, [*rows[:5], rows[5] | {"id": "film-2"}, rows[6] | {"id": "talk-2"}])
    assert run(job_of(source, output, simulator.url, **tables)).here.submits == 2
    assert arrived(simulator, output)["film-2"] == came["film"]


async def test_a_medium_fetched_because_the_api_could_not_is_made_to_fit_too(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults={"media_unfetched": 1.0})
    photo = picture("JPEG")

    async def talk(request: bytes, _: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(http_reply(photo[:700] if b"/torn" in request else photo))
        await writer.drain()

    async with raw_server(talk) as server:
        rows = [{"id": name, "prompt": name, "image_urls": [f"{server.url}/{name}.jpg"]} for name in ("whole", "torn")]
        source = write_rows(tmp_path / "in.jsonl", rows)
        media = {"allow_private": ["127.0.0.0/8"], "image": {"largest_side": 100}, "inline_below": 10}
        made = job_of(source, tmp_path / "out", simulator.url, request={"model": MODEL}, media=media)
        assert (await arun(made)).by_status == {"completed": 1, "failed": 1}
    assert look(arrived(simulator, tmp_path / "out")["whole"])["size"] == (100, 50)
    assert by_id(tmp_path / "out")["whole"]["media"] == ["upload"]
    assert "cannot be made to fit" in by_id(tmp_path / "out")["torn"]["error_message"]


def test_a_missing_package_is_named_before_anything_is_begun(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", [{"id": "a", "prompt": "a"}])
    monkeypatch.setattr("batchfox.fit.workers.find_spec", lambda name: None if name == "av" else object())
    job = job_of(source, tmp_path / "out", simulator.url, media={"audio": {}})
    attempts: tuple[Callable[[Job], Any], ...] = (run, Surveyor)
    for attempt in attempts:
        with pytest.raises(UserError, match=r"\[media\.audio\] needs av.*pip install 'batchfox\[media\]'"):
            attempt(job)
    assert not (tmp_path / "out").exists()
    run(job_of(source, tmp_path / "out", simulator.url, media={"image": {}}))
