"""The project's definitions and an empty job, with schedules that tick in turn.

The release job, its assets, checks, sensors and resources are the project's own objects. The project's
schedules are left out: here the release runs every two minutes instead of every hour, and no other job starts
during a measurement.
"""

from typing import Any

import dagster as dg

from buffer_pipeline.orchestration import definitions
from buffer_pipeline.orchestration.jobs import release_pending_payments


@dg.op
def nothing() -> None:
    """Do nothing."""


@dg.job(executor_def=dg.in_process_executor)
def empty() -> None:
    """One op that does nothing, with the release's executor."""
    nothing()


def _every_second_minute(job: Any, cron: str) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


_project = definitions.defs

defs = dg.Definitions(
    assets=_project.assets,
    asset_checks=_project.asset_checks,
    jobs=[*(_project.jobs or ()), empty],
    schedules=[
        _every_second_minute(release_pending_payments, "*/2 * * * *"),
        _every_second_minute(empty, "1-59/2 * * * *"),
    ],
    sensors=_project.sensors,
    resources=_project.resources,
    executor=_project.executor,
)
