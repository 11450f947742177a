"""The work that the benchmarks give batchfox: an input of so many rows, and a job over it."""

from __future__ import annotations

import json
from pathlib import Path

IN_FLIGHT = 64
# So high that it never binds; the limiter still runs.
REQUESTS_PER_MINUTE = 60_000_000.0


def write_rows(path: Path, rows: int) -> None:
    """Writes a JSONL file of `rows` rows, some 260 bytes each, every one different."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = {
                "image_id": f"fox-{number:08d}",
                "title": f"Fox number {number}",
                "url": f"https://images.example.org/foxes/{number:08d}.jpg",
                "caption": f"A photograph of a fox taken on day {number % 365} of the survey, by camera {number % 40}.",
                "width": 1920 + number % 7,
                "height": 1080,
                "sharpness": (number % 1000) / 999,
                "is_night": number % 3 == 0,
                "place": {"lat": 47.0 + (number % 100) / 100, "lon": 8.0},
            }
            file.write(json.dumps(row) + "\n")


def write_job(
    path: Path,
    *,
    rows: Path,
    output: Path,
    base_url: str,
    has_ids: bool = True,
    checkpoint: Path | None = None,
    in_flight: int = IN_FLIGHT,
    per_minute: float = REQUESTS_PER_MINUTE,
    first: str = "0",
) -> None:
    """Writes a job that captions the rows' images: templates, rules, everything kept, full sync.

    `first`: `poll.first`, as TOML. A server that answers at once is polled at once; the learned schedule ("auto") has
    a benchmark of its own (`pipe.py`).
    """
    lines = [
        "[input]",
        f"path = {_quote(rows)}",
        'id = "image_id"' if has_ids else "",
        "[request]",
        'model = "gemini-2.5-flash"',
        'prompt = "Describe {{ title }} in one sentence, for a reader who cannot see it."',
        'image_urls = ["{{ url }}"]',
        "max_tokens = 128",
        "[api]",
        f'base_url = "{base_url}"',
        "[limits]",
        f"requests_per_minute = {per_minute}",
        f"in_flight = {in_flight}",
        "[poll]",
        f"first = {first}",
        "[output]",
        f"path = {_quote(output)}",
        f"checkpoint = {_quote(checkpoint)}" if checkpoint else "",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _quote(path: Path) -> str:
    return json.dumps(str(path))
