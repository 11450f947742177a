"""`batchfox schedule --print`: what is printed is taken by whom it is for, and means the same times."""

from __future__ import annotations

import ast
import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import pytest
import yaml
from conftest import Starter, environment
from cronsim import CronSim
from jinja2 import StrictUndefined, Template

from batchfox.core.crontab import Crontab
from batchfox.core.job import Job
from batchfox.errors import JobError
from batchfox.schedule.forms import airflow, cron, kubernetes, systemd
from batchfox.schedule.forms.site import Site
from batchfox.schedule.planned import Planned, plan

# A folder, and a job, that every form has to quote in its own way.
ODD = 'it\'s 100% $HOME; "x" {{ y }} \\n'
SITE = Site(command=["/usr/bin/env", "batchfox"], folder=f"/tmp/{ODD}", image="registry.example/batchfox:1")
CRONS = ["30 1 * * *", "*/20 * * * *", "0 9 1-7 * mon", "15,45 6-8 * 1,7-12 7", "5 0 29 2 *", "0 4 * * 5-7", "@weekly"]
WEEKLY = "0 0 * * 0"


def planned(cron: str = "30 1 * * *", path: str = f"jobs/{ODD}.toml", **schedule: Any) -> Planned:
    tables = {
        "name": f"A {ODD}",
        "input": {"path": "in.jsonl"},
        "output": {"path": "out"},
        "schedule": {"cron": cron, "timezone": "Asia/Kolkata"} | schedule,
    }
    return plan(path, Job.from_dict(tables))


def times_of(expression: str, start: datetime, most: int = 12) -> list[datetime]:
    return list(islice(CronSim(WEEKLY if expression == "@weekly" else expression, start), most))


START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", CRONS)
def test_one_expression_means_the_same_to_every_cron(text: str) -> None:
    job = planned(text, timezone="UTC")
    said = kubernetes.one_line(job, "k8s")
    assert not set(said) - set("0123456789*,- ")
    assert times_of(said, START) == times_of(text, START)


def test_times_outside_of_the_window_are_not_printed() -> None:
    job = planned("*/20 * * * *", window="22:00-05:30", timezone="UTC")
    fires = {at.time() for text in cron_times(job) for at in times_of(text, START, 200)}
    at, found = START, set()
    for _ in range(60):
        at = job.nights.after(at)
        found.add(at.time())
    assert fires == found
    for form in (kubernetes.forms, airflow.forms):
        with pytest.raises(JobError, match="choose other times, or --print systemd"):
            form(job, SITE)
    with pytest.raises(JobError, match="cannot be written as one expression"):
        kubernetes.forms(planned("0 9 */2 * mon"), SITE)


def cron_times(job: Planned) -> list[str]:
    lines = cron.forms(job, SITE)[0].text.splitlines()
    return [" ".join(line.split()[:5]) for line in lines if line[0] in "0123456789*"]


def test_the_line_of_cron_runs_the_job_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    teller = [sys.executable, "-c", "import json, os, sys; print(json.dumps([os.getcwd(), sys.argv[1:]]))"]
    text = cron.forms(planned(), Site(command=teller, folder=str(folder), image=""))[0].text
    line = text.splitlines()[-1]
    assert cron_times(planned()) == ["30 1 * * *"]
    assert "CRON_TZ=Asia/Kolkata\n" in text
    # cron ends the command at a % that has no backslash, takes that backslash away, and gives the rest to sh.
    assert "%" not in line.replace(r"\%", "")
    command = line.split(None, 5)[5].replace(r"\%", "%")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [str(folder), ["run", f"jobs/{ODD}.toml", "--scheduled", "last"]]


def test_the_cron_job_is_one_by_kubernetes_own_schema() -> None:
    job = planned(catch_up=True)
    found = yaml.safe_load(kubernetes.forms(job, SITE)[0].text)
    kubernetes_validate.validate(found, "1.33", strict=True)
    spec = found["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("30 1 * * *", "Asia/Kolkata", "Forbid")
    assert spec["startingDeadlineSeconds"] == 86_400
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["run", f"jobs/{ODD}.toml", "--scheduled", "last"]
    assert pod["containers"][0]["image"] == SITE.image
    assert "FOXAPI_API_KEY" in str(pod["containers"][0]["env"])


def test_the_dag_is_python_and_gives_templates_only_what_is_theirs() -> None:
    text = airflow.forms(planned(), SITE)[0].text
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    words = {
        word.arg: ast.literal_eval(word.value)
        for call in calls
        for word in call.keywords
        if word.arg in ("bash_command", "cwd")
    }
    run = SimpleNamespace(run_after=START)
    command, folder = (
        Template(words[name], undefined=StrictUndefined).render(dag_run=run) for name in ("bash_command", "cwd")
    )
    assert folder == SITE.folder
    expected = [*SITE.command, "run", f"jobs/{ODD}.toml", "--scheduled", "2026-01-01T00:00:00+00:00"]
    assert shlex.split(command) == expected
    compile(text, "dag.py", "exec")


def test_what_is_printed_goes_into_files_that_do_not_exist_yet(start: Starter, tmp_path: Path) -> None:
    for name in ("one", "two"):
        schedule = '[schedule]\ncron = "0 1 * * *"\ntimezone = "UTC"\n'
        (tmp_path / f"{name}.toml").write_text(f'[input]\npath = "x"\n[output]\npath = "{name}"\n{schedule}')
    units = ("schedule", "one.toml", "two.toml", "--print", "systemd", "--into", "units")
    printed = start("schedule", "one.toml", "two.toml", "--print", "systemd", env=environment())
    assert printed.wait() == 0, printed.err
    first = start(*units, env=environment())
    assert first.wait() == 0, first.err
    names = [f"batchfox-{job}.{kind}" for job in ("one", "two") for kind in ("service", "timer")]
    assert first.out.split() == [f"units/{name}" for name in names]
    for name in names:
        assert f"# {name}\n{(tmp_path / 'units' / name).read_text().rstrip()}" in printed.out
    again = start(*units, env=environment())
    assert again.wait() == 2
    assert "exists already" in again.err


# Who it is for, asked.


@pytest.mark.system
def test_systemd_takes_the_units_and_means_the_same_times(tmp_path: Path) -> None:
    folder = tmp_path / ODD.replace("\\", "")
    folder.mkdir()
    for form in systemd.forms(
        planned(window="01:00-05:00", catch_up=True),
        Site(command=["/usr/bin/env", "true"], folder=str(folder), image=""),
    ):
        (tmp_path / form.name).write_text(form.text)
    units = [str(path) for path in tmp_path.glob("batchfox-*")]
    assert len(units) == 2
    verify = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], check=False, capture_output=True, text=True
    )
    assert (verify.returncode, verify.stderr) == (0, "")
    for text in [*CRONS, "0 9 */2 * mon", "0 3 * * sun,wed"]:
        crontab = Crontab.parse(text)
        most = 6
        said: list[datetime] = []
        for expression in systemd.on_calendar(crontab, "UTC"):
            command = [
                "systemd-analyze",
                "calendar",
                f"--iterations={most}",
                f"--base-time={START:%Y-%m-%d %H:%M:%S} UTC",
                expression,
            ]
            out = subprocess.run(
                command, capture_output=True, text=True, check=True, env=os.environ | {"TZ": "UTC"}
            ).stdout
            found = [line.split(": ", 1)[1] for line in out.splitlines() if "Next elapse" in line or "Iter" in line]
            said += [datetime.strptime(one, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC) for one in found]
        at, ours = START, []
        for _ in range(most):
            at = crontab.after(at, UTC)
            ours.append(at)
        assert sorted(set(said))[:most] == ours, text


# Imports a DAG as Airflow does, and has it fill in its templates.
ASK_AIRFLOW = """
import json, runpy, sys, types, pendulum
dag = runpy.run_path(sys.argv[1])["dag"]
task, = dag.tasks
run = types.SimpleNamespace(run_after=pendulum.datetime(2026, 1, 1, tz="UTC"))
fill = {name: task.render_template(getattr(task, name), {"dag_run": run}) for name in ("bash_command", "cwd")}
print(json.dumps({"dag": dag.dag_id, "times": dag.timetable.serialize(), **fill}))
"""


@pytest.mark.system
def test_airflow_itself_takes_the_dag(tmp_path: Path) -> None:
    python = os.environ.get("AIRFLOW_PYTHON")
    if python is None:
        pytest.skip("AIRFLOW_PYTHON names no Python that has Airflow; .ci/run makes one")
    form = airflow.forms(planned(), SITE)[0]
    (tmp_path / form.name).write_text(form.text)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", ASK_AIRFLOW, str(tmp_path / form.name)],
        capture_output=True,
        text=True,
        check=False,
        env=env | {"AIRFLOW_HOME": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cwd"] == SITE.folder
    expected = [*SITE.command, "run", f"jobs/{ODD}.toml", "--scheduled", "2026-01-01T00:00:00+00:00"]
    assert shlex.split(found["bash_command"]) == expected
    assert (found["times"]["expression"], found["times"]["timezone"]) == ("30 1 * * *", "Asia/Kolkata")


@pytest.mark.system
def test_cron_itself_takes_the_lines(tmp_path: Path) -> None:
    lines = tmp_path / "crontab"
    lines.write_text("".join(cron.forms(planned(text), SITE)[0].text for text in CRONS))
    bad = tmp_path / "bad"
    bad.write_text("30 25 * * * true\n")
    # Debian's looks without installing with -n, later ones and cronie with -T.
    option = (
        "-n"
        if "dry run" in subprocess.run(["crontab", "-h"], capture_output=True, text=True, check=False).stderr
        else "-T"
    )
    for path, status in ((lines, 0), (bad, 1)):
        done = subprocess.run(["crontab", option, str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
