"""Names that may be mistyped: a note that names the nearest, and none for those that are right."""

from __future__ import annotations

import pytest

from batchfox.core.doubts import MOST_MODELS, doubts
from batchfox.core.rulebook import RuleBook
from batchfox.core.sections import ModelRule, Rules

BOOK = RuleBook()


def test_a_model_that_the_price_list_lacks_names_the_nearest_of_it() -> None:
    (said,) = doubts({}, ["gemini-2.5-por", "m"], ["gemini-2.5-pro", "m"], BOOK)
    assert 'does not name the model "gemini-2.5-por" (did you mean "gemini-2.5-pro"?)' in said


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("gemnini-2.5-pro", "gemini-2.5-pro"),
        ("cluade-opus-4-7", "claude-*"),
        ("kimi-k2.5", "kimi-k2.6"),
        ("nemotron-3-nano", "nemotron-3-nano-omni"),
    ],
)
def test_without_a_price_list_the_rules_know_models_and_families(model: str, meant: str) -> None:
    (said,) = doubts({}, [model], [], BOOK)
    assert f'no rule is known for the model "{model}" (did you mean "{meant}"?)' in said


def test_names_that_are_known_are_not_doubted() -> None:
    book = RuleBook.build(Rules(models=[ModelRule(match="house-1")]))
    assert not list(doubts({"prompt": "x", "seed": 3}, ["gpt-5.5", "house-1"], [], book))
    assert not list(doubts({}, ["anything"], ["anything"], BOOK))
    (said,) = doubts({}, ["zzz"], [], BOOK)
    assert "did you mean" not in said


def test_a_field_that_is_nearly_one_is_told_and_any_other_is_passed_on() -> None:
    (said,) = doubts({"max_token": 3, "verbosity": "low"}, [], [], BOOK)
    assert said.startswith('request.max_token: no field that is known here (did you mean "max_tokens"?)')


def test_a_thousand_odd_models_are_not_a_thousand_notes() -> None:
    assert len(list(doubts({}, [f"m{n}" for n in range(1000)], ["x"], BOOK))) == MOST_MODELS
