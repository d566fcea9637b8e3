"""The report assets: hours counted from the transactions, and days compared. They move no money."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

import dagster as dg

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import snapshot
from buffer_pipeline.errors import HourInProgress, InvalidInput
from buffer_pipeline.inputs import EARLIEST
from buffer_pipeline.orchestration.assets import FRESH_FOR
from buffer_pipeline.orchestration.lineage import (
    BUFFERED,
    DAILY_REPORT,
    DAILY_REPORT_COLUMNS,
    FROZEN,
    GROUP,
    HOURLY_COUNT_COLUMNS,
    HOURLY_COUNTS,
    OWNERS,
    RELEASED,
    TAGS,
)
from buffer_pipeline.orchestration.metadata import (
    amount_metadata,
    picture_metadata,
    table_metadata,
)
from buffer_pipeline.orchestration.resources import Books, Clock
from buffer_pipeline.reports.complete_hours import FORTNIGHT, require_complete
from buffer_pipeline.reports.totals import counted_shares, currencies
from buffer_pipeline.shares import ShareKind

if TYPE_CHECKING:
    from buffer_pipeline.reports.daily import DailyReport

# All hours and days that the books may have. `starting_at` sets where the listed partitions start.
# UTC, because a time zone with daylight saving skips and repeats hours.
HOURS: Final = dg.HourlyPartitionsDefinition(start_date=EARLIEST, timezone="UTC")
DAYS: Final = dg.DailyPartitionsDefinition(start_date=EARLIEST, timezone="UTC")

HOURS_PER_RUN_MAX: Final = 720
DAYS_PER_RUN_MAX: Final = 31
"""The limits of one run of a backfill or a schedule, so that it ends before `max_runtime_seconds` of the
instance: a month of hours or days takes about a minute.
"""

DAY_AND_FORTNIGHT: Final = dg.TimeWindowPartitionMapping(
    start_offset=-FORTNIGHT * 24, allow_nonexistent_upstream_partitions=True
)
"""The report of a day reads the hours of that day and of the fourteen days before it."""

RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"
PARTITION_TAG: Final = "dagster/partition"


@dg.asset(
    key=HOURLY_COUNTS,
    deps=[RELEASED, BUFFERED, FROZEN],
    partitions_def=HOURS,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=HOURS_PER_RUN_MAX),
    description="What happened in each hour, one row per currency: payments added, released (amount, payees,"
    " median and maximum lateness, and how much of it was fees, taxes and reserves) and refunded, freezes"
    " opened and closed. It is computed from the transactions, deleted and written again each time: a"
    " backfill moves no money and can be repeated. One run takes up to a month of hours. An hour is counted"
    " only when no open transaction can add to it.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "pandas"},
    tags=TAGS,
    code_version="1",
    freshness_policy=FRESH_FOR,
    metadata=HOURLY_COUNT_COLUMNS,
)
def hourly_release_counts(
    context: dg.AssetExecutionContext, books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]
) -> None:
    """Count the hours of the run."""
    # Loaded here: pandas takes a second, and every process of Dagster's loads this module.
    from buffer_pipeline.orchestration.hour_metadata import hour_metadata  # noqa: PLC0415
    from buffer_pipeline.reports.hourly_counts import count_hours  # noqa: PLC0415

    window = context.partition_time_window
    try:
        counts = count_hours(
            books.engine,
            start=window.start,
            end=window.end,
            counted_by=f"dagster run {context.run.run_id}",
            clock=clock.books,
        )
    except (HourInProgress, InvalidInput) as refusal:
        not_now(refusal)
    with books.engine.begin() as connection:
        known, places = currencies(connection), places_of(connection)
        shares = counted_shares(connection)
    by_hour = dict(list(counts.groupby("hour")))
    for key in context.partition_keys:
        hour = HOURS.time_window_for_partition_key(key).start
        context.add_asset_metadata(
            hour_metadata(
                by_hour.get(hour, counts.iloc[:0]),
                currencies=known,
                shares=shares,
                places=places,
            ),
            asset_key=HOURLY_COUNTS,
            partition_key=key,
        )


@dg.asset(
    key=DAILY_REPORT,
    deps=[
        dg.AssetDep(HOURLY_COUNTS, partition_mapping=DAY_AND_FORTNIGHT),
        BUFFERED,
        FROZEN,
    ],
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=DAYS_PER_RUN_MAX),
    description="The figures of a day beside the mean of the fortnight before it, and three plots: released"
    " per hour, amount in the buffer by state, lateness. Only reads; moves no money. `buffer-pipeline report`"
    " writes the same as an HTML file.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pandas", "svg"},
    tags=TAGS,
    code_version="1",
    freshness_policy=dg.FreshnessPolicy.cron(deadline_cron="0 1 * * *", lower_bound_delta=timedelta(hours=1)),
    metadata=DAILY_REPORT_COLUMNS,
)
def daily_release_report(context: dg.AssetExecutionContext, books: dg.ResourceParam[Books]) -> None:
    """Report each day of the run."""
    from buffer_pipeline.reports.daily import daily_report, draw  # noqa: PLC0415 - pandas, see above

    for key in context.partition_keys:
        window = DAYS.time_window_for_partition_key(key)
        with books.engine.connect() as connection:
            try:
                require_complete(connection, end=window.end)
            except HourInProgress as refusal:
                not_now(refusal)
        with snapshot(books.engine) as connection:
            report = daily_report(connection, day=window.start.date())
        context.add_asset_metadata(
            {
                **picture_metadata(draw(report), report.plot_titles),
                **table_metadata("figures", report.table, report.places),
                **table_metadata("shares", report.shares, report.places),
                **_reserve_metadata(report),
            },
            asset_key=DAILY_REPORT,
            partition_key=key,
        )


def _reserve_metadata(report: "DailyReport") -> dict[str, Any]:
    """Return the reserves in the buffer at the end of the day; an empty dict if there never was one."""
    outstanding_minor = {
        row["currency"]: row["in_buffer_minor"] for row in report.shares if row["kind"] == ShareKind.RESERVE
    }
    if not outstanding_minor:
        return {}
    return amount_metadata(outstanding_minor, report.places, of="reserve_outstanding")


def starting_at(asset: dg.AssetsDefinition, start: datetime) -> dg.AssetsDefinition:
    """Return an asset with partitions from `start`, a full hour in UTC."""
    of_days = isinstance(asset.partitions_def, dg.DailyPartitionsDefinition)
    assert isinstance(asset.partitions_def, dg.TimeWindowPartitionsDefinition)
    begins = start.replace(hour=0) if of_days else start
    kind = dg.DailyPartitionsDefinition if of_days else dg.HourlyPartitionsDefinition
    partitions = kind(start_date=begins, timezone="UTC", end_offset=asset.partitions_def.end_offset)
    return asset.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=partitions))


def start_of_partitions(repository: dg.RepositoryDefinition, key: dg.AssetKey) -> datetime:
    """Return the start of an asset's partitions, in UTC."""
    partitions = repository.asset_graph.get(key).partitions_def
    assert isinstance(partitions, dg.TimeWindowPartitionsDefinition)
    return partitions.start.astimezone(UTC)


def hours_of_run(tags: Mapping[str, str]) -> tuple[datetime, datetime] | None:
    """Return when the hours of the run begin and end; None if it has none."""
    first = tags.get(RANGE_START_TAG, tags.get(PARTITION_TAG))
    last = tags.get(RANGE_END_TAG, first)
    if first is None or last is None or not HOURS.has_partition_key(first):
        return None
    return HOURS.time_window_for_partition_key(first).start, HOURS.time_window_for_partition_key(last).end


def not_now(refusal: Exception) -> NoReturn:
    """Fail the step. The hour stays uncounted, so the next tick of the schedule asks for it again."""
    raise dg.Failure(str(refusal), allow_retries=False) from None
