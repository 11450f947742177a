"""The job file that is written: TOML that says what was guessed, and nothing else, whatever the data's names are."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.draft import draft, toml
from batchfox.core.guess import Guess
from batchfox.core.job import Job

HOSTILE = st.text("ab \"'\\{}[]#=%,\n\r\t\x00\x1b\x7f\u2028\u202eé日😀", max_size=12)
VALUES = st.recursive(
    HOSTILE | st.integers(-(1 << 60), 1 << 60) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=6,
)


def write(guess: Guess, **given: Any) -> str:
    values: dict[str, Any] = {
        "command": "batchfox init in.jsonl",
        "path": "in.jsonl",
        "job_path": "job.toml",
        "output": "out/job",
        "columns": [],
        "id_note": "",
        "root": None,
    }
    return draft(guess, **(values | given))


@given(VALUES)
def test_a_value_is_written_as_it_is(value: Any) -> None:
    assert tomllib.loads(f"x = {toml(value)}\ny = 1") == {"x": value, "y": 1}


@given(HOSTILE, HOSTILE, st.lists(HOSTILE, max_size=4))
def test_nothing_from_the_data_leaves_its_place(text: str, name: str, names: list[str]) -> None:
    guess = Guess(
        id=name,
        fields=names,
        request={"model": "m", "max_tokens": 9, "prompt": f"{text}\n{text}", "image_urls": [text]},
        taken=names,
        notes=[text],
    )
    job = tomllib.loads(write(guess, path=text, columns=names, command=text, job_path=text, root=text, id_note="so"))
    assert job == {
        "input": {"path": text, "id": name, "fields": names},
        "request": {"model": "m", "prompt": f"{text}\n{text}", "image_urls": [text], "max_tokens": 9},
        "limits": {"in_flight": 200},
        "media": {"root": text},
        "output": {"path": "out/job"},
    }


def test_what_is_commented_out_is_a_job_too_when_it_is_not() -> None:
    """The keys that a comment offers exist, and stand below the table they belong to."""
    block = {"type": "file_url", "file_url": {"url": "{{ pdf }}"}}
    messages = [{"role": "user", "content": [block]}]
    text = write(Guess(request={"messages": messages, "model": "m", "max_tokens": 9}))
    data = tomllib.loads(re.sub(r"(?m)^# (?=\w+ = )", "", text))
    assert Job.from_dict(data).request["messages"] == messages
    assert data["request"]["reasoning"] is True
    assert set(data["limits"]) == {"in_flight", "requests_per_minute", "credits"}
    assert data["input"]["id"] == "COLUMN"


def test_a_model_that_may_need_reasoning_gets_it() -> None:
    def reasoning(**request: Any) -> Any:
        return tomllib.loads(write(Guess(request=request)))["request"].get("reasoning")

    assert reasoning(model="gemini-2.5-pro", prompt="x") is True
    assert reasoning(model="gemini-2.5-flash", prompt="x") is None
    assert reasoning(model="gemini-2.5-pro", messages=[{"role": "user", "content": ["x"]}]) is None
