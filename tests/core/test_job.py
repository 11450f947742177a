"""The job file: defaults as the contract has them, and every bad value refused with its path and what was expected."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.job import Job
from batchfox.core.nearest import nearest
from batchfox.core.quantity import Duration, Size
from batchfox.errors import JobError

LEAST: dict[str, Any] = {"input": {"path": "rows.jsonl"}, "output": {"path": "out"}}

# The example of contract.md, as TOML reads it.
CONTRACT: dict[str, Any] = {
    "input": {"path": "sample_inputs/images.jsonl", "id": "image_id", "keep": ["*"]},
    "request": {
        "model": "gemini-2.5-pro",
        "prompt": "Describe {{ title }} in one sentence.",
        "image_urls": ["{{ url }}"],
        "max_tokens": 64,
    },
    "api": {"base_url": "https://api.foxapi.cc", "key_env": "FOXAPI_API_KEY"},
    "limits": {"requests_per_minute": 600, "in_flight": 200, "credits": 5000, "time": "6h"},
    "retry": {
        "attempts": 4,
        "failed": "transient",
        "in_doubt": "resubmit",
        "in_doubt_limit": "auto",
        "patience": "1h",
    },
    "poll": {"first": "auto", "task_timeout": "1h"},
    "media": {"mode": "auto", "root": "."},
    "output": {"path": "out/captions", "rows_per_part": 10000},
}


def job_with(place: str, value: Any) -> dict[str, Any]:
    """The least job there is, with one key set."""
    data = msgspec.json.decode(msgspec.json.encode(LEAST))
    *tables, name = place.split(".")
    inner = data
    for table in tables:
        inner = inner.setdefault(table, {})
    inner[name] = value
    return dict(data)


def refusal(data: Any) -> str:
    with pytest.raises(JobError) as caught:
        Job.from_dict(data)
    return str(caught.value)


def test_the_contracts_example_is_a_job() -> None:
    job = Job.from_dict(CONTRACT)
    assert job.limits.time == 6 * 3600.0
    assert job.limits.requests_per_minute == 600.0
    assert job.request["max_tokens"] == 64
    assert job.input.paths == ["sample_inputs/images.jsonl"]


def test_the_defaults_are_those_of_the_contract() -> None:
    job = Job.from_dict(LEAST)
    found = {
        "in_flight": job.limits.in_flight,
        "attempts": job.retry.attempts,
        "failed": job.retry.failed,
        "in_doubt": job.retry.in_doubt,
        "in_doubt_limit": job.retry.in_doubt_limit,
        "patience": job.retry.patience,
        "first": job.poll.first,
        "task_timeout": job.poll.task_timeout,
        "mode": job.media.mode,
        "keep": job.input.keep,
        "rows_per_part": job.output.rows_per_part,
        "requests_per_minute": job.limits.requests_per_minute,
        "credits": job.limits.credits,
        "time": job.limits.time,
        "id": job.input.id,
    }
    assert found == {
        "in_flight": 200,
        "attempts": 4,
        "failed": "transient",
        "in_doubt": "resubmit",
        "in_doubt_limit": "auto",
        "patience": 3600.0,
        "first": "auto",
        "task_timeout": 3600.0,
        "mode": "auto",
        "keep": ["*"],
        "rows_per_part": 10000,
        "requests_per_minute": None,
        "credits": None,
        "time": None,
        "id": None,
    }


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("input", 3, "expected a table [input], got 3"),
        ("input", [], "expected a table [input], got a list"),
        ("input.path", 3, "expected str"),
        ("input.path", [], "expected at least one path"),
        ("input.path", "", "expected at least one path"),
        ("input.path", ["a", ""], "expected at least one path"),
        ("input.id", 3, "expected str"),
        ("input.keep", "title", "expected array, got str"),
        ("input.fields", "title", "expected array"),
        ("request", [1], "expected object, got array"),
        ("api.base_url", "api.foxapi.cc", 'expected an http(s) URL, or "simulator"'),
        ("api.base_url", "ftp://api.foxapi.cc", 'expected an http(s) URL, or "simulator"'),
        ("api.base_url", "http://[::1", 'expected an http(s) URL, or "simulator"'),
        ("api.base_url", "http://127.0.0.1:99999", 'expected an http(s) URL, or "simulator"'),
        ("api.base_url", "https://", 'expected an http(s) URL, or "simulator"'),
        ("api.base_url", "https://api.fox api.cc", 'expected an http(s) URL, or "simulator"'),
        ("api.base_url", "https://api.foxapi.cc/#v1", 'expected an http(s) URL, or "simulator"'),
        ("api.base_url", "https://me:s3cret@host", "no user name or password"),
        ("api.base_url", 1, "expected str, got int"),
        ("api.simulate", {"seed": 1}, 'nothing unless base_url = "simulator"'),
        ("limits.requests_per_minute", 0, "expected more than 0, got 0"),
        ("limits.requests_per_minute", -1, "expected more than 0"),
        ("limits.requests_per_minute", float("nan"), "expected more than 0"),
        ("limits.requests_per_minute", float("inf"), "expected more than 0"),
        ("limits.requests_per_minute", "600", "expected float | null, got str"),
        ("limits.requests_per_minute", True, "got bool"),
        ("limits.polls_per_minute", 0, "expected more than 0"),
        ("limits.in_flight", 0, "expected 1 or more, got 0"),
        ("limits.in_flight", 1.5, "expected int, got float"),
        ("limits.in_flight", True, "expected int, got bool"),
        ("limits.credits", 0, "expected more than 0"),
        ("limits.credits", -5.0, "expected more than 0, got -5.0"),
        ("limits.time", "0s", "expected more than 0"),
        ("limits.time", "six hours", 'expected a duration such as "90s", "15m" or "6h", got "six hours"'),
        ("limits.time", "", "expected a duration"),
        ("limits.bytes_in_flight", "a lot", 'expected bytes or a size such as "256MB" or "1GB", got "a lot"'),
        ("limits.bytes_in_flight", True, "expected bytes or a size"),
        ("limits.bytes_in_flight", 0, "expected 1 or more, got 0"),
        ("limits.time", True, "expected seconds or a duration"),
        ("limits.time", [], "expected seconds or a duration"),
        ("retry.attempts", 0, "expected 1 to 100, got 0"),
        ("retry.attempts", 101, "expected 1 to 100"),
        ("retry.attempts", "4", "expected int, got str"),
        ("retry.failed", "sometimes", 'expected "never" or "transient" or "always", got \'sometimes\''),
        ("retry.failed", True, "expected str"),
        ("retry.in_doubt", "again", 'expected "resubmit" or "hold"'),
        ("retry.in_doubt_limit", "some", 'expected "auto" or a whole number'),
        ("retry.in_doubt_limit", -1, 'expected 0 or more, or "auto"'),
        ("retry.in_doubt_limit", 1.5, "expected int | str"),
        ("retry.patience", 0, "expected more than 0"),
        ("retry.patience", "-1h", "expected a duration"),
        ("retry.patience", float("inf"), "expected more than 0, and an end"),
        ("retry.patience", float("nan"), "expected more than 0"),
        ("poll.first", "soon", 'expected seconds, a duration such as "5s", or "auto"'),
        ("poll.first", -1, "expected seconds"),
        ("poll.first", float("inf"), "expected seconds"),
        ("poll.first", True, "got bool"),
        ("poll.eagerness", 0, "expected 0.01 to 100, got 0"),
        ("poll.eagerness", -1, "expected 0.01 to 100"),
        ("poll.eagerness", 101, "expected 0.01 to 100"),
        ("poll.eagerness", float("nan"), "expected 0.01 to 100"),
        ("poll.eagerness", "high", "expected float, got str"),
        ("poll.eagerness", True, "expected float, got bool"),
        ("poll.task_timeout", 0, "expected more than 0"),
        ("poll.task_timeout", float("inf"), "expected more than 0, and an end"),
        ("poll.task_timeout", "9" * 400 + "s", "expected more than 0, and an end"),
        ("media.mode", "magic", 'expected "auto" or "url" or "inline" or "upload"'),
        ("media.root", 3, "expected str"),
        ("media.image", 3, "media.image: expected a table [media.image], got 3"),
        ("media.image.largestside", 3, 'unknown key (did you mean "largest_side"?)'),
        ("media.image.format", "bmp", 'expected "auto" or "jpeg" or "png" or "webp", got'),
        ("media.image.largest_side", 3, "expected 16 to 16,384 pixels, got 3"),
        ("media.image.quality", 101, "expected 1 to 100"),
        ("media.image", {"format": "png", "quality": 9}, "expected no quality beside format"),
        ("media.video", {}, "media.video: expected at least one of fps, height, seconds"),
        ("media.video.fps", float("nan"), "expected 0.01 to 240 frames"),
        ("media.video.height", 15, "expected 16 to 4,320"),
        ("media.video.seconds", 0, "expected 0.1 to 86,400"),
        ("media.audio.format", "flac", 'expected "wav" or "mp3", got'),
        ("media.fit_time", 0, "expected more than 0, and an end"),
        ("media.fit_cache", -1, "expected 0 or more"),
        ("output.path", " ", "expected a folder's path"),
        ("output.rows_per_part", 0, "expected 1 to 1,000,000"),
        ("output.rows_per_part", 1_000_001, "expected 1 to 1,000,000"),
        ("rules.off", "a", "expected array"),
        ("name", 3, "expected str"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_value_is_refused_with_its_path_and_what_was_expected(place: str, value: Any, expected: str) -> None:
    said = refusal(job_with(place, value))
    assert said.startswith((place + ":", place + "["))
    assert expected in said


def test_a_bad_value_inside_a_list_is_named_by_its_place() -> None:
    assert refusal(job_with("input.path", ["a", 3])).startswith("input.path[1]: expected str, got int")
    models = [{"match": "a"}, {"match": "b", "media": ["smell"]}]
    assert refusal(job_with("rules.models", models)) == (
        'rules.models[1].media[0]: expected "image" or "video" or "audio" or "file", got \'smell\''
    )
    assert refusal(job_with("rules.models", [{}])) == "rules.models[0].match: missing; a job needs it"
    assert "rules.models[0]" in refusal(job_with("rules.models", [{"match": "a", "colour": 1}]))
    assert "colour" in refusal(job_with("rules.models", [{"match": "a", "colour": 1}]))


@pytest.mark.parametrize(
    ("place", "suggestion"),
    [
        ("inputs", '(did you mean "input"?)'),
        ("limits.in_flite", '(did you mean "in_flight"?)'),
        ("retry.attempt", '(did you mean "attempts"?)'),
        ("poll.frist", '(did you mean "first"?)'),
        ("output.zzz", "allowed here: path, rows_per_part, checkpoint"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(place: str, suggestion: str) -> None:
    said = refusal(job_with(place, 1))
    assert said.startswith(f"{place}: unknown key")
    assert suggestion in said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "input: missing; a job needs it"),
        ({"input": {"path": "a"}}, "output: missing; a job needs it"),
        ({"input": {}, "output": {"path": "b"}}, "input.path: missing; a job needs it"),
    ],
)
def test_what_is_missing_is_named(data: dict[str, Any], said: str) -> None:
    assert refusal(data) == said


def test_what_a_request_says_is_free() -> None:
    request = {"model": "m", "new_field": {"deep": [1, 2.5, None, "x"]}, "messages": []}
    assert Job.from_dict(job_with("request", request)).request == request


def test_the_key_cannot_stand_in_a_job() -> None:
    assert refusal(job_with("api.key", "sk-secret")).startswith("api.key: unknown key")
    assert "sk-secret" not in refusal(job_with("api.key", "sk-secret"))


@pytest.mark.parametrize(
    ("text", "size"), [(5, 5), ("5", 5), ("64MB", 64_000_000), ("1.5 gb", 1_500_000_000), ("2kB", 2_000), ("7B", 7)]
)
def test_a_size_is_bytes_or_text_with_a_unit(text: Any, size: int) -> None:
    assert Size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("15m", 900.0),
        ("6h", 21600.0),
        ("1h30m", 5400.0),
        ("1d", 86400.0),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        ("1h 30m", 5400.0),
        ("0s", 0.0),
        (12, 12.0),
        (0.5, 0.5),
    ],
)
def test_a_duration_is_seconds_or_text_with_units(text: Any, seconds: float) -> None:
    assert Duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "h", "1 hour", "-1s", "1e3s", "1h30", "1,5h", "∞", "1H", "٣s1"])
def test_text_without_a_unit_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        Duration(text)


def test_the_first_poll_is_learned_or_fixed() -> None:
    assert Job.from_dict(LEAST).poll.first_s is None
    for value, seconds in (("auto", None), (5, 5.0), (0.5, 0.5), ("5s", 5.0), (0, 0.0)):
        assert Job.from_dict(job_with("poll.first", value)).poll.first_s == seconds


@pytest.mark.parametrize("data", [LEAST, CONTRACT, job_with("poll.first", "5s"), job_with("input.path", ["a", "b"])])
def test_a_job_written_out_is_the_same_job_with_its_defaults_filled_in(data: dict[str, Any]) -> None:
    job = Job.from_dict(data)
    written = job.to_dict()
    assert Job.from_dict(written) == job
    assert Job.from_dict(written).to_dict() == written
    assert written["limits"]["in_flight"] == 200
    assert msgspec.json.decode(msgspec.json.encode(written)) == written


def test_a_written_job_has_no_null_since_toml_has_none() -> None:
    written = Job.from_dict(job_with("request", {"model": "m", "temperature": None})).to_dict()
    assert "temperature" not in written["request"]
    assert "credits" not in written["limits"]
    assert "id" not in written["input"]


def test_a_suggestion_is_made_only_where_one_is_near() -> None:
    assert nearest("promt", ["prompt", "model"]) == ' (did you mean "prompt"?)'
    assert nearest("xyzzy", ["prompt", "model"]) == ""


_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
_places = st.sampled_from(
    [
        "input",
        "input.path",
        "input.id",
        "request",
        "api",
        "api.simulate",
        "limits.in_flight",
        "limits.time",
        "retry",
        "retry.failed",
        "retry.in_doubt_limit",
        "retry.patience",
        "poll.first",
        "poll.eagerness",
        "media.mode",
        "media.image",
        "media.video",
        "output.path",
        "output.rows_per_part",
        "schedule",
        "schedule.timezone",
        "rules",
        "rules.models",
        "rules.off",
        "name",
    ]
)


@given(place=_places, value=_values)
def test_any_value_anywhere_makes_a_job_or_a_refusal_that_names_it(place: str, value: Any) -> None:
    try:
        written = Job.from_dict(job_with(place, value)).to_dict()
    except JobError as error:
        said = str(error)
    else:
        assert Job.from_dict(written).to_dict() == written
        return
    assert said.startswith(place)
