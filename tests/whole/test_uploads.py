"""How media travel in a whole run: the right bytes arrive, once for each content, and uploads are remembered."""

from __future__ import annotations

import base64
import signal
import sqlite3
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Remote, Simulate, Starter, by_id, eventually, job_of, rows_of, write_rows

from batchfox import run
from batchfox.api import Api
from batchfox.core.event import Unreached

MODEL = "gemini-2.5-pro"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(200)
MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(300)
PDF = b"%PDF-1.7\n" + bytes(200)


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def block(kind: str, value: Any) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": value}}


def arrived(simulator: Any) -> dict[str, list[str]]:
    """What arrived of each request's media, by its prompt."""
    return {entry["prompt_head"]: entry["media"] for entry in simulator.book()["entries"]}


def local_files(folder: Path) -> None:
    for name, data in (("a.png", PNG), ("b.wav", WAV), ("c.mp4", MP4), ("d.pdf", PDF)):
        (folder / name).write_bytes(data)


def job(folder: Path, url: str, rows: list[dict[str, Any]], **media: Any) -> Any:
    source = write_rows(folder / "in.jsonl", rows)
    return job_of(source, folder / "out", url, request={"model": MODEL}, media={"root": str(folder)} | media)


URL = "https://example.com/x"
SHAPES: dict[str, tuple[dict[str, Any], list[bytes | None]]] = {
    "vision": ({"image_urls": ["a.png", f"{URL}.png", "file:a.png"]}, [PNG, None, PNG]),
    "video": ({"video_urls": [f"{URL}.mp4", "c.mp4"]}, [None, MP4]),
    "audio": ({"audio_url": "b.wav"}, [WAV]),
    "data": ({"image_urls": [uri("image/png", PNG)]}, [PNG]),
}


@pytest.mark.parametrize(
    ("mode", "inline_below", "ways"),
    [
        ("auto", 4_000_000, {"own": "inline", "data": "inline"}),
        ("auto", 100, {"own": "upload", "data": "inline"}),
        ("inline", 100, {"own": "inline", "data": "inline"}),
        ("upload", 4_000_000, {"own": "upload", "data": "upload"}),
    ],
)
def test_the_right_bytes_arrive_in_every_shape_and_mode(
    mode: str, inline_below: int, ways: dict[str, str], simulate: Simulate, tmp_path: Path
) -> None:
    local_files(tmp_path)
    rows = [{"id": name, "prompt": name} | fields for name, (fields, _) in SHAPES.items()]
    kinds = {"image": "a.png", "audio": "b.wav", "video": "c.mp4", "file": "d.pdf"}
    blocks = [{"type": "text", "text": "messages"}, *(block(kind, name) for kind, name in kinds.items())]
    blocks.append(block("image", f"{URL}.png"))
    rows.append({"id": "messages", "messages": [{"role": "user", "content": blocks}]})
    simulator = simulate()
    done = run(job(tmp_path, simulator.url, rows, mode=mode, inline_below=inline_below))
    assert done.by_status == {"completed": 5}, [row["error_message"] for row in rows_of(tmp_path / "out")]

    expected = {name: data for name, (_, data) in SHAPES.items()} | {"messages": [PNG, WAV, MP4, PDF, None]}
    found, told = arrived(simulator), {name: row["media"] for name, row in by_id(tmp_path / "out").items()}
    for name, contents in expected.items():
        way = ways["data" if name == "data" else "own"]
        assert found[name] == ["url" if data is None else f"{way}:{digest(data)}" for data in contents]
        assert told[name] == ["url" if data is None else way for data in contents]
    uploads = simulator.book()["uploads"]
    assert len({upload["digest"] for upload in uploads}) == len(uploads) == (4 if ways["own"] == "upload" else 0)
    assert all(upload["how"] == "stream" for upload in uploads)


def test_bytes_in_a_parquet_column_arrive(simulate: Simulate, tmp_path: Path) -> None:
    images = [PNG + bytes([number]) * (number * 100) for number in range(6)]
    table = pa.table({"id": [f"r{n}" for n in range(6)], "prompt": [f"{n}" for n in range(6)], "photo": images})
    pq.write_table(table, tmp_path / "in.parquet")
    simulator = simulate()
    request = {"model": MODEL, "image_urls": ["{{ photo }}"]}
    media = {"inline_below": 500}
    made = job_of(tmp_path / "in.parquet", tmp_path / "out", simulator.url, request=request, media=media)
    assert run(made).by_status == {"completed": 6}
    found = arrived(simulator)
    for number, data in enumerate(images):
        way = "inline" if len(data) <= 500 else "upload"
        assert found[str(number)] == [f"{way}:{digest(data)}"]
    assert "photo" not in rows_of(tmp_path / "out")[0]


def test_one_upload_serves_all_rows_and_the_next_run(simulate: Simulate, tmp_path: Path) -> None:
    local_files(tmp_path)
    (tmp_path / "copy.png").write_bytes(PNG)
    rows = [
        {"id": f"r{n}", "prompt": f"{n}", "image_urls": ["a.png" if n % 2 else "copy.png", PNG_URI]} for n in range(50)
    ]
    simulator = simulate()
    assert run(job(tmp_path, simulator.url, rows, mode="upload")).by_status == {"completed": 50}
    assert simulator.book()["totals"]["uploads"] == 1
    rows.append({"id": "later", "prompt": "later", "image_urls": ["a.png"]})
    assert run(job(tmp_path, simulator.url, rows, mode="upload")).by_status["completed"] == 51
    assert simulator.book()["totals"]["uploads"] == 1
    assert arrived(simulator)["later"] == [f"upload:{digest(PNG)}"]


PNG_URI = uri("image/png", PNG)


def test_an_upload_is_renewed_before_it_expires(simulate: Simulate, tmp_path: Path) -> None:
    local_files(tmp_path)
    simulator = simulate()
    rows = [{"id": "a", "prompt": "a", "image_urls": ["a.png"]}]
    assert run(job(tmp_path, simulator.url, rows, mode="upload", upload_life="10m")).exit_status == 0
    table = sqlite3.connect(tmp_path / "out" / "_batchfox" / "checkpoint.db")
    # As if it had been uploaded nine minutes and a bit ago: less than a tenth of its life is left.
    table.execute("UPDATE upload SET uploaded_at = uploaded_at - 541")
    table.commit()
    table.close()
    rows.append({"id": "b", "prompt": "b", "image_urls": ["a.png"]})
    assert run(job(tmp_path, simulator.url, rows, mode="upload", upload_life="10m")).exit_status == 0
    assert simulator.book()["totals"]["uploads"] == 2
    rows.append({"id": "c", "prompt": "c", "image_urls": ["a.png"]})
    assert run(job(tmp_path, simulator.url, rows, mode="upload", upload_life="10m")).exit_status == 0
    assert simulator.book()["totals"]["uploads"] == 2


def test_an_upload_that_is_too_large_makes_its_row_invalid_and_no_other(simulate: Simulate, tmp_path: Path) -> None:
    local_files(tmp_path)
    (tmp_path / "large.png").write_bytes(PNG + bytes(5000))
    simulator = simulate(upload_limit_bytes=1000)
    rows = [{"id": name, "prompt": name, "image_urls": [f"{name}.png"]} for name in ("large", "a")]
    assert run(job(tmp_path, simulator.url, rows, mode="upload")).by_status == {"invalid": 1, "completed": 1}
    row = by_id(tmp_path / "out")["large"]
    assert (row["error_code"], row["submits"]) == ("upload_refused", 0)
    assert "413" in row["error_message"]


def test_an_upload_that_fails_is_tried_again(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_files(tmp_path)
    simulator = simulate()
    upload, calls = Api.upload, [0]

    async def failing(self: Api, *values: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            return Unreached(error=self._describe(OSError("no route"), "unreached")), b""
        if calls[0] == 2:
            self._submit_url, kept = self._at("/nowhere"), self._submit_url
            found = await upload(self, *values, **(named | {"size": 10_000_000}))
            self._submit_url = kept
            return found
        return await upload(self, *values, **named)

    monkeypatch.setattr(Api, "upload", failing)
    rows = [{"id": "a", "prompt": "a", "image_urls": ["a.png"]}]
    assert run(job(tmp_path, simulator.url, rows, mode="upload")).by_status == {"completed": 1}
    assert calls[0] == 3
    row = by_id(tmp_path / "out")["a"]
    assert (row["submits"], row["maybe_billed_twice"], row["media"]) == (1, False, ["upload"])
    assert arrived(simulator)["a"] == [f"upload:{digest(PNG)}"]


def test_a_checkpoint_of_an_older_version_learns_of_uploads(simulate: Simulate, tmp_path: Path) -> None:
    local_files(tmp_path)
    simulator = simulate()
    rows = [{"id": "a", "prompt": "a", "image_urls": ["a.png"]}]
    assert run(job(tmp_path, simulator.url, rows, mode="inline")).exit_status == 0
    table = sqlite3.connect(tmp_path / "out" / "_batchfox" / "checkpoint.db")
    table.executescript("DROP TABLE upload; DROP TABLE assigned; PRAGMA user_version = 1;")
    table.close()
    rows.append({"id": "b", "prompt": "b", "image_urls": ["a.png"]})
    assert run(job(tmp_path, simulator.url, rows, mode="upload")).by_status == {"completed": 2}
    assert arrived(simulator)["b"] == [f"upload:{digest(PNG)}"]


def uploading(server: Remote) -> list[str]:
    """The command of a run that uploads what `in.jsonl` names."""
    options = ["--input", "in.jsonl", "--id", "id", "--model", MODEL, "--output", "out", "--base-url", server.url]
    return ["run", *options, "--set", "media.mode=upload", "--set", "limits.requests_per_minute=60000"]


def test_a_kill_during_uploads_pays_nothing_twice(start: Starter, remote: Any, tmp_path: Path) -> None:
    server: Remote = remote("--latency", "constant:0.05")
    rows = []
    for number in range(12):
        (tmp_path / f"{number}.mp4").write_bytes(MP4 + bytes([number]) * 3_000_000)
        rows.append({"id": f"r{number}", "prompt": f"{number}", "video_urls": [f"{number}.mp4"]})
    write_rows(tmp_path / "in.jsonl", rows)
    arguments = uploading(server)
    first = start(*arguments)
    eventually(lambda: server.totals()["uploads"] >= 2 or first.is_over(), "two uploads")
    first.send(signal.SIGKILL)
    first.wait()
    again = start(*arguments)
    assert again.wait() == 0, again.err
    done = by_id(tmp_path / "out")
    assert {row["status"] for row in done.values()} == {"completed"}
    # A row whose intent was on record when the kill came is in doubt, whether its POST had left or not.
    repeated = [row for row in done.values() if row["submits"] > 1]
    assert all(row["maybe_billed_twice"] for row in repeated)
    assert len(done) <= server.totals()["submits_accepted"] <= len(done) + len(repeated)
    media = {entry["prompt_head"]: entry["media"] for entry in server.entries()}
    for number in range(12):
        assert media[str(number)] == [f"upload:{digest(MP4 + bytes([number]) * 3_000_000)}"]


def test_a_signal_during_uploads_leaves_at_once_and_resumes(start: Starter, remote: Any, tmp_path: Path) -> None:
    server: Remote = remote("--latency", "constant:0.05")
    for number in range(30):
        (tmp_path / f"{number}.mp4").write_bytes(MP4 + bytes([number]) * 3_000_000)
    rows = [{"id": f"r{n}", "prompt": f"{n}", "video_urls": [f"{n}.mp4"]} for n in range(30)]
    write_rows(tmp_path / "in.jsonl", rows)
    arguments = uploading(server)
    first = start(*arguments)
    eventually(lambda: server.totals()["uploads"] >= 1 or first.is_over(), "an upload")
    first.send(signal.SIGTERM)
    assert first.wait() == 143, first.err
    assert "Traceback" not in first.err, first.err
    again = start(*arguments)
    assert again.wait() == 0, again.err
    done = by_id(tmp_path / "out")
    assert len(done) == server.totals()["submits_accepted"] == 30
    assert all(row["submits"] == 1 for row in done.values())


def test_in_auto_the_largest_media_are_uploaded_until_the_request_fits(simulate: Simulate, tmp_path: Path) -> None:
    """Gemini takes 20 MB with audio: 15.5 MB of sound are more than that as base64."""
    sound = WAV + bytes(15_500_000)
    (tmp_path / "long.wav").write_bytes(sound)
    (tmp_path / "b.wav").write_bytes(WAV)
    simulator = simulate()
    rows = [{"id": name, "prompt": name, "audio_url": f"{name}.wav"} for name in ("long", "b")]
    made = job(tmp_path, simulator.url, rows, inline_below="50MB")
    assert run(made).by_status == {"completed": 2}
    assert arrived(simulator) == {"long": [f"upload:{digest(sound)}"], "b": [f"inline:{digest(WAV)}"]}
    assert by_id(tmp_path / "out")["long"]["media"] == ["upload"]


def test_inline_a_request_over_the_limit_is_caught_before_it_is_sent(simulate: Simulate, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(WAV + bytes(15_500_000))
    simulator = simulate()
    made = job(tmp_path, simulator.url, [{"id": "a", "prompt": "a", "audio_url": "long.wav"}], mode="inline")
    assert run(made).by_status == {"invalid": 1}
    assert by_id(tmp_path / "out")["a"]["error_code"] == "body_size"
    assert simulator.book()["totals"]["submits_received"] == 0
