"""The report: what it says of an output, and that nothing a row holds gets out of its place in the page."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Simulate, Starter, job_of, log_events, rows_of, write_rows

from batchfox import run
from batchfox.errors import OutputError, UserError
from batchfox.part_names import part_paths
from batchfox.report import write_report
from batchfox.report.shapes import Shapes
from batchfox.report.tally import tally
from batchfox.report.timeline import MOST_SPANS, Timeline

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "مرحبا \u202egnp.exe",
    "{{ 7 * 7 }}",
    "x" * 60_000,
]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words.append(data)


def test_a_report_tells_a_run_and_keeps_hostile_rows_in_their_place(
    simulate: Simulate, tmp_path: Path, start: Starter
) -> None:
    simulator = simulate(faults={"refuse_options": 0.3, "refuse_429": 0.2})
    (tmp_path / "dot.png").write_bytes(PIXEL)
    (tmp_path / "secret.png").symlink_to("/etc/passwd")
    pictures = ["dot.png", "https://images.example/a.jpg?<b>", "secret.png"]
    rows = [
        {"id": f"{n} {text}", "topic": text, "picture": pictures[n % 3] if n < 3 else "dot.png"}
        for n, text in enumerate(HOSTILE * 5)
    ]
    nothing: dict[str, Any] = {"id": "none", "topic": None, "picture": "dot.png"}
    request = {"prompt": "Say {{ topic }}", "image_urls": ["{{ picture }}"], "model": "gemini-2.5-pro"}
    source = write_rows(tmp_path / "in.jsonl", [*rows, nothing])
    job = job_of(source, tmp_path / "out", simulator.url, request=request, media={"root": str(tmp_path)})
    assert run(job).exit_status == 3
    assert "throttled" in log_events(tmp_path / "out")

    shown_rows = write_report(tmp_path / "out", tmp_path / "out" / "report.html")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page(text)

    # The policy names the scripts and the style that are there, and nothing else can run or be fetched.
    policy = next(attrs["content"] or "" for _, attrs in page.elements if attrs.get("http-equiv"))
    data, *code = page.scripts
    hashes = {f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'" for script in code}
    assert set(re.findall(r"'sha256-[^']+'", policy.split("script-src", 1)[1].split(";", 1)[0])) == hashes
    assert len(code) == 2
    assert policy.startswith("default-src 'none'")
    for tag, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on") or name == "style"], (tag, attrs)
        assert tag not in ("iframe", "object", "embed", "link", "base", "form"), tag
        assert (attrs.get("src") or "data:").startswith("data:")
        assert attrs.get("href") in (None, "https://images.example/a.jpg?<b>"), "no link but to what a row names"
    assert sum(tag == "script" for tag, _ in page.elements) == 3
    assert any(tag == "img" for tag, _ in page.elements)
    assert "root:" not in html.unescape(text)
    shown = "".join(page.words)
    for hostile in HOSTILE[:5]:
        assert f"Say {hostile}" in shown, "it stands there as it is"
    assert "54,004 more characters" in shown
    assert sum(tag == "article" for tag, _ in page.elements) == shown_rows > 20

    # Figures, causes and the line for the next run.
    found = rows_of(tmp_path / "out")
    failed = sum(row["status"] == "failed" for row in found)
    assert 0 < failed < 30
    charts = {chart["id"]: chart for chart in json.loads(data)["charts"]}
    assert set(charts) >= {"throughput", "causes", "models", "throttles", "credits", "tokens"}
    assert charts["causes"]["series"][0]["values"][0] == failed
    assert charts["credits"]["series"][0]["values"][-1] == pytest.approx(
        sum(row["credits"] or 0 for row in found), abs=1e-3
    )
    line = next(word for word in page.words if "--retry failed,invalid" in word)
    simulator.control(faults={})
    again = start(*shlex.split(line)[1:])
    assert again.wait() == 3, again.err
    assert {row["status"] for row in rows_of(tmp_path / "out")} == {"completed", "invalid"}


def test_latency_is_told_by_model_and_by_the_shape_that_each_request_had(simulate: Simulate, tmp_path: Path) -> None:
    url = simulate().url
    picture, clip, sound = "https://x.example/a.png", "https://x.example/a.mp4", "https://x.example/a.wav"
    turns = [{"role": "user", "content": "Hello"}]
    contents: list[dict[str, Any]] = [
        *({"prompt": f"p{n}"} for n in range(2)),
        *({"prompt": f"p{n}", "image_urls": [picture]} for n in range(3)),
        *({"prompt": f"p{n}", "video_urls": [clip], "image_urls": None} for n in range(4)),
        *({"prompt": f"p{n}", "audio_url": sound, "video_urls": None} for n in range(5)),
        *({"messages": turns} for _ in range(6)),
        {"prompt": "kept as no column", "image_urls": ["data:image/png;base64," + base64.b64encode(PIXEL).decode()]},
    ]
    source = write_rows(tmp_path / "in.jsonl", [{"id": f"r{n}"} | row for n, row in enumerate(contents)])
    lines = [
        {"custom_id": f"b{n}", "body": {"model": "gemini-2.5-flash"} | row} for n, row in enumerate(contents[1:3] * 2)
    ]
    batch = write_rows(tmp_path / "batch.jsonl", [*lines, {"custom_id": "c", "body": {"messages": turns}}])
    model = {"model": "gemini-2.5-pro"}

    def shapes(name: str, path: Path, id_column: str = "id", **tables: dict[str, Any]) -> dict[str, int]:
        tables["input"] = {"id": id_column} | tables.get("input", {})
        assert run(job_of(path, tmp_path / name, url, **({"request": model} | tables))).exit_status == 0
        found = tally(part_paths(tmp_path / name), Shapes(tmp_path / name), sample=0)
        assert {key[0] for key in found.latencies} <= {"gemini-2.5-pro"}
        return {shape: times.counts.total() for (_, shape), times in found.latencies.items()}

    told = {"text": 2, "vision": 3, "video": 4, "audio": 5, "custom": 6}
    assert shapes("all", source) == told | {"with media": 1}
    untold = {"without media": 8, "with media": 13}
    assert shapes("few", source, input={"keep": ["id"]}) == untold, "nothing is made up where nothing was kept"
    assert shapes("lines", batch, "custom_id") == {"text": 2, "vision": 2, "custom": 1}
    request = model | {"prompt": "Say", "image_urls": ["{{ image_urls | default(none) }}", picture]}
    fixed = write_rows(tmp_path / "fixed.jsonl", [{"id": "a", "image_urls": picture}])
    assert shapes("fixed", fixed, request=request) == {"vision": 1}


def test_rows_that_cannot_be_read_are_missed(simulate: Simulate, tmp_path: Path) -> None:
    rows = [{"id": n, "prompt": "x" * 100} for n in range(9)]
    run(job_of(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out", simulate().url))
    (part,) = part_paths(tmp_path / "out")
    group = pq.ParquetFile(part).metadata.row_group(0)
    column = next(
        group.column(at) for at in range(group.num_columns) if group.column(at).path_in_schema == "completion"
    )
    with part.open("r+b") as file:
        file.seek(column.dictionary_page_offset or column.data_page_offset)
        file.write(b"\0" * column.total_compressed_size)
    assert write_report(tmp_path / "out", tmp_path / "r.html") == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"9 rows more could not be read; batchfox doctor {tmp_path / 'out'} says whether a part is damaged." in text


def test_what_cannot_be_reported_is_told(simulate: Simulate, tmp_path: Path) -> None:
    run(job_of(write_rows(tmp_path / "in.jsonl", []), tmp_path / "out", simulate().url))
    assert write_report(tmp_path / "out", tmp_path / "r.html") == 0
    assert "0</b> rows" in (tmp_path / "r.html").read_text()
    with pytest.raises(OutputError, match="no output of batchfox"):
        write_report(tmp_path / "none", tmp_path / "x.html")
    with pytest.raises(UserError, match="lies in an output"):
        write_report(tmp_path / "out", tmp_path / "out" / "data" / "x.html")
    with pytest.raises(UserError, match="nothing was written"):
        write_report(tmp_path / "out", tmp_path / "nowhere" / "x.html")
    (tmp_path / "job.toml").write_text("[input]\n")
    with pytest.raises(UserError, match="exists and is no report"):
        write_report(tmp_path / "out", tmp_path / "job.toml")
    assert (tmp_path / "job.toml").read_text() == "[input]\n", "a file named by mistake stays"
    (tmp_path / "out" / "data" / "part-00000.parquet").write_text("junk")
    told = f"part-00000.parquet: cannot be read as Parquet: .*; `batchfox doctor {tmp_path / 'out'}` says"
    with pytest.raises(OutputError, match=told):
        write_report(tmp_path / "out", tmp_path / "r.html")


def test_a_timeline_keeps_every_count_however_long_it_gets_and_leaves_pauses_out() -> None:
    line = Timeline()
    began = 1_700_000_000
    for second in range(5 * MOST_SPANS):
        span = line.at(began + second)
        span.started += 1
        line.at(began + second + 30).ended += 1
    a_week_later = began + 7 * 86_400
    line.at(a_week_later).settled += 3
    bins = line.bins()
    spans = [one for one in bins if one is not None]
    assert len(bins) - len(spans) == 1, "one pause"
    assert len(spans) < 200
    assert sum(one.span.started for one in spans) == sum(one.span.ended for one in spans) == 5 * MOST_SPANS
    assert max(one.in_flight for one in spans) == pytest.approx(30, abs=line.width_s)
    assert [one.in_flight for one in spans][-1] == 0
    assert spans[-1].span.settled == 3
