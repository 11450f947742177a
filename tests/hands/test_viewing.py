"""What a display is given."""

from __future__ import annotations

from collections import Counter
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
        gate = SimpleNamespace(pace=SimpleNamespace(resumes_at=0.0))
        self.fleet = SimpleNamespace(gate=gate, submits_sent=0, lives={})
        self.is_tail, self.scene = False, Scene
        self.ledger = SimpleNamespace(tally=SimpleNamespace(by_status=self.by_status))

    def progress(self) -> dict[str, Any]:
        here = {"elapsed_s": self.now}
        return {"fed": {"rows": 1000}, "by_status": dict(self.by_status), "here": here, "outage": None}


class Rows:
    def total_rows(self) -> int | None:
        return None

    def expected_rows(self) -> int | None:
        return None

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
