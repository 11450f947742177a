"""README and docs name every command, option, key, column and fault that exists, and none that does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from batchfox.cli import COMMANDS, cli
from batchfox.core.job import Job
from batchfox.core.outcome import COLUMNS
from batchfox.core.rules import rule_names
from batchfox.simulator import FAULTS, Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def named_in_tables(text: str) -> set[str]:
    """What stands in backquotes in the first column of the tables."""
    cells = re.findall(r"^\| (`[^|]+`) \|", text, re.M)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def options_of(name: str) -> set[str]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return {option for param in command.params if isinstance(param, click.Option) for option in param.opts}


def keys_of(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from keys_of(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_readme_and_reference_name_every_command(name: str) -> None:
    assert f"`batchfox {name}" in read("README.md")
    assert f"## `batchfox {name}" in read("docs/commands.md")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_names_every_option_and_no_other(name: str) -> None:
    section = read("docs/commands.md").split(f"## `batchfox {name}", 1)[1].split("\n## ", 1)[0]
    named = {option for cell in named_in_tables(section) for option in re.findall(r"--[a-z-]+", cell)}
    common = {"--log-level", "--log-format", "--quiet"}
    assert named == options_of(name) - common
    assert common <= options_of(name)


def test_the_docs_name_no_command_that_does_not_exist() -> None:
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        for name in re.findall(r"\bbatchfox ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`", page.read_text()))):
            assert name in COMMANDS, (page.name, name)


def test_the_reference_names_every_key_of_a_job_and_no_other() -> None:
    documented = {name for name in named_in_tables(read("docs/job-file.md")) if name not in rule_names()}
    assert documented == set(keys_of(Job))


def test_the_reference_names_every_rule_as_it_is() -> None:
    text = read("docs/job-file.md")
    for name, says in rule_names().items():
        assert f"| `{name}` | {says} |" in text


def test_the_reference_names_every_column_in_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S.*?) \|", read("docs/output.md"), re.M)
    assert [name for name, _ in rows if name != "input_extra"] == list(COLUMNS)


def test_the_reference_names_every_setting_and_fault_of_the_simulator() -> None:
    named = named_in_tables(read("docs/simulator.md"))
    assert named == {fault.name for fault in FAULTS} | {field.name for field in msgspec.structs.fields(Settings)}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in DOCS.glob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    text = read(page)
    for target in re.findall(r"\]\(([^)#]+)\)", re.sub(r"\s+", " ", text)):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_readme_marks_its_two_commands() -> None:
    text = read("README.md")
    for name in ("demo", "test"):
        found = re.search(rf"<!-- command: {name} -->\s*```sh\n(.+?)\n```", text, re.S)
        assert found is not None
        assert "\n" not in found[1]
        assert found[1].startswith("python3 -m venv .venv && ")
