"""A user's mistake: one line that says what, where and what next; exit 2; no traceback; nothing sent."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import KEY, MODEL, Simulate, as_anybody, environment, rows_with_ids, write_rows

from batchfox.cli import main
from batchfox.jobfile import find_key_named
from batchfox.paths import GONE

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def batchfox(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, said.out, said.err

    return run


JOB = f"""
[input]
path = "in.jsonl"
[request]
model = "{MODEL}"
prompt = "{{{{ prompt }}}}"
[api]
base_url = "http://127.0.0.1:9"
[output]
path = "out"
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def told(batchfox: Run, *arguments: str | Path) -> str:
    """The one line of an error that ends with exit 2."""
    status, out, err = batchfox(*arguments)
    assert (status, out) == (2, ""), err
    assert "Traceback" not in err
    assert err.startswith("batchfox: ")
    assert err.count("\n") == 1, err
    assert not Path("out").exists(), "nothing was begun"
    return err


def usage(batchfox: Run, *arguments: str | Path) -> str:
    """click's own: the usage, and one line."""
    status, out, err = batchfox(*arguments)
    assert (status, out) == (2, ""), err
    assert "Traceback" not in err
    assert err.startswith("Usage: batchfox")
    return err.splitlines()[-1]


def test_no_job_and_no_flags(batchfox: Run) -> None:
    assert "--input PATH and --output DIR" in told(batchfox, "run")


def test_a_missing_job_file_names_those_that_are_there(batchfox: Run, job: Path) -> None:
    assert "no such job file; there is job.toml" in told(batchfox, "run", "jop.toml")


def test_a_job_that_is_no_toml(batchfox: Run, job: Path) -> None:
    job.write_text("[input\n")
    assert "job.toml: no valid TOML" in told(batchfox, "run", "job.toml")


@pytest.mark.parametrize("command", ["run", "validate"])
@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("limits.in_flght=3", 'unknown key (did you mean "in_flight"?)'),
        ("limit.in_flight=3", 'unknown key (did you mean "limits"?)'),
        ("limits.in_flight=many", "limits.in_flight: expected int, got str"),
        ("limits.in_flight=0", "limits.in_flight: expected 1 or more"),
        ("limits.time=soon", "limits.time"),
        ("retry.in_doubt=perhaps", "retry.in_doubt"),
        ("poll.first=x", "poll.first"),
        ("api.base_url=ftp://x", "api.base_url"),
        ("output.rows_per_part=0", "output.rows_per_part"),
        ("output.path={{ today }}", "unknown placeholder"),
        ("schedule.timezone=Mars", "schedule.timezone"),
        ("nonsense", "expected SECTION.KEY=VALUE"),
        ("request.prompt={{ prompt", "request.prompt"),
        ('rules.off=["no_such_rule"]', "no_such_rule"),
        ("request.x=" + "[" * 3000, "nested too deep"),
        ("request.x=" + "[" * 250 + "]" * 250, "nested too deep"),
        ("request." + "a." * 2000 + "a=1", "nested too deep"),
        ("request.max_tokens=" + "9" * 5000, "too many digits"),
        ("request.x=1\n[y]\nz=1", "further lines of TOML follow the value (y)"),
        ("request.x=1\ny=2", "a text of several lines goes into quotes"),
        ('output.path="o\\u0000p"', "output.path: expected text without a NUL"),
        ('input.path=["in.jsonl", "a\\u0000"]', "input.path: expected text without a NUL"),
        ('media.root="a\\u0000"', "media.root: expected text without a NUL"),
        ('output.checkpoint="a\\u0000"', "output.checkpoint: expected text without a NUL"),
        ("output.path=o\udcff", "output.path: expected text in Unicode"),
        ("input.id=\udcff", "input.id: expected text in Unicode"),
        ("request.\udcff=1", "request: expected names in Unicode"),
        ("schedule.timezone=Europe", "expected an IANA name"),
        ("schedule.timezone=" + "a" * 300, "expected an IANA name"),
        ("api.base_url=http://[::1", "api.base_url"),
        ("api.base_url=http://127.0.0.1:99999", "api.base_url"),
        ("output.path=" + "a" * 300, "File name too long"),
        ("output.path=" + "a" * 300 + "/{{ run_date }}", "File name too long"),
        ("output.checkpoint=" + "a" * 300, "File name too long"),
        ("input.path=" + "a" * 300 + ".jsonl", "File name too long"),
    ],
)
def test_a_wrong_setting_is_told_with_its_path(
    batchfox: Run, job: Path, command: str, setting: str, wanted: str
) -> None:
    assert wanted in told(batchfox, command, "job.toml", "--set", setting)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("x = " + "[" * 3000, "job.toml: lists or tables are nested too deep"),
        ("max_tokens = " + "9" * 5000, "job.toml: a number has too many digits"),
    ],
)
def test_a_job_file_beyond_measure_is_refused(batchfox: Run, job: Path, line: str, wanted: str) -> None:
    job.write_text(JOB.replace("[request]", f"[request]\n{line}"))
    assert wanted in told(batchfox, "run", "job.toml")
    assert "jop.toml: no such job file\n" in told(batchfox, "run", "jop.toml")


def test_a_section_that_is_no_table_is_refused_with_flags_too(batchfox: Run, job: Path) -> None:
    job.write_text('input = "in.jsonl"\n')
    assert "input: expected a table" in told(batchfox, "run", "job.toml", "--input", "in.jsonl", "--output", "out")


@pytest.mark.parametrize("command", [("status",), ("doctor",), ("doctor", "--repair"), ("export", "results.jsonl")])
def test_a_path_that_is_too_long_is_told(batchfox: Run, command: tuple[str, ...]) -> None:
    name, *more = command
    assert "File name too long" in told(batchfox, name, "a" * 300, *more)


@pytest.mark.parametrize("content", [b"FOXAPI_API_KEY=sk-\xff\n", "FOXAPI_API_KEY=sk-x\n".encode("utf-16")])
def test_a_key_file_that_is_no_text_is_told(
    batchfox: Run, job: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.delenv("FOXAPI_API_KEY")
    Path(".env").write_bytes(content)
    assert ".env: not UTF-8 text" in told(batchfox, "run", "job.toml")
    assert ".env: not UTF-8 text" in batchfox("doctor", "--offline")[1]


def test_a_key_file_may_begin_with_a_byte_order_mark(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(job.parent)
    monkeypatch.delenv("FOXAPI_API_KEY", raising=False)
    Path(".env").write_text("FOXAPI_API_KEY=sk-x\n", encoding="utf-8-sig")
    assert find_key_named("FOXAPI_API_KEY") == "sk-x"


@pytest.mark.parametrize("command", ["run", "validate", "doctor"])
def test_a_working_directory_that_is_gone(
    batchfox: Run, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        status, out, err = batchfox(command, *([] if command == "doctor" else [job]))
    finally:
        monkeypatch.chdir(tmp_path)
    assert (status, out) == (2, "")
    assert err == f"batchfox: {GONE}\n"


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_clock_that_is_off_by_thousands_of_years(
    batchfox: Run, job: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(time, "time", lambda: 301_797_878_400.0)  # in the year 11533
    assert "set the clock" in told(batchfox, command, "job.toml")


def test_a_checkpoint_that_is_a_folder(batchfox: Run, job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "no regular file" in told(batchfox, "run", "job.toml", "--set", f"output.checkpoint={folder}")


def test_an_input_that_is_a_pipe(batchfox: Run, job: Path) -> None:
    os.mkfifo("in.ndjson")
    assert "taken on standard input" in told(batchfox, "run", "job.toml", "--input", "in.ndjson")


def test_a_variable_that_no_row_has_is_told_and_the_mended_job_runs_in_the_same_output(
    batchfox: Run, job: Path, simulate: Simulate
) -> None:
    url = simulate().url
    for command in ("run", "validate"):
        status, out, err = batchfox(command, "job.toml", "--base-url", url, "--set", "request.prompt={{ promt }}")
        assert (status, out) == (2, "")
        assert 'did you mean "prompt"' in err.splitlines()[-1]
        assert "Traceback" not in err
    assert batchfox("run", "job.toml", "--base-url", url)[0] == 0


def test_an_input_that_is_not_there_names_the_nearest(batchfox: Run, job: Path) -> None:
    assert 'did you mean "in.jsonl"' in told(batchfox, "run", "job.toml", "--input", "im.jsonl")
    assert "matches this pattern" in told(batchfox, "run", "job.toml", "--input", "*.csv")
    Path("in.txt").write_text("x")
    assert "unknown type of file" in told(batchfox, "run", "job.toml", "--input", "in.txt")


def test_an_input_that_cannot_be_read(batchfox: Run, job: Path) -> None:
    Path("in.parquet").write_bytes(b"no parquet")
    status, _, err = batchfox("run", "job.toml", "--input", "in.parquet", "--quiet")
    assert (status, err.count("\n")) == (2, 1)
    assert "cannot be read as Parquet" in err


def test_a_missing_key_says_where_to_put_it(batchfox: Run, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOXAPI_API_KEY")
    assert "set the environment variable FOXAPI_API_KEY" in told(batchfox, "run", "job.toml")
    assert "MY_KEY" in told(batchfox, "run", "job.toml", "--set", "api.key_env=MY_KEY")


def test_a_status_that_cannot_be_retried(batchfox: Run, job: Path) -> None:
    assert 'did you mean "failed"' in told(batchfox, "run", "job.toml", "--retry", "fialed")
    assert "there are failed, invalid, in_doubt, timed_out" in told(batchfox, "run", "job.toml", "--retry", "completed")


def test_a_store_that_cannot_be_read(batchfox: Run, job: Path) -> None:
    said = told(batchfox, "run", "job.toml", "--set", 'media.root="oci://bucket/photos"')
    assert "media.root: oci://bucket/photos cannot be read" in said
    assert "pip install" in said


def test_an_output_that_is_a_strangers_folder(batchfox: Run, job: Path) -> None:
    Path("home").mkdir()
    Path("home/letter.txt").write_text("x")
    assert "not an output of batchfox" in told(batchfox, "run", "job.toml", "--output", "home")
    assert "a file is in the way" in told(batchfox, "run", "job.toml", "--output", "in.jsonl")


def test_an_output_that_cannot_be_written(batchfox: Run, job: Path) -> None:
    assert "/proc/out" in told(batchfox, "run", "job.toml", "--output", "/proc/out")


def test_a_checkpoint_that_is_damaged(batchfox: Run, job: Path) -> None:
    Path("old/_batchfox").mkdir(parents=True)
    Path("old/_batchfox/checkpoint.db").write_bytes(b"garbage " * 1000)
    assert "old/_batchfox/checkpoint.db" in told(batchfox, "run", "job.toml", "--output", "old")
    assert "old/_batchfox/checkpoint.db" in told(batchfox, "status", "old")


def test_a_folder_that_is_no_output(batchfox: Run, tmp_path: Path) -> None:
    for command in (("status", "."), ("export", ".", "x.csv"), ("status", "nowhere"), ("export", "nowhere", "x.csv")):
        assert "no output of batchfox" in told(batchfox, *command)


def test_a_file_in_the_place_of_an_output(batchfox: Run, job: Path) -> None:
    for command in (["status"], ["report"], ["ctl", "pause"]):
        words = [command[0], "job.toml", *command[1:]]
        assert "but a file; name the folder that the job's [output] path names" in told(batchfox, *words)


def test_an_export_that_cannot_be(batchfox: Run, job: Path, simulate: Simulate) -> None:
    simulator = simulate()
    assert batchfox("run", "job.toml", "--base-url", simulator.url, "--output", "done", "--quiet")[0] == 0
    assert 'unknown format ".xlsx"' in told(batchfox, "export", "done", "x.xlsx")
    Path("x.csv").write_text("mine")
    assert "--overwrite" in told(batchfox, "export", "done", "x.csv")
    assert Path("x.csv").read_text() == "mine"
    assert 'did you mean "completed"' in told(batchfox, "export", "done", "y.csv", "--status", "complete")


def test_clicks_own_complaints_are_exit_2_too(batchfox: Run, job: Path) -> None:
    assert 'did you mean "run"' in usage(batchfox, "rum", "job.toml")
    assert 'did you mean "status"' in usage(batchfox, "stats", "out")
    assert "--limt" in usage(batchfox, "run", "job.toml", "--limt", "3")
    assert "0 is not in the range" in usage(batchfox, "run", "job.toml", "--limit", "0")
    assert "log-level" in usage(batchfox, "run", "job.toml", "--log-level", "loud")
    assert "Missing argument" in usage(batchfox, "status")


def test_what_validate_says_of_numbers_files_and_media_that_are_not_there(batchfox: Run, job: Path) -> None:
    """What is wrong, where, and what to write instead."""
    write_rows(Path("in.jsonl"), [{"prompt": 7}])
    status, out, _ = batchfox("validate", job)
    assert (status, "refusal prompt: 1 row (in.jsonl:1)" in out) == (3, True)
    assert 'found 7, a number; allowed: text of at most 100,000 characters; prompt = "{{ COLUMN | string }}"' in out
    as_said = ("validate", job, "--prompt", "{{ prompt | string }}", "--base-url", "simulator", "--media")
    status, out, _ = batchfox(*as_said)
    assert (status, "media: none to look at: no row that is to be sent has any" in out) == (0, True)
    assert batchfox("run", *as_said[1:-1], "--quiet")[0] == 0
    status, out, _ = batchfox(*as_said)
    assert (status, "media: none to look at: no row is to be sent" in out) == (0, True)
    Path("pictures/deep").mkdir(parents=True)
    Path("pictures/deep/a.png").write_text("no picture")
    Path(os.fsdecode(b"pictures/b\xff.png")).touch()
    status, out, _ = batchfox("validate", "--input", "pictures", "--output", "out2", "--model", MODEL, "--prompt", "x")
    assert status == 3
    assert "(pictures/deep/a.png)" in out
    assert "pictures/b\\udcff.png: its name is not UTF-8: rename the file" in out
    assert "line" not in out


def test_an_output_of_somebody_else_says_whose_it_is(batchfox: Run, tmp_path: Path) -> None:
    (tmp_path / "theirs" / "_batchfox").mkdir(parents=True)
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(tmp_path / "theirs", 65534, 65534)
    (tmp_path / "theirs").chmod(0)
    whose = f"belongs to {pwd.getpwuid(65534).pw_name}, and this is" if is_root else "mend its permissions"
    code = (
        "import sys\nfrom batchfox.cli import main\n"
        "for words in (['status', 'theirs'], ['ctl', 'theirs', 'stop'], ['verify', 'theirs'], ['view', 'theirs']):\n"
        "    try:\n        main(words)\n    except SystemExit as left:\n        print(left.code, file=sys.stderr)\n"
    )
    child = subprocess.run(
        as_anybody("-c", code), capture_output=True, text=True, env=environment(), check=False, cwd=tmp_path
    )
    (tmp_path / "theirs").chmod(0o700)
    lines = child.stderr.splitlines()
    assert lines[1::2] == ["2"] * 4, child.stderr
    assert all("Permission denied" in line and whose in line for line in lines[::2]), child.stderr
    assert "the first run makes it" in told(batchfox, "ctl", "elsewhere", "pause")


def test_an_output_that_is_not_there_names_the_nearest(batchfox: Run) -> None:
    Path("results/captions/_batchfox").mkdir(parents=True)
    for command in (("status",), ("doctor",), ("export", "x.csv")):
        name, *more = command
        assert 'did you mean "results/captions"' in told(batchfox, name, "results/caption", *more)
    assert "did you mean" not in told(batchfox, "status", "gone/caption")


def test_a_setting_of_the_embedded_api_that_there_is_none(batchfox: Run, job: Path) -> None:
    assert 'did you mean "simulator"' in told(batchfox, "run", "job.toml", "--base-url", "simulatr")
    arguments = ("run", "job.toml", "--base-url", "simulator", "--set", "api.simulate.latncy=3")
    status, out, err = batchfox(*arguments)
    assert (status, out) == (2, "")
    assert 'api.simulate: unknown setting latncy (did you mean "latency"?); there are' in err


def test_names_that_nothing_refuses_are_doubted_by_validate(batchfox: Run, job: Path, simulate: Simulate) -> None:
    changes = ("--model", "gemini-2.5-por", "--set", "request.max_token=3")
    status, out, _ = batchfox("validate", "job.toml", "--base-url", simulate().url, *changes)
    assert status == 0
    assert 'the price list does not name the model "gemini-2.5-por" (did you mean "gemini-2.5-pro"?)' in out
    assert 'request.max_token: no field that is known here (did you mean "max_tokens"?)' in out
    _, out, _ = batchfox("validate", "job.toml", "--model", "gemnini-2.5-pro")
    assert 'no rule is known for the model "gemnini-2.5-pro" (did you mean "gemini-2.5-pro"?)' in out
    _, out, _ = batchfox("validate", "job.toml", "--base-url", simulate().url)
    assert "did you mean" not in out


def test_a_simulator_that_cannot_be(batchfox: Run) -> None:
    assert 'did you mean "lost"' in usage(batchfox, "simulate", "--fault", "losst=1")
    assert "no fault is named" in usage(batchfox, "simulate", "--fault", "nonsense=1")
    assert "expected NAME=RATE" in usage(batchfox, "simulate", "--fault", "lost")
    assert "latency" in usage(batchfox, "simulate", "--latency", "quick")
    assert "expected 127.0.0.1" in usage(batchfox, "simulate", "--host", "0.0.0.0")


def test_a_dry_run_prints_the_first_requests_and_sends_nothing(
    batchfox: Run, job: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    monkeypatch.delenv("FOXAPI_API_KEY")
    write_rows(Path("in.jsonl"), [{"prompt": "first"}, {"prompt": 5}, {"prompt": "third"}, {"prompt": "fourth"}])
    status, out, _ = batchfox("run", "job.toml", "--base-url", simulator.url, "--dry-run")
    assert status == 0
    assert '"prompt": "first"' in out
    assert "fourth" not in out
    assert simulator.book()["totals"]["submits_received"] == 0
    assert not Path("out").exists()


def test_a_state_of_the_embedded_api_that_is_none(batchfox: Run, job: Path) -> None:
    own = Path("out") / "_batchfox"
    own.mkdir(parents=True)
    (own / "simulator.db").write_text("no database")
    status, out, err = batchfox("run", "job.toml", "--base-url", "simulator", "--quiet")
    assert (status, out) == (2, "")
    assert "no state file of a simulator" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_schedule_refuses_options_it_would_pass_over_and_names_the_job_that_is_wrong(batchfox: Run, job: Path) -> None:
    job.write_text(JOB + '[schedule]\ncron = "0 1 * * *"\ntimezone = "Mars"\n')
    assert "batchfox: job.toml: schedule.timezone: expected" in told(batchfox, "schedule", "--list", "job.toml")
    for options, wanted in (
        (("--image", "x"), "--image goes with --print k8s"),
        (("--image", "x", "--print", "cron"), "--image goes with --print k8s"),
        (("--list", "--print", "cron"), "--list and --print: one at a time"),
    ):
        assert wanted in told(batchfox, "schedule", "job.toml", *options)
