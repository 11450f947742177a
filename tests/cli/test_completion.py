"""Completion behind TAB: in bash as bash does it, for zsh and fish as their scripts ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from batchfox.cli import COMMANDS
from batchfox.cli.complete import SHELLS, VARIABLE

JOB = '[input]\npath = "in.jsonl"\n[output]\npath = "out"\n'
# What bash does when TAB is pressed behind these words.
PRESS = """
eval "$(batchfox completion bash)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
compopt() { local IFS=' '; echo "compopt $*"; }
_batchfox_completion batchfox
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with jobs, data and outputs, and the program on its PATH."""
    program = tmp_path / "bin" / "batchfox"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m batchfox "$@"\n')
    program.chmod(0o755)
    place = tmp_path / "work"
    (place / "jobs" / "nightly").mkdir(parents=True)
    (place / "out" / "first" / "_batchfox").mkdir(parents=True)
    (place / "out" / "second" / "_batchfox").mkdir(parents=True)
    for name in ("captions.toml", "jobs/chat.toml", "jobs/class.toml"):
        (place / name).write_text(JOB)
    (place / "pyproject.toml").write_text("[project]\n")
    (place / "in.jsonl").write_text("{}\n")
    (place / "notes.txt").write_text("x")
    return place


def environment(folder: Path, **values: str) -> dict[str, str]:
    return os.environ | {"PATH": f"{folder.parent / 'bin'}:{os.environ['PATH']}"} | values


def press(folder: Path, *words: str) -> list[str]:
    done = subprocess.run(
        ["bash", "--norc", "-c", PRESS, "bash", "batchfox", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(folder),
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["va"], ["validate"]),
        (["run", ""], ["captions.toml", "jobs/", "out/"]),
        (["run", "cap"], ["captions.toml"]),
        (["run", "j"], ["jobs/chat.toml", "jobs/class.toml", "jobs/nightly/"]),
        (["run", "captions.toml", "--retry", "f"], ["failed"]),
        (["run", "captions.toml", "--retry", ""], ["failed", "invalid", "in_doubt", "timed_out", "stale", "marked"]),
        (["run", "--retry", "failed,in"], ["failed,invalid", "failed,in_doubt"]),
        (["run", "--set", "limits.in_f"], ["compopt -o nospace", "limits.in_flight="]),
        (["validate", "--base-url", "s"], ["simulator"]),
        (["run", "--model", "gem"], ["gemini-2.5-pro"]),
        (["doctor", "o"], ["out/first", "out/second"]),
        (["doctor", "cap"], ["captions.toml"]),
        (["status", "o"], ["out/first", "out/second"]),
        (["export", "out/f"], ["out/first"]),
        (["export", "out/first", "x.csv", "--status", "c"], ["completed"]),
        (["init", "in"], ["in.jsonl"]),
        (["completion", ""], list(SHELLS)),
        (["models", "--js"], ["--json"]),
        (["run", "gone/x"], []),
    ],
)
def test_bash_is_offered_what_fits(folder: Path, words: list[str], offered: list[str]) -> None:
    assert [line for line in press(folder, *words) if line] == offered


def test_all_commands_are_offered(folder: Path) -> None:
    assert set(press(folder, "")) == set(COMMANDS)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_ask_for_the_same(folder: Path, shell: str) -> None:
    asked = {"zsh": ("batchfox run cap", "2"), "fish": ("batchfox run cap", "cap")}[shell]
    done = subprocess.run(
        ["batchfox"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(folder, **{VARIABLE: f"{shell}_complete", "COMP_WORDS": asked[0], "COMP_CWORD": asked[1]}),
        timeout=60,
        check=True,
    )
    assert "captions.toml" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_that_the_shell_reads(folder: Path, shell: str) -> None:
    done = subprocess.run(
        ["batchfox", "completion", shell],
        capture_output=True,
        text=True,
        env=environment(folder),
        cwd=folder,
        timeout=60,
        check=True,
    )
    assert f"{VARIABLE}={shell}_complete" in done.stdout
    if found := shutil.which(shell):
        subprocess.run([found, "-n"], input=done.stdout, text=True, timeout=60, check=True)


def test_completing_imports_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys, batchfox.cli as c\ntry:\n    c.main()\nexcept SystemExit as left:\n"
        "    print(left.code, [name for name in ('pyarrow', 'aiohttp', 'jinja2', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(folder, **{VARIABLE: "bash_complete", "COMP_WORDS": "batchfox\nrun\ncap", "COMP_CWORD": "2"}),
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == ["plain,captions.toml", "0 []"]
