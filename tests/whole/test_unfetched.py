"""A medium that the API could not fetch is fetched here and sent again, once."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from conftest import Simulate, by_id, http_reply, job_of, raw_server, saying, write_rows

from batchfox import arun, run

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
MODEL = "nemotron-3-nano-omni"


def job(folder: Path, url: str, images: list[str], *, media: dict[str, Any] | None = None, **tables: Any) -> Any:
    rows = [{"id": f"r{n}", "prompt": f"{n}", "image_urls": [image]} for n, image in enumerate(images)]
    opened = {"allow_private": ["127.0.0.0/8"]} | (media or {})
    source = write_rows(folder / "in.jsonl", rows)
    return job_of(source, folder / "out", url, request={"model": MODEL}, media=opened, **tables)


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def arrived(simulator: Any) -> list[list[str]]:
    return [entry["media"] for entry in simulator.book()["entries"]]


@pytest.mark.parametrize(("fault", "posts"), [("media_unfetched", 2), ("refuse_unfetched", 1)])
@pytest.mark.parametrize(("inline_below", "way"), [(4_000_000, "inline"), (10, "upload")])
async def test_a_row_is_sent_again_with_its_medium(
    fault: str, posts: int, inline_below: int, way: str, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate(faults={fault: 1.0})
    async with raw_server(saying(http_reply(PNG))) as server:
        made = job(tmp_path, simulator.url, [f"{server.url}/a.png"], media={"inline_below": inline_below})
        assert (await arun(made)).by_status == {"completed": 1}
    row = by_id(tmp_path / "out")["r0"]
    assert (row["media"], row["submits"], row["maybe_billed_twice"]) == ([way], posts, False)
    assert arrived(simulator)[-1] == [f"{way}:{digest(PNG)}"]
    assert len(arrived(simulator)) == posts


@pytest.mark.parametrize("fault", ["media_unfetched", "refuse_unfetched"])
def test_a_row_cannot_lead_this_machine_into_its_network(fault: str, simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={fault: 1.0})
    made = job(tmp_path, simulator.url, ["http://127.0.0.1:9/a.png"], media={"allow_private": []})
    assert run(made).by_status == {"failed": 1}
    row = by_id(tmp_path / "out")["r0"]
    assert "is no public address" in row["error_message"]
    assert row["error_code"] == "media_download_failed"


async def test_what_is_no_image_is_not_sent(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"media_unfetched": 1.0})
    async with raw_server(saying(http_reply(b"<html>please log in</html>"))) as server:
        assert (await arun(job(tmp_path, simulator.url, [f"{server.url}/a.png"]))).by_status == {"failed": 1}
    row = by_id(tmp_path / "out")["r0"]
    assert row["submits"] == 1
    assert "whose bytes say" in row["error_message"]


@pytest.mark.parametrize(
    "tables", [{"media": {"mode": "url"}}, {"retry": {"attempts": 1}}, {"retry": {"failed": "never"}}]
)
async def test_it_is_not_done_where_the_job_says_so(tables: Any, simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(faults={"media_unfetched": 1.0})
    async with raw_server(saying(http_reply(PNG))) as server:
        done = await arun(job(tmp_path, simulator.url, [f"{server.url}/a.png"], **tables))
        assert (done.by_status, server.connections) == ({"failed": 1}, 0)
    assert len(arrived(simulator)) == 1


async def test_an_upload_that_is_gone_is_made_anew_once(simulate: Simulate, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    simulator = simulate()
    media = {"mode": "upload", "root": str(tmp_path)}
    assert (await arun(job(tmp_path, simulator.url, ["a.png"], media=media))).by_status == {"completed": 1}
    simulator.control(upload_life_s=0.0)
    done = await arun(job(tmp_path, simulator.url, ["a.png", "./a.png"], media=media))
    assert done.by_status == {"completed": 1, "failed": 1}
    assert simulator.book()["totals"]["uploads"] == 2
    assert arrived(simulator) == [[f"upload:{digest(PNG)}"], ["gone"], ["gone"]]
    assert by_id(tmp_path / "out")["r1"]["submits"] == 2
