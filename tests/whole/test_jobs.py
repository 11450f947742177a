"""Every job of `jobs/` does its work on `sample_inputs/` against the simulator, as a user would start it."""

from __future__ import annotations

import subprocess
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import GUARD_S
from fit_media import look

from batchfox.simulator import SimulatorThread

ROOT = Path(__file__).parents[2]
FAST = ["--set", 'api.simulate={ latency = "constant:0.02" }', "--set", "limits.requests_per_minute=6000"]
ROWS: dict[str, int] = {
    "demo": 100,
    "caption_images": 7,
    "caption_folder": 6,
    "caption_parquet": 3,
    "label_videos": 4,
    "transcribe_audio": 2,
    "chat": 4,
    "shrink_videos": 2,
    "transcribe_folder": 3,
}
# What every medium of a job is made to fit: the folder it lies in, and what has to arrive.
FITTED: dict[str, tuple[str, dict[str, Any]]] = {
    "shrink_videos": ("films", {"size": (320, 240), "frames": 3, "seconds": 3.0}),
    "transcribe_folder": ("talks", {"sound": ("mp3float", 16_000, 1), "seconds": 2.0}),
}


def run_job(job: str, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchfox", "run", f"jobs/{job}.toml", "--base-url", "simulator"]
    command += [*FAST, "--output", str(output), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=GUARD_S, check=False)


def rows_of(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(output / "data").to_pylist()
    return rows


def book_of(output: Path) -> dict[str, Any]:
    """The book that the embedded server keeps in this output."""
    with SimulatorThread(state=output / "_batchfox" / "simulator.db") as simulator:
        return dict(simulator.book())


def totals_of(output: Path) -> dict[str, Any]:
    totals: dict[str, Any] = book_of(output)["totals"]
    return totals


def test_every_job_file_is_tried_here() -> None:
    assert {path.stem for path in (ROOT / "jobs").glob("*.toml")} == set(ROWS)


@pytest.mark.parametrize("job", ROWS)
def test_a_job_answers_every_row_and_a_second_time_sends_nothing(job: str, tmp_path: Path) -> None:
    first = run_job(job, tmp_path / "out")
    assert first.returncode == 0, first.stderr
    rows = rows_of(tmp_path / "out")
    assert len(rows) == ROWS[job]
    assert len({row["row_id"] for row in rows}) == ROWS[job]
    for row in rows:
        assert row["status"] == "completed"
        assert row["submits"] == 1
        assert row["text"].startswith("The simulator was asked")
    book = totals_of(tmp_path / "out")
    assert book["submits_received"] == book["submits_accepted"] == ROWS[job]
    again = run_job(job, tmp_path / "out")
    assert again.returncode == 0
    assert totals_of(tmp_path / "out") == book
    assert "0 submits, 0 polls" in again.stdout
    assert rows_of(tmp_path / "out") == rows
    if job in FITTED:
        check_fitted(job, tmp_path / "out")


def check_fitted(job: str, output: Path) -> None:
    """The bytes that arrived are those that were made of each medium, and are what the job asks for."""
    folder, wanted = FITTED[job]
    made = {path.name: path.read_bytes() for path in (output / "_batchfox" / "fitted").iterdir()}
    arrived = sorted(medium for entry in book_of(output)["entries"] for medium in entry["media"])
    assert arrived == sorted(f"inline:{blake2b(data, digest_size=16).hexdigest()}" for data in made.values())
    for source in (ROOT / "sample_inputs" / folder).iterdir():
        digest = blake2b(source.read_bytes(), digest_size=16).hexdigest()
        (data,) = (data for name, data in made.items() if name.startswith(digest))
        assert len(data) < source.stat().st_size
        found = look(data)
        assert abs(found["seconds"] - wanted["seconds"]) <= 0.2
        assert {name: found[name] for name in wanted if name != "seconds"} == {
            name: value for name, value in wanted.items() if name != "seconds"
        }


def test_local_media_travel_inline_and_urls_as_they_are(tmp_path: Path) -> None:
    assert run_job("caption_images", tmp_path / "images").returncode == 0
    ways = {row["row_id"]: row["media"] for row in rows_of(tmp_path / "images")}
    assert ways["lion"] == ["url"]
    assert ways["sun"] == ways["sea"] == ways["brick"] == ["inline"]
    assert run_job("transcribe_audio", tmp_path / "audio").returncode == 0
    assert all(row["media"] == ["inline"] for row in rows_of(tmp_path / "audio"))


@pytest.mark.parametrize(("job", "way", "number"), [("caption_folder", "inline", 6), ("caption_parquet", "upload", 3)])
def test_the_bytes_of_local_media_arrive(job: str, way: str, number: int, tmp_path: Path) -> None:
    assert run_job(job, tmp_path / "out").returncode == 0
    files = sorted((ROOT / "sample_inputs" / "media").iterdir())
    if number == 3:
        files = [file for file in files if file.suffix in (".png", ".jpg", ".webp")]
    expected = sorted(f"{way}:{blake2b(file.read_bytes(), digest_size=16).hexdigest()}" for file in files)
    assert sorted(medium for entry in book_of(tmp_path / "out")["entries"] for medium in entry["media"]) == expected
    assert all(row["media"] == [way] for row in rows_of(tmp_path / "out"))


def test_input_columns_travel_with_their_types(tmp_path: Path) -> None:
    assert run_job("label_videos", tmp_path / "out").returncode == 0
    table = pq.read_table(tmp_path / "out" / "data")
    assert str(table.schema.field("most_labels").type) == "int64"
    assert str(table.schema.field("tags").type).startswith("list<")
    tags = {row["row_id"]: row["tags"] for row in table.to_pylist()}
    assert tags["animals"] == ["animals", "zoo"]


def test_an_openai_batch_file_is_taken_as_it_is(tmp_path: Path) -> None:
    more = ["--input", "sample_inputs/openai_batch.jsonl", "--id", "custom_id"]
    done = run_job("chat", tmp_path / "out", *more)
    assert done.returncode == 0, done.stderr
    assert {row["row_id"] for row in rows_of(tmp_path / "out")} == {f"request-{number}" for number in range(4)}
