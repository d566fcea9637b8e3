"""Runs of the report assets, and their materializations."""

from datetime import datetime
from typing import Any, Final

import dagster as dg

from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.report_assets import RANGE_END_TAG, RANGE_START_TAG

COUNTS: Final = dg.AssetKey("hourly_release_counts")

REPORT: Final = dg.AssetKey("daily_release_report")


def key_of(hour: datetime) -> str:
    """Return the partition of an hour."""
    return f"{hour:%Y-%m-%d-%H:%M}"


def count(
    instance: dg.DagsterInstance, first: datetime, last: datetime, *, raise_on_error: bool = True
) -> dg.ExecuteInProcessResult:
    """Count a range of hours in one run, as a backfill and the schedule do."""
    return defs.resolve_job_def("count_hours").execute_in_process(
        instance=instance,
        raise_on_error=raise_on_error,
        tags={RANGE_START_TAG: key_of(first), RANGE_END_TAG: key_of(last)},
    )


def figures(result: dg.ExecuteInProcessResult, asset: dg.AssetKey) -> dict[str, dict[str, Any]]:
    """Return partition -> metadata of the run's materializations of an asset."""
    return {
        str(event.materialization.partition): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key == asset
    }
