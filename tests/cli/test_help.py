"""Help, as a newcomer meets it."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import GUARD_S, MODEL, Simulate, environment, job_of, rows_with_ids, write_rows

from batchfox import run
from batchfox.cli import COMMANDS

BATCHFOX = [sys.executable, "-m", "batchfox"]


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_there_and_says_what_the_command_does(arguments: list[str]) -> None:
    done = subprocess.run([*BATCHFOX, *arguments], capture_output=True, text=True, timeout=GUARD_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")
    if len(arguments) == 2:
        assert COMMANDS[arguments[0]] in done.stdout


def test_help_is_quick() -> None:
    """250 ms, start of the interpreter included. Its CPU time is what counts: of wall clock others take their share."""

    def quickest_s(command: list[str]) -> float:
        found_s = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, capture_output=True, timeout=GUARD_S, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(found_s)

    # On a machine where the interpreter alone takes ten times longer than it does elsewhere, so may this.
    assert quickest_s([*BATCHFOX, "--help"]) < max(0.25, 12 * quickest_s([sys.executable, "-c", "pass"]))


@pytest.mark.parametrize("module", ["pyarrow", "aiohttp", "jinja2", "uvloop", "rich"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = "import sys; from batchfox.cli import cli; cli.main(['--help'], standalone_mode=False)"
    code += f"; print('{module}' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD_S, check=True)
    assert done.stdout.splitlines()[-1] == "False"


HEAVY = ("pyarrow", "aiohttp", "jinja2", "uvloop", "rich", "structlog", "numpy")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--version"], 0), (["rnu"], 2), (["run", "--no-such-option"], 2), (["status"], 2), (["status", "out"], 0)],
)
def test_commands_pay_only_for_what_they_use(
    arguments: list[str], status: int, tmp_path: Path, simulate: Simulate
) -> None:
    if arguments == ["status", "out"]:
        write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
        run(job_of(tmp_path / "in.jsonl", tmp_path / "out", simulate().url))
    code = (
        "import sys, batchfox.cli as c\ntry:\n    c.main()\nexcept SystemExit as e:\n"
        f"    print(e.code, [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=GUARD_S,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"{status} []"


def test_a_resume_without_anything_to_do_does_not_pay_for_parquet(tmp_path: Path, simulate: Simulate) -> None:
    write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    words = ["run", "--input", "in.jsonl", "--id", "id", "--output", "out", "--model", MODEL]
    command = [sys.executable, "-X", "importtime", "-m", "batchfox", *words, "--base-url", simulate().url]
    for is_paid in (True, False):
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=GUARD_S, check=True
        )
        assert ("pyarrow" in done.stderr) is is_paid


def test_a_mistyped_command_names_the_nearest() -> None:
    done = subprocess.run([*BATCHFOX, "rnu"], capture_output=True, text=True, timeout=GUARD_S, check=False)
    assert done.returncode == 2
    assert 'did you mean "run"' in done.stderr


def test_no_command_pays_for_pandas_though_pyarrow_would_import_it(tmp_path: Path, simulate: Simulate) -> None:
    pytest.importorskip("pandas")
    write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    words = ["run", "--input", "in.jsonl", "--id", "id", "--output", "out", "--model", MODEL]
    for arguments in ([*words, "--base-url", simulate().url], ["doctor", "out"], ["export", "out", "all.csv"]):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "batchfox", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(),
            timeout=GUARD_S,
            check=True,
        )
        assert "pyarrow.lib" in done.stderr
        assert "pandas." not in done.stderr, "what pandas itself imports"
