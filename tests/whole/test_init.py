"""`batchfox init`: the job file that it writes passes `validate` and runs on the embedded API, as it is."""

from __future__ import annotations

import base64
import gzip
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import KEY, by_id, rows_with_ids, write_rows

from batchfox.begin.sampling import MOST_FILES, MOST_ROWS
from batchfox.cli import main

SAMPLES = Path(__file__).parents[2] / "sample_inputs"
PNG = (SAMPLES / "media" / "sun.png").read_bytes()
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def batchfox(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process, 80 columns wide: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FOXAPI_API_KEY", raising=False)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, said.out, said.err

    return run


def picture(number: int) -> str:
    return f"https://x.org/{number}.jpg"


def write_csv(path: Path) -> None:
    path.write_text('id,photo,question\n1,https://x.org/1.jpg,"What, then?"\n2,,Why?\n', encoding="utf-8")


def write_datasets(path: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": PNG, "path": None}, {"bytes": PNG, "path": "a"}], "n": [1, 2]}), path)


def write_binary(path: Path) -> None:
    pq.write_table(pa.table({"img": [PNG, PNG], "uuid": ["a", "b"]}), path)


def write_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b'{"id": 1, "text": "some words"}\n{"id": 2, "text": "other words"}\n'))


def lines(*rows: dict[str, Any]) -> Callable[[Path], Any]:
    return lambda path: write_rows(path, rows)


CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
INPUTS: dict[str, Callable[[Path], Any]] = {
    "csv.csv": write_csv,
    "datasets.parquet": write_datasets,
    "binary.parquet": write_binary,
    "packed.jsonl.gz": write_gzip,
    "odd.jsonl": lines({"Product ID": 1, "image URL": picture(1), 'a "b" }} c': 2}),
    "qa.jsonl": lines({"key": "k", "context": "c", "question": "What?", "answer": "x"}),
    "alpaca.jsonl": lines({"instruction": "Do", "input": ""}, {"instruction": "Do", "input": "this"}),
    "chat.jsonl": lines({"id": 1, "messages": CHAT, "prompt": "hi"}),
    "weather.jsonl": lines({"id": 1, "temperature": 25.3, "model": "Toyota", "stop": "Main", "text": "nice day"}),
    "documents.jsonl": lines({"id": 1, "pdf": "https://x.org/a.pdf"}),
    "either.jsonl": lines({"id": 1, "a": picture(1)}, {"id": 2, "b": "https://x.org/b.mp4"}),
    "turns.jsonl": lines({"id": 1, "url": picture(1)}, {"id": 2, "link": picture(2)}),
    "numbers.jsonl": lines({"a": 1, "b": 0.5, "c": {"x": 1}, "d e": None}, {"a": 2, "b": 1.5, "c": {}, "d e": 3}),
    "inline.jsonl": lines({"pic": "data:image/png;base64," + base64.b64encode(PNG).decode()}),
    "hostile.jsonl": lines(
        {"id": "\x1b[31m", "]\n[api]\nbase_url='http://x'": "[bold]\x1b[2J", "text": "{{ 7 * 7 }} x"}
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_written_is_valid_and_runs(batchfox: Run, name: str) -> None:
    INPUTS[name](Path(name))
    status, out, err = batchfox("init", name, "--output", "job.toml")
    assert (status, err) == (0, "")
    assert "would be invalid" not in out
    assert "\x1b" not in out
    status, out, err = batchfox("validate", "job.toml", "--base-url", "simulator")
    assert status == 0, out + err
    quick = 'api.simulate={ latency = "constant:0.02" }'
    status, out, err = batchfox("run", "job.toml", "--base-url", "simulator", "--set", quick, "--quiet")
    assert status == 0, out + err


@pytest.mark.parametrize(
    "sample", sorted(path.name for path in SAMPLES.iterdir() if path.suffix in (".jsonl", ".parquet"))
)
def test_every_sample_input_gets_a_job_that_is_valid(
    batchfox: Run, sample: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sample_inputs").symlink_to(SAMPLES)
    status, out, err = batchfox("init", f"sample_inputs/{sample}")
    assert (status, err) == (0, "")
    (job,) = tmp_path.glob("*.toml")
    assert f"wrote {job.name}" in out
    assert batchfox("validate", job.name, "--base-url", "simulator")[0] == 0
    assert tomllib.loads(job.read_text())["output"]["path"] == f"out/{job.stem}"


def test_the_table_fits_into_80_columns_and_says_what_was_guessed(batchfox: Run) -> None:
    long = "https://pictures.example.org/collections/" + "x" * 200 + ".jpg"
    write_rows(Path("in.jsonl"), [{"picture_id": n, "the_address_of_the_picture": long, "n": 1 / 3} for n in range(3)])
    _, out, _ = batchfox("init", "in.jsonl")
    table = out.split("\n\n")[1].splitlines()
    assert table[0].split() == ["column", "type", "filled", "distinct", "example", "guess"]
    assert all(len(line) <= 80 for line in table)
    shown = [re.split(r"\s{2,}", line) for line in table[2:]]
    assert shown[0] == ["picture_id", "integer", "100%", "3", "0", "id"]
    assert shown[1][0] == "the_address_of_the_…"
    assert shown[1][-1] == "image_urls"
    assert shown[2][:4] == ["n", "number", "100%", "1"]


def test_of_many_columns_those_with_a_role_are_shown(batchfox: Run) -> None:
    write_rows(Path("in.jsonl"), [{f"c{n}": n for n in range(300)} | {"id": "x", "question": "What?"}])
    _, out, _ = batchfox("init", "in.jsonl")
    assert "and 262 more columns" in out
    assert re.search(r"^question .* prompt$", out, re.M)


def test_a_file_that_is_there_is_never_replaced_unless_it_is_said(batchfox: Run) -> None:
    write_rows(Path("in.jsonl"), rows_with_ids(2))
    Path("in.toml").write_text("mine")
    status, out, err = batchfox("init", "in.jsonl")
    assert (status, out) == (2, "")
    assert err == "batchfox: in.toml: exists already; --force replaces it, --output JOB.toml names another\n"
    assert Path("in.toml").read_text() == "mine"
    assert batchfox("init", "in.jsonl", "--force")[0] == 0
    assert "prompt" in Path("in.toml").read_text()
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl", "in.toml"]


def test_a_new_job_gets_an_output_of_its_own(batchfox: Run) -> None:
    write_rows(Path("in.jsonl"), rows_with_ids(2))
    Path("out/in").mkdir(parents=True)
    batchfox("init", "in.jsonl")
    assert tomllib.loads(Path("in.toml").read_text())["output"]["path"] == "out/in-2"


def test_local_media_are_found_from_where_the_data_lies(batchfox: Run) -> None:
    Path("set/pictures").mkdir(parents=True)
    Path("set/pictures/a.png").write_bytes(PNG)
    write_rows(Path("set/in.jsonl"), [{"path": "pictures/a.png"}])
    batchfox("init", "set/in.jsonl")
    job = tomllib.loads(Path("in.toml").read_text())
    assert (job["media"]["root"], job["input"]["id"]) == ("set", "path")
    write_rows(Path("set/gone.jsonl"), [{"path": "pictures/gone.png"}])
    _, out, _ = batchfox("init", "set/gone.jsonl")
    assert "note: local media such as pictures/gone.png are not found" in out
    assert "1 of the first 1 row would be invalid" in out


def test_absolute_paths_share_a_root(batchfox: Run, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/a.png", "deep/er/b.png"):
        (tmp_path / name).write_bytes(PNG)
    write_rows(Path("in.jsonl"), [{"file": str(tmp_path / "deep/a.png")}, {"file": f"file://{tmp_path}/deep/er/b.png"}])
    _, out, _ = batchfox("init", "in.jsonl")
    assert tomllib.loads(Path("in.toml").read_text())["media"]["root"] == str(tmp_path / "deep")
    assert "note:" not in out


def test_a_folder_is_looked_at_all_over_and_an_id_of_one_file_is_none_of_many(batchfox: Run) -> None:
    for shard in range(MOST_FILES + 5):
        write_rows(Path(f"shard-{shard:02}.jsonl"), [{"n_id": n, "text": "some words"} for n in range(3)])
    status, out, _ = batchfox("init", "*.jsonl", "--output", "job.toml")
    assert status == 0
    assert f"a look at 39 rows in {MOST_FILES + 5} files" in out
    assert "the column n_id looks like an id, but has values that stand there more than once" in out
    assert "id" not in tomllib.loads(Path("job.toml").read_text())["input"]


def test_a_large_file_is_not_read_to_its_end(batchfox: Run) -> None:
    write_rows(Path("in.jsonl"), [{"id": n, "text": "a b"} for n in range(MOST_ROWS)] + [{"id": 0, "late": 1}])
    _, out, _ = batchfox("init", "in.jsonl")
    assert f"a look at {MOST_ROWS:,} rows, 2 columns" in out
    assert f"unique in the {MOST_ROWS:,} rows looked at; `validate` looks at all" in Path("in.toml").read_text()


def test_rows_that_cannot_be_read_are_told(batchfox: Run) -> None:
    Path("in.jsonl").write_text('{"id": 1, "text": "a b"}\nnonsense\n')
    _, out, _ = batchfox("init", "in.jsonl")
    assert "1 row cannot be read, the first: in.jsonl line 2: no JSON" in out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["gone.jsonl"], 'no such file or folder (did you mean "one.jsonl"?)'),
        (["empty.jsonl"], "empty.jsonl: it has no rows"),
        (["broken.jsonl"], "none of its rows can be read, the first: broken.jsonl line 1"),
        (["notes.txt"], "unknown type of file"),
        (["-"], "standard input can be read only once"),
        (["one.jsonl", "--output", "job.json"], "a job file ends in .toml"),
        (["one.jsonl", "--output", "gone/job.toml"], "there is no folder gone"),
        (["one.jsonl", "--output", "folder"], "folder: a folder; --output names the job file"),
        (["folder"], "a folder without input files"),
    ],
)
def test_what_cannot_be_begun_is_one_line(batchfox: Run, arguments: list[str], wanted: str) -> None:
    write_rows(Path("one.jsonl"), rows_with_ids(1))
    Path("empty.jsonl").write_text("\n\n")
    Path("broken.jsonl").write_text("[1]\n")
    Path("notes.txt").write_text("x")
    Path("folder").mkdir()
    status, out, err = batchfox("init", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert wanted in err
    assert not list(Path().glob("**/*.toml"))


def test_a_folder_of_media_is_a_job(batchfox: Run) -> None:
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(PNG)
    assert batchfox("init", "photos")[0] == 0
    (job,) = Path().glob("*.toml")
    status, out, err = batchfox("validate", job, "--base-url", "simulator")
    assert status == 0, out + err


def test_a_key_that_the_data_holds_is_shown_and_written_nowhere(batchfox: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)
    write_rows(Path("in.jsonl"), [{"id": KEY, KEY: f"some {KEY} words", "text": f"{KEY} a b"}])
    status, out, err = batchfox("init", "in.jsonl")
    assert status == 0
    assert KEY not in out + err + Path("in.toml").read_text()
    assert "[key]" in out


def test_a_prompt_of_its_own_reaches_the_api(batchfox: Run) -> None:
    write_rows(Path("in.jsonl"), [{"id": "a", "question": 'Is "{{ 1 }}" a number?'}])
    batchfox("init", "in.jsonl")
    quick = 'api.simulate={ latency = "constant:0.02" }'
    assert batchfox("run", "in.toml", "--base-url", "simulator", "--set", quick, "--quiet")[0] == 0
    row = by_id(Path("out/in"))["a"]
    assert row["status"] == "completed"
    assert json.loads(row["completion"])["model"] == "gemini-2.5-pro"
