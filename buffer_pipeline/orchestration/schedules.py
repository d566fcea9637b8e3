"""The schedules. Dagster does not repeat missed ticks, so each run finds by itself what was missed."""

from datetime import UTC, datetime, time, timedelta
from typing import Final

import dagster as dg

from buffer_pipeline.errors import HourInProgress
from buffer_pipeline.hours import HOUR, earliest_hour_in_progress, hour_of
from buffer_pipeline.orchestration.jobs import (
    count_hours,
    reconcile_books,
    release_pending_payments,
    report_days,
)
from buffer_pipeline.orchestration.lineage import DAILY_REPORT, DEBTS, HOURLY_COUNTS
from buffer_pipeline.orchestration.report_assets import (
    DAYS,
    DAYS_PER_RUN_MAX,
    HOURS,
    HOURS_PER_RUN_MAX,
    RANGE_END_TAG,
    RANGE_START_TAG,
    start_of_partitions,
)
from buffer_pipeline.orchestration.resources import Books, Clock
from buffer_pipeline.reports.complete_hours import first_hour, last_day_over, uncounted_hours

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
    description="Every hour, on the hour. After an outage one run is enough.",
)


@dg.schedule(
    job=count_hours,
    cron_schedule="10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour at ten past: counts from the earliest uncounted hour to the last one that is"
    " over, in one run. An hour that an open transaction still writes into is left to a later tick.",
)
def hourly_counts(
    context: dg.ScheduleEvaluationContext, books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for the missing hours."""
    if run_id := running(context, count_hours.name):
        return dg.SkipReason(f"run {run_id} is counting hours already")
    earliest = start_of_partitions(context.repository_def, HOURLY_COUNTS)
    with books.engine.begin() as connection:
        end = hour_of(clock.books(connection))
        begin = first_hour(connection)
        if begin is None:
            return dg.SkipReason("the books are empty: there is no hour to count")
        in_progress = earliest_hour_in_progress(connection)
        missing = uncounted_hours(connection, start=max(earliest, begin), end=end)
    if not missing:
        return dg.SkipReason(f"every hour before {end:%Y-%m-%dT%H:%MZ} is counted")
    first = missing[0]
    # The next ticks ask for the rest of a longer gap.
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
    description="Every hour at twenty past, first at twenty past midnight: reports the days since the latest"
    " one that has both its report and its debts, up to yesterday. A day that an open transaction still"
    " writes into is left to a later tick.",
)
def daily_report(
    context: dg.ScheduleEvaluationContext, books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for the days without a report."""
    if run_id := running(context, report_days.name):
        return dg.SkipReason(f"run {run_id} is reporting days already")
    with books.engine.begin() as connection:
        now = clock.books(connection)
        try:
            last = datetime.combine(last_day_over(connection, now=now), time(), tzinfo=UTC)
        except HourInProgress as refusal:
            return dg.SkipReason(str(refusal))
        begin = first_hour(connection)
    if begin is None:
        return dg.SkipReason("the books are empty: there is no day to report")
    first = max(start_of_partitions(context.repository_def, DAILY_REPORT), begin.replace(hour=0))
    # Start after the latest report, not at the first gap: the oldest reports were deleted with their runs.
    # Of the asset that is behind: a day of which one of the two has failed is run again for both.
    latest = [
        max(context.instance.get_materialized_partitions(asset), default=None)
        for asset in (DAILY_REPORT, DEBTS)
    ]
    reported = [day for day in latest if day is not None]
    if len(reported) == len(latest):
        first = DAYS.time_window_for_partition_key(min(reported)).end.astimezone(UTC)
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
    description="Every night at 02:40 UTC: proves every invariant of the books from the transactions.",
)


def running(context: dg.ScheduleEvaluationContext, job_name: str) -> str | None:
    """Return the id of a run of the job that has not ended; None if there is none."""
    records = context.instance.get_run_records(
        dg.RunsFilter(job_name=job_name, statuses=_UNFINISHED), limit=1
    )
    return records[0].dagster_run.run_id if records else None
