"""The release job and its hourly schedule."""

from typing import Final

import dagster as dg

from buffer_pipeline.orchestration.assets import (
    RETRY_FAILED_OPS_TAG,
    release_counts,
    release_notifications,
    released_transactions,
)
from buffer_pipeline.orchestration.checks import books_after_release

release_pending_payments: Final = dg.define_asset_job(
    "release_pending_payments",
    selection=dg.AssetSelection.assets(
        released_transactions, release_notifications, release_counts
    ).without_checks()
    | dg.AssetSelection.checks(books_after_release),
    description="Releases every payment that is due when it starts, checks the books, then tells the"
    " payees. A missed hour needs no repair: the next run takes all that is due.",
    executor_def=dg.in_process_executor,
    tags={
        "buffer/release": "1",
        # What an op hands on lies on the disk of the run that failed, which a retry elsewhere cannot
        # see; and a whole run releases what has come due since.
        "dagster/retry_strategy": "ALL_STEPS",
        RETRY_FAILED_OPS_TAG: "true",
    },
)

hourly_release: Final = dg.ScheduleDefinition(
    name="hourly_release",
    job=release_pending_payments,
    cron_schedule="0 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="On the hour. After an outage one run is enough.",
)
