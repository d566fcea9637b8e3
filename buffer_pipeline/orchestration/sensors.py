"""Sensors that flag what has waited for too long. They read; they launch nothing."""

import hashlib
from typing import Final

import dagster as dg

from buffer_pipeline import reports
from buffer_pipeline.database import database_clock
from buffer_pipeline.orchestration.checks import (
    OVERDUE_AFTER,
    no_payment_stuck,
    nothing_overdue,
    overdue_metadata,
    stuck_metadata,
)
from buffer_pipeline.orchestration.lineage import FROZEN, RELEASED
from buffer_pipeline.orchestration.resources import Books

INTERVAL_SECONDS_MIN: Final = 300


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS_MIN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Flags payments frozen for longer than BUFFER_STUCK_AFTER_HOURS: an observation of"
    " `frozen_payments` and its check `no_payment_stuck`, whenever the set of them changes.",
)
def stuck_frozen_payments(
    context: dg.SensorEvaluationContext, books: dg.ResourceParam[Books]
) -> dg.SensorResult:
    """Compare the stuck payments with those of the last tick."""
    with books.engine.begin() as connection:
        stuck = reports.stuck_holds(
            connection, now=database_clock(connection), older_than=books.policy.stuck_after
        )
    ids = ",".join(str(row["hold_id"]) for row in sorted(stuck, key=lambda row: int(row["hold_id"])))
    cursor = f"{len(stuck)}:{hashlib.sha256(ids.encode()).hexdigest()}"
    fact = f"payments frozen for more than {books.policy.stuck_after_hours} hours: {len(stuck)}"
    if cursor == context.cursor:
        return dg.SensorResult(skip_reason=f"{fact}, the same as before", cursor=cursor)
    metadata = stuck_metadata(stuck, policy=books.policy)
    return dg.SensorResult(
        skip_reason=fact,
        cursor=cursor,
        asset_events=[
            dg.AssetObservation(FROZEN, metadata=metadata),
            dg.AssetCheckEvaluation(
                asset_key=FROZEN,
                check_name=no_payment_stuck.check_key.name,
                passed=not stuck,
                metadata=metadata,
                severity=dg.AssetCheckSeverity.WARN,
            ),
        ],
    )


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS_MIN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Flags payments that have been due for more than an hour and are not released: the"
    " check `nothing_overdue` of `released_transactions`, whenever what is overdue changes.",
)
def overdue_releases(context: dg.SensorEvaluationContext, books: dg.ResourceParam[Books]) -> dg.SensorResult:
    """Compare what is overdue with the last tick."""
    with books.engine.begin() as connection:
        due_by = database_clock(connection) - OVERDUE_AFTER
        overdue = reports.due_holds(connection, due_by=due_by)
        oldest = overdue.oldest_release_date
        cursor = f"{overdue.holds}:{'' if oldest is None else oldest.isoformat()}"
        fact = f"payments due for more than an hour: {overdue.holds}"
        if cursor == context.cursor:
            return dg.SensorResult(skip_reason=f"{fact}, the same as before", cursor=cursor)
        metadata = overdue_metadata(connection, overdue, due_by=due_by)
    return dg.SensorResult(
        skip_reason=fact,
        cursor=cursor,
        asset_events=[
            dg.AssetCheckEvaluation(
                asset_key=RELEASED,
                check_name=nothing_overdue.check_key.name,
                passed=overdue.holds == 0,
                metadata=metadata,
                severity=dg.AssetCheckSeverity.WARN,
            )
        ],
    )
