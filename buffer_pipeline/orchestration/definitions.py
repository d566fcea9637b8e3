"""What Dagster loads."""

from collections.abc import Mapping
from typing import Final

import dagster as dg

from buffer_pipeline.orchestration import assets, checks, jobs, sensors
from buffer_pipeline.orchestration.resources import books_from_environment

RESOURCES: Final[Mapping[str, object]] = {"books": books_from_environment}


def build_defs(resource_overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Return the definitions, some resources replaced."""
    return dg.Definitions(
        assets=[
            assets.BUFFERED_TRANSACTIONS,
            assets.FROZEN_PAYMENTS,
            assets.released_transactions,
            assets.release_notifications,
            assets.release_counts,
        ],
        asset_checks=[checks.books_after_release, checks.no_payment_stuck, checks.nothing_overdue],
        jobs=[jobs.release_pending_payments],
        schedules=[jobs.hourly_release],
        sensors=[sensors.stuck_frozen_payments, sensors.overdue_releases],
        resources={**RESOURCES, **(resource_overrides or {})},
        # What is materialized by hand runs in one process too.
        executor=dg.in_process_executor,
    )


defs: Final = build_defs()
