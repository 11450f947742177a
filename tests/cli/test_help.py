"""Help, as a newcomer meets it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from batchfox.cli import COMMANDS

BATCHFOX = [sys.executable, "-m", "batchfox"]


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_there_and_says_what_the_command_does(arguments: list[str]) -> None:
    done = subprocess.run([*BATCHFOX, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")
    if len(arguments) == 2:
        assert COMMANDS[arguments[0]] in done.stdout


def test_help_is_quick() -> None:
    """Best of five: 250 ms, start of the interpreter included (benchmarks measure it; this catches an import)."""
    best = 10.0
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([*BATCHFOX, "--help"], capture_output=True, timeout=30, check=True)
        best = min(best, time.monotonic() - began)
    assert best < (0.25 if "CI" not in os.environ else 0.5)


@pytest.mark.parametrize("module", ["pyarrow", "aiohttp", "jinja2", "uvloop", "rich"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = "import sys; from batchfox.cli import cli; cli.main(['--help'], standalone_mode=False)"
    code += f"; print('{module}' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_mistyped_command_names_the_nearest() -> None:
    done = subprocess.run([*BATCHFOX, "rnu"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert 'did you mean "run"' in done.stderr
