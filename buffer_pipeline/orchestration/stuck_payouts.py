"""The sensor of payouts without an answer of the bank, and of batches that nobody approves or sends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import snapshot
from buffer_pipeline.money import Places
from buffer_pipeline.monitoring.alerts import stuck_payouts_alert
from buffer_pipeline.monitoring.sent_alerts import AlertKind, day_of, reported_payout_batches
from buffer_pipeline.orchestration.metadata import amounts_text
from buffer_pipeline.orchestration.payout_checks import no_payout_stuck, stuck_batches_metadata
from buffer_pipeline.orchestration.resources import Alerts, Books, Clock
from buffer_pipeline.orchestration.sensor_messages import stuck_payouts_message
from buffer_pipeline.orchestration.sensors import (
    STUCK_OR_OVERDUE_INTERVAL_SECONDS_MIN,
    evaluation_of,
    send_and_record,
)
from buffer_pipeline.reports.payouts import stuck_batches


@dg.sensor(
    minimum_interval_seconds=STUCK_OR_OVERDUE_INTERVAL_SECONDS_MIN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports batches of payouts that were sent more than BUFFER_PAYOUT_ANSWER_DAYS ago and of"
    " which a payout has no status, and batches that nobody approves, or sends after their approval, within"
    " BUFFER_PAYOUT_APPROVAL_HOURS. When these batches change, it records an outcome of the check"
    " `no_payout_stuck` of `payout_batches`. Each batch is in one alert per day (UTC).",
)
def stuck_payouts(
    context: dg.SensorEvaluationContext,
    books: dg.ResourceParam[Books],
    alerts: dg.ResourceParam[Alerts],
    clock: dg.ResourceParam[Clock],
) -> dg.SensorResult:
    """Compare the stuck batches with those of the last tick and of today's alerts."""
    found = _read(books, clock, cursor=context.cursor)
    sent = None
    if found.unreported:
        sent = send_and_record(
            context,
            books,
            alerts,
            stuck_payouts_alert(
                found.unreported,
                places=found.places,
                amounts=_amounts(found.unreported, found.places),
                dagster_url=alerts.dagster_url,
            ),
            kind=AlertKind.STUCK_PAYOUT,
            period=day_of(found.now),
            now=found.now,
            payout_batch_ids=[row["payout_batch_id"] for row in found.unreported],
        )
    events = []
    if found.has_changed or sent:
        events = [evaluation_of(no_payout_stuck, passed=not found.batches, metadata=found.metadata)]
    return dg.SensorResult(
        skip_reason=stuck_payouts_message(
            batches=len(found.batches),
            unreported_batches=len(found.unreported),
            has_changed=found.has_changed,
            sent=sent,
            urls=alerts.urls,
        ),
        cursor=found.cursor,
        asset_events=events,
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The stuck batches of one tick; `unreported` are those that no alert of today has named."""

    now: datetime
    batches: Sequence[dict[str, Any]]
    unreported: Sequence[dict[str, Any]]
    places: Places
    cursor: str
    has_changed: bool
    metadata: Mapping[str, Any]


def _read(books: Books, clock: Clock, *, cursor: str | None) -> _Found:
    policy = books.payout_policy
    with snapshot(books.engine) as connection:
        now = clock.books(connection)
        batches = stuck_batches(connection, now=now, policy=policy)
        reported = reported_payout_batches(connection, period=day_of(now))
        places = places_of(connection)
    # With the number, because Dagster drops an empty cursor.
    listed = (f"{row['payout_batch_id']}:{row['stage']}:{row['payouts']}" for row in batches)
    new_cursor = " ".join([str(len(batches)), *listed])
    return _Found(
        now=now,
        batches=batches,
        unreported=[row for row in batches if row["payout_batch_id"] not in reported],
        places=places,
        cursor=new_cursor,
        has_changed=new_cursor != cursor,
        metadata=stuck_batches_metadata(batches, places, policy=policy),
    )


def _amounts(batches: Sequence[dict[str, Any]], places: Places) -> str:
    amounts_minor: dict[str, int] = {}
    for row in batches:
        amounts_minor[row["currency"]] = amounts_minor.get(row["currency"], 0) + row["amount_minor"]
    return amounts_text(amounts_minor, places)
