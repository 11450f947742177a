"""Tokens a minute: the window, what it learns, and a fleet under it."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from fleet_world import LOST, Api, World, life, make_fleet

from batchfox.core.event import Answer, Answered, Refused, SubmitEvent
from batchfox.core.lifecycle import Life
from batchfox.core.shape import media_of
from batchfox.core.tokens import WINDOW_S, Tokens, expected_tokens


def rows_of(tokens: list[float]) -> list[Life]:
    return [msgspec.structs.replace(life(index), tokens=amount) for index, amount in enumerate(tokens)]


class Metered(Api):
    """Says what each row has used: `factor` times what is expected. `sent`: when it was POSTed, and that."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__(median_s=2.0)
        self.factor = factor
        self.sent: list[tuple[float, float]] = []

    def on_submit(self, row: Life, now: float) -> SubmitEvent:
        self.sent.append((now, row.tokens * self.factor))
        return super().on_submit(row, now)

    def end_of(self, row: Life, nth: int) -> Answered:
        used = int(row.tokens * self.factor)
        return Answered(answer=Answer(completion="{}", text="", prompt_tokens=used - 1, completion_tokens=1))

    def most_in_a_minute(self) -> float:
        return max(
            sum(amount for at, amount in self.sent if began_at <= at < began_at + WINDOW_S) for began_at, _ in self.sent
        )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_sliding_minute_takes_more_and_nearly_all_of_it_is_used(seed: int) -> None:
    draw = Random(seed)
    api = Metered()
    fleet = make_fleet(in_flight=50, per_minute=6000)
    fleet.gate.tokens = Tokens(10_000.0)
    world = World(fleet, api, rows_of([float(draw.randint(10, 400)) for _ in range(400)])).run()
    assert world.statuses() == {"completed": 400}
    assert api.most_in_a_minute() <= 10_000.0
    total = sum(amount for _, amount in api.sent)
    assert api.sent[-1][0] <= 60.0 * total / (0.9 * 10_000.0), "it is used"


def test_what_came_back_corrects_what_was_sent_and_what_is_to_come() -> None:
    cheap, dear = Metered(0.25), Metered(2.0)
    ends = []
    for api, in_flight in ((cheap, 50), (dear, 5)):
        fleet = make_fleet(in_flight=in_flight, per_minute=6000)
        fleet.gate.tokens = Tokens(10_000.0)
        World(fleet, api, rows_of([200.0] * 500)).run()
        ends.append(api.sent[-1][0])
    assert ends[0] < 3 * 60.0, "four times as many leave as by the rule of thumb"
    assert dear.most_in_a_minute() <= 10_000.0 + 5 * 200.0, "the first in flight were taken for half of what they were"
    assert cheap.most_in_a_minute() <= 10_000.0


def test_a_row_larger_than_a_minutes_tokens_leaves_alone() -> None:
    api = Metered()
    fleet = make_fleet()
    fleet.gate.tokens = Tokens(1_000.0)
    world = World(fleet, api, rows_of([400.0, 5_000.0, 400.0])).run()
    assert world.statuses() == {"completed": 3}
    first, large, last = (at for at, _ in api.sent)
    assert large >= first + WINDOW_S
    assert last >= large + WINDOW_S


def test_a_refused_request_took_nothing_and_one_in_doubt_counts_on() -> None:
    class Picky(Metered):
        def on_submit(self, row: Life, now: float) -> SubmitEvent:
            if row.index == 0:
                self.sent.append((now, 0.0))
                return Refused(error=LOST.error, http_status=400)
            if row.index == 1 and self.posts[1] == 1:
                self.sent.append((now, row.tokens))
                return LOST
            return super().on_submit(row, now)

    api = Picky()
    fleet = make_fleet(in_flight=1)
    fleet.gate.tokens = Tokens(1_000.0)
    World(fleet, api, rows_of([1_000.0, 600.0, 300.0])).run()
    times = [at for at, _ in api.sent]
    assert times[1] < 5.0, "the refused one holds nobody up"
    assert api.most_in_a_minute() <= 1_000.0, "the lost one does"


def test_what_was_sent_before_a_resume_counts_on() -> None:
    tokens = Tokens(1_000.0, before=(900.0, -20.0))
    assert tokens.taken(0.0) == 900.0
    assert tokens.fits("g", 100.0, 0.0)
    assert not tokens.fits("g", 101.0, 0.0)
    assert tokens.opens_at == 40.0
    assert tokens.fits("g", 101.0, 40.0)
    assert Tokens(None, before=(900.0, -20.0)).fits("g", 1e9, 0.0)


@pytest.mark.parametrize("used", [100.0, 900.0])
def test_a_task_that_runs_for_longer_than_its_minute_leaves_nothing_behind(used: float) -> None:
    tokens = Tokens(1_000.0)
    tokens.take(b"long", "g", 500.0)
    tokens.leave(b"long", 0.0)
    assert tokens.taken(61.0) == 0.0
    tokens.take(b"next", "g", 500.0)
    tokens.leave(b"next", 61.0)
    tokens.learn(b"long", "g", 500.0, used)
    tokens.end(b"long")
    assert tokens.taken(62.0) == 500.0, "its usage is of a minute that is over"
    assert tokens.expect("g", 500.0) == used, "and teaches all the same"


def test_the_rule_of_thumb_counts_text_media_and_what_may_come_back() -> None:
    request = {"prompt": "x" * 400, "image_urls": ["https://a.example/" + "y" * 400, "data:image/png;base64,AAAA"]}
    assert expected_tokens(request, media_of(request)) == (2_100, 1_024)
    assert expected_tokens({"messages": [{"content": "x" * 40}], "max_tokens": 5}, []) == (10, 5)
