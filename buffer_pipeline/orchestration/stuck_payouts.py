"""The sensor of payouts without an answer of the bank, of payouts without a batch, and of batches that nobody
approves or sends.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import snapshot
from buffer_pipeline.money import Places
from buffer_pipeline.monitoring.alerts import stuck_payouts_alert
from buffer_pipeline.monitoring.sent_alerts import (
    AlertKind,
    day_of,
    reported_payout_batches,
    reported_payouts,
)
from buffer_pipeline.orchestration.metadata import amounts_text
from buffer_pipeline.orchestration.payout_checks import no_payout_stuck, stuck_payouts_metadata
from buffer_pipeline.orchestration.resources import Alerts, Books, Clock
from buffer_pipeline.orchestration.sensor_messages import stuck_payouts_message
from buffer_pipeline.orchestration.sensors import (
    STUCK_OR_OVERDUE_INTERVAL_SECONDS_MIN,
    evaluation_of,
    send_and_record,
)
from buffer_pipeline.reports.payouts import stuck_batches, unbatched_payouts


@dg.sensor(
    minimum_interval_seconds=STUCK_OR_OVERDUE_INTERVAL_SECONDS_MIN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports batches of payouts that were sent more than BUFFER_PAYOUT_ANSWER_DAYS ago and of"
    " which a payout has no status, and batches that nobody approves, or sends after their approval, within"
    " BUFFER_PAYOUT_APPROVAL_HOURS; and payouts that no batch has taken for BUFFER_PAYOUT_BATCH_DAYS. When"
    " these batches and payouts change, it records an outcome of the check `no_payout_stuck` of"
    " `payout_batches`. Each batch, and each payout without one, is in one alert per day (UTC).",
)
def stuck_payouts(
    context: dg.SensorEvaluationContext,
    books: dg.ResourceParam[Books],
    alerts: dg.ResourceParam[Alerts],
    clock: dg.ResourceParam[Clock],
) -> dg.SensorResult:
    """Compare what is stuck with that of the last tick and of today's alerts."""
    found = _read(books, clock, cursor=context.cursor)
    sent = None
    if found.unreported_batches or found.unreported_payouts:
        sent = send_and_record(
            context,
            books,
            alerts,
            stuck_payouts_alert(
                found.unreported_batches,
                found.unreported_payouts,
                places=found.places,
                amounts=_amounts([*found.unreported_batches, *found.unreported_payouts], found.places),
                dagster_url=alerts.dagster_url,
            ),
            kind=AlertKind.STUCK_PAYOUT,
            period=day_of(found.now),
            now=found.now,
            payout_batch_ids=[row["payout_batch_id"] for row in found.unreported_batches],
            payout_ids=[row["payout_id"] for row in found.unreported_payouts],
        )
    events = []
    if found.has_changed or sent:
        events = [evaluation_of(no_payout_stuck, passed=found.passed, metadata=found.metadata)]
    return dg.SensorResult(
        skip_reason=stuck_payouts_message(
            batches=len(found.batches),
            payouts=len(found.payouts),
            unreported=len(found.unreported_batches) + len(found.unreported_payouts),
            has_changed=found.has_changed,
            sent=sent,
            urls=alerts.urls,
        ),
        cursor=found.cursor,
        asset_events=events,
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The stuck batches of one tick, and the payouts that no batch takes. The unreported ones are those that
    no alert of today has named.
    """

    now: datetime
    batches: Sequence[dict[str, Any]]
    payouts: Sequence[dict[str, Any]]
    unreported_batches: Sequence[dict[str, Any]]
    unreported_payouts: Sequence[dict[str, Any]]
    places: Places
    cursor: str
    has_changed: bool
    metadata: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return not self.batches and not self.payouts


def _read(books: Books, clock: Clock, *, cursor: str | None) -> _Found:
    policy = books.payout_policy
    with snapshot(books.engine) as connection:
        now = clock.books(connection)
        batches = stuck_batches(connection, now=now, policy=policy)
        payouts = unbatched_payouts(connection, now=now, policy=policy)
        reported = reported_payout_batches(connection, period=day_of(now))
        named = reported_payouts(connection, period=day_of(now))
        places = places_of(connection)
    # With the number, because Dagster drops an empty cursor. There can be many payouts, so they are a digest.
    listed = [f"{row['payout_batch_id']}:{row['stage']}:{row['payouts']}" for row in batches]
    waiting = " ".join(f"{row['payout_id']}:{row['why']}" for row in payouts)
    digest = [hashlib.sha256(waiting.encode()).hexdigest()] if payouts else []
    new_cursor = " ".join([str(len(batches)), *listed, *digest])
    return _Found(
        now=now,
        batches=batches,
        payouts=payouts,
        unreported_batches=[row for row in batches if row["payout_batch_id"] not in reported],
        unreported_payouts=[row for row in payouts if row["payout_id"] not in named],
        places=places,
        cursor=new_cursor,
        has_changed=new_cursor != cursor,
        metadata=stuck_payouts_metadata(batches, payouts, places, policy=policy),
    )


def _amounts(rows: Sequence[dict[str, Any]], places: Places) -> str:
    amounts_minor: dict[str, int] = {}
    for row in rows:
        amounts_minor[row["currency"]] = amounts_minor.get(row["currency"], 0) + row["amount_minor"]
    return amounts_text(amounts_minor, places)
