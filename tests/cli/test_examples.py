"""The examples are what they say they are: jobs, Python, manifests that their readers take."""

from __future__ import annotations

import ast
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from batchfox import Job, Options, load_job
from batchfox.core.crontab import Crontab
from batchfox.schedule.forms import kubernetes
from batchfox.schedule.forms.site import Site
from batchfox.schedule.planned import plan

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def test_the_nightly_job_is_one() -> None:
    job = load_job(EXAMPLES / "nightly.toml")
    assert isinstance(job, Job)
    assert (ROOT / job.input.paths[0]).exists()
    assert job.schedule.window == "01:30-06:00"


def test_the_cron_job_is_what_is_printed_for_it() -> None:
    text = (EXAMPLES / "kubernetes.yaml").read_text()
    name = "examples/nightly.toml"
    site = Site(command=[], folder="", image="batchfox:latest")
    assert text.endswith(kubernetes.forms(plan(name, load_job(ROOT / name)), site)[0].text)
    kubernetes_validate.validate(yaml.safe_load(text), "1.33", strict=True)


@pytest.mark.parametrize("name", ["airflow_task.py", "prefect_flow.py"])
def test_the_tasks_are_python_and_call_what_there_is(name: str) -> None:
    tree = ast.parse((EXAMPLES / name).read_text())
    compile(tree, name, "exec")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (call,) = [call for call in calls if getattr(call.func, "id", "") in ("run", "arun")]
    assert {word.arg for word in call.keywords} <= set(Options.__struct_fields__)
    crons = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and str(node.value).endswith("* * *")
    ]
    assert [Crontab.parse(str(text)).hours for text in crons] == [(1,)]


def test_the_workflow_runs_the_job() -> None:
    found = yaml.safe_load((EXAMPLES / "github_actions.yml").read_text())
    (schedule,) = found[True]["schedule"]  # "on" is a boolean to YAML 1.1
    assert Crontab.parse(schedule["cron"]).minutes == (30,)
    steps = found["jobs"]["run"]["steps"]
    (command,) = [step["run"] for step in steps if "batchfox run" in step.get("run", "")]
    assert "examples/nightly.toml" in command
    assert all(("uses" in step) != ("run" in step) for step in steps)
