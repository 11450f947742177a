"""`limits.bytes_in_flight`: bodies are built only while those on the wire leave room, and a single one always goes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, Simulate, by_id, job_of, write_rows

from batchfox import run
from batchfox.api import Api
from batchfox.submitting import Bodies

PNG = b"\x89PNG\r\n\x1a\n" + bytes(300_000)


def test_bodies_have_room_by_the_size_of_the_last_one_and_one_always_has() -> None:
    bodies = Bodies(100)
    assert bodies.room() == 100
    bodies.add(30)
    assert bodies.room() == 2
    bodies.add(30)
    bodies.add(30)
    assert bodies.room() == 0
    for size in (30, 30, 30):
        bodies.drop(size)
    bodies.add(1_000)
    assert bodies.room() == 0
    bodies.drop(1_000)
    assert bodies.room() == 1


async def test_bodies_are_held_in_turn_and_who_gives_up_holds_nothing() -> None:
    bodies = Bodies(100)
    await bodies.hold(500)  # a single one always has room
    waiting = [asyncio.ensure_future(bodies.hold(size)) for size in (60, 30, 60)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    bodies.drop(500)
    await asyncio.wait(waiting[:2])
    assert not waiting[2].done()
    waiting[2].cancel()
    await asyncio.wait(waiting[2:])
    late = asyncio.ensure_future(bodies.hold(10))
    await late
    assert bodies.room() == 0
    bodies.drop(100)
    bodies.expect()
    bodies.add(100)
    assert bodies.room() == 0
    bodies.forget()
    bodies.drop(100)
    assert bodies.room() == 1


@pytest.mark.parametrize("most", [1_300_000, 100_000])
@pytest.mark.parametrize("way", ["path", "data"])
def test_large_media_are_bounded_by_bytes_however_many_rows_may_be_in_flight(
    most: int, way: str, simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64

    on_the_wire = [0, 0]
    submit = Api.submit

    async def watched(self: Api, body: bytes, **values: Any) -> Any:
        on_the_wire[0] += len(body)
        on_the_wire[1] = max(on_the_wire)
        try:
            return await submit(self, body, **values)
        finally:
            on_the_wire[0] -= len(body)

    monkeypatch.setattr(Api, "submit", watched)
    (tmp_path / "fox.png").write_bytes(PNG)
    image = str(tmp_path / "fox.png") if way == "path" else f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    rows = [{"id": f"r{n}", "prompt": "what?", "image_urls": [image]} for n in range(20)]
    job = job_of(
        write_rows(tmp_path / "in.jsonl", rows),
        tmp_path / "out",
        simulate().url,
        request={"model": MODEL},
        limits={"in_flight": 500, "bytes_in_flight": most},
        media={"root": str(tmp_path)},
    )
    assert run(job).by_status == {"completed": 20}
    assert len(by_id(tmp_path / "out")) == 20
    one = 4 * len(PNG) // 3 + 1_000
    assert 4 * len(PNG) // 3 <= on_the_wire[1] <= max(most, one)
