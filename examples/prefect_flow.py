"""One batchfox run as a Prefect flow (Prefect 3): `python examples/prefect_flow.py` serves it at its times."""

from prefect import flow, get_run_logger, runtime
from prefect.schedules import Cron

from batchfox import arun


@flow(name="batchfox-nightly", retries=0)
async def nightly(job: str = "examples/nightly.toml") -> dict:
    # `arun`, since a flow has an event loop already.
    summary = await arun(job, scheduled=runtime.flow_run.scheduled_start_time)
    get_run_logger().info("exit %s: %s", summary.exit_status, summary.by_status)
    if summary.exit_status not in (0, 3):
        raise RuntimeError(f"exit {summary.exit_status}: {summary.reason}")
    return summary.to_dict()


if __name__ == "__main__":
    nightly.serve(schedule=Cron("30 1 * * *", timezone="Europe/Berlin"), limit=1)
