"""The view's server: what it finds, what it keeps, and whom it tells nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import Simulate, by_id, in_the_end, job_of, log_events, put_forward, rows_of, write_rows

from batchfox import arun
from batchfox.errors import OutputError
from batchfox.options import Options
from batchfox.survey.preview import preview
from batchfox.view.server import ViewServer

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
Ask = Callable[..., Any]


@asynccontextmanager
async def asking(folder: Path) -> AsyncIterator[Ask]:
    """Asks as the page does; returns the decoded reply, or with `raw` status, headers and bytes."""
    async with ViewServer(folder) as server, aiohttp.ClientSession() as session:
        base, _, token = server.url.partition("/#token=")

        async def ask(path: str, body: Any = None, *, raw: bool = False, **headers: str) -> Any:
            method = "GET" if body is None else "POST"
            given = {"X-Token": token} | {name.replace("_", "-"): value for name, value in headers.items()}
            async with session.request(method, base + path, json=body, headers=given) as reply:
                data = await reply.read()
                if raw:
                    return reply.status, reply.headers, data
                assert reply.status == 200, data
                return json.loads(data)

        yield ask


def ids(answer: dict[str, Any]) -> list[str]:
    return [row["_id"] for row in answer["rows"]]


async def test_rows_are_found_sorted_marked_and_the_page_follows_a_run(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"refuse_options": 0.3})
    (tmp_path / "dot.png").write_bytes(PIXEL)
    (tmp_path / "note.png").write_text("no picture")
    odd = 'a"b; DROP TABLE part; --'
    rows = [
        {"id": f"r{n}", "topic": f"Fox {n}", "n": n, odd: "x" if n == 3 else None, "pic": "dot.png"} for n in range(60)
    ]
    rows[7] |= {"topic": "100% 'quoted' _ \\ fox"}
    rows[9] |= {"pic": "/etc/passwd"}
    rows[11] |= {"pic": "https://images.example/x.jpg"}
    request = {"prompt": "Say {{ topic }}", "image_urls": ["{{ pic }}"], "model": "gemini-2.5-pro"}
    source, folder = tmp_path / "in.jsonl", tmp_path / "out"
    write_rows(source, rows[:40])
    job = job_of(source, folder, simulator.url, request=request, media={"root": str(tmp_path)}, rows_per_part=10)
    await arun(job)
    failed = {row["row_id"] for row in rows_of(folder) if row["status"] == "failed"}
    done = {row["row_id"] for row in rows_of(folder) if row["status"] == "completed"}

    async with asking(folder) as ask:
        state = await ask("/api/state")
        assert (state["total"], state["is_running"], state["types"]["n"]) == (40, False, "BIGINT")
        first = await ask("/api/rows", {"limit": 15})
        assert ids(first) == [f"r{n}" for n in range(15)]
        assert dict(first["facets"]["status"]) == {"completed": len(done), "failed": len(failed), "invalid": 1}
        assert ids(await ask("/api/rows", {"offset": 38})) == ["r38", "r39"]
        found = await ask("/api/rows", {"sort": "n", "is_descending": True, "limit": 3})
        assert ids(found) == ["r39", "r38", "r37"]
        assert found["rows"][0]["n"] == "39"
        answer = await ask("/api/rows", {"status": "failed"})
        assert set(ids(answer)) == failed
        assert dict(answer["facets"]["status"])["completed"] == len(done), "a facet does not hide its own others"

        # Search and filters: by type, and never as SQL or a pattern.
        assert ids(await ask("/api/rows", {"search": "fOX 12"})) == ["r12"]
        assert ids(await ask("/api/rows", {"search": "100% 'quoted' _ \\"})) == ["r7"]
        assert (await ask("/api/rows", {"search": "%"}))["total"] == 1
        assert (await ask("/api/rows", {"search": "fox", "status": "failed"}))["total"] == len(failed)

        async def filtered(column: str, operator: str, value: str = "", **more: Any) -> list[str]:
            filters = [{"column": column, "operator": operator, "value": value}]
            return ids(await ask("/api/rows", {"filters": filters} | more))

        assert await filtered("n", "at least", "9", sort="n", limit=2) == ["r9", "r10"]
        assert await filtered("n", "is", "5") == ["r5"]
        assert len(await filtered("n", "is not", "5")) == 39
        assert await filtered(odd, "not empty") == ["r3"]
        assert await filtered("n", "at least", "1 OR TRUE") == []
        assert await filtered("finished_at", "at most", "2001-01-01") == []
        assert len(await filtered("finished_at", "at least", "2001-01-01")) == 40
        assert set(await filtered("media", "contains", "inline")) | {"r9", "r11"} | failed >= done
        for bad in ({"sort": "nothing"}, {"filters": [{"column": odd + "x", "operator": "is"}]}, {"limits": 3}):
            status, _, data = await ask("/api/rows", bad, raw=True)
            assert (status, b"error" in data) == (400, True)

        # A row in full; its media only where the run itself could have read them.
        row = await ask("/api/row", {"index": 7, "id": "r7"})
        assert row["turns"] == [{"role": "user", "text": "Say 100% 'quoted' _ \\ fox"}]
        assert row["columns"]["topic"] == "100% 'quoted' _ \\ fox"
        if "r7" in done:
            assert row["note"] is None, "the request is known to be what was sent"
        status, headers, data = await ask("/media?index=7&id=r7&number=0", raw=True, Range="bytes=1-3")
        assert (status, headers["Content-Type"], data) == (206, "image/png", PIXEL[1:4])
        assert (await ask("/api/row", {"index": 9, "id": "r9"}))["media"][0]["where"] == "gone"
        assert (await ask("/media?index=9&id=r9&number=0", raw=True))[0] == 404
        assert (await ask("/api/row", {"index": 11, "id": "r11"}))["media"][0]["where"] == "remote"
        assert (await ask("/media?index=11&id=r11&number=0", raw=True))[0] == 404
        assert (await ask("/api/row", {"index": 7, "id": "r8"}, raw=True))[0] == 404

        # Marks are kept, found and given out as ids.
        await ask("/api/mark", {"rows": [{"index": n, "id": f"r{n}"} for n in (2, 4, 6)], "mark": "retry"})
        await ask("/api/mark", {"rows": [{"index": 4, "id": "r4"}], "mark": "accept"})
        answer = await ask("/api/mark", {"rows": [{"index": 6, "id": "r6"}], "mark": None})
        assert answer["marks"] == {"retry": 1, "accept": 1}
        assert ids(await ask("/api/rows", {"mark": "retry"})) == ["r2"]
        assert (await ask("/api/rows", {"mark": "none"}))["total"] == 38

        # What is written meanwhile is there.
        write_rows(source, rows)
        simulator.control(faults={})
        await arun(job)
        assert (await ask("/api/rows", {}))["total"] == 60
        assert ids(await ask("/api/rows", {"search": "fox 59"})) == ["r59"]
        await arun(job, retry=("failed",))
        assert dict((await ask("/api/rows", {}))["facets"]["status"]) == {"completed": 59, "invalid": 1}

    with (folder / "_batchfox" / "marks.jsonl").open("ab") as marks:
        marks.write(b'{"row_id":"r8","row_in')  # cut off by a crash
    async with asking(folder) as ask:
        await ask("/api/mark", {"rows": [{"index": 1, "id": "r1"}], "mark": "retry"})
    async with asking(folder) as ask:
        status, headers, data = await ask("/api/marks?mark=retry", raw=True)
        assert [json.loads(line) for line in data.splitlines()] == [
            {"row_id": f"r{n}", "row_index": n, "mark": "retry"} for n in (1, 2)
        ]
        assert "retry.jsonl" in headers["Content-Disposition"]
        assert (await ask("/api/marks?mark=foo", raw=True))[0] == 400
        status, _, data = await ask(
            "/api/mark", {"rows": [{"index": 3, "id": "r3"}, {"index": 3, "id": "r4"}], "mark": "retry"}, raw=True
        )
        assert (status, json.loads(data)) == (404, {"error": "no such row in the output: r4; nothing is marked"})

        # A run takes the rows that are marked, whatever their status, and their marks with them; what was marked once
        # is not paid for twice, even where the marks come back (a crash before they were taken away).
        await ask("/api/mark", {"rows": [{"index": 5, "id": "r5"}], "mark": "accept"})
        before, marks_before = by_id(folder), (folder / "_batchfox" / "marks.jsonl").read_bytes()
        marked = {"r1"} | ({"r2"} - failed)  # which has another outcome since
        shown = "".join(preview(job, Options(retry="marked")))
        assert [f'"r{n}"' in shown for n in (1, 5)] == [True, False]
        submits = simulator.book()["totals"]["submits_received"]
        await arun(job, retry="marked")
        assert simulator.book()["totals"]["submits_received"] == submits + len(marked)
        assert {name for name, row in by_id(folder).items() if row != before[name]} == marked
        assert (await ask("/api/state"))["marks"] == {"retry": 0, "accept": 2}
        (folder / "_batchfox" / "marks.jsonl").write_bytes(marks_before)
        assert not preview(job, Options(retry="marked"))
        await arun(job, retry="marked")
        assert simulator.book()["totals"]["submits_received"] == submits + len(marked)
        assert "no_marked_rows" in log_events(folder)


async def test_a_run_that_has_just_begun_is_an_empty_page_that_fills(simulate: Simulate, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    simulator = simulate(latency="constant:600")
    rows = [{"id": f"r{n}", "prompt": "x", "n": n} for n in range(5)]
    running = asyncio.create_task(arun(job_of(write_rows(tmp_path / "in.jsonl", rows), folder, simulator.url)))
    await in_the_end(lambda: simulator.book()["totals"]["submits_received"], "a submit")
    async with asking(folder) as ask:
        before = await ask("/api/state")
        assert (before["total"], before["is_running"], before["types"]["latency_s"]) == (0, True, "DOUBLE")
        assert await ask("/api/rows", {"search": "fox", "sort": "status", "mark": "none"}) == {
            "total": 0,
            "rows": [],
            "facets": {"status": [], "code": []},
            "version": before["version"],
        }
        assert (await ask("/api/row", {"index": 0, "id": "r0"}, raw=True))[0] == 404
        put_forward(simulator, 600)
        await running
        after = await ask("/api/state")
        assert (after["total"], after["is_running"], after["types"]["n"]) == (5, False, "BIGINT")
        assert after["version"] != before["version"], "the page is to ask anew"
        assert after["types"].items() >= before["types"].items()
        assert ids(await ask("/api/rows", {"sort": "n", "is_descending": True, "limit": 2})) == ["r4", "r3"]


async def test_nobody_else_is_told_anything(simulate: Simulate, tmp_path: Path) -> None:
    job = job_of(write_rows(tmp_path / "in.jsonl", [{"id": "a", "prompt": "x"}]), tmp_path / "out", simulate().url)
    await arun(job)
    async with asking(tmp_path / "out") as ask:
        for path in ("/api/state", "/api/marks", "/media?index=0&id=a&number=0"):
            assert (await ask(path, raw=True, X_Token="wrong"))[0] == 401
            assert (await ask(path, raw=True, Host="evil.example"))[0] == 403
            assert (await ask(path, raw=True, Origin="https://evil.example"))[0] == 403
        for path in ("/api/rows", "/api/row", "/api/mark"):
            assert (await ask(path, {}, raw=True, X_Token=""))[0] == 401
        for path in ("/", "/?remote=1", "/page.js", "/page.css"):
            status, headers, data = await ask(path, raw=True, X_Token="")
            policy = headers["Content-Security-Policy"]
            assert (status, "default-src 'none'" in policy, "script-src 'self';" in policy) == (200, True, True)
            assert ("https:" in policy) == (path == "/?remote=1"), "remote media only when asked"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert b"out" not in data or path != "/"
        assert (await ask("/../../etc/passwd", raw=True))[0] in (401, 404)
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(OutputError, match="no output of batchfox"):
            ViewServer(place)
    (tmp_path / "out" / "data" / "part-00000.parquet").write_text("junk")
    with pytest.raises(OutputError, match=r"`batchfox doctor .*` says what can be done$") as told:
        ViewServer(tmp_path / "out")
    assert "\n" not in str(told.value), "what was asked of DuckDB is no answer"


async def test_the_command_prints_its_address_and_ends_by_a_signal(simulate: Simulate, tmp_path: Path) -> None:
    job = job_of(write_rows(tmp_path / "in.jsonl", [{"id": "a", "prompt": "x"}]), tmp_path / "out", simulate().url)
    await arun(job)

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "batchfox", "view", str(tmp_path / "out")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode()
    assert url.startswith("http://127.0.0.1:")
    assert "/#token=" in url
    process.terminate()
    assert await process.wait() == 143
