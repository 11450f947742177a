"""An Airflow DAG."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from batchfox.schedule.forms.kubernetes import one_line
from batchfox.schedule.forms.site import Form, Site, key_name, name_of, zone_name

if TYPE_CHECKING:
    from batchfox.schedule.planned import Planned

_TEXT = '''\
"""Runs a batchfox job at its times. For Airflow 3; the worker needs batchfox and the job's folder."""

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.timetables.trigger import CronTriggerTimetable

with DAG(
    dag_id={dag},
    schedule=CronTriggerTimetable({schedule}, timezone={zone}),
    start_date=pendulum.datetime(2026, 1, 1, tz={zone}),
    catchup=False,  # nights that were missed are one run: the next one does what they left
    max_active_runs=1,
    tags=["batchfox"],
) as dag:
    BashOperator(
        task_id="run",
        # Exit 3: some rows did not complete; 4: stopped early. Both fail the task; the next run goes on.{key}
        bash_command={command},
        cwd={folder},
        append_env=True,
        retries=0,
    )
'''


def forms(planned: Planned, site: Site) -> list[Form]:
    """The DAG as Python. Raises `JobError` where one cron expression cannot say the job's times."""
    words = shlex.join([*site.command, "run", planned.path])
    command = _raw(words) + " --scheduled '{{ dag_run.run_after.isoformat() }}'"
    key = key_name(planned)
    text = _TEXT.format(
        dag=repr(name_of(planned)),
        schedule=repr(one_line(planned, "airflow")),
        zone=repr(zone_name(planned)),
        key=""
        if key is None
        else f"\n        # The key: {key} in the worker's environment, or a .env file in the folder.",
        command=repr(command),
        folder=repr(_raw(site.folder)),
    )
    return [Form(f"{name_of(planned).replace('-', '_')}.py", text)]


def _raw(text: str) -> str:
    """Text that is not for Airflow's templates to fill in."""
    return "{% raw %}" + text + "{% endraw %}" if "{" in text else text
