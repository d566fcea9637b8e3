"""The definitions that Dagster loads."""

from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from buffer_pipeline.orchestration import (
    assets,
    checks,
    debts,
    failed_checks,
    failed_runs,
    housekeeping,
    jobs,
    lineage,
    notifications,
    payout_batches,
    payout_checks,
    release_counts,
    report_assets,
    schedules,
    sensors,
    stuck_payouts,
    waiting_notifications,
)
from buffer_pipeline.orchestration.report_start import reports_start
from buffer_pipeline.orchestration.resources import RESOURCES


def build_defs(resource_overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Return the definitions, with some of `RESOURCES` replaced.

    An override is a value or a resource definition. It reaches every op, check, sensor and schedule. The
    settings and the clock also give the start of the report partitions, which are part of the definitions.
    """
    resources = {**RESOURCES, **(resource_overrides or {})}
    start = reports_start(_value_of(resources["settings"]), clock=_value_of(resources["clock"]).books)
    return dg.Definitions(
        assets=[
            *lineage.EXTERNAL,
            assets.released_transactions,
            notifications.release_notifications,
            release_counts.release_counts,
            assets.sealed_history,
            *(
                report_assets.starting_at(asset, start)
                for asset in (
                    report_assets.hourly_release_counts,
                    report_assets.daily_release_report,
                    debts.debts,
                    payout_batches.payout_batches,
                )
            ),
        ],
        asset_checks=[
            checks.books_reconciled,
            checks.books_proved,
            checks.history_as_sealed,
            checks.nothing_overdue,
            checks.no_payment_stuck,
            checks.counts_equal_transactions,
            checks.all_counts_equal_transactions,
            payout_checks.debts_proved,
            payout_checks.payouts_proved,
            payout_checks.no_payout_stuck,
        ],
        jobs=[
            jobs.release_pending_payments,
            jobs.count_hours,
            jobs.report_days,
            jobs.reconcile_books,
            payout_batches.make_payout_batches,
            notifications.deliver_notifications,
            notifications.replay_dead_letters,
            housekeeping.prune_runs,
        ],
        schedules=[
            schedules.hourly_release,
            schedules.hourly_counts,
            schedules.daily_report,
            schedules.daily_reconciliation,
            payout_batches.daily_payouts,
            housekeeping.daily_prune,
        ],
        sensors=[
            sensors.stuck_frozen_payments,
            sensors.overdue_releases,
            stuck_payouts.stuck_payouts,
            failed_runs.failed_runs,
            failed_checks.failed_checks,
            waiting_notifications.waiting_notifications,
        ],
        resources=resources,
        # A run that materializes assets by hand is one process too.
        executor=dg.in_process_executor,
    )


def _value_of(resource: object) -> Any:
    if isinstance(resource, dg.ResourceDefinition):
        return resource(dg.build_init_resource_context())
    return resource


defs: Final = build_defs()
