"""What a display is given."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from conftest import job_of

from batchfox.core.binding import Scene
from batchfox.core.pulse import Pulse
from batchfox.core.vitals import Vitals
from batchfox.viewing import Viewer


class Pool:
    """As much of one as a viewer looks at."""

    def __init__(self) -> None:
        self.by_status: Counter[str] = Counter()
        self.now = 0.0
        gate = SimpleNamespace(tokens=SimpleNamespace(per_minute=None))
        self.fleet = SimpleNamespace(gate=gate, cools_until=0.0, submits_sent=0, lives={})
        self.is_tail, self.scene = False, Scene
        self.ledger = SimpleNamespace(tally=SimpleNamespace(by_status=self.by_status))

    is_over = False

    def progress(self) -> dict[str, Any]:
        here = {"elapsed_s": self.now}
        fed = {"rows": 1000, "duplicates": 0, "is_over": self.is_over}
        return {"fed": fed, "by_status": dict(self.by_status), "here": here, "outage": None}


class Rows:
    def __init__(self, counted: int | None = None, expected: int | None = None) -> None:
        self.counted, self.expected = counted, expected

    def total_rows(self) -> int | None:
        return self.counted

    def expected_rows(self) -> int | None:
        return self.expected

    def progress(self) -> float | None:
        return 1.0


def test_the_time_left_follows_the_pace_of_the_last_minute(tmp_path: Any) -> None:
    pool: Any = Pool()
    viewer = Viewer(job_of(tmp_path, tmp_path, "http://x"), Rows(), pool, Pulse(), limit=None, now=lambda: pool.now)
    for second in range(600):
        pool.now = float(second)
        pool.by_status["completed"] += 1 if second < 300 else second % 10 == 0
        view = viewer.view()
    figures = Vitals(view.figures, view.shown)
    left = 1000 - figures.ended
    assert figures.left_s is not None
    assert 0.9 * left / 0.1 < figures.left_s < 1.2 * left / 0.1, (
        "one row in ten seconds, though it began with ten times that"
    )


def test_a_total_that_is_no_count_is_called_rough(tmp_path: Path) -> None:
    def told(pool: Pool, *, counted: int | None, limit: int | None = None) -> str:
        rows = Rows(counted, expected=2_000)
        viewer = Viewer(job_of(tmp_path, tmp_path, "http://x"), rows, pool, Pulse(), limit=limit, now=lambda: 1.0)  # type: ignore[arg-type]
        with ThreadPoolExecutor(1) as thread:

            async def count() -> None:
                viewer.count_rows(thread)
                assert viewer._counting is not None
                await viewer._counting

            asyncio.run(count())
        view = viewer.view()
        return Vitals(view.figures, view.shown).of_total

    assert told(Pool(), counted=None) == "about 2,000", "by the share of the input that is read"
    assert told(Pool(), counted=1_500) == "1,500", "as a Parquet file says"
    assert told(Pool(), counted=None, limit=5) == "5", "the limit is none"
    pool = Pool()
    pool.is_over = True
    assert told(pool, counted=None) == "1,000", "all of the input is read"
