"""Every command block (```sh) of README and docs, run as it stands there, against the simulator.

A page's blocks are run in order, in one folder that holds the repository's jobs, examples and sample inputs; jobs
without an `[api]` of their own get the simulator's address. A line `<!-- … -->` right above a block may say:

- `not run: WHY`: it cannot be run here.
- `exit: N`: it ends with this exit status, not with 0.
- `beside: COMMAND`: that runs meanwhile, and has brought an answer to the folder `out/…` that the block names first.
- `until Ctrl-C`: it runs until it is stopped; once it has said something, SIGINT comes.
- `until Ctrl-C: DIR`: the same of a run, two seconds after it has opened DIR; it ends with 130.
- `command: demo`, `command: test`: the README's two commands, which tests/cli/test_two_commands.py and `.ci/run` run.

What the next ```text block shows has to be printed: its lines, whatever the numbers in them; `…` stands for anything.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from conftest import GUARD_S, Simulate, environment, eventually

from batchfox.status import look

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"(?:^<!-- (?P<note>[^\n]+?) -->\n)?^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
NO_COMMANDS = {"", "text", "toml", "yaml", "python", "{toctree}"}
NOTE = re.compile(r"|not run: \S.{10,}|exit: \d+|until Ctrl-C(: out/\w+)?|beside: batchfox \S.+|command: (demo|test)")


class Block(msgspec.Struct):
    """One command block: its text, what is noted above it, and the lines that the page shows as printed."""

    text: str
    note: str
    shown: list[str]

    @property
    def is_run(self) -> bool:
        return not self.note.startswith("not run: ") and self.note != "command: test"

    @property
    def exit_status(self) -> int:
        return int(self.note.removeprefix("exit: ")) if self.note.startswith("exit: ") else 0


def blocks_of(page: str) -> Iterator[Block]:
    last: Block | None = None
    for found in FENCE.finditer((ROOT / page).read_text(encoding="utf-8")):
        if found["kind"] == "sh":
            if last is not None:
                yield last
            last = Block(found["text"], found["note"] or "", [])
        elif found["kind"] == "text" and last is not None:
            last.shown += found["text"].splitlines()
    if last is not None:
        yield last


@pytest.mark.parametrize("page", PAGES)
def test_every_command_block_is_one_that_is_run_or_says_why_not(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found["kind"] != "sh":
            assert found["kind"] in NO_COMMANDS, found["kind"]
            assert not re.search(r"^\s*(\$|batchfox|pip|python3?) ", found["text"], re.M), found["text"]
    for block in blocks_of(page):
        assert NOTE.fullmatch(block.note), block.note
        assert block.is_run or not block.shown, f"shown as printed, and never run: {block.text}"
    # What the pattern above does not see is no block that could be left out: a fence within a list, one left open.
    assert len(re.findall(r"^[ >]*(```|~~~)", text, re.M)) == 2 * len(list(FENCE.finditer(text)))


def folder_for(folder: Path, base_url: str) -> dict[str, str]:
    """Makes of the folder what a reader's is; the environment of the commands run there."""
    for name in ("jobs", "examples", "sample_inputs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*folder.glob("jobs/*.toml"), *folder.glob("examples/*.toml")]:
        text = path.read_text(encoding="utf-8")
        if "\n[api]\n" not in text:
            path.write_text(f'{text}\n[api]\nbase_url = "{base_url}"\n', encoding="utf-8")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").touch()
    program = programs / "batchfox"
    program.write_text(f"#!{sys.executable}\nfrom batchfox.cli import main\nmain()\n", encoding="utf-8")
    program.chmod(0o755)
    env: dict[str, str] = environment(
        PATH=f"{programs}:{os.environ['PATH']}", PYTHONPATH=str(ROOT), COLUMNS="120", XDG_STATE_HOME=str(folder / "st")
    )
    return env


def wait_for_answers(output: Path, process: subprocess.Popen[bytes]) -> None:
    """Until a run takes orders and has brought an answer, or is over."""

    def are_there() -> bool:
        time.sleep(0.1)  # looking takes the CPU that the run needs
        is_up = (output / "_batchfox" / "control").exists()
        return process.poll() is not None or (is_up and bool(look(output).by_status))

    eventually(are_there, "answers")


@contextmanager
def beside(block: Block, folder: Path, env: dict[str, str]) -> Iterator[None]:
    """What is to run meanwhile, if anything; it has brought an answer when this begins, and is over at the end."""
    if not block.note.startswith("beside: "):
        yield
        return
    named = re.search(r"\bout/\w+", block.text)
    assert named is not None
    with (folder / "beside").open("wb") as out:
        process = subprocess.Popen(
            block.note.removeprefix("beside: ").split(),
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            wait_for_answers(folder / named[0], process)
            yield
        finally:
            process.terminate()
            process.wait(GUARD_S)


def run_block(block: Block, folder: Path, env: dict[str, str]) -> str:
    """Runs it; what it printed."""
    # Of the demo's line the last step: its first two make a venv, and a test of the whole line is a system test.
    text = block.text.rsplit(" && ", 1)[1] if block.note == "command: demo" else block.text
    printed = folder / "printed"
    with printed.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-eu", "-o", "pipefail", "-c", text],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            if block.note.startswith("until Ctrl-C"):
                output = block.note.partition(": ")[2]
                if output:
                    control = folder / output / "_batchfox" / "control"
                    eventually(lambda: control.exists() or process.poll() is not None, "the run")
                    time.sleep(2)  # so that there is something to resume; no verdict depends on it
                else:
                    eventually(lambda: printed.stat().st_size or process.poll() is not None, "a word of it")
                assert process.poll() is None, printed.read_text(encoding="utf-8")
                os.killpg(process.pid, signal.SIGINT)
                assert process.wait(GUARD_S) == 130 or not output, printed.read_text(encoding="utf-8")
            else:
                assert process.wait(GUARD_S) == block.exit_status, printed.read_text(encoding="utf-8")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(GUARD_S)
    return printed.read_text(encoding="utf-8")


def pattern_of(line: str) -> str:
    """What a shown line has to look like where it is printed: other numbers, other blanks, anything for `…`."""
    loose = {"…": ".*", " ": r"\s+", "0": r"[\d.,:]+"}
    pieces = re.split(r"(…|\s+|\d[\d.,:]*)", line.strip())
    return "".join(
        re.escape(piece) if number % 2 == 0 else loose["0" if piece[0].isdigit() else piece[0]]
        for number, piece in enumerate(pieces)
    )


def pages_with_commands() -> list[Any]:
    """The how-to pages are run by `.ci/run` alone: eight of them take as long as all the others, twice."""
    return [
        pytest.param(page, marks=[pytest.mark.system] if page.startswith("docs/how-to/") else [])
        for page in PAGES
        if any(block.is_run for block in blocks_of(page))
    ]


@pytest.mark.parametrize("page", pages_with_commands())
def test_the_commands_of_a_page_do_what_it_says(page: str, tmp_path: Path, simulate: Simulate) -> None:
    env = folder_for(tmp_path, simulate().url)
    for block in blocks_of(page):
        if block.is_run:
            with beside(block, tmp_path, env):
                printed = run_block(block, tmp_path, env)
            assert "Traceback" not in printed
            for line in block.shown:
                assert re.search(pattern_of(line), printed), f"not printed: {line}\n--\n{printed}"
    if page == "docs/tutorial.md":
        rows = pq.read_table(tmp_path / "out/photos/data", columns=["row_id", "status"]).to_pylist()
        assert len({row["row_id"] for row in rows}) == len(rows) == 100
        assert {row["status"] for row in rows} == {"completed"}
