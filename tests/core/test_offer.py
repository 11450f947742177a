"""The API's list of models beside the rules and the prices."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.offer import read_offers
from batchfox.core.prices import Price
from batchfox.core.rulebook import RuleBook
from batchfox.core.sections import ModelRule, Rules

BOOK = RuleBook()


def listed(**models: Any) -> dict[str, Any]:
    return {"data": [{"id": name.replace("_", "-"), "capabilities": takes} for name, takes in models.items()]}


def test_rules_and_prices_stand_beside_what_the_api_says() -> None:
    prices = {"claude-x": Price(ratio=2.5, completion_ratio=5), "nemotron-3-nano-omni": Price(fixed=0.01)}
    answer = listed(claude_x=["text", "vision", "file"], nemotron_3_nano_omni=["text", "vision", "video", "audio"])
    claude, nemotron = read_offers(answer, prices, BOOK) or []
    assert (claude.media, claude.most_images, claude.most_videos) == (["image", "file"], 10, None)
    assert claude.requires_max_tokens
    assert claude.credits_per_million_prompt_tokens == 5
    assert claude.credits_per_million_completion_tokens == 25
    assert (nemotron.most_images, nemotron.most_videos, nemotron.is_one_visual) == (1, 1, True)
    assert nemotron.audio_formats == ["wav", "mp3"]
    assert nemotron.credits_per_call == 0.01


def test_what_the_api_offers_and_the_rules_refuse_is_named_and_can_be_lifted() -> None:
    answer = listed(gpt_9=["text", "video"])
    (offer,) = read_offers(answer, {}, BOOK) or []
    assert (offer.media, offer.refused) == (["video"], ["video"])
    lifted = RuleBook.build(Rules(models=[ModelRule(match="gpt-9", media=["video"], most_videos=2)]))
    (offer,) = read_offers(answer, {}, lifted) or []
    assert (offer.refused, offer.most_videos) == ([], 2)


def test_a_model_that_nobody_knows_is_shown_as_such() -> None:
    (offer,) = read_offers(listed(strange=None), {}, BOOK) or []
    assert (offer.is_known, offer.media, offer.capabilities) == (False, None, [])
    (offer,) = read_offers(listed(strange=["text", "audio", "smell"]), {}, BOOK) or []
    assert (offer.media, offer.capabilities) == (["audio"], ["text", "audio", "smell"])


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"data": None}, {"data": {}}])
def test_an_answer_that_is_no_list_is_told_from_an_empty_one(answer: Any) -> None:
    assert read_offers(answer, {}, BOOK) is None
    assert read_offers({"data": []}, {}, BOOK) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "id", "capabilities", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_no_answer_is_too_odd(answer: Any) -> None:
    for offer in read_offers(answer, {}, BOOK) or []:
        assert offer.id
