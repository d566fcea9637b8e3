"""What Dagster loads."""

from collections.abc import Mapping
from typing import Final

import dagster as dg

from buffer_pipeline.orchestration import (
    assets,
    checks,
    failed_checks,
    failed_runs,
    housekeeping,
    jobs,
    lineage,
    notifications,
    report_assets,
    schedules,
    sensors,
)
from buffer_pipeline.orchestration.resources import alerts_from_environment, books_from_environment

RESOURCES: Final[Mapping[str, object]] = {
    "books": books_from_environment,
    "alerts": alerts_from_environment,
}


def build_defs(resource_overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Return the definitions, some resources replaced."""
    return dg.Definitions(
        assets=[
            *lineage.EXTERNAL,
            assets.released_transactions,
            notifications.release_notifications,
            assets.release_counts,
            assets.sealed_history,
            report_assets.hourly_release_counts,
            report_assets.daily_release_report,
        ],
        asset_checks=[
            checks.books_reconciled,
            checks.books_proved,
            checks.history_as_sealed,
            checks.nothing_overdue,
            checks.no_payment_stuck,
            checks.counts_equal_transactions,
            checks.all_counts_equal_transactions,
        ],
        jobs=[
            jobs.release_pending_payments,
            jobs.count_hours,
            jobs.report_days,
            jobs.reconcile_books,
            notifications.deliver_notifications,
            notifications.replay_dead_letters,
            housekeeping.prune_runs,
        ],
        schedules=[
            schedules.hourly_release,
            schedules.hourly_counts,
            schedules.daily_report,
            schedules.daily_reconciliation,
            housekeeping.daily_prune,
        ],
        sensors=[
            sensors.stuck_frozen_payments,
            sensors.overdue_releases,
            failed_runs.failed_runs,
            failed_checks.failed_checks,
            notifications.waiting_notifications,
        ],
        resources={**RESOURCES, **(resource_overrides or {})},
        # What is materialized by hand runs in one process too.
        executor=dg.in_process_executor,
    )


defs: Final = build_defs()
