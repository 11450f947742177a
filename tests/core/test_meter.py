"""The meter: what is left after a charge, how deep it looks, and that it ends a value that is too dear."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2.exceptions import SecurityError, TemplateRuntimeError, UndefinedError

from batchfox.core.formats import charge_braces, charge_percent
from batchfox.core.meter import BUDGET, ITEM, STEP, Meter, copy_size, size_of
from batchfox.core.methods import charge_method, is_unlisted
from batchfox.core.sandbox import Absent


def spent(meter: Meter) -> int:
    return BUDGET - meter.left


def test_a_budget_can_be_spent_once_and_is_refilled() -> None:
    meter = Meter()
    meter.charge(BUDGET)
    with pytest.raises(SecurityError, match="64 MB of text or 262,144 steps"):
        meter.charge(1)
    meter.refill()
    meter.charge(BUDGET)


@pytest.mark.parametrize(("text", "size"), [("abc", 3), ("é", 4), ("\U0001f600a", 8), (b"\xff\xff", 2), ("", 0)])
def test_a_text_counts_by_the_bytes_it_may_take(text: str | bytes, size: int) -> None:
    assert size_of(text) == copy_size(text) == size


def test_a_copy_of_what_is_no_text_or_list_takes_nothing() -> None:
    assert [copy_size(value) for value in ([1, 2], (1,), 5, {"a": 1}, None)] == [2 * ITEM, ITEM, 0, 0, 0]


def test_looking_goes_as_deep_as_the_value_and_text_may_weigh_less() -> None:
    flat, deep, light = Meter(), Meter(), Meter()
    flat.look(["x" * 1600])
    deep.look([["x" * 1600]])
    light.look(["x" * 1600], 4)
    assert spent(deep) > spent(flat) == spent(light) + 1500


def test_steps_are_charged_at_once_where_they_can_be_counted_and_one_by_one_elsewhere() -> None:
    meter = Meter()
    items = [1, 2, 3]
    assert meter.steps(items) is items
    assert spent(meter) == 3 * STEP
    meter.refill()
    lazy = meter.steps(iter(items), 10)
    assert spent(meter) == 0
    assert (next(lazy), next(lazy), spent(meter)) == (1, 2, 20)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, UndefinedError),
        (Absent(name="a"), UndefinedError),
        (b"x", TemplateRuntimeError),
        (len, TemplateRuntimeError),
        (iter([]), TemplateRuntimeError),
    ],
)
def test_what_is_no_value_is_not_needed(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Meter().need(value, "a")
    assert Meter().need("x", "a") == "x"


def test_a_search_is_charged_by_both_lengths_unless_it_is_linear() -> None:
    short, long, backwards = Meter(), Meter(), Meter()
    short.charge_search("x" * 20_000, "y" * 16)
    long.charge_search("x" * 40_000, "y" * 16)
    backwards.charge_search("x" * 40_000, "y" * 16, is_from_end=True)
    assert (spent(short), spent(long), spent(backwards)) == (20_000, 0, 40_000)


@pytest.mark.parametrize("text", ["{:999999}", "{:{}}"])
def test_a_width_is_small_and_written_out_in_braces(text: str) -> None:
    with pytest.raises(SecurityError, match="too large, or not written out"):
        charge_braces(Meter(), text, (1, 2))


@pytest.mark.parametrize("text", ["%999999d", "%*d", "%(a(b))d"])
def test_a_width_is_small_and_written_out_after_a_percent_sign(text: str) -> None:
    with pytest.raises(SecurityError):
        charge_percent(Meter(), text, {"a(b)": 1})


def test_each_field_of_a_format_may_show_all_that_is_given() -> None:
    once, twice = Meter(), Meter()
    charge_braces(once, "{}", ("x" * 1000,))
    charge_braces(twice, "{0}{0}", ("x" * 1000,))
    assert spent(twice) - spent(once) > 1000


@pytest.mark.parametrize(
    ("name", "args", "least"),
    [("center", (1000,), 4000), ("join", (["a"] * 99,), 99 * 8), ("replace", ("", "y" * 100), 900), ("split", (), 256)],
)
def test_a_method_is_charged_before_it_makes_more_than_its_text(name: str, args: tuple[Any, ...], least: int) -> None:
    meter = Meter()
    charge_method(meter, "abcdefgh", name, args, {})
    assert least <= spent(meter) < least + 100


def test_only_listed_methods_of_data_may_be_called() -> None:
    assert is_unlisted([], "append", [].append)
    assert is_unlisted("a", "translate", "a".translate)
    assert not is_unlisted("a", "upper", "a".upper)
    assert not is_unlisted({"append": 1}, "append", 1)
    assert not is_unlisted(object(), "anything", len)
    with pytest.raises(SecurityError, match="encode"):
        charge_method(Meter(), "a", "encode", ("punycode",), {})
