"""When the jobs run. Dagster makes up for no missed tick, so each run finds by itself what was missed."""

from datetime import UTC, datetime, time, timedelta
from typing import Final

import dagster as dg

from buffer_pipeline.counts import first_hour, uncounted_hours
from buffer_pipeline.daily_report import last_day_over
from buffer_pipeline.database import database_clock
from buffer_pipeline.errors import HourInProgress
from buffer_pipeline.hours import HOUR, earliest_hour_in_progress, hour_of
from buffer_pipeline.orchestration.jobs import (
    count_hours,
    reconcile_books,
    release_pending_payments,
    report_days,
)
from buffer_pipeline.orchestration.lineage import DAILY_REPORT
from buffer_pipeline.orchestration.report_assets import (
    DAYS,
    DAYS_PER_RUN_MAX,
    HOURS,
    HOURS_PER_RUN_MAX,
    RANGE_END_TAG,
    RANGE_START_TAG,
)
from buffer_pipeline.orchestration.resources import Books

_UNFINISHED: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]

hourly_release: Final = dg.ScheduleDefinition(
    name="hourly_release",
    job=release_pending_payments,
    cron_schedule="0 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="On the hour. After an outage one run is enough.",
)


@dg.schedule(
    job=count_hours,
    cron_schedule="10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="At ten past: from the earliest hour that is not counted to the last one that is over, in one"
    " run. An hour that an open transaction still writes into is left to the next tick.",
)
def hourly_counts(
    context: dg.ScheduleEvaluationContext, books: dg.ResourceParam[Books]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for the hours that are missing."""
    if running := _running(context, count_hours.name):
        return dg.SkipReason(f"run {running} is counting hours already")
    with books.engine.begin() as connection:
        end = hour_of(database_clock(connection))
        begin = first_hour(connection)
        if begin is None:
            return dg.SkipReason("the books are empty: there is no hour to count")
        in_progress = earliest_hour_in_progress(connection)
        missing = uncounted_hours(connection, start=max(HOURS.start.astimezone(UTC), begin), end=end)
    if not missing:
        return dg.SkipReason(f"every hour before {end:%Y-%m-%dT%H:%MZ} is counted")
    first = missing[0]
    # A longer gap is closed by the ticks that follow.
    last = min(end - HOUR, first + (HOURS_PER_RUN_MAX - 1) * HOUR)
    if in_progress is not None:
        last = min(last, in_progress - HOUR)
        if last < first:
            return dg.SkipReason(
                f"hour {in_progress:%Y-%m-%dT%H:%MZ}: an open transaction still writes into it;"
                " the next tick asks again"
            )
    return dg.RunRequest(
        tags={
            RANGE_START_TAG: HOURS.get_partition_key_for_timestamp(first.timestamp()),
            RANGE_END_TAG: HOURS.get_partition_key_for_timestamp(last.timestamp()),
        }
    )


@dg.schedule(
    job=report_days,
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="At twenty past, so first at twenty past midnight: the days since the latest report, up to"
    " yesterday. A day that an open transaction still writes into is left to the next tick.",
)
def daily_report(
    context: dg.ScheduleEvaluationContext, books: dg.ResourceParam[Books]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for the days that have no report yet."""
    if running := _running(context, report_days.name):
        return dg.SkipReason(f"run {running} is reporting days already")
    with books.engine.begin() as connection:
        now = database_clock(connection)
        try:
            last = datetime.combine(last_day_over(connection, now=now), time(), tzinfo=UTC)
        except HourInProgress as refusal:
            return dg.SkipReason(str(refusal))
        begin = first_hour(connection)
    if begin is None:
        return dg.SkipReason("the books are empty: there is no day to report")
    first = max(DAYS.start.astimezone(UTC), begin.replace(hour=0))
    # From the latest and not from a gap: what was reported long ago has been pruned with its run.
    reported = context.instance.get_materialized_partitions(DAILY_REPORT)
    if reported:
        first = DAYS.time_window_for_partition_key(max(reported)).end.astimezone(UTC)
    first = max(first, last - timedelta(days=DAYS_PER_RUN_MAX - 1))
    if first > last:
        return dg.SkipReason(f"every day up to {last:%Y-%m-%d}, the last one that is over, is reported")
    return dg.RunRequest(
        tags={
            RANGE_START_TAG: DAYS.get_partition_key_for_timestamp(first.timestamp()),
            RANGE_END_TAG: DAYS.get_partition_key_for_timestamp(last.timestamp()),
        }
    )


daily_reconciliation: Final = dg.ScheduleDefinition(
    name="daily_reconciliation",
    job=reconcile_books,
    cron_schedule="40 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="At night: every invariant of the books, proved from the transactions.",
)


def _running(context: dg.ScheduleEvaluationContext, job_name: str) -> str | None:
    """Return the id of a run of the job that has not ended."""
    records = context.instance.get_run_records(
        dg.RunsFilter(job_name=job_name, statuses=_UNFINISHED), limit=1
    )
    return records[0].dagster_run.run_id if records else None
