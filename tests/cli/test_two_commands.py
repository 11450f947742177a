"""The README's two commands, as they stand there, and `.ci/run`, which runs the second."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
MAKES_VENV = "python3 -m venv .venv && "
# What a fresh clone holds, as far as the demo needs it.
CLONED = ("batchfox", "jobs", "sample_inputs", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml")
# Of CPU time, the interpreter's start included: of wall clock others take their share.
DEMO_S = 30.0


def readme_command(name: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"<!-- command: {name} -->\s*```sh\n(.+?)\n```", text, re.S)
    assert len(found) == 1
    return str(found[0])


def without_key() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "FOXAPI_API_KEY"}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the project without a venv, outputs or caches."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in CLONED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(source, folder / name)
    return folder


def demo_rows(folder: Path) -> int:
    return int(pq.read_table(folder / "out" / "demo" / "data", columns=["row_id"]).num_rows)


@pytest.mark.parametrize("name", ["demo", "test"])
def test_a_command_is_one_line_that_makes_the_venv_first(name: str) -> None:
    command = readme_command(name)
    assert "\n" not in command
    assert command.startswith(MAKES_VENV)


def test_the_demo_needs_no_key_and_is_quick(clone: Path) -> None:
    """The README's last step, with this test's Python in place of the venv's."""
    step = readme_command("demo").rsplit(" && ", 1)[1]
    assert step.startswith(".venv/bin/batchfox ")
    command = [sys.executable, "-m", "batchfox", *step.split()[1:]]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=clone, env=without_key(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < DEMO_S
    assert demo_rows(clone) == 100


def test_the_python_example_of_the_readme_runs(clone: Path) -> None:
    found = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert found is not None
    done = subprocess.run(
        [sys.executable, "-c", found[1]], cwd=clone, env=without_key(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0 {'completed': 100}")


def test_ci_takes_the_test_command_from_the_readme() -> None:
    """The lines of `.ci/run` that read it, run as they stand there."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    found = re.search(r"^command=\$\(.+?^\)$", script, re.S | re.M)
    assert found is not None
    assert found.end() < script.index('bash -euo pipefail -c "$command"')
    done = subprocess.run(
        ["bash", "-euc", f'{found[0]}\nprintf %s "$command"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == readme_command("test")


def test_ci_is_a_script_that_names_no_machine() -> None:
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)
    script = path.read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    assert not re.search(r"https?://|index-url|find-links|/home/|/root/|/work/|/opt/", script)


@pytest.mark.system
@pytest.mark.timeout(900)
def test_the_demo_command_works_in_a_fresh_clone(clone: Path) -> None:
    """As it stands in the README, venv and installation included."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", readme_command("demo")],
        cwd=clone,
        env=without_key(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert demo_rows(clone) == 100
