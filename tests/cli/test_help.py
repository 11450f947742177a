"""Help, as a newcomer meets it."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MODEL, Simulate, environment, rows_with_ids, write_rows

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
    """250 ms, start of the interpreter included. Its CPU time is what counts: of wall clock others take their share."""
    quickest_s = 10.0
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*BATCHFOX, "--help"], capture_output=True, timeout=30, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        quickest_s = min(quickest_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert quickest_s < 0.25


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


def test_no_command_pays_for_pandas_though_pyarrow_would_import_it(tmp_path: Path, simulate: Simulate) -> None:
    pytest.importorskip("pandas")
    write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    run = ["run", "--input", "in.jsonl", "--id", "id", "--output", "out", "--model", MODEL]
    for arguments in ([*run, "--base-url", simulate().url], ["doctor", "out"], ["export", "out", "all.csv"]):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "batchfox", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(),
            timeout=60,
            check=True,
        )
        assert "pyarrow.lib" in done.stderr
        assert "pandas." not in done.stderr, "what pandas itself imports"
