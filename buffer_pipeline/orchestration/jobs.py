"""The jobs over the assets: release, count hours, report days, reconcile the books."""

from typing import Final

import dagster as dg

from buffer_pipeline.orchestration.assets import (
    RETRY_FAILED_OPS_TAG,
    released_transactions,
    sealed_history,
)
from buffer_pipeline.orchestration.checks import (
    BLOCKING,
    all_counts_equal_transactions,
    books_proved,
    counts_equal_transactions,
    history_as_sealed,
)
from buffer_pipeline.orchestration.debts import debts
from buffer_pipeline.orchestration.lineage import RELEASED
from buffer_pipeline.orchestration.notifications import release_notifications
from buffer_pipeline.orchestration.payout_checks import debts_proved
from buffer_pipeline.orchestration.release_counts import release_counts
from buffer_pipeline.orchestration.report_assets import daily_release_report, hourly_release_counts

release_pending_payments: Final = dg.define_asset_job(
    "release_pending_payments",
    selection=dg.AssetSelection.assets(
        released_transactions, release_notifications, release_counts, sealed_history
    ).without_checks()
    | dg.AssetSelection.checks(*(dg.AssetCheckKey(RELEASED, name) for name in BLOCKING)),
    description="Moves money: releases every payment that is due when the run starts, checks the books, then"
    " notifies the payees. With `dry_run` it moves none. A missed hour needs no repair: the next run takes"
    " everything that is due.",
    executor_def=dg.in_process_executor,
    tags={
        "buffer/release": "1",
        # A retry may run on another machine, which cannot read the op outputs of the failed run. A whole run
        # also releases what has become due since.
        "dagster/retry_strategy": "ALL_STEPS",
        RETRY_FAILED_OPS_TAG: "true",
    },
)

count_hours: Final = dg.define_asset_job(
    "count_hours",
    selection=dg.AssetSelection.assets(hourly_release_counts).without_checks()
    | dg.AssetSelection.checks(counts_equal_transactions),
    description="Counts the hours that the run is asked for, from the transactions. Moves no money.",
    executor_def=dg.in_process_executor,
)

report_days: Final = dg.define_asset_job(
    "report_days",
    selection=dg.AssetSelection.assets(daily_release_report, debts).without_checks()
    | dg.AssetSelection.checks(debts_proved),
    description="Compares each day with the fortnight before it, and reports its debts. Moves no money.",
    executor_def=dg.in_process_executor,
)

reconcile_books: Final = dg.define_asset_job(
    "reconcile_books",
    selection=dg.AssetSelection.checks(books_proved, all_counts_equal_transactions, history_as_sealed),
    description="Proves every invariant of the books from the transactions, as `buffer-pipeline reconcile`"
    " does, the counts of the last 31 days, and that the sealed history is unchanged. Only reads; moves no"
    " money.",
    executor_def=dg.in_process_executor,
)
