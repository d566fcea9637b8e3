"""The sensors that report payments that have waited for too long, and alert operators. They launch no run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import dagster as dg

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import snapshot
from buffer_pipeline.hours import hour_of, overdue_by
from buffer_pipeline.money import Places
from buffer_pipeline.monitoring.alerts import LINES_MAX, Alert, overdue_alert, send_alert, stuck_alert
from buffer_pipeline.monitoring.sent_alerts import (
    NO_HOLDS,
    AlertKind,
    UnreportedStuck,
    day_of,
    is_alert_sent,
    record_sent_alert,
    unreported_stuck_payments,
)
from buffer_pipeline.orchestration.checks import (
    no_payment_stuck,
    nothing_overdue,
    overdue_metadata,
    stuck_metadata,
)
from buffer_pipeline.orchestration.lineage import FROZEN
from buffer_pipeline.orchestration.metadata import amounts_text
from buffer_pipeline.orchestration.resources import Alerts, Books, Clock
from buffer_pipeline.orchestration.sensor_messages import overdue_message, stuck_message
from buffer_pipeline.reports.due import Due, due_holds, list_due
from buffer_pipeline.reports.stuck import Stuck, count_stuck, stuck_holds, stuck_owners

STUCK_OR_OVERDUE_INTERVAL_SECONDS_MIN: Final = 300


@dg.sensor(
    minimum_interval_seconds=STUCK_OR_OVERDUE_INTERVAL_SECONDS_MIN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports payments that have been frozen for longer than BUFFER_STUCK_AFTER_HOURS, and those"
    " that are frozen without an open freeze. A frozen owner is one line, with the number of their payments."
    " When these payments change, it records an observation of"
    " `frozen_payments` and an outcome of its check `no_payment_stuck`. Each payment is in one alert per day"
    " (UTC).",
)
def stuck_frozen_payments(
    context: dg.SensorEvaluationContext,
    books: dg.ResourceParam[Books],
    alerts: dg.ResourceParam[Alerts],
    clock: dg.ResourceParam[Clock],
) -> dg.SensorResult:
    """Compare the stuck payments with those of the last tick and of today's alerts."""
    found = _read_stuck(books, clock, cursor=context.cursor)
    sent = None
    if found.first or found.owners:
        sent = send_and_record(
            context,
            books,
            alerts,
            _stuck_alert(found, books, alerts),
            kind=AlertKind.STUCK_PAYMENT,
            hold_ids=found.unreported.hold_ids,
            period=day_of(found.now),
            now=found.now,
        )
    events: list[dg.AssetObservation | dg.AssetCheckEvaluation] = []
    if found.has_changed or sent:
        events = [
            dg.AssetObservation(FROZEN, metadata=found.metadata),
            evaluation_of(no_payment_stuck, passed=found.stuck.holds == 0, metadata=found.metadata),
        ]
    return dg.SensorResult(
        skip_reason=stuck_message(
            holds=found.stuck.holds,
            unreported_holds=found.unreported.holds,
            after_hours=books.policy.stuck_after_hours,
            has_changed=found.has_changed,
            sent=sent,
            urls=alerts.urls,
        ),
        cursor=found.cursor,
        asset_events=events,
    )


@dg.sensor(
    minimum_interval_seconds=STUCK_OR_OVERDUE_INTERVAL_SECONDS_MIN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports payments that have been due for more than an hour and are not released, for example"
    " because the schedule is off. When these payments change, it records an outcome of the check"
    " `nothing_overdue` of `buffered_transactions`. It sends an alert every hour (UTC) until they are"
    " released.",
)
def overdue_releases(
    context: dg.SensorEvaluationContext,
    books: dg.ResourceParam[Books],
    alerts: dg.ResourceParam[Alerts],
    clock: dg.ResourceParam[Clock],
) -> dg.SensorResult:
    """Compare the overdue payments with those of the last tick, and alert operators once an hour."""
    found = _read_overdue(books, clock, cursor=context.cursor)
    sent = None
    if found.first:
        sent = send_and_record(
            context,
            books,
            alerts,
            _overdue_alert(found, alerts),
            kind=AlertKind.OVERDUE_RELEASE,
            period=hour_of(found.now),
            now=found.now,
        )
    events = []
    if found.has_changed or sent:
        events = [evaluation_of(nothing_overdue, passed=found.overdue.holds == 0, metadata=found.metadata)]
    return dg.SensorResult(
        skip_reason=overdue_message(
            holds=found.overdue.holds, has_changed=found.has_changed, sent=sent, urls=alerts.urls
        ),
        cursor=found.cursor,
        asset_events=events,
    )


@dataclass(frozen=True, kw_only=True)
class _FoundStuck:
    """The stuck payments of one tick. `first` and `owners` are for an alert; empty if none is needed."""

    now: datetime
    stuck: Stuck
    unreported: UnreportedStuck
    places: Places
    cursor: str
    has_changed: bool
    metadata: Mapping[str, Any]
    first: Sequence[dict[str, Any]]
    owners: Sequence[dict[str, Any]]


def _read_stuck(books: Books, clock: Clock, *, cursor: str | None) -> _FoundStuck:
    policy = books.policy
    with snapshot(books.engine) as connection:
        now = clock.books(connection)
        stuck = count_stuck(connection, now=now, older_than=policy.stuck_after)
        unreported = unreported_stuck_payments(
            connection, now=now, older_than=policy.stuck_after, period=day_of(now), shown=LINES_MAX
        )
        new_cursor = f"{stuck.holds}:{stuck.fingerprint}"
        has_changed = new_cursor != cursor
        metadata, first, owners = {}, [], []
        if has_changed or unreported.holds:
            metadata = stuck_metadata(connection, stuck, now=now, policy=policy)
        if unreported.holds:
            first = stuck_holds(
                connection, now=now, older_than=policy.stuck_after, hold_ids=unreported.shown_ids
            )
        if unreported.owner_freeze_ids:
            owners = stuck_owners(
                connection,
                now=now,
                older_than=policy.stuck_after,
                owner_freeze_ids=unreported.owner_freeze_ids,
            )
        return _FoundStuck(
            now=now,
            stuck=stuck,
            unreported=unreported,
            places=places_of(connection),
            cursor=new_cursor,
            has_changed=has_changed,
            metadata=metadata,
            first=first,
            owners=owners,
        )


def _stuck_alert(found: _FoundStuck, books: Books, alerts: Alerts) -> Alert:
    return stuck_alert(
        found.first,
        owners=found.owners,
        places=found.places,
        holds=found.unreported.holds,
        amounts=amounts_text(found.unreported.amounts_minor, found.places),
        after_hours=books.policy.stuck_after_hours,
        dagster_url=alerts.dagster_url,
    )


@dataclass(frozen=True, kw_only=True)
class _FoundOverdue:
    """The overdue payments of one tick. `first` are the first rows for an alert; empty if none is needed."""

    now: datetime
    overdue: Due
    places: Places
    cursor: str
    has_changed: bool
    metadata: Mapping[str, Any]
    first: Sequence[dict[str, Any]]


def _read_overdue(books: Books, clock: Clock, *, cursor: str | None) -> _FoundOverdue:
    with snapshot(books.engine) as connection:
        now = clock.books(connection)
        due_by = overdue_by(now)
        overdue = due_holds(connection, due_by=due_by)
        oldest = overdue.oldest_release_date
        places = places_of(connection)
        amounts = amounts_text(overdue.amounts_minor, places)
        new_cursor = f"{overdue.holds}:{amounts}:{'' if oldest is None else oldest.isoformat()}"
        has_changed = new_cursor != cursor
        is_unreported = oldest is not None and not is_alert_sent(
            connection, kind=AlertKind.OVERDUE_RELEASE, period=hour_of(now)
        )
        metadata, first = {}, []
        if has_changed or is_unreported:
            metadata = overdue_metadata(connection, overdue, due_by=due_by)
        if is_unreported:
            first = list_due(connection, due_by=due_by, limit=LINES_MAX)
        return _FoundOverdue(
            now=now,
            overdue=overdue,
            places=places,
            cursor=new_cursor,
            has_changed=has_changed,
            metadata=metadata,
            first=first,
        )


def _overdue_alert(found: _FoundOverdue, alerts: Alerts) -> Alert:
    oldest = found.overdue.oldest_release_date
    assert oldest is not None, "an alert is about at least one payment"
    return overdue_alert(
        found.first,
        places=found.places,
        holds=found.overdue.holds,
        amounts=amounts_text(found.overdue.amounts_minor, found.places),
        oldest=oldest,
        dagster_url=alerts.dagster_url,
    )


def send_and_record(
    context: dg.SensorEvaluationContext,
    books: Books,
    alerts: Alerts,
    alert: Alert,
    *,
    kind: AlertKind,
    period: datetime,
    now: datetime,
    hold_ids: str = NO_HOLDS,
    payout_batch_ids: Sequence[int] = (),
    payout_ids: Sequence[int] = (),
) -> bool:
    """Send the alert outside any transaction, record it if it was sent, and return whether it was."""
    if not send_alert(alert, urls=alerts.urls, log=context.log, terminal=alerts.terminal):
        return False
    with books.engine.begin() as connection:
        record_sent_alert(
            connection,
            kind=kind,
            period=period,
            now=now,
            hold_ids=hold_ids,
            payout_batch_ids=payout_batch_ids,
            payout_ids=payout_ids,
        )
    return True


def evaluation_of(
    check: dg.AssetChecksDefinition, *, passed: bool, metadata: Mapping[str, Any]
) -> dg.AssetCheckEvaluation:
    """Return an outcome of a check that only warns."""
    return dg.AssetCheckEvaluation(
        asset_key=check.check_key.asset_key,
        check_name=check.check_key.name,
        passed=passed,
        metadata=metadata,
        severity=dg.AssetCheckSeverity.WARN,
    )
