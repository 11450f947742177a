"""README and docs name every command, option, key, column and fault that exists, and none that does not."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType

import click
import msgspec
import pytest

from batchfox.cli import COMMANDS, cli
from batchfox.core.job import Job
from batchfox.core.outcome import COLUMNS, EXTRA
from batchfox.core.quantity import Duration, Size
from batchfox.core.rules import rule_names
from batchfox.core.sandbox import Sandbox
from batchfox.core.sections import ModelRule
from batchfox.simulator import FAULTS, Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md")), "sample_inputs/README.md"]
CODES = {"ApiError": ("code",), "error_of": ("default_code",), "Complaint": ("rule",)}
COMMON = {"--log-level", "--log-format", "--quiet"}


def our_codes() -> set[str]:
    """Every `error_code` that the code itself can give, read from its source."""
    found: set[str] = set()
    paths = [path for path in (ROOT / "batchfox").rglob("*.py") if "simulator" not in path.parts]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    constants = {
        target.id: node.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name)
    }
    for tree in trees:
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            place = {"complain": 0, "_find_odd": 1, "_describe": 1}.get(name)
            values = [word.value for word in call.keywords if word.arg in CODES.get(name, ())]
            values += call.args[place : place + 1] if place is not None else []
            for value in values:
                value = constants.get(value.id, value) if isinstance(value, ast.Name) else value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found.add(value.value)
    return found


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def options_in(name: str) -> list[click.Option]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return [param for param in command.params if isinstance(param, click.Option)]


def options_of(name: str) -> set[str]:
    return {option for param in options_in(name) for option in param.opts}


def section_of(name: str) -> str:
    """What docs/commands.md says of one command."""
    return read("docs/commands.md").split(f"## `batchfox {name}", 1)[1].split("\n## ", 1)[0]


def rows_of_tables(text: str) -> dict[str, list[str]]:
    """Each table row's other cells by its first; an escaped `|` is part of a cell."""
    lines = re.findall(r"^\| (.+) \|$", text, re.M)
    rows = [re.split(r" (?<!\\)\| ", line) for line in lines]
    return {first: rest for first, *rest in rows}


def named_in_tables(text: str) -> set[str]:
    """What stands in backquotes in the first column of the tables."""
    return {name for cell in rows_of_tables(text) for name in re.findall(r"`([^`]+)`", cell)}


def fields_of(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, msgspec.structs.FieldInfo]]:
    """Every key that a job file may hold, with its field."""
    for field in msgspec.structs.fields(struct):
        kinds = field.type.__args__ if isinstance(field.type, UnionType) else (field.type,)
        structs = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        if structs:
            yield from fields_of(structs[0], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field


def default_of(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


@pytest.mark.parametrize("name", COMMANDS)
def test_readme_and_reference_name_every_command(name: str) -> None:
    assert f"`batchfox {name}" in read("README.md")
    assert f"## `batchfox {name}" in read("docs/commands.md")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_names_every_option_and_no_other(name: str) -> None:
    named = {option for cell in named_in_tables(section_of(name)) for option in re.findall(r"--[a-z][a-z-]*", cell)}
    assert named == options_of(name) - COMMON
    assert options_of(name) >= COMMON


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_says_of_an_option_what_its_help_says(name: str) -> None:
    said = rows_of_tables(section_of(name)) | rows_of_tables(read("docs/commands.md").split("\n## ", 1)[0])
    meanings = {re.findall(r"--[a-z][a-z-]*", first)[0]: rest[-1] for first, rest in said.items() if "`--" in first}
    for option in options_in(name):
        meaning = meanings[option.opts[0]]
        # What stands in brackets behind two blanks is the default, in click's own form.
        assert meaning.startswith((option.help or "").split("  [")[0]), option.opts
        if option.show_default:
            default = f"{option.default:g}" if isinstance(option.default, float) else str(option.default)
            assert f"Default: {default}." in meaning, option.opts


def test_the_reference_names_what_every_command_takes() -> None:
    head = read("docs/commands.md").split("\n## ", 1)[0]
    named = set(re.findall(r"--[a-z][a-z-]*", head))
    assert named == COMMON | {"--help", "--version"}


def test_the_exit_statuses_agree() -> None:
    """Each status of the reference stands in the README, and no other."""
    table = rows_of_tables(read("docs/commands.md").split("## Exit statuses", 1)[1])
    statuses = {number for first in table for number in re.findall(r"\d+", first)}
    said = re.sub(r"\s+", " ", read("README.md").split("Exit statuses: ", 1)[1].split("\n\n", 1)[0])
    assert {number for item in said.split(" · ") for number in re.findall(r"\d+", item)} == statuses


def test_the_docs_say_every_error_code_that_the_code_can_give_and_no_other() -> None:
    rules, ours = read("docs/job-file.md").split("## Rules", 1)[1].split("An `error_code`", 1)
    codes = our_codes()
    assert {"unreadable_row", "template", "media", "no_results", "lost_reply", "row_gone"} <= codes
    assert named_in_tables(rules) == set(rule_names())
    assert codes | set(rule_names()) == named_in_tables(rules) | named_in_tables(ours)
    assert not named_in_tables(rules) & named_in_tables(ours)


def test_the_docs_name_every_filter_of_templates_and_no_other() -> None:
    said = read("docs/job-file.md").split("\nFilters: ", 1)[1].split(". ", 1)[0]
    assert set(re.findall(r"`(\w+)`", said)) == {name for name in Sandbox().filters if " " not in name}


def test_the_docs_name_no_command_that_does_not_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"(?<!from )\bbatchfox ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`", read(page)))):
            assert name in COMMANDS, (page, name)


def test_the_docs_name_no_option_that_does_not_exist() -> None:
    known = {option for name in COMMANDS for option in options_of(name)} | {"--help", "--version"}
    for page in PAGES:
        lines = [line for line in read(page).splitlines() if "pip install" not in line and "-m venv" not in line]
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", "\n".join(lines)))
        assert named <= known, (page, named - known)


def test_the_reference_names_every_key_of_a_job_and_no_other() -> None:
    keys = read("docs/job-file.md").split("## Rules", 1)[0]
    documented = named_in_tables(keys)
    assert documented == {name for name, _ in fields_of(Job)}
    models = rows_of_tables(read("docs/job-file.md"))["`rules.models`"][-1]
    assert set(re.findall(r"`(\w+)`", models)) == {field.name for field in msgspec.structs.fields(ModelRule)}


def test_the_reference_gives_every_default_as_it_is() -> None:
    cells = rows_of_tables(read("docs/job-file.md"))
    for name, field in fields_of(Job):
        said = cells[f"`{name}`"][0]
        default = default_of(field)
        try:
            value = tomllib.loads(f"value = {said.strip('`')}")["value"]
        except tomllib.TOMLDecodeError:
            value = said.strip("`")
        if default is msgspec.NODEFAULT:
            assert said == "required", name
        elif isinstance(default, Duration):
            assert Duration(value) == default, name
        elif isinstance(default, Size):
            assert Size(value) == default, name
        elif default is None or default in ([], {}) or name == "name":
            assert not said.startswith("`"), (name, said)  # said in words
        else:
            assert value == default, (name, said)


def test_the_reference_names_every_rule_as_it_is() -> None:
    text = read("docs/job-file.md")
    for name, says in rule_names().items():
        assert f"| `{name}` | {says} |" in text


def test_the_reference_names_every_column_in_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S.*?) \|", read("docs/output.md"), re.M)
    arrow = {"list of string": "list<string>", "timestamp[us, UTC]": "timestamp"}
    types = {name: arrow.get(kind, kind) for name, kind in rows}
    assert list(types.items()) == list({**COLUMNS, EXTRA: "string"}.items())


def test_the_reference_names_every_setting_and_fault_of_the_simulator() -> None:
    named = named_in_tables(read("docs/simulator.md"))
    assert named == {fault.name for fault in FAULTS} | {field.name for field in msgspec.structs.fields(Settings)}
    cells = rows_of_tables(read("docs/simulator.md"))
    for fault in FAULTS:
        assert cells[f"`{fault.name}`"] == [fault.where, "yes" if fault.is_task_made else "no", fault.says]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = read(page)
    for target in re.findall(r"\]\(([^)#]+)\)", re.sub(r"\s+", " ", text)):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_readme_shows_a_job_that_is_one() -> None:
    found = re.search(r"```toml\n(.+?)```", read("README.md"), re.S)
    assert found is not None
    job = Job.from_dict(tomllib.loads(found[1]))
    assert (ROOT / job.input.paths[0]).exists()


def test_every_failure_names_a_test_that_exists() -> None:
    rows = [line for line in read("docs/failures.md").splitlines() if re.match(r"\| (?!fault )[^-]", line)]
    assert len(rows) > 50
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)` \|$", row)
        assert len(named) == 1, row
        path, name = named[0]
        assert re.search(rf"^(async )?def {name}\(", read(path), re.M), (path, name)
