"""One batchfox run as a task of an Airflow DAG that has others: the results are there for the next one.

For Airflow 3, with batchfox installed where the workers are. For a DAG that runs nothing but the job,
`batchfox schedule --print airflow JOB` writes one.
"""

import pendulum
from airflow.exceptions import AirflowException
from airflow.sdk import dag, task
from airflow.timetables.trigger import CronTriggerTimetable


@dag(
    schedule=CronTriggerTimetable("30 1 * * *", timezone="Europe/Berlin"),
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Berlin"),
    catchup=False,
    max_active_runs=1,
)
def captions() -> None:
    @task(retries=0)  # a run that stops early goes on with the next one; a second try would not mend it
    def run_batch(dag_run=None) -> dict:
        from batchfox import run

        # Relative paths of the job start at the working directory.
        summary = run("/work/examples/nightly.toml", scheduled=dag_run.run_after)
        if summary.exit_status not in (0, 3):
            raise AirflowException(f"exit {summary.exit_status}: {summary.reason}")
        return summary.to_dict()

    @task
    def count(summary: dict) -> None:
        print(f"{summary['by_status']} in {summary['output']}/data")

    count(run_batch())


captions()
