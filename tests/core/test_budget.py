"""Credits: spent + reserved + standing + the next estimate never passes the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.budget import Budget


def test_without_a_limit_everything_may_be_spent() -> None:
    budget = Budget(None)
    budget.reserve(1e12)
    assert budget.may_spend(1e12)


@pytest.mark.parametrize(("estimate", "may"), [(0.0, True), (4.0, True), (4.001, False), (1e9, False)])
def test_all_that_may_have_been_spent_counts_against_the_limit(estimate: float, may: bool) -> None:
    budget = Budget(10.0, spent=1.0, standing=2.0)
    budget.reserve(3.0)
    assert budget.may_spend(estimate) is may


def test_a_limit_can_be_used_to_its_end_although_tenths_do_not_add_up() -> None:
    budget = Budget(1.0)
    for _ in range(10):
        assert budget.may_spend(0.1)
        budget.reserve(0.1)
    assert not budget.may_spend(0.1)


def test_the_estimate_is_the_dearest_reservation_seen_else_the_listed_price() -> None:
    budget = Budget(100.0)
    assert budget.estimate("a", 2.0) == 2.0
    budget.reserve(2.0)
    assert budget.learn("a", 2.0, 5.0) == 5.0
    assert budget.reserved == 5.0
    assert budget.estimate("a", 2.0) == 5.0
    budget.reserve(5.0)
    assert budget.learn("a", 5.0, 3.0) == 3.0
    assert budget.estimate("a", 9.0) == 5.0, "cheaper ones do not lower it, nor does the list raise it"
    assert budget.estimate("b", 1.0) == 1.0, "another model and shape is another price"


def test_a_reply_without_a_reservation_keeps_the_estimate() -> None:
    budget = Budget(100.0)
    budget.reserve(2.0)
    assert budget.learn("a", 2.0, None) == 2.0
    assert (budget.reserved, budget.estimate("a", 7.0)) == (2.0, 7.0)


def test_a_free_model_is_learned_as_free() -> None:
    budget = Budget(1.0)
    budget.reserve(0.5)
    budget.learn("a", 0.5, 0.0)
    assert budget.estimate("a", 0.5) == 0.0


_amounts = st.floats(0.0, 10.0)


@given(
    limit=st.floats(1.0, 50.0),
    steps=st.lists(st.tuples(st.sampled_from(["ask", "learn", "release", "stand", "charge"]), _amounts), max_size=60),
)
def test_whatever_comes_the_limit_holds_while_charges_keep_to_their_reservation(
    limit: float, steps: list[tuple[str, float]]
) -> None:
    budget = Budget(limit)
    live: list[float] = []
    spent = standing = 0.0
    for what, amount in steps:
        if what == "ask":
            if budget.may_spend(amount):
                budget.reserve(amount)
                live.append(amount)
        elif live:
            held = live.pop(0)
            if what == "learn":
                live.append(budget.learn("g", held, min(amount, held)))
            elif what == "release":
                budget.release(held)
            elif what == "stand":
                budget.let_stand(held)
                standing += held
            else:
                budget.charge("g", held, min(amount, held))
                spent += min(amount, held)
        assert budget.spent == pytest.approx(spent)
        assert budget.standing == pytest.approx(standing)
        assert budget.reserved == pytest.approx(sum(live), abs=1e-9)
        assert budget.spent + budget.reserved + budget.standing <= limit + 1e-6


def test_an_estimate_that_proved_low_is_remembered_with_the_worst_it_came_to() -> None:
    budget = Budget(100.0)
    for listed, reserved in ((2.0, 1.5), (2.0, 3.0), (3.0, 3.0), (3.0, 7.0), (3.0, 5.0)):
        budget.reserve(listed)
        budget.learn("g", listed, reserved)
    assert budget.low == {"g": (3.0, 7.0)}
    budget.reserve(4.0)
    budget.charge("h", 4.0, 4.5)
    assert budget.low["h"] == (4.0, 4.5)
