"""The report assets: hours counted from the transactions, and days compared. They move no money."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn

import dagster as dg
import pandas as pd

from buffer_pipeline.counts import count_hours, require_complete
from buffer_pipeline.currencies import Places, places_of
from buffer_pipeline.daily_report import FORTNIGHT, daily_report
from buffer_pipeline.database import one_moment
from buffer_pipeline.errors import HourInProgress, InvalidInput
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
from buffer_pipeline.orchestration.metadata import amount_metadata, picture_metadata, table_metadata
from buffer_pipeline.orchestration.report_start import reports_start
from buffer_pipeline.orchestration.resources import Books
from buffer_pipeline.reports import currencies
from buffer_pipeline.settings import load_settings

# Read while the definitions load, as partitions are part of them; everything else waits for a run.
_START: Final = reports_start(load_settings())

# UTC: a zone with daylight saving skips hours and repeats them.
HOURS: Final = dg.HourlyPartitionsDefinition(start_date=_START, timezone="UTC")
DAYS: Final = dg.DailyPartitionsDefinition(start_date=_START.replace(hour=0), timezone="UTC")

HOURS_PER_RUN_MAX: Final = 720
DAYS_PER_RUN_MAX: Final = 31
"""What one run takes, of a backfill and of a schedule, so that none outlives the instance's
`max_runtime_seconds`: a month of either is counted or reported in about a minute.
"""

DAY_AND_FORTNIGHT: Final = dg.TimeWindowPartitionMapping(
    start_offset=-FORTNIGHT * 24, allow_nonexistent_upstream_partitions=True
)
"""A day's report reads its own hours and those of the fourteen days before."""

RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"
PARTITION_TAG: Final = "dagster/partition"


@dg.asset(
    key=HOURLY_COUNTS,
    deps=[RELEASED, BUFFERED, FROZEN],
    partitions_def=HOURS,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=HOURS_PER_RUN_MAX),
    description="What happened in each hour, a row a currency: payments added, released (amount, payees,"
    " median and maximum lateness), refunded, freezes opened and closed. Computed from the transactions,"
    " deleted and written anew each time: a backfill moves no money and can be repeated at will, in runs of"
    " a month of hours each. An hour is counted only once no open transaction can add to it.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "pandas"},
    tags=TAGS,
    code_version="1",
    freshness_policy=FRESH_FOR,
    metadata=HOURLY_COUNT_COLUMNS,
)
def hourly_release_counts(context: dg.AssetExecutionContext, books: dg.ResourceParam[Books]) -> None:
    """Count the run's hours."""
    window = context.partition_time_window
    try:
        counts = count_hours(
            books.engine, start=window.start, end=window.end, counted_by=f"dagster run {context.run_id}"
        )
    except (HourInProgress, InvalidInput) as refusal:
        not_now(refusal)
    with books.engine.begin() as connection:
        known, places = currencies(connection), places_of(connection)
    by_hour = dict(list(counts.groupby("hour")))
    for key in context.partition_keys:
        hour = HOURS.time_window_for_partition_key(key).start
        context.add_asset_metadata(
            hour_metadata(by_hour.get(pd.Timestamp(hour), counts.iloc[:0]), currencies=known, places=places),
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
    description="A day's figures beside the mean of the fortnight before it, and three plots: released per"
    " hour, amount in the buffer by state, lateness. Reads only and moves no money; `buffer-pipeline report`"
    " writes the same as an HTML file.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pandas", "matplotlib"},
    tags=TAGS,
    code_version="1",
    freshness_policy=dg.FreshnessPolicy.cron(deadline_cron="0 1 * * *", lower_bound_delta=timedelta(hours=1)),
    metadata=DAILY_REPORT_COLUMNS,
)
def daily_release_report(context: dg.AssetExecutionContext, books: dg.ResourceParam[Books]) -> None:
    """Report each of the run's days."""
    for key in context.partition_keys:
        window = DAYS.time_window_for_partition_key(key)
        with books.engine.connect() as connection:
            try:
                require_complete(connection, end=window.end)
            except HourInProgress as refusal:
                not_now(refusal)
        with one_moment(books.engine) as connection:
            report = daily_report(connection, day=window.start.date())
        context.add_asset_metadata(
            {
                **picture_metadata(report.plots, report.plot_titles),
                **table_metadata("figures", report.table, report.places),
            },
            asset_key=DAILY_REPORT,
            partition_key=key,
        )


def hours_of_run(tags: Mapping[str, str]) -> tuple[datetime, datetime] | None:
    """Return when the run's hours begin and end, None when it has none."""
    first = tags.get(RANGE_START_TAG, tags.get(PARTITION_TAG))
    last = tags.get(RANGE_END_TAG, first)
    if first is None or last is None or not HOURS.has_partition_key(first):
        return None
    return HOURS.time_window_for_partition_key(first).start, HOURS.time_window_for_partition_key(last).end


def hour_metadata(counts: pd.DataFrame, *, currencies: Sequence[str], places: Places) -> dict[str, Any]:
    """Return an hour's counts to plot: numbers over all its currencies, amounts and lateness a currency.

    Of each of `currencies` there is a figure, zero where nothing happened.
    """
    of_currency = counts.set_index("currency").reindex(list(currencies))
    late = of_currency[["lateness_median_seconds", "lateness_max_seconds"]].fillna(0.0)
    return {
        **{
            name: int(counts[name].sum())
            for name in (
                "holds_added",
                "holds_released",
                "holds_released_early",
                "refunds",
                "freezes_opened",
                "freezes_closed",
            )
        },
        **amount_metadata(
            {
                str(currency): int(minor)
                for currency, minor in of_currency["released_minor"].fillna(0).items()
            },
            places,
        ),
        **{
            f"{name}_{currency}": round(float(seconds), 3)
            for name, column in late.items()
            for currency, seconds in column.items()
        },
        **table_metadata("counts", [_row(record) for record in counts.to_dict("records")], places),
    }


def _row(record: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): None if pd.isna(value) else value for name, value in record.items() if name != "hour"}


def not_now(refusal: Exception) -> NoReturn:
    """Fail the step; the hour stays uncounted, so that the next tick of the schedule asks for it again."""
    raise dg.Failure(str(refusal), allow_retries=False) from None
