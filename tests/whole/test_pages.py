"""The report and the view in a browser, with rows that want out of the page. Needs Chromium (Debian's `chromium`)."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import GUARD_S, Simulate, job_of, parts_of, write_rows

from batchfox import run
from batchfox.report import write_report
from batchfox.view.server import ViewServer

pytestmark = pytest.mark.system

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
HOSTILE = [
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script>",
    "\"'><img src=x onerror=\"document.title='owned'\">",
    "مرحبا \u202egnp.exe",
    "🦊👩‍👩‍👧\u0000\u0007",
    "javascript:document.title='owned'",
]
# Both colors, both widths.
REMOTE = "http://127.0.0.2:9/"
LOOKS = (("light", 1280), ("dark", 390))


class Browser:
    """A page at a time, watched: whatever it asks of anybody but this machine, and whatever it complains of."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    @contextmanager
    def page(self, url: str, *, scheme: str = "light", width: int = 1280, allowed: str = "") -> Iterator[Any]:
        """`allowed`: what else it may ask; it gets a picture from there."""
        context = self._chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        page = context.new_page()
        page.set_default_timeout(15000)
        troubles: list[str] = []
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url[:200]))
        if allowed:
            page.route(f"{allowed}**", lambda route: route.fulfill(body=PIXEL, content_type="image/png"))
        page.goto(url)
        yield page
        page.wait_for_load_state("networkidle")
        assert page.title() != "owned"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        assert troubles == []
        assert [url for url in asked if not is_local(url) and not (allowed and url.startswith(allowed))] == []
        context.close()


def is_local(url: str) -> bool:
    return url.startswith(("data:", "blob:", "file:", "http://127.0.0.1:"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path is not None, "install Debian's chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()


@pytest.fixture
def output(simulate: Simulate, tmp_path: Path) -> Path:
    """60 rows, some failed, with hostile ids, prompts and media; row 5 has an answer of 1 MB."""
    simulator = simulate(faults={"refuse_options": 0.2})
    (tmp_path / "dot.png").write_bytes(PIXEL)
    rows = [
        {"id": f"{n} {HOSTILE[n % len(HOSTILE)]}", "topic": HOSTILE[n % len(HOSTILE)], "n": n, "picture": "dot.png"}
        for n in range(60)
    ]
    rows[4]["picture"] = f"{REMOTE}never.png?<script>"
    request = {"prompt": "Say {{ topic }}", "image_urls": ["{{ picture }}"], "model": "gemini-2.5-pro"}
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = job_of(source, tmp_path / "out", simulator.url, request=request, media={"root": str(tmp_path)})
    with ThreadPoolExecutor(1) as thread:  # Playwright has a loop in this one
        assert thread.submit(run, job).result().exit_status == 3
    part = parts_of(tmp_path / "out")[0]
    table = pq.read_table(part)
    long = HOSTILE[0] + "x" * 1_000_000
    answers = [
        long if index == 5 else text
        for index, text in zip(table["row_index"].to_pylist(), table["text"].to_pylist(), strict=True)
    ]
    pq.write_table(table.set_column(table.column_names.index("text"), "text", pa.array(answers)), part)
    return tmp_path / "out"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a view of this output."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> ViewServer:
        return await ViewServer(folder).__aenter__()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(GUARD_S)
    try:
        yield server.url
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(GUARD_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def faults_of(page: Any) -> list[str]:
    """What axe finds that is serious or worse."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")
    ]


def test_the_report_shows_hostile_rows_as_text_and_asks_nobody(browser: Browser, output: Path) -> None:
    write_report(output, output / "report.html", rows=20)
    for scheme, width in LOOKS:
        with browser.page(f"file://{output}/report.html", scheme=scheme, width=width) as page:
            drawn = page.evaluate(_DRAWN)
            assert drawn >= 5, "charts are drawn"
            assert page.evaluate("document.querySelector('.card img').naturalWidth") == 1
            answers = page.locator(".card .text").all_text_contents()
            for hostile in (*HOSTILE[:4], HOSTILE[5]):
                assert any(f"Say {hostile}" in answer for answer in answers)
            assert faults_of(page) == [], scheme


# How many canvases hold anything else than nothing.
_DRAWN = """() => [...document.querySelectorAll("canvas")].filter((canvas) =>
  canvas.width && canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)).length"""


def test_a_person_searches_filters_opens_marks_and_exports(browser: Browser, output: Path, tmp_path: Path) -> None:
    first = "#rows tr:first-child"
    with served(output) as url, browser.page(url) as page:
        page.wait_for_selector(first)
        assert "token" not in page.url, "it does not stay in the address"
        page.keyboard.press("/")
        page.keyboard.type("<script>document")
        page.keyboard.press("Enter")
        expect(page, "() => document.getElementById('place').textContent === '1 to 21 of 21'")
        page.get_by_role("button", name="Add a filter").click()
        page.get_by_label("column").select_option("n")
        page.get_by_label("condition").select_option("at most")
        page.get_by_label("value").fill("7")
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page, "() => document.getElementById('place').textContent === '1 to 5 of 5'")
        page.get_by_role("button", name="Clear all").click()
        expect(page, "() => document.getElementById('place').textContent.endsWith('of 60')")
        failed = page.locator(".facet", has_text="failed")
        failed.click()
        expect(page, "() => !document.querySelector('#rows .completed')")
        page.locator(".facet", has_text="failed").click()
        expect(page, "() => document.querySelector('#rows .completed')")

        # A row of 1 MB, and one with a remote medium, by keys.
        page.get_by_label("Search", exact=True).blur()
        for _ in range(6):
            page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page, "() => document.getElementById('answer')?.textContent.length > 1000000")
        assert page.locator("#answer").text_content().startswith(HOSTILE[0])
        expect(page, "() => document.querySelector('#row img')?.naturalWidth === 1")
        page.keyboard.press("k")
        expect(page, "() => document.querySelector('#row a')?.textContent.includes('never.png')")
        page.keyboard.press("r")
        expect(page, "() => document.getElementById('row-mark').textContent === 'retry'")
        page.keyboard.press("j")
        page.keyboard.press("a")
        expect(page, "() => !document.getElementById('export-accept').disabled")
        with page.expect_download() as download:
            page.get_by_role("button", name="Export retry").click()
        download.value.save_as(tmp_path / "retry.jsonl")
        marked = json.loads((tmp_path / "retry.jsonl").read_text(encoding="utf-8"))
        assert marked == {"row_id": f"4 {HOSTILE[4]}", "row_index": 4, "mark": "retry"}
        assert faults_of(page) == []
        page.keyboard.press("Escape")
        expect(page, "() => document.getElementById('row').hidden")

        # Enter opens the row that is chosen, not the one that was clicked before.
        page.locator("#rows tr button").nth(0).click()
        expect(page, "() => document.querySelector('#row h2')?.textContent.startsWith('0 ')")
        page.keyboard.press("j")
        expect(page, "() => document.querySelector('#row h2').textContent.startsWith('1 ')")
        page.keyboard.press("Enter")
        assert page.locator("#rows tr").nth(1).get_attribute("aria-selected") == "true"
        # A row that the search has left behind is still open, and can still be marked.
        page.get_by_label("Search", exact=True).fill("no row says this")
        page.keyboard.press("Enter")
        expect(page, "() => document.getElementById('place').textContent === 'no row is like this'")
        page.get_by_role("button", name="Accept (a)").click()
        expect(page, "() => document.getElementById('row-mark').textContent === 'accept'")


def test_the_view_is_whole_on_a_phone_and_in_the_dark(browser: Browser, output: Path) -> None:
    with served(output) as url:
        for scheme, width in LOOKS:
            with browser.page(url, scheme=scheme, width=width) as page:
                page.wait_for_selector("#rows tr")
                assert faults_of(page) == [], scheme
                page.locator("#rows tr button").nth(2).click()
                expect(page, "() => document.querySelector('#row h2')")
                assert faults_of(page) == [], (scheme, "a row")


def test_remote_media_are_loaded_when_that_is_asked_for_and_only_of_the_row_that_is_open(
    browser: Browser, output: Path
) -> None:
    asked: list[str] = []
    with served(output) as url, browser.page(url, allowed=REMOTE) as page:
        page.on("request", lambda request: asked.append(request.url) if request.url.startswith(REMOTE) else None)
        page.wait_for_selector("#rows tr")
        page.get_by_label("load remote media").check()
        page.wait_for_url("**/?remote=1")
        page.wait_for_selector("#rows tr")
        page.locator("#rows tr button").nth(3).click()
        expect(page, "() => document.querySelector('#row img')?.naturalWidth === 1")
        assert asked == []
        page.locator("#rows tr button").nth(4).click()
        expect(page, "() => document.querySelector('#row img')?.src.startsWith('http://127.0.0.2')")
        expect(page, "() => document.querySelector('#row img')?.naturalWidth === 1")
        assert len(asked) == 1


def expect(page: Any, condition: str) -> None:
    """Waits for it. (Playwright's own way needs `eval`, which the page's policy forbids.)"""
    limit = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < limit, condition
        page.wait_for_timeout(20)
