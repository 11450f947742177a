"""Job files: read, overridden, written back; and the key, which is never in them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from conftest import job_of

from batchfox.core.job import Job
from batchfox.errors import JobError, UserError
from batchfox.jobfile import find_key, job_toml, load_job

MINIMAL = '[input]\npath = "in.jsonl"\n[output]\npath = "out"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "my_job.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_job_has_the_contracts_defaults_and_the_files_name(tmp_path: Path) -> None:
    job = load_job(written(tmp_path, MINIMAL))
    assert job.name == "my_job"
    assert (job.limits.in_flight, job.retry.attempts, job.retry.failed, job.retry.in_doubt) == (
        200,
        4,
        "transient",
        "resubmit",
    )
    assert (job.retry.in_doubt_limit, float(job.retry.patience), job.poll.first) == ("auto", 3600.0, "auto")
    assert (float(job.poll.task_timeout), job.media.mode, job.input.keep) == (3600.0, "auto", ["*"])
    assert (job.output.rows_per_part, job.api.base_url, job.api.key_env) == (
        10_000,
        "https://api.foxapi.cc",
        "FOXAPI_API_KEY",
    )
    assert (job.limits.requests_per_minute, job.limits.credits, job.limits.time, job.input.id) == (None,) * 4


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("limits.in_flight=7", "limits.in_flight", 7),
        ("limits.time=90s", "limits.time", 90.0),
        ('limits.time="1h30m"', "limits.time", 5400.0),
        ("request.prompt=a = b", "request.prompt", "a = b"),
        ("request.prompt=Say: {{ x }}", "request.prompt", "Say: {{ x }}"),
        ('request.stop=["a", "b"]', "request.stop", ["a", "b"]),
        ("request.sync=true", "request.sync", True),
        ("request.extra.deep=1", "request.extra", {"deep": 1}),
        (' input . id = "k"', "input.id", "k"),
        ("request.prompt=", "request.prompt", ""),
    ],
)
def test_a_set_value_is_toml_else_text(tmp_path: Path, text: str, key: str, value: object) -> None:
    found: object = load_job(written(tmp_path, MINIMAL), sets=[text])
    for step in key.split("."):
        found = found[step] if isinstance(found, dict) else getattr(found, step)
    assert found == value


@pytest.mark.parametrize("text", ["limits.in_flight", "=5", ".x=1", "limits.=1", "name.deep=1"])
def test_a_set_without_a_place_or_value_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(JobError, match="--set"):
        load_job(written(tmp_path, 'name = "x"\n' + MINIMAL), sets=[text])


def test_sets_win_over_flags_and_flags_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL + '[request]\nmodel = "file"\nprompt = "file"\n')
    tables = {"request": {"model": "flag", "prompt": "flag"}}
    job = load_job(path, sets=["request.prompt=set"], tables=tables)
    assert job.request == {"model": "flag", "prompt": "set"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[input\n", "no valid TOML.*line 1"),
        (MINIMAL + "[limits]\nin_flght = 3", r'limits\.in_flght: unknown key \(did you mean "in_flight"\?\)'),
        (MINIMAL + '[limits]\nin_flight = "many"', r"limits\.in_flight: expected int, got str"),
        (MINIMAL + "[limits]\nin_flight = 0", r"limits\.in_flight: expected 1 or more, got 0"),
        (MINIMAL + '[limits]\ntime = "soon"', r'limits\.time: .*"soon"'),
        (MINIMAL + '[retry]\nfailed = "maybe"', r"retry\.failed"),
        ("limits = 3\n" + MINIMAL, r"limits: expected a table"),
        ('[input]\npath = "x"\n', r"output: missing"),
        ('[output]\npath = "x"\n[input]\n', r"input\.path: missing"),
    ],
)
def test_what_is_wrong_is_told_with_the_files_name_and_the_keys_path(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(JobError, match=told) as caught:
        load_job(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_is_no_job_file_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL)
    with pytest.raises(JobError, match=f"no such job file; there is {path}$"):
        load_job(tmp_path / "other.toml")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    (tmp_path / "broken.toml").write_text("[input\n")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "demo.toml").write_text(MINIMAL)
    with pytest.raises(JobError, match=f"there are {tmp_path}/jobs/demo.toml, {path}$"):
        load_job(tmp_path / "demo.tml")
    path.rename(tmp_path / "jobs" / "z.toml")
    with pytest.raises(JobError, match=r"no such job file$"):
        load_job(tmp_path / "jobs" / "deep" / "demo.toml")
    (tmp_path / "jobs" / "z.toml").rename(path)
    with pytest.raises(JobError, match="a folder"):
        load_job(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(JobError, match="not UTF-8"):
        load_job(path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeff" + MINIMAL)
    assert load_job(path).input.path == "in.jsonl"


def test_a_job_written_back_is_the_same_job_with_its_defaults_filled_in(tmp_path: Path) -> None:
    job = load_job(
        written(tmp_path, MINIMAL + '[limits]\ntime = "6h"\n[request]\nprompt = "ü {{ x }}"\nstop = ["a"]\n')
    )
    text = job_toml(job)
    assert Job.from_dict(tomllib.loads(text)) == job
    assert "in_flight = 200" in text


def test_the_key_comes_from_the_environment_else_from_a_dotenv_file_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path / "in", tmp_path / "out", "http://x", api={"key_env": "MY_KEY"})
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UserError, match="MY_KEY"):
        find_key(job)
    (tmp_path / ".env").write_text('MY_KEY="sk-from-file"\n')
    assert find_key(job) == "sk-from-file"
    monkeypatch.setenv("MY_KEY", " sk-from-environment \n")
    assert find_key(job) == "sk-from-environment"


@pytest.mark.parametrize("key", ["sk-a b", "sk-ü", "sk-a\x07b", "sk-a\nEvil: header"])
def test_a_key_that_no_key_can_be_is_refused_without_being_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("FOXAPI_API_KEY", key)
    with pytest.raises(UserError) as caught:
        find_key(job_of(tmp_path / "in", tmp_path / "out", "http://x"))
    assert key not in str(caught.value)
