"""Sensors that flag what has waited for too long, and tell operators of it. They launch nothing."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import dagster as dg

from buffer_pipeline import reports
from buffer_pipeline.alerts import NO_HOLDS, AlertKind, day_of, is_told, record_told, untold_stuck_payments
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import database_clock, one_moment
from buffer_pipeline.delivery.alerts import (
    LINES_MAX,
    Alert,
    outcome_of,
    overdue_alert,
    send_alert,
    stuck_alert,
)
from buffer_pipeline.hours import hour_of, overdue_by
from buffer_pipeline.orchestration.checks import (
    no_payment_stuck,
    nothing_overdue,
    overdue_metadata,
    stuck_metadata,
)
from buffer_pipeline.orchestration.lineage import FROZEN
from buffer_pipeline.orchestration.metadata import amounts_text
from buffer_pipeline.orchestration.resources import Alerts, Books
from buffer_pipeline.texts import counted

INTERVAL_SECONDS_MIN: Final = 300

SAME: Final = ", the same as before"


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS_MIN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Flags payments frozen for longer than BUFFER_STUCK_AFTER_HOURS, and those that are frozen"
    " without an open freeze: an observation of"
    " `frozen_payments` and its check `no_payment_stuck` whenever the set of them changes, and one"
    " alert a payment and day (UTC).",
)
def stuck_frozen_payments(
    context: dg.SensorEvaluationContext, books: dg.ResourceParam[Books], alerts: dg.ResourceParam[Alerts]
) -> dg.SensorResult:
    """Compare the stuck payments with those of the last tick, and with those told today."""
    policy, hours = books.policy, books.policy.stuck_after_hours
    with one_moment(books.engine) as connection:
        now = database_clock(connection)
        period = day_of(now)
        stuck = reports.count_stuck(connection, now=now, older_than=policy.stuck_after)
        untold = untold_stuck_payments(
            connection, now=now, older_than=policy.stuck_after, period=period, shown=LINES_MAX
        )
        places = places_of(connection)
        cursor = f"{stuck.holds}:{stuck.fingerprint}"
        changed = cursor != context.cursor
        metadata, first = {}, []
        if changed or untold.holds:
            metadata = stuck_metadata(connection, stuck, now=now, policy=policy)
        if untold.holds:
            first = reports.stuck_holds(
                connection, now=now, older_than=policy.stuck_after, hold_ids=untold.shown_ids
            )
    sent = None
    if first:
        alert = stuck_alert(
            first,
            places=places,
            holds=untold.holds,
            amounts=amounts_text(untold.amounts_minor, places),
            after_hours=hours,
            dagster_url=alerts.dagster_url,
        )
        sent = _tell(
            context,
            books,
            alerts,
            alert,
            kind=AlertKind.STUCK_PAYMENT,
            hold_ids=untold.hold_ids,
            period=period,
            now=now,
        )
    if not stuck.holds:
        reason = f"no payment has been frozen for more than {hours} hours"
    else:
        said = "told today already" if sent is None else outcome_of(sent=sent, urls=alerts.urls)
        if first and untold.holds < stuck.holds:
            said = f"{untold.holds} of them {said}"
        fact = f"{counted(stuck.holds, 'payment')} frozen for more than {hours} hours"
        reason = f"{fact}{'' if changed else SAME}; {said}"
    return dg.SensorResult(
        skip_reason=reason,
        cursor=cursor,
        asset_events=[
            dg.AssetObservation(FROZEN, metadata=metadata),
            _evaluation(no_payment_stuck, passed=stuck.holds == 0, metadata=metadata),
        ]
        if changed or sent
        else [],
    )


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS_MIN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Flags payments that have been due for more than an hour and are not released, as when the"
    " schedule was stopped: the check `nothing_overdue` of `buffered_transactions` whenever what is overdue"
    " changes, and an alert every hour (UTC) while it lasts.",
)
def overdue_releases(
    context: dg.SensorEvaluationContext, books: dg.ResourceParam[Books], alerts: dg.ResourceParam[Alerts]
) -> dg.SensorResult:
    """Compare what is overdue with the last tick, and look whether it was told this hour."""
    with one_moment(books.engine) as connection:
        now = database_clock(connection)
        period, due_by = hour_of(now), overdue_by(now)
        overdue = reports.due_holds(connection, due_by=due_by)
        oldest = overdue.oldest_release_date
        places = places_of(connection)
        amounts = amounts_text(overdue.amounts_minor, places)
        cursor = f"{overdue.holds}:{amounts}:{'' if oldest is None else oldest.isoformat()}"
        changed = cursor != context.cursor
        untold = oldest is not None and not is_told(connection, kind=AlertKind.OVERDUE_RELEASE, period=period)
        metadata, first = {}, []
        if changed or untold:
            metadata = overdue_metadata(connection, overdue, due_by=due_by)
        if untold:
            first = reports.list_holds(connection, due_by=due_by, limit=LINES_MAX)
    sent = None
    if oldest is None:
        reason = "no payment has been due for more than an hour"
    else:
        said = "told this hour already"
        if untold:
            alert = overdue_alert(
                first,
                places=places,
                holds=overdue.holds,
                amounts=amounts,
                oldest=oldest,
                dagster_url=alerts.dagster_url,
            )
            sent = _tell(
                context, books, alerts, alert, kind=AlertKind.OVERDUE_RELEASE, period=period, now=now
            )
            said = outcome_of(sent=sent, urls=alerts.urls)
        fact = f"{counted(overdue.holds, 'payment')} due for more than an hour and not released"
        reason = f"{fact}{'' if changed else SAME}; {said}"
    return dg.SensorResult(
        skip_reason=reason,
        cursor=cursor,
        asset_events=[_evaluation(nothing_overdue, passed=oldest is None, metadata=metadata)]
        if changed or sent
        else [],
    )


def _tell(
    context: dg.SensorEvaluationContext,
    books: Books,
    alerts: Alerts,
    alert: Alert,
    *,
    kind: AlertKind,
    period: datetime,
    now: datetime,
    hold_ids: str = NO_HOLDS,
) -> bool:
    """Send, outside any transaction, and record what was sent; return whether it was."""
    if not send_alert(alert, urls=alerts.urls, log=context.log, terminal=alerts.terminal):
        return False
    with books.engine.begin() as connection:
        record_told(connection, kind=kind, period=period, now=now, hold_ids=hold_ids)
    return True


def _evaluation(
    check: dg.AssetChecksDefinition, *, passed: bool, metadata: Mapping[str, Any]
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=check.check_key.asset_key,
        check_name=check.check_key.name,
        passed=passed,
        metadata=metadata,
        severity=dg.AssetCheckSeverity.WARN,
    )
