"""A changed job: what an output takes over, and what would mix two meanings in it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from batchfox.core.change import Change, refused_changes
from batchfox.core.job import Job

OLD = Job.from_dict(
    {
        "input": {"path": "a.jsonl"},
        "output": {"path": "out"},
        "request": {"model": "m", "prompt": "{{ p }}", "stop": ["a"]},
    }
).to_dict()


def changed(place: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(OLD)
    *tables, name = place.split(".")
    inner = data
    for table in tables:
        inner = inner.setdefault(table, {})
    if value is None:
        del inner[name]
    else:
        inner[name] = value
    return data


def refused(new: dict[str, Any], *, is_unfinished: bool = True, has_ids: bool = True) -> list[str]:
    return [str(change) for change in refused_changes(OLD, new, is_unfinished=is_unfinished, has_ids=has_ids)]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("limits.in_flight", 5),
        ("limits.requests_per_minute", 60.0),
        ("limits.credits", 5.0),
        ("limits.time", 60.0),
        ("retry.attempts", 9),
        ("retry.in_doubt", "hold"),
        ("poll.first", 5.0),
        ("poll.eagerness", 4.0),
        ("media.mode", "inline"),
        ("output.rows_per_part", 5),
        ("api.key_env", "OTHER_KEY"),
        ("input.path", ["a.jsonl", "b.jsonl"]),
        ("schedule.timezone", "Europe/Vienna"),
        ("rules.off", ["shorts"]),
        ("name", "other"),
    ],
)
def test_what_does_not_touch_the_rows_meaning_may_change_at_any_time(place: str, value: Any) -> None:
    for is_unfinished in (True, False):
        for has_ids in (True, False):
            assert refused(changed(place, value), is_unfinished=is_unfinished, has_ids=has_ids) == []


MEANINGS: list[tuple[str, Any, str]] = [
    ("request.model", "n", 'request.model was "m", is now "n"'),
    ("request.temperature", 0.5, "request.temperature was (not set), is now 0.5"),
    ("request.prompt", None, 'request.prompt was "{{ p }}", is now (not set)'),
    ("request.stop", ["a", "b"], 'request.stop was ["a"], is now ["a","b"]'),
    ("input.keep", ["title"], 'input.keep was ["*"], is now ["title"]'),
    ("input.fields", ["prompt"], 'input.fields was (not set), is now ["prompt"]'),
    ("media.root", "elsewhere", 'media.root was ".", is now "elsewhere"'),
    ("api.base_url", "https://b.example", 'api.base_url was "https://api.foxapi.cc", is now "https://b.example"'),
]


@pytest.mark.parametrize(("place", "value", "said"), MEANINGS, ids=[place for place, _, _ in MEANINGS])
def test_a_changed_meaning_is_refused_with_both_values(place: str, value: Any, said: str) -> None:
    new = changed(place, value)
    assert refused(new) == [said]
    assert refused(new, has_ids=False) == [said]
    assert refused(new, is_unfinished=False, has_ids=False) == [said], "without ids an output belongs to one request"
    assert refused(new, is_unfinished=False, has_ids=True) == [], "rows with ids may be asked anew"


def test_simulated_and_real_answers_never_mix() -> None:
    simulated = changed("api.base_url", "simulator")
    said = 'api.base_url was "https://api.foxapi.cc", is now "simulator"'
    for is_unfinished in (True, False):
        assert refused(simulated, is_unfinished=is_unfinished) == [said]
        back = refused_changes(simulated, OLD, is_unfinished=is_unfinished, has_ids=True)
        assert [(change.was, change.now) for change in back] == [('"simulator"', '"https://api.foxapi.cc"')]


def test_every_change_is_told_and_in_a_fixed_order() -> None:
    new = changed("request", {"model": "n", "prompt": "{{ q }}", "max_tokens": 5})
    assert [change.split(" ")[0] for change in refused(new)] == [
        "request.max_tokens",
        "request.model",
        "request.prompt",
        "request.stop",
    ]


def test_the_order_of_keys_and_the_way_a_number_is_written_mean_nothing() -> None:
    old = {"request": {"a": 1, "b": {"c": 2.0}}}
    new = {"request": {"b": {"c": 2}, "a": 1.0}}
    assert refused_changes(old, new, is_unfinished=True, has_ids=False) == []


def test_a_long_value_is_cut_so_that_both_can_be_read() -> None:
    change = refused_changes({"request": {"p": "x" * 5000}}, {"request": {"p": "y"}}, is_unfinished=True, has_ids=True)
    assert change == [Change(key="request.p", was='"' + "x" * 198 + "…", now='"y"')]


def test_a_table_that_comes_or_goes_is_told() -> None:
    old: dict[str, Any] = {"request": {"a": {"b": 1}}}
    changes = refused_changes(old, {"request": {}}, is_unfinished=True, has_ids=True)
    assert [str(change) for change in changes] == ['request.a was {"b":1}, is now (not set)']
    assert refused_changes({}, {}, is_unfinished=True, has_ids=True) == []


def test_with_stale_rows_asked_anew_only_what_is_in_the_request_may_change() -> None:
    new = changed("request.prompt", "{{ q }}") | {"media": {"root": "/else"}}
    found = refused_changes(OLD, new, is_unfinished=True, has_ids=True, asks_stale=True)
    assert [change.key for change in found] == ["media.root", "media.mode"][: len(found)]
    assert not any(change.is_in_request for change in found)
    assert refused_changes(OLD, new, is_unfinished=True, has_ids=False, asks_stale=True) != found
