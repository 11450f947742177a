"""The tail of a run: its oldest tasks are named, and looked for no more often than anybody looks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from batchfox.core.dispatch import Fleet
from batchfox.core.lifecycle import Life, State
from batchfox.core.tail import MOST_NAMED, NAMED_EVERY_S, Tail


class Counted(dict[bytes, Life]):
    """Lives that know how often all of them were looked at."""

    looks = 0

    def values(self) -> Any:
        self.looks += 1
        return super().values()


def running(number: int) -> Life:
    key = number.to_bytes(2, "big")
    life = Life(key=key, index=number, id=f"r{number}", kept={}, state=State.RUNNING, task_id=f"t{number}")
    life.born = float(number)
    return life


def test_the_oldest_tasks_are_looked_for_once_a_second_however_often_figures_are_recorded() -> None:
    lives = Counted({life.key: life for life in map(running, reversed(range(100)))})
    fleet = SimpleNamespace(lives=lives, stopped=None, has_waiting=False, on_the_wire=0, in_flight=100)
    tail = Tail(cast(Fleet, fleet), None, 0.0)
    assert tail.figures(100.0, is_input_over=False) is None
    assert lives.looks == 0

    def told(now: float) -> list[Any]:
        figures = tail.figures(now, is_input_over=True)
        assert figures is not None
        assert figures["tasks"] == 100
        return [one["row_id"] for one in figures["oldest"]]

    for step in range(200):
        assert told(100.0 + step * NAMED_EVERY_S / 250) == [f"r{number}" for number in range(MOST_NAMED)]
    assert lives.looks == 1
    del lives[running(0).key]
    assert told(100.0 + NAMED_EVERY_S) == [f"r{number}" for number in range(1, MOST_NAMED + 1)]
