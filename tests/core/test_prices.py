"""Prices: the list as the API gives it, whatever is in it, and what a request may cost by it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.prices import PROMPT_TOKENS, TOKENS_A_CREDIT, USUAL_COMPLETION, Price, estimate, read_prices

LISTED: dict[str, Any] = {
    "data": [
        {"model_name": "fixed", "quota_type": 1, "model_price": 0.5, "model_ratio": 0, "completion_ratio": 0},
        {"model_name": "tokens", "quota_type": 0, "model_ratio": 2.0, "model_price": 0, "completion_ratio": 4.0},
        {"model_name": "plain", "quota_type": 0, "model_ratio": 1, "enable_groups": ["default"]},
    ],
    "group_ratio": {"default": 1.0},
}


def test_a_list_is_read() -> None:
    assert read_prices(LISTED) == {
        "fixed": Price(fixed=0.5),
        "tokens": Price(ratio=2.0, completion_ratio=4.0),
        "plain": Price(ratio=1.0, completion_ratio=1.0),
    }


def test_the_dearest_group_counts_since_nobody_says_which_one_the_key_is_in() -> None:
    prices = read_prices(LISTED | {"group_ratio": {"default": 1.0, "vip": 3, "odd": "x", "nan": float("nan")}})
    assert prices["fixed"].fixed == 1.5
    assert prices["tokens"].ratio == 6.0


@pytest.mark.parametrize("listed", [None, 3, "x", [], {}, {"data": None}, {"data": {}}, {"data": ["x", 3, None, {}]}])
def test_what_is_no_list_has_no_prices(listed: Any) -> None:
    assert read_prices(listed) == {}


@pytest.mark.parametrize(
    "entry",
    [
        {"model_name": 3, "model_ratio": 1},
        {"model_name": "m"},
        {"model_name": "m", "model_ratio": "1"},
        {"model_name": "m", "model_ratio": -1},
        {"model_name": "m", "model_ratio": True},
        {"model_name": "m", "model_ratio": float("nan")},
        {"model_name": "m", "model_ratio": float("inf")},
        {"model_name": "m", "quota_type": 1, "model_price": None},
    ],
    ids=repr,
)
def test_an_entry_that_makes_no_sense_is_passed_over(entry: dict[str, Any]) -> None:
    assert set(read_prices({"data": [entry, *LISTED["data"]]})) == {"fixed", "tokens", "plain"}


def test_a_fixed_price_is_the_price_of_a_call() -> None:
    assert estimate(read_prices(LISTED), "fixed", "video", 100_000) == 0.5


def test_tokens_cost_by_their_ratios() -> None:
    found = estimate(read_prices(LISTED), "tokens", "text", 500)
    assert found == pytest.approx((PROMPT_TOKENS["text"] + 500 * 4.0) * 2.0 / TOKENS_A_CREDIT)


def test_a_request_without_max_tokens_is_taken_to_answer_as_usual() -> None:
    prices = read_prices(LISTED)
    assert estimate(prices, "plain", "text", None) == estimate(prices, "plain", "text", USUAL_COMPLETION)


def test_media_cost_more_than_text() -> None:
    prices = read_prices(LISTED)
    costs = {shape: estimate(prices, "plain", shape, 64) or 0.0 for shape in ("text", "vision", "audio", "video")}
    assert sorted(costs, key=lambda shape: costs[shape]) == ["text", "vision", "audio", "video"]
    assert PROMPT_TOKENS["video"] >= 20_000, "the seeds: a clip of 30 seconds may cost that"


@pytest.mark.parametrize("model", ["unknown", None, ""])
def test_a_model_that_is_not_listed_costs_as_the_dearest(model: str | None) -> None:
    prices = read_prices(LISTED)
    all_costs = [estimate(prices, name, "vision", 64) for name in prices]
    assert estimate(prices, model, "vision", 64) == max(cost for cost in all_costs if cost is not None)


def test_without_a_list_there_is_no_estimate() -> None:
    assert estimate({}, "m", "text", 64) is None


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
_entries = st.fixed_dictionaries(
    {"model_name": st.one_of(st.just("m"), _json)},
    optional=dict.fromkeys(
        ["quota_type", "model_price", "model_ratio", "completion_ratio"], st.one_of(st.just(1), _json)
    ),
)


@given(st.fixed_dictionaries({}, optional={"data": st.one_of(st.lists(_entries), _json), "group_ratio": _json}))
def test_any_list_at_all_gives_prices_that_are_amounts(listed: dict[str, Any]) -> None:
    for price in read_prices(listed).values():
        cost = price.of(1000.0, 1000.0)
        assert 0.0 <= cost < float("inf")
